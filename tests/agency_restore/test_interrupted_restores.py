"""A restore that breaks off at any step leaves the agency as it was or restored; the freeze has a way back."""

import asyncio
from typing import Any

import pytest

from chukan.errors import Problem
from chukan.ops.sandbox.endpoints import pause
from chukan.tenants import agency_restore, births, restore_copy
from chukan.tenants.moving import Mover
from chukan.tenants.publishing import Publisher
from chukan.tests.support.crash import CrashError, crash
from chukan.tests.support.nation import ASKS, ASKS_WEST, GIVES, GIVES_WEST

STEPS: dict[str, tuple[Any, str]] = {
    "freeze": (agency_restore, "patient"),
    "tables": (restore_copy, "put_back"),
    "one table": (restore_copy, "_send"),
    "links": (restore_copy, "_join_links"),
    "publish": (Publisher, "publish"),
    "one cell": (births, "plan_snapshots"),
}
DONE = {("publish", "before"), ("publish", "after"), ("one cell", "before"), ("one cell", "after")}
"""Moments after the commit."""
NORMAL = {("freeze", "after"), ("links", "after"), ("publish", "before"), ("one cell", "after")}
"""The others are tried in the full suite."""
MOMENTS = [
    pytest.param(step, moment, marks=() if (step, moment) in NORMAL else pytest.mark.full)
    for step in STEPS
    for moment in ("before", "after")
]


@pytest.mark.requirement("PLT-06")
@pytest.mark.parametrize(("step", "moment"), MOMENTS)
async def test_a_crash_at_any_step_leaves_a_whole_state(
    town: Any, monkeypatch: pytest.MonkeyPatch, step: str, moment: str
) -> None:
    world = town.world
    addressee = await world.person(ASKS, GIVES)
    then = await town.moment()
    await world.register(GIVES, addressee, gaps=True)
    document = town.order(then.target())
    before = await town.digests(GIVES)
    with monkeypatch.context() as patch:
        crash(patch, STEPS[step], moment)
        with pytest.raises(CrashError):
            await town.restore(then, document=document)
    done = (step, moment) in DONE
    frozen = not done and (step, moment) != ("freeze", "before")
    assert await town.state() == ((2, "open") if done else (1, "moving" if frozen else "open"))
    now = await town.digests(GIVES)
    assert ({name: now[name] for name in before} == before) is not done
    if frozen:
        with pytest.raises(Problem, match="agency_moved"):
            await world.register(GIVES, addressee)
    # The same command once more finishes it under the same order, and does nothing twice.
    if (step, moment) != ("publish", "after"):
        again = await town.restore(then, document=document)
        assert again.agency.generation == 2
        assert again.rows == {} if done else again.rows["copies"] == 1
    await town.follow()
    assert await town.state() == (2, "open")
    assert await town.asked(addressee) == "provided"
    with pytest.raises(Problem, match="order_invalid"):
        await town.restore(then, document=document)


async def test_a_freeze_is_ended_as_one_of_a_move(town: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    world = town.world
    addressee = await world.person(ASKS, GIVES)
    then = await town.moment()
    await world.register(GIVES, addressee, gaps=True)
    with monkeypatch.context() as patch:
        crash(patch, STEPS["tables"], "after")
        with pytest.raises(CrashError):
            await town.restore(then)
    made = town.installation
    mover = Mover(made.cells, made.publisher, town.restorer()._admins)
    assert (await mover.take_back(GIVES)).generation == 1
    assert await town.state() == (1, "open")
    assert await town.asked(addressee) == "provided_with_gaps"


async def test_a_connection_that_breaks_half_way_changes_nothing(town: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    world = town.world
    addressee = await world.person(ASKS, GIVES)
    then = await town.moment()
    await world.register(GIVES, addressee, gaps=True)
    before = await town.digests(GIVES)
    real = restore_copy._join_links

    async def cut(live: Any, schema: str) -> int:
        await town.fetch("SELECT pg_terminate_backend($1)", live.get_server_pid())
        return await real(live, schema)

    with monkeypatch.context() as patch:
        patch.setattr(restore_copy, "_join_links", cut)
        with pytest.raises(Problem) as broken:
            await town.restore(then)
    assert broken.value.code in ("no_primary", "unavailable")
    after = await town.digests(GIVES)
    assert {name: after[name] for name in before} == before
    assert await town.state() == (1, "moving")
    await town.restore(then)
    assert await town.asked(addressee) == "provided"


async def test_what_comes_back_otherwise_than_it_was_sent_changes_nothing(
    town: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = town.world
    await world.person(ASKS, GIVES)
    then = await town.moment()
    real = restore_copy.pipe

    async def altering(source: Any, target: Any, schema: str, table: Any, into: str) -> Any:
        sent = await real(source, target, schema, table, into)
        if table.name == "copies":
            await target.execute(f"UPDATE {into} SET source = source || ' '")
        return sent

    before = await town.digests(GIVES)
    with monkeypatch.context() as patch:
        patch.setattr(restore_copy, "pipe", altering)
        with pytest.raises(Problem, match="restore_differs") as refused:
            await town.restore(then)
    assert refused.value.expected == "copies"
    after = await town.digests(GIVES)
    assert {name: after[name] for name in before} == before
    assert (await town.restore(then)).agency.generation == 2


@pytest.mark.requirement("PLT-06")
async def test_everybody_else_works_on_while_one_agency_is_put_back(town: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    world = town.world
    mine, theirs = await world.person(ASKS, GIVES), await world.person(ASKS_WEST, GIVES_WEST)
    then = await town.moment()
    reached, go = asyncio.Event(), asyncio.Event()
    real = restore_copy._join_links

    async def slowly(live: Any, schema: str) -> int:
        reached.set()
        await go.wait()
        return await real(live, schema)

    monkeypatch.setattr(restore_copy, "_join_links", slowly)
    restoring = asyncio.create_task(town.restore(then))
    async with asyncio.timeout(60):
        await reached.wait()
    # A query about it is taken from its own cell's neighbour, and waits for it to come back.
    waiting = await world.ask(ASKS, [world.line(mine, GIVES)])
    assert await town.asked(theirs, ASKS_WEST, GIVES_WEST) == "provided"
    await world.register(ASKS, mine)
    with pytest.raises(Problem, match="agency_moved") as refused:
        await world.register(GIVES, mine)
    assert (refused.value.status, refused.value.retry_after_s) == (503, 1)
    await pause(0.2, asyncio.Event())
    go.set()
    assert (await restoring).agency.generation == 2
    (line,) = (await world.answered(ASKS, waiting)).lines
    assert line.outcome == "provided"
