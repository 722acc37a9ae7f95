"""A site on this machine with one real database of a cell, two repositories, and pgBackRest's servers between them."""

import asyncio
import getpass
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import asyncpg

from chukan.clock import SystemClock
from chukan.ops import site as site_files
from chukan.ops.certificates import Authority
from chukan.ops.local.binaries import find_binaries
from chukan.ops.local.machine import SYSTEM_USER, is_root, server_identity
from chukan.ops.local.postgres import Server
from chukan.ops.pgbackrest import ENVIRONMENT
from chukan.replication import backup, render
from chukan.replication.site import Site
from chukan.replication.site_file import read

EAST, WEST = "127.0.0.1", "127.0.0.2"
KEYS = {"east": "e" * 48, "west": "w" * 48}
_ANSWER_S = 20


def free_port() -> int:
    """Return a port that is free on both hosts' addresses and low enough for a site."""
    for port in range(20000 + os.getpid() % 5000, 32000):
        try:
            for address in (EAST, WEST):
                with socket.socket() as probe:
                    probe.bind((address, port))
        except OSError:
            continue
        return port
    raise AssertionError("no free port")


class Place:
    """Folders, certificates, passwords and rendered files of the site; the database is node e1 of cell east."""

    def __init__(self, root: Path, text: str) -> None:
        """Lay everything down; ``text`` is a site file whose four hosts become two on loopback."""
        self.root = root
        self._started: dict[str, subprocess.Popen[bytes]] = {}
        self.file = root / "site.toml"
        user = SYSTEM_USER if is_root() else getpass.getuser()
        server_identity()  # makes the user
        table = f'\n[backup]\nport = {free_port()}\nuser = "{user}"\nhosts = {{ east = "east-1", west = "west-1" }}\n'
        # The nodes that do not run stand where a server answers for them: nobody waits for an address without a host.
        for before, after in (
            ("192.0.2.11", EAST),
            ("192.0.2.21", WEST),
            ('"e2", host = "east-2"', '"e2", host = "east-1", port = 10442, rest_port = 10842'),
            (
                '"ew2", host = "west-2", port = 10433, rest_port = 10809',
                '"ew2", host = "west-1", port = 10443, rest_port = 10843',
            ),
        ):
            assert before in text
            text = text.replace(before, after)
        self.file.write_text(text + table, encoding="utf-8")
        self.site: Site = read(self.file)
        self._certify()
        self._passwords()
        self.render()
        self.node = self.site.cells["east"].nodes[0]
        self.data = root / "east" / "data" / "e1"
        self.database = Server(
            "e1", self.data, binaries=find_binaries("debian", only=True), options=self.options(self.data)
        )

    def options(self, data: Path) -> dict[str, str]:
        """Return what the site's Patroni would tell the server, for a data directory."""
        said = backup.for_patroni(self.site, self.node)
        hba, ident = self.root / "hba", self.root / "ident"
        hba.write_text("\n".join([*said["pg_hba"], "local all all scram-sha-256"]) + "\n", encoding="utf-8")
        ident.write_text("\n".join(said["pg_ident"]) + "\n", encoding="utf-8")
        command = f"{said['parameters']['archive_command']} --pg1-path={data}"
        return {
            **said["parameters"],
            "archive_command": command,
            "hba_file": str(hba),
            "ident_file": str(ident),
            "port": str(self.node.port),
        }

    def render(self) -> None:
        """Write what the site renders where it says that it lies, and hand the tree to the databases' user."""
        folders = {name: self.site.directory(name) / "config" for name in ("east", "west", "witness")}
        site_files.write(self.site, folders)
        for name in ("east", "west"):
            for part in ("data", "run", "backup"):
                (self.root / name / part).mkdir(exist_ok=True)
        self.hand_over()

    def hand_over(self) -> None:
        """Give the centres' trees to the databases' user."""
        identity = server_identity()
        if identity is not None:
            for name in ("east", "west"):
                subprocess.run(
                    ["/bin/chown", "-R", f"{identity.uid}:{identity.gid}", str(self.root / name)], check=True
                )

    def _certify(self) -> None:
        for centre, address in (("east", EAST), ("west", WEST)):
            authority = Authority.create(self.root / centre / "pki", f"Test {centre}", SystemClock())
            authority.issue_peer(address, hosts=[f"DNS:{address}"])
            if centre == "east":
                issued = authority.issue_peer("operator", hosts=[address])
                (self.root / "operator").mkdir()
                shutil.copy(issued.certificate, self.root / "operator" / "certificate.pem")
                shutil.copy(issued.key, self.root / "operator" / "key.pem")
        roots = b"".join((self.root / centre / "pki" / "ca.pem").read_bytes() for centre in ("east", "west"))
        for trusted in ("east/pki/sites.pem", "west/pki/sites.pem", "operator/ca.pem"):
            (self.root / trusted).write_bytes(roots)

    def _passwords(self) -> None:
        names = [render.REST_PASSWORD, *(f"{cell}-{short}" for cell in self.site.cells for short in render.PASSWORDS)]
        for folder in ("east", "west", "operator"):
            (self.root / folder / "passwords").mkdir()
            for name in names:
                (self.root / folder / "passwords" / name).write_text(f"password-of-{name}", encoding="ascii")
        for centre, key in KEYS.items():
            for cell in self.site.cells:
                backup.key_file(self.site, cell, centre).write_text(key, encoding="ascii")

    @contextmanager
    def servers(self) -> Iterator[None]:
        """Run pgBackRest's server of both centres' first hosts."""
        identity = server_identity()
        self._started.clear()
        started = self._started
        try:
            for host in ("east-1", "west-1"):
                argv = [backup.PROGRAM, f"--config={backup.server_file(self.site, host)}", "server"]
                user = {"user": identity.uid, "group": identity.gid, "extra_groups": []} if identity else {}
                started[host] = subprocess.Popen(argv, cwd="/", env=ENVIRONMENT, **user)
            yield
        finally:
            for process in started.values():
                process.terminate()
            for process in started.values():
                process.wait(_ANSWER_S)

    def freeze(self, host: str) -> None:
        """Stop a pgBackRest server where it stands: connections to it are taken, and nobody answers."""
        self._started[host].send_signal(signal.SIGSTOP)

    def thaw(self, host: str) -> None:
        """Let it go on."""
        self._started[host].send_signal(signal.SIGCONT)

    async def connect(self, database: str = "chukan") -> Any:
        """Connect as the superuser; to ``postgres`` only the servers' own user may."""
        return await asyncpg.connect(
            host=str(self.root / "east" / "run"),
            port=self.node.port,
            user="postgres",
            password=self.database.superuser_password,
            database=database,
            timeout=_ANSWER_S,
        )

    def start(self) -> None:
        """Make the database, and start it."""
        self.database.init()
        self.database.start()

        async def create() -> None:
            connection = await self.connect("template1")
            await connection.execute("CREATE DATABASE chukan")
            await connection.close()

        asyncio.run(create())

    def sql(self, *statements: str) -> Any:
        """Run statements, each in a commit of its own, and return the last one's first value."""

        async def work() -> Any:
            connection = await self.connect()
            try:
                return [await connection.fetchval(statement) for statement in statements][-1]
            finally:
                await connection.close()

        return asyncio.run(work())

    def repository(self, centre: str) -> Path:
        """Return the folder of a centre's repository."""
        return self.root / centre / "backup" / "repository"


@contextmanager
def place(text: str) -> Iterator[Place]:
    """Lay down a site in a folder that every user may enter, and take it away."""
    root = Path(tempfile.mkdtemp(prefix="chukan-test-"))
    root.chmod(0o755)
    made: Place | None = None
    try:
        made = Place(root, text)
        yield made
    finally:
        if made is not None:
            made.database.kill()
        shutil.rmtree(root, ignore_errors=True)
