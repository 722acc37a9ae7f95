"""Bringing the demo's cells, agencies and credentials up, again and again, on what earlier starts left."""

import asyncio
import contextlib
import datetime as dt
import json
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from chukan import settings
from chukan.clock import SystemClock
from chukan.errors import Problem
from chukan.ops.certificates import Authority
from chukan.ops.demo import cast
from chukan.ops.demo.agencies import foreign_stops
from chukan.ops.demo.bring_up import PORT_TRIES_MAX, Credentials, Memory, Running, read_memory, write_memory
from chukan.ops.demo.databases import CELLS
from chukan.ops.demo.place import HOST, Place
from chukan.ops.demo.population import Population
from chukan.ops.demo.questions import STOPPED
from chukan.ops.demo.screen import Screen
from chukan.ops.sandbox.person_values import TAX
from chukan.platform.law import Law
from chukan.tenants import births
from chukan.tenants.directory import SignedSnapshot, Snapshot, Stop, verify
from chukan.tenants.keystore import KeyStores

ADDED = "9902011002000001"
"""Sapporo's board of education, which is not in the demo."""
CLOCK = SystemClock()


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    # PostgreSQL runs as another user when the tests run as root; pytest's folders are closed to it.
    databases = Path(tempfile.mkdtemp(prefix="chukan-test-"))
    databases.chmod(0o755)
    made = Place(tmp_path / "demo", databases / "demo")
    made.make()
    yield made
    shutil.rmtree(databases, ignore_errors=True)


class Cells(Running):
    """The cells of a demo with its agencies, and no process; ``lost`` are starts that another program spoils."""

    def __init__(self, place: Place, lost: int = 0) -> None:
        screen = Screen(for_program=True)
        screen.console.quiet = True
        super().__init__(place, screen, Population(300, 7, dt.date(2026, 11, 23)), Law.load())
        self.lost = lost
        self.tries: list[int] = []
        self.held: list[socket.socket] = []

    async def _start_each(self) -> None:
        port = self.addresses.ports["exchange-west agency"]
        self.tries.append(port)
        if len(self.tries) <= self.lost:
            self.held.append(socket.create_server((HOST, port)))
            raise Problem("process_failed", expected="the log")

    async def stop(self) -> None:
        await super().stop()
        for each in self.held:
            each.close()

    async def snapshots(self) -> list[Snapshot]:
        """Return the common data in force in each cell."""
        found = []
        for cell in CELLS:
            admin = await self.databases.admin(cell)
            row = await admin.fetchrow("SELECT body, signature, key FROM chukan.current_snapshot()")
            key = self.credentials.signing["directory"].private.public_key()
            found.append(verify(SignedSnapshot(row["body"], row["signature"], row["key"]), key))
            here = {each.agency for each in await births.list_agencies(admin)}
            assert here == {each.number for each in found[-1].agencies if each.cell == cell}
            await admin.close()
        return found


@contextlib.asynccontextmanager
async def _up(running: Cells) -> AsyncIterator[Cells]:
    try:
        await running.start()
        yield running
    finally:
        await running.stop()


async def _command(place: Place, *words: str) -> str:
    """Do something as the demo's operator, from the command line."""
    command = [sys.executable, "-m", "chukan.ops.cli", *words, "--config", str(place.operator), "--json"]
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
    async with asyncio.timeout(60):
        said, _ = await process.communicate()
    assert process.returncode == 0
    return said.decode()


async def test_a_second_start_goes_on_with_what_an_operator_did(place: Place) -> None:
    kind, procedure = STOPPED
    async with _up(Cells(place)) as first:
        east, west = await first.snapshots()
        assert east == west
        assert {row.code: row.cell for row in east.agencies} == {row.code: row.home_centre for row in cast.agencies()}
        assert {row.id for row in east.clients} == {row.id for row in cast.clients()}
        assert east.stopped == [Stop(kind=kind, procedure=procedure)]
        assert not foreign_stops(east)
        assert KeyStores(place.keystores, environment="sandbox").agencies() == sorted(
            row.number for row in east.agencies
        )
        await _command(place, "agency", "add", ADDED)
        rights = ["--function", "queries", "--name", "board"]
        await _command(place, "agency", "client", "add", "board", "--kind", "system", "--agency", ADDED, *rights)
        await _command(place, "stop", "add", "--kind", TAX)
        await _command(place, "stop", "lift", "--kind", kind, "--procedure", procedure)
        known = json.loads(await _command(place, "agency", "list"))["agencies"]
        assert len(known) == len(cast.agencies()) + 1
    async with _up(Cells(place)) as second:
        east, west = await second.snapshots()
        assert east == west
        assert {row.code for row in east.agencies} == {row.code for row in cast.agencies()} | {ADDED}
        assert {row.id for row in east.clients} == {row.id for row in cast.clients()} | {"board"}
        assert foreign_stops(east) == [Stop(kind=TAX)]
        assert Stop(kind=kind, procedure=procedure) in east.stopped
        stands = json.loads(await _command(place, "agency", "show", ADDED))
        assert (stands["cell"], stands["keys"]) == ("east", True)
        number = east.number
    async with _up(Cells(place)) as third:
        assert [each.number for each in await third.snapshots()] == [number, number]
    passwords = [file for files in third.databases.passwords.values() for file in files.values()]
    assert {stat.S_IMODE(file.stat().st_mode) for file in passwords} == {0o600}
    assert len({file.read_text() for file in passwords}) == len(passwords) == 8


