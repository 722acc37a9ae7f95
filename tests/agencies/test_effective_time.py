"""Common data takes effect at a stated time: in every cell or not yet, whatever crashes; a kill switch never waits."""

import asyncio
import datetime as dt
import json
from typing import Any

import asyncpg
import pytest

from chukan import settings
from chukan.errors import Problem
from chukan.ops.cli import run
from chukan.ops.installation import publish, until_in_force
from chukan.ops.sandbox.endpoints import pause
from chukan.tenants import births, common_reading, publishing
from chukan.tenants.changes import Changes
from chukan.tenants.common_reading import Common
from chukan.tenants.directory import Stop
from chukan.tests.support.nation import ASKS, GIVES, WAIT_S, World

KIND, OTHER = "TM00000000000002", "TM00000000000003"
CELLS = ("east", "west")


class CrashError(Exception):
    """The operator's machine is gone."""


def numbers(common: Common) -> list[int]:
    return sorted({number or 0 for number in common.numbers.values()})


def stops(common: Common) -> set[str | None]:
    assert common.snapshot is not None
    return {stop.kind for stop in common.snapshot.stopped}


async def due(site: Any, *, cells: tuple[str, ...] = CELLS) -> None:
    """Let the stated time of everything that waits come, in these cells."""
    for cell in cells:
        await site.fetch(
            cell, "UPDATE chukan.snapshot SET effective_at = now() WHERE number > (SELECT snapshot FROM chukan.cell)"
        )


async def held(site: Any, cell: str) -> int:
    return int((await site.fetch(cell, "SELECT chukan.held_snapshot() AS held"))[0]["held"])


async def test_a_change_waits_in_every_cell_and_comes_into_force_by_itself(site: Any, installation: Any) -> None:
    installation.lead_s = 60.0
    before = installation.clock.now()
    published = await publish(installation, Changes().stop(kind=KIND))
    assert published.effective_at >= before + dt.timedelta(seconds=60)
    common = await installation.common()
    assert (numbers(common), stops(common), common.whole) == ([1], set(), True)
    assert [(each.snapshot, each.effective_at) for each in common.waiting] == [
        (published.snapshot, published.effective_at)
    ]
    assert (await publish(installation, Changes().stop(kind=KIND))).changed is False
    await due(site)
    # Nobody took it yet: until then nothing is provided on what was in force before.
    assert [await held(site, cell) for cell in CELLS] == [-1, -1]
    common = await installation.common()
    assert (numbers(common), stops(common), common.waiting) == ([2], {KIND}, ())
    assert [await held(site, cell) for cell in CELLS] == [2, 2]


async def test_what_follows_builds_on_what_waits_and_never_overtakes_it(site: Any, installation: Any) -> None:
    installation.lead_s = 60.0
    first = await publish(installation, Changes().stop(kind=KIND))
    installation.lead_s = 0.0
    second = await publish(installation, Changes().stop(kind=OTHER))
    assert second.effective_at == first.effective_at
    common = await installation.common()
    assert [{stop.kind for stop in each.snapshot.stopped} for each in common.waiting] == [{KIND}, {KIND, OTHER}]
    await due(site)
    assert stops(await installation.common()) == {KIND, OTHER}


async def test_one_may_wait_for_it(installation: Any) -> None:
    installation.lead_s = 0.3
    await until_in_force(installation, await publish(installation, Changes().stop(kind=KIND)))
    assert numbers(await installation.common()) == [2]


@pytest.mark.requirement("PRV-05")
async def test_a_kill_switch_goes_at_once_and_what_waits_keeps_its_time(site: Any, installation: Any) -> None:
    installation.lead_s = 60.0
    waiting = await publish(installation, Changes().stop(kind=OTHER))
    stopped = await publish(installation, Changes().stop(kind=KIND), at_once=True, past_missing=True)
    assert stopped.effective_at is None
    common = await installation.common()
    assert (stops(common), common.settled, common.whole) == ({KIND}, True, True)
    assert [each.effective_at for each in common.waiting] == [waiting.effective_at]
    await due(site)
    assert stops(await installation.common()) == {KIND, OTHER}
    await publish(installation, Changes().lift(kind=KIND), at_once=True)
    assert stops(await installation.common()) == {OTHER}


async def test_a_stop_is_lifted_in_what_waits_too(site: Any, installation: Any) -> None:
    await publish(installation, Changes().stop(kind=KIND), at_once=True)
    installation.lead_s = 60.0
    await publish(installation, Changes().stop(kind=OTHER))
    await publish(installation, Changes().lift(kind=KIND), at_once=True)
    await due(site)
    assert stops(await installation.common()) == {OTHER}


async def cut(site: Any, cell: str, *, off: bool) -> None:
    name = site.cells[cell].settings.database
    await site.fetch(cell, f"ALTER DATABASE {name} CONNECTION LIMIT {0 if off else -1}")
    if off:
        sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1 AND pid <> pg_backend_pid()"
        await site.fetch(cell, sql, name)


