"""kill -9 of an exchange in the middle of a list of 1,000 lines: every line reaches exactly one outcome.

The moment is an event, "so many lines are answered", chosen by a seed that is printed.
"""

import asyncio
from typing import Any

import pytest

from tests.crash.customers import Asked, lists
from tests.crash.evidence import Verdict, judge, progress
from tests.crash.journal import Journal
from tests.crash.town import EXCHANGES, Town

LINES = 1000
pytestmark = pytest.mark.asyncio(loop_scope="module")


def _good(verdict: Verdict) -> None:
    assert verdict.faults == []
    assert verdict.report.differences == []
    assert verdict.report.pending == 0


async def test_a_list_survives_the_kill_of_an_exchange_that_is_started_again(
    here: Town, asked: Asked, journal: Journal, moments: Any
) -> None:
    (agency, lines), *_ = lists(here, 1, LINES)
    victim = moments.one_of(tuple(EXCHANGES))
    async with progress(here) as network:
        asking = asyncio.create_task(asked.ask(agency, lines))
        await network.reach(moments.number(50, 700))
        await here.kill(victim)
        await here.again(victim)
        await asking
    _good(await judge(here, asked, journal))


async def test_a_list_is_finished_by_the_other_exchange(
    here: Town, asked: Asked, journal: Journal, moments: Any
) -> None:
    (agency, lines), *_ = lists(here, 1, LINES, run=3)
    victim = moments.one_of(tuple(EXCHANGES))
    async with progress(here) as network:
        asking = asyncio.create_task(asked.ask(agency, lines))
        await network.reach(moments.number(50, 700))
        await here.kill(victim)
        await asking
    try:
        _good(await judge(here, asked, journal))
    finally:
        await here.again(victim)
