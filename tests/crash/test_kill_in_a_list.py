"""One exchange is killed, stopped or frozen in the middle of lists: every line reaches exactly one outcome.

The moment is an event, "so many lines are answered", chosen by a seed that is printed. Each test leaves both exchanges
at work, and each judges everything that this town was ever asked.
"""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from chukan.ops.demo.bring_up import EXCHANGES
from chukan.platform.wire.agency import QueryLine
from chukan.tests.crash.customers import Asked, gathered, lists
from chukan.tests.crash.evidence import Verdict, judge, progress
from chukan.tests.crash.journal import Journal
from chukan.tests.crash.logs import complaints, named
from chukan.tests.crash.probes import load
from chukan.tests.crash.town import Town, wait

LINES = 1000
SOME = 300
SMALL, SMALL_LISTS = 40, 4
FROZEN_S = 15.0
pytestmark = pytest.mark.asyncio(loop_scope="module")


def _lists(here: Town, run: int) -> list[tuple[str, Sequence[QueryLine]]]:
    """One list of 1,000 lines, and small ones of other agencies, so that both exchanges have shards to work on."""
    (long,) = lists(here, 1, LINES, run)
    small = {agency: lines for agency, lines in lists(here, 40, SMALL, run + 1) if agency != long[0]}
    return [long, *list(small.items())[:SMALL_LISTS]]


def _good(verdict: Verdict) -> None:
    assert verdict.faults == []
    assert verdict.report.differences == []
    assert verdict.report.agreed == verdict.report.exchanges > LINES // 2


@pytest.mark.requirement("TXR-03")
async def test_lists_survive_the_kill_of_an_exchange_that_is_started_again(
    here: Town, asked: Asked, journal: Journal, moments: Any
) -> None:
    victim = moments.one_of(tuple(EXCHANGES))
    async with progress(here) as network:
        asking = [asyncio.create_task(asked.ask(*one)) for one in _lists(here, 0)]
        await network.reach(moments.number(50, 800))
        await here.kill(victim)
        await here.again(victim)
        await gathered(asking)
    _good(await judge(here, asked, journal))


@pytest.mark.full
@pytest.mark.requirement("TXR-03")
async def test_lists_are_finished_by_the_other_exchange(
    here: Town, asked: Asked, journal: Journal, moments: Any
) -> None:
    victim = moments.one_of(tuple(EXCHANGES))
    async with progress(here) as network:
        asking = [asyncio.create_task(asked.ask(*one)) for one in _lists(here, 3)]
        await network.reach(moments.number(50, 800))
        await here.kill(victim)
        await gathered(asking)
    try:
        _good(await judge(here, asked, journal))
    finally:
        await here.again(victim)


async def test_no_request_fails_while_an_exchange_is_stopped_in_good_order(
    here: Town, asked: Asked, journal: Journal, moments: Any
) -> None:
    victim = moments.one_of(tuple(EXCHANGES))
    (some,) = lists(here, 1, SOME, 5)
    async with load(here, journal, probes=6) as probing:
        asking = asyncio.create_task(asked.ask(*some))
        await probing.until(good=moments.number(10, 40))
        assert await here.end(victim) == 0
        # Nobody waits for the end of a lease: it was given back.
        assert victim not in await here.holders()
        await probing.until(good=10)
        await here.again(victim)
        await probing.switch.until(victim, ready=True)
        await probing.until(good=10)
        await asking
        results = probing.results()
    assert set(results) == {"good"}
    _good(await judge(here, asked, journal))


@pytest.mark.full
async def test_who_was_frozen_has_no_second_effect(here: Town, asked: Asked, journal: Journal, moments: Any) -> None:
    victim = moments.one_of(tuple(EXCHANGES))
    (other,) = set(EXCHANGES) - {victim}
    async with progress(here) as network:
        # Customers whose patience is shorter than the frost send again elsewhere what the frozen one may still do.
        asking = [asyncio.create_task(asked.ask(*one, timeout_s=4.0)) for one in _lists(here, 6)]
        await network.reach(moments.number(50, 800))
        here.freeze(victim)
        try:
            await asyncio.gather(wait(FROZEN_S), here.held_by(other))
        finally:
            here.thaw(victim)
        await gathered(asking)
    _good(await judge(here, asked, journal))


async def test_what_was_written_meanwhile_names_nobody_and_complains_of_nothing(here: Town) -> None:
    assert named(here) == []
    assert complaints(here) == []


async def test_the_judge_sees_a_record_that_somebody_deletes(here: Town, asked: Asked, journal: Journal) -> None:
    admin = await here.databases.admin("east")
    schema = await admin.fetchval(
        "SELECT chukan.schema_of(agency) FROM chukan.provision_work GROUP BY agency ORDER BY count(*) DESC LIMIT 1"
    )
    await admin.execute("SET session_replication_role = replica")
    await admin.execute(
        f"DELETE FROM {schema}.records WHERE id = (SELECT p.id FROM {schema}.provisions p ORDER BY p.id LIMIT 1)"
    )
    await admin.close()
    verdict = await judge(here, asked, journal, settle_s=0.0)
    assert [(fault.kind, fault.detail) for fault in verdict.faults] == [("not_recorded", "provider")]
    assert verdict.report.counts == {"missing_at_provider": 1}