async def test_with_a_cell_away_a_change_waits_and_the_status_says_so(
    site: Any, installation: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = births.confirm_snapshot

    async def away(*values: Any) -> bool:
        await cut(site, "west", off=True)
        raise Problem("no_primary")

    installation.lead_s = 60.0
    try:
        with monkeypatch.context() as patch:
            patch.setattr(births, "confirm_snapshot", away)
            with pytest.raises(Problem, match="no_primary"):
                await publish(installation, Changes().stop(kind=KIND))
        with pytest.raises(Problem, match="no_primary"):
            await publish(installation, Changes().stop(kind=KIND))
        await due(site, cells=("east",))
        assert await held(site, "east") == 1
        told = await status(site, capsys)
        assert (told["missing"], told["whole"], told["waiting"]) == (["west"], False, [])
        assert told["cells"]["east"][1]["stands"] == "not confirmed by every cell"
    finally:
        await cut(site, "west", off=False)
    assert births.confirm_snapshot is real
    installation.lead_s = 0.0
    await publish(installation, Changes().stop(kind=KIND))
    told = await status(site, capsys)
    assert (told["settled"], told["whole"]) == (True, True)
    assert stops(await installation.common()) == {KIND}


async def status(site: Any, capsys: pytest.CaptureFixture[str]) -> Any:
    capsys.readouterr()
    ended = await asyncio.to_thread(run, ["common", "status", "--config", str(site.config), "--json"])
    told = json.loads(capsys.readouterr().out)
    assert ended == (0 if told["settled"] and told["whole"] else 1)
    return told


STEPS = ("put one", "put both", "read back", "confirm one", "confirm both")


def crash(patch: pytest.MonkeyPatch, step: str) -> None:
    """Have the operator's machine die once a step is done."""
    name, left = {"put one": ("plan_snapshots", 1), "put both": ("plan_snapshots", 2)}.get(
        step, ("confirm_snapshot", 1)
    )
    owner: Any = births
    if step == "read back":
        owner, name, left = common_reading, "read_rows", 4  # of both cells, and of both once more
    if step == "confirm both":
        left = 2
    real = getattr(owner, name)

    async def dying(*values: Any) -> Any:
        nonlocal left
        done = await real(*values)
        left -= 1
        if left == 0:
            raise CrashError
        return done

    patch.setattr(owner, name, dying)


@pytest.mark.parametrize("step", STEPS)
async def test_a_crash_at_any_step_leaves_nothing_half_in_force_and_a_repeat_repairs(
    site: Any, installation: Any, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    installation.lead_s = 60.0
    with monkeypatch.context() as patch:
        crash(patch, step)
        with pytest.raises(CrashError):
            await publish(installation, Changes().stop(kind=KIND))
    common = await installation.common()
    assert (numbers(common), common.settled) == ([1], True)
    assert common.whole is (step == "confirm both")
    await publish(installation, Changes().stop(kind=KIND))
    common = await installation.common()
    assert (common.whole, len(common.waiting)) == (True, 1)
    await due(site)
    common = await installation.common()
    assert (common.settled, common.whole, stops(common)) == (True, True, {KIND})


@pytest.mark.parametrize("step", ["put both", "confirm one"])
async def test_what_was_left_is_cleared_up_by_a_call_that_changes_nothing(
    installation: Any, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    installation.lead_s = 60.0
    with monkeypatch.context() as patch:
        crash(patch, step)
        with pytest.raises(CrashError):
            await publish(installation, Changes().stop(kind=KIND))
    await publish(installation, Changes())
    common = await installation.common()
    assert (common.whole, len(common.waiting)) == (True, 1 if step == "confirm one" else 0)


async def test_who_is_too_late_to_confirm_states_another_time(
    installation: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    installation.lead_s = 60.0
    monkeypatch.setattr(publishing, "STAGING_S", -1.0)
    with pytest.raises(Problem, match="busy"):
        await publish(installation, Changes().stop(kind=KIND))
    common = await installation.common()
    assert (numbers(common), common.waiting) == ([1], ())


async def test_what_somebody_confirmed_meanwhile_is_not_replaced_unseen(site: Any, installation: Any) -> None:
    installation.lead_s = 60.0
    published = await publish(installation, Changes().stop(kind=KIND))
    rows = [births.PlannedSnapshot(9, b"body", b"signature", "key")]
    async with installation.cells.steward("east") as steward:
        with pytest.raises(Problem, match="common_data_stale"):
            await births.plan_snapshots(steward, rows, [])
        for number in (published.snapshot.number, 1):
            other = [births.PlannedSnapshot(number, b"body", b"signature", "key", published.effective_at)]
            with pytest.raises(Problem, match="common_data_stale"):
                await births.plan_snapshots(steward, other, [published.snapshot.number])
        with pytest.raises(Problem, match="common_data_stale"):
            await births.confirm_snapshot(steward, published.snapshot.number, b"another")
    assert (await installation.common()).whole


async def test_a_tool_of_the_release_before_puts_at_once_and_withdraws_what_waits(site: Any, installation: Any) -> None:
    installation.lead_s = 60.0
    published = await publish(installation, Changes().stop(kind=KIND))
    for cell in CELLS:
        async with installation.cells.steward(cell) as steward:
            row = await site.fetch(cell, "SELECT * FROM chukan.snapshot WHERE number = 2")
            put = births.put_snapshot(steward, 2, row[0]["body"], row[0]["signature"], row[0]["key"])
            assert await put is True
    common = await installation.common()
    assert (common.snapshot, common.waiting) == (published.snapshot, ())


def test_production_never_has_less_than_a_minute(site: Any) -> None:
    assert site.settings.site.lead_s == 0.0
    production = {"CHUKAN__SITE__SANDBOX": "0"}
    assert settings.load(site.config, production).site.lead_s == 60.0
    for seconds, refused in (("59.9", True), ("0", True), ("60", False), ("300", False)):
        given = {**production, "CHUKAN__SITE__COMMON_DATA_LEAD_S": seconds}
        if refused:
            with pytest.raises(Problem, match="setting_forbidden"):
                settings.load(site.config, given)
        else:
            assert settings.load(site.config, given).site.lead_s == float(seconds)
    assert settings.load(site.config, {"CHUKAN__SITE__COMMON_DATA_LEAD_S": "2"}).site.lead_s == 2.0


# ---------------------------------------------------------------- exchanges


async def put(world: World, cell: str, snapshot: Any, at: dt.datetime | None, *, confirmed: bool = True) -> None:
    signed = publishing.directory.sign(snapshot, world.signing["directory"][2])
    admin = await world.admin(world.databases[cell])
    row = births.PlannedSnapshot(snapshot.number, signed.body, signed.signature, signed.key, at, confirmed)
    await births.plan_snapshots(admin, [row], [])
    await admin.close()


@pytest.mark.requirement("PRV-05")
async def test_exchanges_swap_at_the_time_and_confirm_what_a_crash_left(nation: World) -> None:
    snapshot = Changes().stop(kind=KIND).apply(nation.snapshot, nation.clock.now())
    began = nation.clock.monotonic()
    at = nation.clock.now() + dt.timedelta(seconds=4)
    await put(nation, "east", snapshot, at)
    await put(nation, "west", snapshot, at, confirmed=False)
    before = nation.east.directory.number
    async with asyncio.timeout(WAIT_S):
        while {site.exchange.directory.number for site in nation.sites.values()} != {snapshot.number}:
            assert nation.clock.monotonic() - began < 4.0 + 3.0
            await pause(0.02, asyncio.Event())
    assert nation.clock.monotonic() - began >= 4.0
    assert before == snapshot.number - 1
    for site in nation.sites.values():
        await site.exchange.common.refresh()
    for database in nation.databases.values():
        admin = await nation.admin(database)
        row = await admin.fetchrow("SELECT snapshot, chukan.held_snapshot() AS held FROM chukan.cell")
        assert tuple(row) == (snapshot.number, snapshot.number)
        await admin.close()
    assert nation.west.directory.snapshot.stopped == [Stop(kind=KIND)]


@pytest.mark.requirement("PRV-05")
async def test_a_cell_that_lacks_what_is_due_elsewhere_provides_nothing(nation: World) -> None:
    addressee = await nation.person(ASKS, GIVES)
    snapshot = Changes().set_law(nation.snapshot.law_number).stop(kind=OTHER).apply(nation.snapshot, nation.clock.now())
    await put(nation, "west", snapshot, None)
    for site in nation.sites.values():
        await site.exchange.common.refresh()
    batch = await nation.ask(ASKS, [nation.line(addressee, GIVES)])
    agency = nation.agency(ASKS)
    (line,) = (await nation.east.inquiries.wait(agency, batch.batch, 2.0)).lines
    assert line.state == "permitted"
    await put(nation, "east", snapshot, None)
    (line,) = (await nation.answered(ASKS, batch)).lines
    assert line.outcome == "provided"


async def test_what_is_due_and_not_taken_provides_nothing(nation: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The set function itself says so, should every exchange have missed the hour."""
    addressee = await nation.person(ASKS, GIVES)
    snapshot = Changes().stop(kind=OTHER).apply(nation.snapshot, nation.clock.now())
    for site in nation.sites.values():
        for sets in site.exchange.sets.values():
            monkeypatch.setattr(sets, "take_snapshots", lambda _have=(): _nothing())
    await put(nation, "east", snapshot, nation.clock.now() - dt.timedelta(seconds=1))
    batch = await nation.ask(ASKS, [nation.line(addressee, GIVES)])
    (line,) = (await nation.east.inquiries.wait(nation.agency(ASKS), batch.batch, 2.0)).lines
    assert line.state == "permitted"


async def _nothing() -> list[Any]:
    raise Problem("unavailable")


async def test_asking_for_what_is_known_carries_no_body(nation: World) -> None:
    sets = nation.east.sets["east"]
    (row,) = await sets.take_snapshots()
    assert row.body is not None
    (again,) = await sets.take_snapshots([row.number])
    assert (again.body, again.signature, again.in_force) == (None, row.signature, True)
    admin = await nation.admin(nation.databases["east"])
    with pytest.raises(asyncpg.PostgresError):
        await admin.fetch("SELECT chukan.snapshot_confirm(99, 'x')")
    await admin.close()