async def test_a_closed_agency_is_named_with_what_to_do(place: Place) -> None:
    closed = cast.board("072028")
    async with _up(Cells(place)):
        await _command(place, "agency", "close", closed)
    with pytest.raises(Problem) as refused:
        async with _up(Cells(place)):
            pass
    assert refused.value.code == "agency_closed"
    assert closed in (refused.value.expected or "")
    assert "--reset" in (refused.value.expected or "")


@contextlib.asynccontextmanager
async def _with_ports(running: Cells) -> AsyncIterator[Cells]:
    """Everything that starting processes needs, but databases."""
    running.credentials = Credentials(running.place, CLOCK)
    running._take_ports()
    try:
        yield running
    finally:
        await running.stop()


async def test_ports_that_another_program_took_are_chosen_again(place: Place) -> None:
    async with _with_ports(Cells(place, lost=1)) as running:
        await running._start_processes()
        first, second = running.tries
        assert first != second == running.addresses.ports["exchange-west agency"]
        written = settings.load(place.operator, {})
        assert written.network.url.endswith(str(running.addresses.ports["network"]))


async def test_a_program_that_takes_every_port_is_told_of(place: Place) -> None:
    async with _with_ports(Cells(place, lost=PORT_TRIES_MAX)) as running:
        with pytest.raises(Problem) as failed:
            await running._start_processes()
    assert failed.value.code == "process_failed"
    assert "ports" in (failed.value.expected or "")
    assert len(set(running.tries)) == PORT_TRIES_MAX


async def test_what_fails_on_ports_of_its_own_is_not_tried_again(place: Place) -> None:
    async with _with_ports(Cells(place)) as running:

        async def fails() -> None:
            running.tries.append(0)
            raise Problem("process_failed", expected="the log")

        running._start_each = fails
        with pytest.raises(Problem) as failed:
            await running._start_processes()
    assert (failed.value.expected, running.tries) == ("the log", [0])


@pytest.mark.parametrize(
    ("status", "body", "is_ready"),
    [
        (200, {"pid": 4711, "ready": True}, True),
        (200, {"pid": 4712}, False),
        (503, {"pid": 4711}, False),
        (200, {}, False),
    ],
)
async def test_only_the_process_itself_can_say_that_it_is_ready(
    place: Place, monkeypatch: pytest.MonkeyPatch, status: int, body: dict[str, object], *, is_ready: bool
) -> None:
    async def answer(_request: web.Request) -> web.Response:
        return web.json_response(body, status=status)

    app = web.Application()
    app.router.add_get("/readyz", answer)
    running = Cells(place)
    monkeypatch.setattr(running.supervisor, "pids", lambda: {"exchange-east": 4711})
    async with TestServer(app) as server:
        url = str(server.make_url("/readyz"))
        assert await running._ready("exchange-east", url)() is is_ready
        assert not await running._ready("exchange-west", url)()
    assert not await running._ready("exchange-east", url)()


def test_credentials_are_made_once_and_replaced_before_they_end(place: Place) -> None:
    first = Credentials(place, CLOCK)
    again = Credentials(place, CLOCK)
    client = cast.system_of(cast.agencies()[0].code)
    kept = first.clients[client].certificate.read_bytes()
    assert again.clients[client].certificate.read_bytes() == kept
    assert set(first.clients) == {row.id for row in cast.clients()}
    # One whose last day has begun is put aside and issued again.
    shutil.rmtree(place.pki / "clients" / client)
    Authority(place.pki, CLOCK).issue_client(client, days=1)
    renewed = Credentials(place, CLOCK).clients[client].certificate.read_bytes()
    assert renewed != kept
    assert len(list((place.pki / "clients").glob(f"{client}*"))) == 2


def test_what_the_demo_remembers_survives(place: Place) -> None:
    assert read_memory(place) is None
    write_memory(place, Memory(people=900, seed=3, runs=2, registered=True))
    assert read_memory(place) == Memory(people=900, seed=3, runs=2, registered=True)
