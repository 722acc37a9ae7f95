"""A caller that is refused leaves a line in the database: which one, how often, and that nobody takes it back."""

import asyncio
import datetime as dt
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import asyncpg
import msgspec
import pytest

from chukan.chance import SystemChance
from chukan.clock import SystemClock
from chukan.errors import Problem
from chukan.ops.cli import run
from chukan.platform.http import refusals as module
from chukan.platform.http.auth import LinkAddresses
from chukan.platform.http.refusals import KINDS_MAX, Refusals
from chukan.replication.primary import Cells
from chukan.tenants.link_plan import inner_v4
from chukan.tenants.link_refusals import SET_MAX, Refusal, read_refusals
from chukan.tenants.sets import CellSets
from chukan.tests.agencies.conftest import make_site, pair
from chukan.tests.http.conftest import CITY, TOWN, authority, certificates, contexts, serve, server_tls
from chukan.tests.support.link_desk import CELL, LinkDesk

__all__ = ["authority", "certificates", "contexts", "make_site", "pair", "serve", "server_tls"]

pytestmark = pytest.mark.requirement("TEN-03", "CON-01")
BODY, OTHER = "131016", "271004"
LONG_AGO = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
CLOCK = SystemClock()


class Behind(LinkAddresses):
    """What an exchange sees whose callers all come from one inner address; the sockets of a test have none."""

    def __init__(self, address: str) -> None:
        self.address = address

    def allows(self, address: str, body: str) -> bool:
        return super().allows(self.address, body)

    def tunnel(self, address: str) -> str | None:
        return super().tunnel(self.address)


class Audit:
    """One exchange's refusals, and what the steward reads of them; no two tests have an exchange of one name."""

    def __init__(self, desk: LinkDesk, name: str) -> None:
        self.desk = desk
        self.name = name
        self.sets = CellSets(desk.cells.primary(CELL).broker)
        self.refusals = Refusals(name, self.sets.enter_refusals, CLOCK, SystemChance(CLOCK))

    async def rows(self, body: str | None = None, since: dt.datetime = LONG_AGO) -> list[Refusal]:
        found = await read_refusals(self.desk.cells, CELL, since, body)
        return [row for row in found if row.exchange == self.name]

    async def told(self) -> set[tuple[str, str, str, str, int]]:
        return {(row.peer, row.body, row.tunnel, row.code, row.times) for row in await self.rows()}

    async def tries(self) -> list[int]:
        sql = "SELECT tries FROM chukan.access_refused WHERE exchange = $1"
        return [row[0] for row in await self.desk.admin.fetch(sql, self.name)]


@pytest.fixture
def audit(desk: LinkDesk, request: pytest.FixtureRequest) -> Audit:
    return Audit(desk, f"x-{request.node.name[-50:]}")


async def _get(served: Any, name: str, agency: str = CITY) -> str:
    async with served.client(name) as client, client.get(served.url("/queries", agency)) as answer:
        document = await answer.json(content_type=None)
    return str(document.get("code", answer.status))


# ---------------------------------------------------------------- through the gate


async def test_a_wrong_tunnel_leaves_a_row(serve: Any, audit: Audit) -> None:
    served = await serve(addresses=Behind(inner_v4(f"{OTHER}-1")), refused=audit.refusals.tell)
    before = CLOCK.now()
    assert [await _get(served, "tax") for _ in range(3)] == ["wrong_address"] * 3
    after = CLOCK.now()
    assert await audit.refusals.write()
    assert await audit.told() == {("tax", BODY, OTHER[:5], "wrong_address", 3)}
    row = (await audit.rows())[0]
    assert before <= row.at < row.until <= after


async def test_an_outside_address_leaves_a_row_without_a_tunnel(serve: Any, audit: Audit) -> None:
    served = await serve(addresses=LinkAddresses(), refused=audit.refusals.tell)
    assert await _get(served, "tax") == "outside_links"
    assert await audit.refusals.write()
    assert await audit.told() == {("tax", BODY, "", "outside_links", 1)}


async def test_a_wrong_path_leaves_a_row(serve: Any, audit: Audit) -> None:
    served = await serve(addresses=Behind(inner_v4(f"{OTHER}-1")), refused=audit.refusals.tell)
    assert await _get(served, "town", TOWN) == "200"
    assert await _get(served, "town", CITY) == "wrong_agency"
    assert await audit.refusals.write()
    assert await audit.told() == {("town", OTHER, OTHER[:5], "wrong_agency", 1)}


