"""Finds a lab's processes and databases by itself and kills them by pid: without the platform, its drills, its socket.

Who leads is asked of every node's own Patroni and PostgreSQL. Processes are found in /proc by the files of the lab that
their command lines name. What brings killed processes back is what a site has: a Patroni starts its PostgreSQL, and the
lab's service manager (the process that all others are children of) starts what it misses. While a centre is lost that
manager is stopped (SIGSTOP), or it would start everything again within a second.
"""

import ctypes
import http.client
import json
import os
import signal
import ssl
import subprocess
import threading
import time
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

ASK_S = 3.0
LOOK_S = 1.0
_NEWNET = 0x40000000
_WAIT = threading.Event()
_SURELY = "SELECT pg_is_in_recovery(), timeline_id FROM pg_control_checkpoint()"


def wait(seconds: float) -> None:
    """Wait; nothing wakes it."""
    _WAIT.wait(seconds)


class Node(NamedTuple):
    """One database server."""

    name: str
    cell: str
    centre: str
    address: str
    port: int
    rest_port: int


class Lab:
    """A lab as its site file says, and as it is found to be."""

    def __init__(self, root: Path) -> None:
        """``root`` holds ``site.toml``; nothing else of it is believed without asking."""
        self.root = root
        site = tomllib.loads((root / "site.toml").read_text(encoding="utf-8"))
        self.topology: str = site["topology"]
        self.strict: bool = site["strict"]
        self.wanted: int = site["synchronous_node_count"]
        self.trees = {name: Path(row["directory"]) for name, row in site["centres"].items()}
        self.binaries = Path(site["postgresql"])
        self.namespace: str = site["operator"].get("namespace", "")
        self.database = {name: row["database"] for name, row in site["cells"].items()}
        hosts = site["hosts"]
        self.nodes = [
            Node(
                row["name"],
                cell,
                hosts[row["host"]]["site"],
                hosts[row["host"]]["address"],
                row["port"],
                row["rest_port"],
            )
            for cell, table in site["cells"].items()
            for row in table["nodes"]
        ]
        self.etcd = [(hosts[row["host"]]["address"], site["etcd"]["client_port"]) for row in site["etcd"]["members"]]
        self._operator = Path(site["operator"]["directory"])
        self._context = ssl.create_default_context(cafile=self._operator / "ca.pem")
        self._context.load_cert_chain(self._operator / "certificate.pem", self._operator / "key.pem")

    def enter(self) -> None:
        """Stand where an operator stands, in the lab's network: this thread, and all that it starts from now on."""
        if self.namespace:
            descriptor = os.open(f"/run/netns/{self.namespace}", os.O_RDONLY)
            if ctypes.CDLL(None, use_errno=True).setns(descriptor, _NEWNET) != 0:
                raise OSError(ctypes.get_errno(), "setns")
            os.close(descriptor)

    # ------------------------------------------------------------ asking

    def _get(self, address: str, port: int, path: str) -> tuple[int, Any]:
        connection = http.client.HTTPSConnection(address, port, timeout=ASK_S, context=self._context)
        try:
            connection.request("GET", path)
            reply = connection.getresponse()
            return reply.status, json.loads(reply.read() or b"null")
        except (OSError, http.client.HTTPException, ValueError):
            return 0, None
        finally:
            connection.close()

    def sql(self, node: Node, statement: str) -> str | None:
        """Return what a node's PostgreSQL answers, None where it does not; by psql, as the superuser."""
        password = (self._operator / "passwords" / f"{node.cell}-superuser").read_text(encoding="ascii").strip()
        environment = {
            "PATH": "/usr/bin:/bin", "PGPASSWORD": password, "PGHOST": node.address, "PGPORT": str(node.port),
            "PGUSER": "postgres", "PGDATABASE": self.database[node.cell], "PGCONNECT_TIMEOUT": "3",
            "PGSSLMODE": "verify-full", "PGSSLROOTCERT": str(self._operator / "ca.pem"),
            "PGSSLCERT": str(self._operator / "certificate.pem"), "PGSSLKEY": str(self._operator / "key.pem"),
        }  # fmt: skip
        command = [str(self.binaries / "psql"), "-XAtqw", "-v", "ON_ERROR_STOP=1", "-c", statement]
        try:
            done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)
        except subprocess.TimeoutExpired:
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    def claims(self, cell: str) -> dict[str, int]:
        """Return who says by its Patroni that it leads a cell, each with its timeline."""
        found = {}
        for node in self.nodes:
            if node.cell == cell:
                status, told = self._get(node.address, node.rest_port, "/primary")
                if status == http.client.OK and told:
                    found[node.name] = int(told.get("timeline") or 0)
        return found

    def leader(self, cell: str, timeout_s: float, *, but: str = "") -> Node:
        """Return who leads a cell, by its Patroni and by its PostgreSQL; ``but`` does not count."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            claims = {name: timeline for name, timeline in self.claims(cell).items() if name != but}
            if claims:
                name = max(claims, key=lambda each: claims[each])
                node = next(each for each in self.nodes if each.name == name)
                if (self.sql(node, _SURELY) or "t").startswith("f"):
                    return node
            wait(LOOK_S)
        raise TimeoutError(f"no leader of cell {cell}")

    def complaints(self) -> list[str]:
        """Return what is not as it should be: etcd, leaders, standbys."""
        found = [
            f"etcd {address}" for address, port in self.etcd if self._get(address, port, "/health")[0] != http.client.OK
        ]
        for cell in self.database:
            claims, sync = self.claims(cell), 0
            if len(claims) != 1:
                found.append(f"cell {cell} has the leaders {sorted(claims)}")
            for node in (each for each in self.nodes if each.cell == cell and each.name not in claims):
                _, told = self._get(node.address, node.rest_port, "/patroni")
                if not told or told.get("replication_state") != "streaming":
                    found.append(f"{node.name} does not stream")
                sync += bool(told and told.get("sync_standby"))
            if sync < self.wanted:
                found.append(f"cell {cell} has {sync} synchronous standbys")
        return found

    def settle(self, timeout_s: float) -> list[str]:
        """Wait until nothing is to be complained of; return what still is at the end of the time."""
        deadline = time.monotonic() + timeout_s
        while (found := self.complaints()) and time.monotonic() < deadline:
            wait(LOOK_S)
        return found

    # ------------------------------------------------------------ finding

    def postmaster(self, node: Node) -> int:
        """Return the pid of a node's postmaster: the one that was started with its data directory."""
        data = str(self.trees[node.centre] / "data" / node.name)
        return _only(
            [pid for pid, words in processes() if Path(words[0]).name == "postgres" and data in words], node.name
        )

    def patroni(self, node: Node) -> int:
        """Return the pid of a node's Patroni: the one that was started with its file."""
        file = str(self.trees[node.centre] / "config" / f"patroni-{node.name}.yml")
        return _only([pid for pid, words in processes() if "patroni" in words and words[-1] == file], node.name)

    def of_centre(self, centre: str) -> set[int]:
        """Return all that runs in a centre: whose command line names its tree, their children, and who stands there."""
        tree = f"{self.trees[centre]}/"
        found = {pid for pid, words in processes() if any(tree in word for word in words)}
        if self.namespace:
            here = Path(f"/run/netns/{self.namespace.rpartition('-')[0]}-{centre}").stat().st_ino
            found |= {pid for pid, _ in processes() if _namespace(pid) == here}
        # PostgreSQL writes over the command lines of its children.
        return found.union(*(family(pid) for pid in found)) - {os.getpid()}

    def manager(self) -> int:
        """Return the lab's service manager: the parent of every Patroni."""
        # Where a machine's first process manages them there is no lab, and nobody stops that.
        parents = {_parent(self.patroni(node)) for node in self.nodes} - {1}
        return _only(list(parents), "the service manager")

    # ------------------------------------------------------------ what is done to it

    def crash(self, node: Node, *, whole: bool) -> None:
        """Kill a node's postmaster; ``whole``: its children in the same moment, which would see it and end."""
        pid = self.postmaster(node)
        kill(sorted(family(pid)) if whole else [pid])

    @contextmanager
    def frozen(self, pids: set[int]) -> Iterator[None]:
        """Stop processes where they stand for a block."""
        try:
            for pid in pids:
                os.kill(pid, signal.SIGSTOP)
            yield
        finally:
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)

    @contextmanager
    def lost(self, centre: str) -> Iterator[int]:
        """Have lost a centre for a block, its files too; yields how many processes were killed."""
        tree, aside = self.trees[centre], self.trees[centre].with_name(f".lost-{centre}")
        with self.frozen({self.manager()}):
            killed = 0
            while there := {pid for pid in self.of_centre(centre) if state(pid) != "Z"}:
                kill(sorted(there))
                killed += len(there)
                wait(0.02)
            tree.rename(aside)
            aside.chmod(0o000)
            try:
                yield killed
            finally:
                aside.chmod(0o755)
                aside.rename(tree)


def kill(pids: list[int]) -> None:
    """Kill processes, one at once after the other."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def processes() -> Iterator[tuple[int, list[str]]]:
    """Yield every process that has a command line."""
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with suppress(OSError):
                words = (folder / "cmdline").read_bytes().decode("utf-8", "replace").rstrip("\0").split("\0")
                if words[0]:
                    yield int(folder.name), words


def family(pid: int) -> set[int]:
    """Return a process and all that descend from it."""
    found = {pid}
    with suppress(OSError):
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split():
            found |= family(int(child))
    return found


def state(pid: int) -> str:
    """Return a process's state as the kernel names it; Z for one that is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()[0]
    except OSError:
        return "Z"


def _parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()[1])


def _namespace(pid: int) -> int:
    try:
        return Path(f"/proc/{pid}/ns/net").stat().st_ino
    except OSError:
        return 0


def _only(found: list[int], what: str) -> int:
    if len(found) != 1:
        raise LookupError(f"{len(found)} processes are {what}")
    return found[0]
