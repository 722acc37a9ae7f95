"""A site of three authorities on this machine: what ``render`` gives its PostgreSQL, its etcd and its exchange, run."""

import asyncio
import contextlib
import os
import shutil
import socket
import ssl
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Final

import asyncpg
import yaml

from chukan.clock import SystemClock
from chukan.ops import certificate_life as life
from chukan.ops import revocation_joining as joining
from chukan.ops.certificates import Authority, Issued, read_certificates
from chukan.ops.local.binaries import find_binaries
from chukan.ops.local.machine import server_identity
from chukan.ops.local.postgres import Server
from chukan.ops.sandbox.endpoints import pause
from chukan.replication import render, render_revocation
from chukan.replication.driver import DRIVER_ERRORS, Connection
from chukan.replication.etcd import Etcd
from chukan.replication.primary import member_context
from chukan.replication.site_file import parse

BROKER: Final = "chukan_broker"
PASSWORD: Final = "of-a-test"  # noqa: S105 - opens a database of a test
PEERS: Final = {"e1": "east", "etcd-east": "east", "exchange-east": "east", "exchange-west": "west"}
WITHIN_S: Final = 20.0
_SITE: Final = """
name = "town"
topology = "2+2"
strict = true
sandbox = true
[etcd]
token = "town"
client_port = {client}
peer_port = {peer}
members = [{{ name = "etcd-east", host = "one" }}]
[centres.east]
directory = "east"
[centres.west]
directory = "west"
[witness]
directory = "witness"
[hosts.one]
site = "east"
address = "127.0.0.1"
[cells.east]
home = "east"
nodes = [{{ name = "e1", host = "one", port = {sql} }}]
[[exchanges]]
name = "exchange-east"
host = "one"
[revocation]
[network]
url = "https://network.example:443"
ca_file = "ca.pem"
verify_key_file = "verify.pem"
[operator]
directory = "operator"
addresses = ["127.0.0.1"]
"""


class World:
    """Certificates and lists of the site in one folder."""

    def __init__(self, folder: Path) -> None:
        ports = dict(zip(("client", "peer", "sql"), _free_ports(3), strict=True))
        self.folder, self.site = folder, parse(_SITE.format(**ports), folder)
        self.places = [*self.site.centres, self.site.witness.name]
        self.authorities = {
            name: Authority.create(self.site.directory(name) / "pki", f"town {name}", SystemClock())
            for name in self.places
        }
        self.trusted = folder / "sites.pem"
        self.trusted.write_bytes(b"".join(each.trusted.read_bytes() for each in self.authorities.values()))
        self.lists = render_revocation.folder(self.site, "east")
        self.lists.mkdir()
        shutil.copy(self.trusted, self.site.directory("east") / "pki" / "sites.pem")
        for name, authority in self.authorities.items():
            joining.write_root_list(authority, copies=[self.lists / f"{name}-root.pem"])
        self.issued = {name: self.authorities[place].issue_peer(name) for name, place in PEERS.items()}
        self.hand_out()

    @property
    def files(self) -> list[Path]:
        """Every list of the site."""
        return [self.lists / f"{name}.pem" for name in render_revocation.authorities(self.site)]

    def hand_out(self) -> joining.Joined:
        """Do as the operators' page says: sign the day's lists, hand them out, join them."""
        for name, authority in self.authorities.items():
            life.write_list(authority, copies=[self.lists / f"{name}.pem"])
        return joining.join(self.files, read_certificates(self.trusted), self.lists, SystemClock())

    def revoke(self, name: str) -> None:
        """Revoke a peer's certificate and hand the lists out."""
        serial = read_certificates(self.issued[name].certificate)[0].serial_number
        life.revoke(self.authorities[PEERS[name]], [f"{serial:x}"], "keyCompromise")
        self.hand_out()

    def context(self, name: str) -> ssl.SSLContext:
        """Return a peer's context for calls to members."""
        return member_context(self.trusted, *self.issued[name])

    def stranger(self, where: Path) -> ssl.SSLContext:
        """Return the context of somebody certified by an authority that nobody here knows."""
        issued: Issued = Authority.create(where, "elsewhere", SystemClock()).issue_peer("exchange-east")
        return member_context(self.trusted, *issued)

    # ------------------------------------------------------------ servers

    @contextlib.asynccontextmanager
    async def postgresql(self) -> AsyncIterator[Server]:
        """Run a PostgreSQL with the TLS and the pg_hba that are rendered; with the broker's login and database."""
        document = yaml.safe_load(render.patroni(self.site, "e1", render.Secrets("s", "r", "w", "p")))["postgresql"]
        hba = self.folder / "pg_hba.conf"
        hba.write_text("\n".join(["local all all scram-sha-256", *document["pg_hba"], ""]))
        tls = {key: value for key, value in document["parameters"].items() if key.startswith("ssl")}
        assert {"ssl", "ssl_ca_file", "ssl_crl_file", "ssl_min_protocol_version"} <= tls.keys()
        options = {**tls, "hba_file": str(hba), "listen_addresses": "127.0.0.1"}
        server = Server("tls", self.folder / "sql", binaries=find_binaries("debian", only=True), options=options)
        server.port = self.site.cells["east"].nodes[0].port
        identity = server_identity()
        if identity is not None:
            for path in (self.issued["e1"].key, self.issued["e1"].key.parent):
                os.chown(path, identity.uid, identity.gid)
        try:
            server.init()
            server.start()
            admin = await server.admin()
            await admin.execute(f"CREATE ROLE {BROKER} LOGIN PASSWORD '{PASSWORD}'")
            await admin.execute("CREATE DATABASE chukan")
            await admin.close()
            yield server
        finally:
            server.kill()

    async def enter(self, context: ssl.SSLContext) -> Connection:
        """Log in at PostgreSQL as the broker; raises what the driver raises."""
        port = self.site.cells["east"].nodes[0].port
        connection: Connection = await asyncpg.connect(
            host="127.0.0.1", port=port, user=BROKER, password=PASSWORD, database="chukan", ssl=context, timeout=10
        )
        return connection

    async def let_in(self, name: str) -> bool:
        """Tell whether PostgreSQL lets a peer in, on a connection of its own."""
        try:
            connection = await self.enter(self.context(name))
        except DRIVER_ERRORS:
            return False
        connection.terminate()
        return True

    @contextlib.asynccontextmanager
    async def etcd(self) -> AsyncIterator[None]:
        """Run an etcd with the arguments that are rendered."""
        with (self.folder / "etcd.log").open("wb") as log:
            words = ["/usr/bin/etcd", *render.etcd(self.site, "etcd-east")]
            process = await asyncio.create_subprocess_exec(*words, stdout=log, stderr=log)
            try:
                await until(lambda: self.answers("exchange-west"))
                yield
            finally:
                process.kill()
                await process.wait()

    async def answers(self, name: str) -> bool:
        """Tell whether etcd answers a peer, on a connection of its own."""
        asking = Etcd([f"https://127.0.0.1:{self.site.etcd.client_port}"], self.context(name))
        try:
            return all((await asking.health()).values())
        finally:
            await asking.close()


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    """Wait until something holds."""
    async with asyncio.timeout(WITHIN_S):
        while not await holds():
            await pause(0.1, asyncio.Event())


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


@contextlib.contextmanager
def world() -> Iterator[World]:
    """Make a site in a folder that the user of PostgreSQL may enter."""
    folder = Path(tempfile.mkdtemp(prefix="chukan-test-"))
    folder.chmod(0o755)
    try:
        yield World(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