async def test_who_is_not_registered_has_no_name_in_it(serve: Any, audit: Audit) -> None:
    served = await serve(addresses=Behind(inner_v4(f"{BODY}-1")), refused=audit.refusals.tell)
    assert await _get(served, "stranger") == "unregistered_system"
    assert await _get(served, "exchange") == "unauthenticated"
    assert await audit.refusals.write()
    assert await audit.told() == {
        ("", "", BODY[:5], "unregistered_system", 1),
        ("", "", BODY[:5], "unauthenticated", 1),
    }


# ---------------------------------------------------------------- many, and again


async def test_a_flood_is_bounded_and_still_counted(audit: Audit) -> None:
    for n in range(KINDS_MAX + 700):
        for _ in range(2):
            audit.refusals.tell(f"system-{n}", BODY, "", "wrong_agency")
    assert await audit.refusals.write()
    rows = await audit.rows()
    assert len(rows) == KINDS_MAX + 1
    assert sum(row.times for row in rows) == 2 * (KINDS_MAX + 700)
    assert [(row.body, row.code, row.times) for row in rows if row.peer == ""] == [("", "", 1400)]


async def test_what_does_not_fit_is_cut_and_keeps_nothing_out(audit: Audit) -> None:
    audit.refusals.tell("x" * 1000, "1" * 20, "1" * 20, "c" * 100)
    audit.refusals.tell("tax", BODY, "", "wrong_agency")
    assert await audit.refusals.write()
    assert {len(row.peer) for row in await audit.rows()} == {200, 3}


async def test_rows_survive_a_database_that_is_away_for_a_moment(desk: LinkDesk, audit: Audit) -> None:
    brief = CellSets(desk.cells.primary(CELL).broker, timeout_s=0.5)
    refusals = Refusals(audit.name, brief.enter_refusals, CLOCK, SystemChance(CLOCK))
    refusals.tell("tax", BODY, "", "wrong_agency")
    async with desk.admin.transaction():
        await desk.admin.execute("LOCK TABLE chukan.access_refused IN ACCESS EXCLUSIVE MODE")
        for _ in range(2):
            assert not await refusals.write()
            refusals.tell("tax", BODY, "", "wrong_agency")
    async with asyncio.timeout(20):
        while not await refusals.write():
            pass
    # What a call that was cut off did later, or not, is no second line.
    assert sorted(row.times for row in await audit.rows()) == [1, 2]


async def test_memory_is_bounded_while_the_database_is_away() -> None:
    async def away(_lines: Sequence[Refusal]) -> int:
        raise Problem("no_primary")

    refusals = Refusals("x", away, CLOCK, SystemChance(CLOCK))
    for start in range(0, 5_000, 1_000):
        for n in range(start, start + 1_000):
            refusals.tell(f"system-{n}", BODY, "", "wrong_agency")
        assert not await refusals.write()
    assert len(refusals._gathered) + len(refusals._leaving) <= 2 * (KINDS_MAX + 1)


async def test_a_commit_that_nobody_heard_of_is_one_line_and_durable_again(audit: Audit) -> None:
    answers = iter([Problem("unavailable"), None])

    async def unheard(lines: Sequence[Refusal]) -> int:
        count = await audit.sets.enter_refusals(lines)
        if (problem := next(answers)) is not None:
            raise problem
        return count

    refusals = Refusals(audit.name, unheard, CLOCK, SystemChance(CLOCK))
    refusals.tell("tax", BODY, "", "wrong_agency")
    assert not await refusals.write()
    assert await refusals.write()
    assert await audit.told() == {("tax", BODY, "", "wrong_agency", 1)}
    # The repeat wrote: its commit waits for the other centre as the first one should have.
    assert await audit.tries() == [2]


async def test_it_is_written_by_itself(audit: Audit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "EVERY_S", 0.01)
    entered = asyncio.Event()

    async def enter(lines: Sequence[Refusal]) -> int:
        count = await audit.sets.enter_refusals(lines)
        entered.set()
        return count

    refusals = Refusals(audit.name, enter, CLOCK, SystemChance(CLOCK))
    running = asyncio.create_task(refusals.run())
    try:
        refusals.tell("tax", BODY, "", "wrong_agency")
        async with asyncio.timeout(20):
            await entered.wait()
    finally:
        running.cancel()
        await asyncio.wait({running})
    assert await audit.told() == {("tax", BODY, "", "wrong_agency", 1)}


# ---------------------------------------------------------------- who may


def _line(**changes: Any) -> Refusal:
    now = CLOCK.now()
    given: dict[str, Any] = {
        "id": SystemChance(CLOCK).uuid7(),
        "at": now,
        "until": now,
        "exchange": "x",
        "peer": "tax",
        "body": BODY,
    }
    return Refusal(**({**given, "tunnel": "", "code": "wrong_agency", "times": 1} | changes))


