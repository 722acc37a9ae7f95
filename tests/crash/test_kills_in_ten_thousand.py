"""kill -9 of exchanges, databases and the network at seeded moments while 10,000 lines are on their way.

``CHUKAN_CRASH_SEED`` repeats a run's moments; the seed is printed first.
"""

import asyncio
import sys
from typing import Any

import pytest

from chukan.tests.crash.customers import AIMS, Asked, gathered, lists
from chukan.tests.crash.evidence import judge, progress
from chukan.tests.crash.journal import Journal
from chukan.tests.crash.mayhem import Mayhem, plan
from chukan.tests.crash.officers import officers
from chukan.tests.crash.town import VICTIMS, Town

LINES, LIST = 10_000, 1000
KILLS, KILLS_MIN = 26, 20
LAST = 7_500
"""So many of the lines surely reach the network; some are closed by the inquirer's own side."""
pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.full]


def test_the_plan_follows_from_its_seed_and_spares_nobody(make_moments: Any) -> None:
    first, again, other = (plan(make_moments(seed).number, kills=KILLS, first=50, last=LAST) for seed in (1, 1, 2))
    assert first == again != other
    assert {kill.victim for kill in first} == set(VICTIMS)
    assert [kill.after for kill in first] == sorted(kill.after for kill in first)


async def test_ten_thousand_lines_survive_every_kill(here: Town, asked: Asked, journal: Journal, moments: Any) -> None:
    kills = plan(moments.number, kills=KILLS, first=50, last=LAST)
    asking_lists = lists(here, LINES // LIST, LIST, aims=AIMS | {"released", "refused"})
    assert sum(len(lines) for _, lines in asking_lists) == LINES
    over = asyncio.Event()
    async with progress(here) as network, officers(here):
        mayhem = Mayhem(here, network)
        killing = asyncio.create_task(mayhem.run(kills, over))
        asking = [asyncio.create_task(asked.ask(*one, timeout_s=20.0)) for one in asking_lists]
        try:
            await gathered(asking)
        finally:
            over.set()
            await killing
    verdict = await judge(here, asked, journal)
    sys.stderr.write(f"{len(mayhem.done)} kills; outcomes {verdict.outcomes()}; {verdict.report.amended} amended\n")
    assert len(mayhem.done) >= KILLS_MIN
    assert verdict.faults == []
    assert verdict.report.differences == []
    assert verdict.report.pending == 0
