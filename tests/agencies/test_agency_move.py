"""An agency moves to another cell while it asks and is asked: nothing lost or doubled, a way back until opened."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from chukan.errors import Problem
from chukan.ops.sandbox.endpoints import pause
from chukan.platform.wire.agency import Queries
from chukan.tenants import births, move_copy, moving, records
from chukan.tenants.moving import Mover
from chukan.tenants.partition import act_for
from chukan.tenants.publishing import Publisher
from chukan.tests.support.crash import CrashError, crash
from chukan.tests.support.nation import ASKS, ASKS_WEST, GIVES, WAIT_S, World

EAST, WEST = "east", "west"


def mover(world: World) -> Mover:
    """The operator's, with the databases' administrator."""

    @asynccontextmanager
    async def admins(cell: str) -> AsyncIterator[Any]:
        admin = await world.admin(world.databases[cell])
        try:
            yield admin
        finally:
            admin.terminate()

    cells = world.sites["east"].cells
    publisher = Publisher(cells, world.signing["directory"][2], world.clock, world.snapshot.law_number, lead_s=0)
    return Mover(cells, publisher, admins)


async def follow(world: World) -> None:
    """Have the tests' own picture of the common data follow what was published, and the exchanges too."""
    for site in world.sites.values():
        await site.exchange.common.refresh()
    world.snapshot = world.east.directory.snapshot


async def fetch(world: World, cell: str, sql: str, *values: object) -> list[Any]:
    admin = await world.admin(world.databases[cell])
    try:
        return await admin.fetch(sql, *values)
    finally:
        await admin.close()


async def states(world: World, code: str) -> dict[str, tuple[int, str] | None]:
    number = world.agency(code).number
    found: dict[str, tuple[int, str] | None] = {}
    for cell in world.databases:
        rows = await fetch(world, cell, "SELECT generation, state FROM chukan.agencies WHERE agency = $1", number)
        found[cell] = (rows[0]["generation"], rows[0]["state"]) if rows else None
    return found


class Customer:
    """A system that asks, and asks again under the same key until it is told; its journal is what a client knows."""

    def __init__(self, world: World, code: str, provider: str, addressee: str, via: str) -> None:
        self.world, self.code, self.provider, self.addressee, self.via = world, code, provider, addressee, via
        self.journal: dict[str, uuid.UUID] = {}
        self.refusals: list[str] = []
        self.over = asyncio.Event()

    async def run(self) -> None:
        while not self.over.is_set():
            await self.ask()

    async def ask(self) -> None:
        key = str(uuid.uuid4())
        line = self.world.line(self.addressee, self.provider)
        while True:
            try:
                batch = await self._ask(key, line)
            except Problem as problem:
                self.refusals.append(problem.code)
                if problem.status != 503:
                    raise
                await pause(0.05, asyncio.Event())
            else:
                self.journal[key] = batch.batch
                return

    async def _ask(self, key: str, line: Any) -> Any:
        exchange = self.world.sites[self.via].exchange
        agency = exchange.directory.agency(self.code)
        body = Queries(lines=[line])
        return await exchange.inquiries.accept(agency, self.world.caller(self.code), body, key, repr(line).encode())

    async def outcomes(self) -> list[str]:
        """The final state of every line of the journal; there is exactly one line a batch."""
        exchange = self.world.sites[self.via].exchange
        found = []
        for batch in self.journal.values():
            async with asyncio.timeout(WAIT_S):
                while True:
                    agency = exchange.directory.agency(self.code)
                    try:
                        (line,) = (await exchange.inquiries.wait(agency, batch, 5.0)).lines
                    except Problem as problem:
                        if problem.status != 503:
                            raise
                    else:
                        if line.state not in {"accepted", "permit_requested", "permitted"}:
                            break
                    await pause(0.05, asyncio.Event())
            found.append(line.outcome or line.state)
        return found


async def ask_once(world: World, code: str, provider: str, addressee: str) -> Customer:
    customer = Customer(world, code, provider, addressee, "west")
    await customer.ask()
    assert await customer.outcomes() == ["provided"]
    return customer


async def logged(world: World, code: str) -> list[uuid.UUID]:
    """The records of an agency by their places in its log, which has no gap and no place twice."""
    agency = world.agency(code)
    async with world.east.door(agency) as partition:
        rows = await partition.fetch(f"SELECT seq, record FROM {partition.table('log')} ORDER BY seq")
        page = await records.list_records(partition, world.keys(code), limit=1000)
    assert [row["seq"] for row in rows] == list(range(1, len(rows) + 1))
    assert sorted(row["record"] for row in rows) == sorted(each.fields.id for each in page.records)
    return [row["record"] for row in rows]