async def test_nobody_changes_or_deletes_a_row(desk: LinkDesk, audit: Audit) -> None:
    line = _line(exchange=audit.name)
    await audit.sets.enter_refusals([line])
    await audit.sets.enter_refusals([msgspec.structs.replace(line, code="other", times=9)])
    assert await audit.told() == {("tax", BODY, "", "wrong_agency", 1)}
    changes = (
        "UPDATE chukan.access_refused SET times = 9",
        "UPDATE chukan.access_refused SET peer = ''",
        "DELETE FROM chukan.access_refused",
        "TRUNCATE chukan.access_refused",
    )
    for sql in changes:
        # Not even a faulty function of ours, whose owner the table has.
        await desk.admin.execute("SET ROLE chukan_fn")
        try:
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await desk.admin.execute(sql)
        finally:
            await desk.admin.execute("RESET ROLE")
        async with desk.cells.primary(CELL).broker.acquire() as broker:
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await broker.execute(sql)
        async with desk.cells.steward(CELL) as steward:
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await steward.execute(sql)
    async with desk.cells.primary(CELL).broker.acquire() as broker:
        for sql in ("SELECT * FROM chukan.access_refused", "SELECT * FROM chukan.refusals(now(), NULL, 1)"):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await broker.fetch(sql)
    assert await audit.told() == {("tax", BODY, "", "wrong_agency", 1)}


@pytest.mark.parametrize(
    "wrong",
    [
        {"peer": "x" * 201},
        {"body": "1310161"},
        {"tunnel": "131016"},
        {"code": "c" * 65},
        {"exchange": ""},
        {"times": 0},
    ],
)
async def test_the_table_takes_nothing_of_another_form(audit: Audit, wrong: dict[str, Any]) -> None:
    with pytest.raises(Problem):
        await audit.sets.enter_refusals([_line(**({"exchange": audit.name} | wrong))])
    assert await audit.rows() == []


async def test_a_call_has_its_most(audit: Audit) -> None:
    assert await audit.sets.enter_refusals([_line(exchange=audit.name) for _ in range(SET_MAX)]) == SET_MAX
    with pytest.raises(Problem):
        await audit.sets.enter_refusals([_line(exchange=audit.name) for _ in range(SET_MAX + 1)])
    assert len(await audit.rows()) == SET_MAX


async def test_a_body_s_are_those_of_its_certificate_and_of_its_tunnel(audit: Audit) -> None:
    old = CLOCK.now() - dt.timedelta(hours=3)
    lines = [
        _line(exchange=audit.name, body=BODY, tunnel=OTHER[:5], code="wrong_address"),
        _line(exchange=audit.name, body=OTHER, tunnel=BODY[:5], code="wrong_address", at=old, until=old),
        _line(exchange=audit.name, body=OTHER),
    ]
    await audit.sets.enter_refusals(lines)
    assert [row.id for row in await audit.rows(BODY)] == [lines[0].id, lines[1].id]
    assert {row.id for row in await audit.rows(OTHER)} == {line.id for line in lines}
    assert [row.id for row in await audit.rows(BODY, CLOCK.now() - dt.timedelta(hours=1))] == [lines[0].id]


def test_an_operator_and_an_auditor_see_them(
    pair: dict[str, Any], make_site: Callable[..., Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async def prepare() -> Any:
        site = await make_site(pair, tmp_path)
        name = min(pair)
        async with Cells(site.settings.cells, site.settings.site.environment) as cells:
            refusals = Refusals("x1", CellSets(cells.primary(name).broker).enter_refusals, CLOCK, SystemChance(CLOCK))
            refusals.tell("tax", BODY, OTHER[:5], "wrong_address")
            assert await refusals.write()
        return site

    site = asyncio.run(prepare())
    capsys.readouterr()
    words = ("link", "refusals", "--config", str(site.config))
    assert run((*words, "--body", BODY, "--json")) == 0
    told = msgspec.json.decode(capsys.readouterr().out)["refusals"]
    assert [(row["peer"], row["tunnel"], row["code"], row["times"]) for row in told] == [
        ("tax", OTHER[:5], "wrong_address", 1)
    ]
    assert run((*words, "--body", "011002", "--json")) == 0
    assert msgspec.json.decode(capsys.readouterr().out) == {"refusals": []}
    assert run(words) == 0
    assert "wrong_address" in capsys.readouterr().out
    assert run((*words, "--hours", "0")) != 0
