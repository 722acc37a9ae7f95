"""Where the demo's files lie, which ports it takes, and that it runs once.

Everything but the databases lies under ``var/demo`` of the clone. Ports begin below the range from which the system
gives ports to connections, so that a start never loses one by bad luck; one that is taken is passed over. Two demos of
two clones may still choose the same ones before either listens: ``bring_up`` then chooses again, from elsewhere.
"""

import fcntl
import os
import shutil
import socket
from collections.abc import Iterable
from pathlib import Path
from typing import Final, Self

from chukan.errors import Problem
from chukan.ops.local.machine import CLONE, state_folder

HOST: Final = "127.0.0.1"
FIRST_PORT: Final = 18443
_LAST_PORT: Final = 32767  # Linux gives 32768 and above to outgoing connections


class Place:
    """The demo's folders; ``root`` is ``var/demo`` of the clone, ``databases`` lies where the server may live."""

    def __init__(self, root: Path | None = None, databases: Path | None = None) -> None:
        """Name the folders; nothing is made yet."""
        self.root = root or CLONE / "var" / "demo"
        self.databases = databases or state_folder() / "demo"
        self.log = self.root / "log"
        self.pki = self.root / "pki"
        self.signing = self.root / "signing"
        self.passwords = self.root / "passwords"
        self.keystores = {centre: self.root / "keystore" / centre for centre in ("east", "west")}
        self.config = self.root / "config"
        self.files = self.root / "files"
        self.network = self.root / "network"
        self.state = self.root / "state.json"
        self.connection = self.root / "connection.json"
        self.operator = self.config / "operator.toml"
        self.model = self.root / "model"
        self.model_file = self.model / "model.json"
        self.law = self.model / "law"
        """What a planned test environment is (``model``); a demo has none."""

    def make(self) -> None:
        """Make the folders that are missing, closed to other users."""
        self.root.mkdir(parents=True, exist_ok=True)
        folders = (self.log, self.signing, self.passwords, self.config, self.files, self.network)
        for folder in (*folders, *self.keystores.values()):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.databases.mkdir(parents=True, exist_ok=True)

    def clear(self) -> None:
        """Remove all data of the demo; the lock stays, because it is held, and what was planned."""
        for path in self.root.iterdir() if self.root.exists() else ():
            if path.name == Lock.name or path == self.model:
                continue
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
        shutil.rmtree(self.databases, ignore_errors=True)


class Lock:
    """Held while a demo uses the data; the system gives it back when the process ends, however it ends."""

    name: Final = "lock"

    def __init__(self, root: Path) -> None:
        self._path = root / self.name
        self._descriptor = -1

    def __enter__(self) -> Self:
        """Take the lock. Raises ``Problem`` already_running."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._descriptor)
            raise Problem("already_running") from None
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)


def choose_ports(names: Iterable[str], first: int = FIRST_PORT) -> dict[str, int]:
    """Return a free port for each name, in order from ``first`` on. Raises ``Problem`` process_failed when none is."""
    free = filter(is_free, range(first, _LAST_PORT + 1))
    ports: dict[str, int] = {}
    for name in names:
        port = next(free, None)
        if port is None:
            raise Problem("process_failed", limit=_LAST_PORT, expected="free TCP ports")
        ports[name] = port
    return ports


def is_free(port: int) -> bool:
    """Tell whether a server could listen on a port at this moment."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As the servers do: a port whose last connections are only fading away is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True