@pytest.mark.requirement("TEN-01")
async def test_an_agency_moves_while_it_asks_and_is_asked(nation: World) -> None:
    people = [await nation.person(ASKS, GIVES), await nation.person(ASKS_WEST, GIVES), await nation.person(ASKS, GIVES)]
    customers = [
        Customer(nation, ASKS, GIVES, people[0], "east"),
        Customer(nation, ASKS_WEST, GIVES, people[1], "west"),
        Customer(nation, ASKS, GIVES, people[2], "west"),
    ]
    before = [(await ask_once(nation, ASKS, GIVES, people[0])).journal]
    working = [asyncio.create_task(customer.run()) for customer in customers]

    async def asked(count: int) -> None:
        aims = [len(customer.journal) + count for customer in customers]
        async with asyncio.timeout(WAIT_S):
            while any(len(c.journal) < aim for c, aim in zip(customers, aims, strict=True)):
                await pause(0.02, asyncio.Event())

    await asked(2)
    moved = [await mover(nation).move(code, WEST) for code in (GIVES, ASKS)]
    await follow(nation)
    await asked(3)
    for customer in customers:
        customer.over.set()
    await asyncio.gather(*working)
    assert [(each.agency.cell, each.agency.generation, each.from_cell) for each in moved] == [(WEST, 2, EAST)] * 2
    assert moved[1].sent["queries"].rows > 0
    assert moved[0].sent["copies"].rows == len(people)

    lines = 0
    for customer in customers:
        outcomes = await customer.outcomes()
        assert set(outcomes) == {"provided"}
        assert set(customer.refusals) <= {"agency_moved", "common_data_stale", "unavailable", "busy"}
        lines += len(outcomes)
    assert any("agency_moved" in customer.refusals for customer in customers)
    lines += sum(map(len, before))
    west = len(customers[1].journal)
    for code, count in ((GIVES, lines), (ASKS, lines - west), (ASKS_WEST, west)):
        await nation.until_records(code, count)
        await nation.sequenced()
        assert len(await logged(nation, code)) == len(await nation.records(code)) == count, code
    assert await states(nation, GIVES) == {EAST: (2, "moved"), WEST: (2, "open")}


async def test_the_old_cell_refuses_whoever_has_not_heard(nation: World) -> None:
    addressee = await nation.person(ASKS, GIVES)
    asked = await ask_once(nation, ASKS, GIVES, addressee)
    stale = nation.agency(ASKS)
    await mover(nation).move(ASKS, WEST)
    (batch,) = asked.journal.values()
    exchange = nation.east
    calls: list[Callable[[], Any]] = [
        lambda: exchange.inquiries.view(stale, batch),
        lambda: exchange.inquiries.collect(stale, batch),
        lambda: exchange.sets[EAST].collect(stale.number, stale.generation, [batch]),
        lambda: exchange.sets[EAST].collect(stale.number, stale.generation + 1, [batch]),
        lambda: exchange.sets[EAST].read_requests([(stale.number, batch)]),
        lambda: exchange.sets[WEST].collect(stale.number, stale.generation, [batch]),
    ]
    for call in calls:
        with pytest.raises(Problem, match="agency_moved") as refused:
            await call()
        assert refused.value.status == 503
    for sql in ("SELECT count(*) FROM {}", "DELETE FROM {}"):
        with pytest.raises(Problem, match="agency_moved"):
            async with act_for(exchange.cells.primary(EAST).app, stale.number) as partition:
                await partition.execute(sql.format(partition.table("copies")))
    await follow(nation)
    (line,) = (await exchange.inquiries.collect(nation.agency(ASKS), batch)).lines
    assert line.state == "collected"
    assert line.content is not None


STEPS: dict[str, tuple[Any, str]] = {
    "freeze": (moving.Mover, "_step"),
    "copy": (move_copy, "copy_over"),
    "one table": (move_copy, "_digest"),
    "orders": (moving, "_copy_orders"),
    "open": (moving, "patient"),
    "publish": (Publisher, "publish"),
    "one cell": (births, "plan_snapshots"),
}

NORMAL = {("freeze", "after"), ("copy", "after"), ("open", "after"), ("one cell", "after")}
"""The others are tried in the full suite."""
MOMENTS = [
    pytest.param(step, moment, marks=() if (step, moment) in NORMAL else pytest.mark.full)
    for step in STEPS
    for moment in ("before", "after")
]


def die(patch: pytest.MonkeyPatch, step: str, moment: str) -> None:
    """Have the operator's machine die before or after a step is done."""
    crash(patch, STEPS[step], moment, call={"open": 3 if moment == "after" else 2}.get(step, 1))


@pytest.mark.parametrize(("step", "moment"), MOMENTS)
async def test_a_crash_at_any_step_is_repaired_by_moving_once_more(
    nation: World, monkeypatch: pytest.MonkeyPatch, step: str, moment: str
) -> None:
    addressee = await nation.person(ASKS, GIVES)
    await ask_once(nation, ASKS, GIVES, addressee)
    with monkeypatch.context() as patch:
        die(patch, step, moment)
        with pytest.raises(CrashError):
            await mover(nation).move(ASKS, WEST)
    opened = [cell for cell, found in (await states(nation, ASKS)).items() if found and found[1] == "open"]
    assert len(opened) <= 1
    moved = await mover(nation).move(ASKS, WEST)
    assert (moved.agency.cell, moved.agency.generation) == (WEST, 2)
    await follow(nation)
    assert await states(nation, ASKS) == {EAST: (2, "moved"), WEST: (2, "open")}
    await ask_once(nation, ASKS, GIVES, addressee)
    await nation.until_records(ASKS, 2)
    await nation.sequenced()
    assert len(await logged(nation, ASKS)) == 2
    assert (await mover(nation).move(ASKS, WEST)).published.changed is False


@pytest.mark.parametrize("step", ["freeze", pytest.param("copy", marks=pytest.mark.full), "orders"])
async def test_a_move_is_taken_back_as_long_as_nothing_was_opened(
    nation: World, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    addressee = await nation.person(ASKS, GIVES)
    with pytest.raises(Problem, match="agency_not_moving"):
        await mover(nation).take_back(ASKS)
    with monkeypatch.context() as patch:
        die(patch, step, "after")
        with pytest.raises(CrashError):
            await mover(nation).move(ASKS, WEST)
    with pytest.raises(Problem, match="agency_moved"):
        await nation.ask(ASKS, [nation.line(addressee, GIVES)])
    assert (await mover(nation).take_back(ASKS)).cell == EAST
    assert await states(nation, ASKS) == {EAST: (1, "open"), WEST: None}
    await ask_once(nation, ASKS, GIVES, addressee)
    await nation.register(ASKS, addressee)
    assert (await mover(nation).move(ASKS, WEST)).agency.cell == WEST


async def test_what_was_opened_is_not_taken_back(nation: World, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        die(patch, "open", "after")
        with pytest.raises(CrashError):
            await mover(nation).move(ASKS, WEST)
    with pytest.raises(Problem, match="move_too_late"):
        await mover(nation).take_back(ASKS)


async def test_what_arrives_otherwise_than_it_was_sent_is_not_opened(
    nation: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    addressee = await nation.person(ASKS, GIVES)
    await nation.register(ASKS, addressee)
    real = move_copy._pipe

    async def altering(source: Any, target: Any, schema: str, table: Any) -> Any:
        sent = await real(source, target, schema, table)
        if table.name == "copies":
            await target.execute(f"UPDATE {schema}.copies SET source = source || ' '")
        return sent

    with monkeypatch.context() as patch:
        patch.setattr(move_copy, "_pipe", altering)
        with pytest.raises(Problem, match="move_differs") as refused:
            await mover(nation).move(ASKS, WEST)
    assert refused.value.expected == "copies"
    assert await states(nation, ASKS) == {EAST: (1, "moving"), WEST: (2, "arriving")}
    assert (await mover(nation).move(ASKS, WEST)).agency.cell == WEST


async def test_what_was_left_behind_is_destroyed_by_a_step_of_its_own_and_never_too_much(nation: World) -> None:
    addressee = await nation.person(ASKS, GIVES)
    await ask_once(nation, ASKS, GIVES, addressee)
    await nation.sequenced()
    with pytest.raises(Problem, match="agency_not_moving"):
        await mover(nation).discard(ASKS, WEST)
    await mover(nation).move(ASKS, WEST)
    await follow(nation)
    with pytest.raises(Problem, match="old_copy_kept"):
        await mover(nation).move(ASKS, EAST)
    assert (await mover(nation).take_back(ASKS)).cell == WEST
    with pytest.raises(Problem, match="agency_not_moving"):
        await mover(nation).discard(ASKS, WEST)
    schema = f"a{nation.agency(ASKS).number:05d}"
    await fetch(nation, EAST, f"UPDATE {schema}.log SET leaf_hash = sha256(leaf_hash)")
    with pytest.raises(Problem, match="move_differs"):
        await mover(nation).discard(ASKS, EAST)
    await fetch(nation, EAST, f"UPDATE {schema}.log l SET leaf_hash = sha256('\\x00'::bytea || l.leaf_data)")
    await mover(nation).discard(ASKS, EAST)
    assert await states(nation, ASKS) == {EAST: None, WEST: (2, "open")}
    assert (await fetch(nation, EAST, "SELECT to_regnamespace($1) AS gone", schema))[0]["gone"] is None
    await ask_once(nation, ASKS, GIVES, addressee)
    await mover(nation).move(ASKS, EAST)
    await follow(nation)
    await ask_once(nation, ASKS, GIVES, addressee)
    assert (await states(nation, ASKS))[EAST] == (3, "open")
    await nation.until_records(ASKS, 3)
    await nation.sequenced()
    assert len(await logged(nation, ASKS)) == 3


@pytest.mark.parametrize(
    ("code", "to", "problem"), [("9" * 16, WEST, "unknown_agency"), (ASKS, "north", "invalid_field")]
)
async def test_a_move_that_cannot_be_is_refused(nation: World, code: str, to: str, problem: str) -> None:
    with pytest.raises(Problem, match=problem):
        await mover(nation).move(code, to)
    assert await states(nation, ASKS) == {EAST: (1, "open"), WEST: None}


async def test_everything_of_an_agency_that_lies_outside_its_schema_is_known_to_a_move(nation: World) -> None:
    """A new table of the cell that bears an agency's rows must be moved, or named here on purpose."""
    rows = await fetch(
        nation,
        EAST,
        "SELECT c.relname FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'agency'"
        " WHERE c.relnamespace = 'chukan'::regnamespace AND c.relkind = 'r'",
    )
    assert {row["relname"] for row in rows} == {
        "agencies", "inquiry_work", "provision_work", "to_sequence", "log_heads", "orders", "retirements",
        "evidence_heads",  # a hint: made anew where the agency lives, from the checkpoints that came along
        "operations_waiting",
        "operation_heads",  # a hint: made anew where the agency lives, from the log that came along
        "log_aside",  # stays: where a record that waits is not there, the new cell finds it missing too
        "reencryptions", "notice_read", "expired",  # go along (copy_marks)
        "link_asked",  # stays: acts on links are asked for where the links are, wherever the agency lives
    }  # fmt: skip


async def test_a_permit_too_old_for_the_old_cell_is_too_old_for_the_new_one(nation: World) -> None:
    number = nation.agency(GIVES).number
    mark = "UPDATE chukan.agencies SET opened_at = '2020-01-01Z' WHERE agency = $1 RETURNING opened_at"
    kept = "SELECT opened_at FROM chukan.agencies WHERE agency = $1"
    marked = await fetch(nation, EAST, mark, number)
    await mover(nation).move(GIVES, WEST)
    assert await fetch(nation, WEST, kept, number) == marked


async def test_what_the_cell_keeps_of_an_agency_moves_along_and_is_counted_once(nation: World) -> None:
    number, other = nation.agency(ASKS).number, nation.agency(GIVES).number
    put = "INSERT INTO chukan.notice (id, at, sort, title, text, by) VALUES ($1, now(), 'general', '保守', '予定', 'x')"
    read, unknown = uuid.uuid4(), uuid.uuid4()
    for cell, notice in ((EAST, read), (WEST, read), (EAST, unknown)):
        await fetch(nation, cell, put, notice)
    for agency, notice in ((number, read), (number, unknown), (other, read)):
        mark = "INSERT INTO chukan.notice_read (notice, agency, client) VALUES ($1, $2, 'system')"
        await fetch(nation, EAST, mark, notice, agency)
    expired = "INSERT INTO chukan.expired (agency, month, count) VALUES ($1, '2019-04-01', $2)"
    await fetch(nation, EAST, expired, number, 30)
    await fetch(nation, WEST, expired, number, 7)
    await fetch(nation, EAST, expired, other, 2)
    walk = "INSERT INTO chukan.reencryptions (agency, version, place, block, sealed) VALUES ($1, 2, $2, 9, 5)"
    await fetch(nation, EAST, walk, number, "records.sealed")
    await fetch(nation, EAST, "SELECT chukan.key_floor($1, 'copies', 'body', 1)", number)

    await mover(nation).move(ASKS, WEST)
    await follow(nation)

    async def kept(cell: str) -> list[object]:
        reads = await fetch(nation, cell, "SELECT notice FROM chukan.notice_read WHERE agency = $1", number)
        over = await fetch(nation, cell, "SELECT count FROM chukan.expired WHERE agency = $1", number)
        sql = "SELECT version, place, block, sealed FROM chukan.reencryptions WHERE agency = $1"
        return [
            [row[0] for row in reads],
            [row[0] for row in over],
            [tuple(row) for row in await fetch(nation, cell, sql, number)],
        ]

    assert await kept(EAST) == [[], [], []]
    assert await kept(WEST) == [[read], [30], [(2, "", 0, 5)]], "a walk begins anew, for rows have other places"
    assert len(await fetch(nation, EAST, "SELECT FROM chukan.expired WHERE agency = $1", other)) == 1
    floor = "SELECT convalidated FROM pg_constraint WHERE conname = 'key_floor_body_1' AND conrelid = to_regclass($1)"
    assert [row[0] for row in await fetch(nation, WEST, floor, f"a{number:05d}.copies")] == [True]
