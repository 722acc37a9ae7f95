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
from chukan.tests.crash.logs import complaints, named
from chukan.tests.crash.mayhem import Mayhem, plan
from chukan.tests.crash.officers import officers
from chukan.tests.crash.town import VICTIMS, Town

LINES, LIST, LISTS_MAX = 10_000, 1000, 30
AT_ONCE = 5
"""Customers, each with a list on its way."""
KILLS, PAUSE_MAX = 26, 350


def test_the_plan_follows_from_its_seed_and_spares_nobody(make_moments: Any) -> None:
    first, again, other = (plan(make_moments(seed).number, kills=KILLS, pause_max=PAUSE_MAX) for seed in (1, 1, 2))
    assert first == again != other
    assert {kill.victim for kill in first} == set(VICTIMS)
    assert {kill.stays_away for kill in first} == {True, False}
    assert all(1 <= kill.after <= PAUSE_MAX for kill in first)


@pytest.mark.full
@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.requirement("TXR-03")
async def test_ten_thousand_lines_survive_every_kill(here: Town, asked: Asked, journal: Journal, moments: Any) -> None:
    kills = plan(moments.number, kills=KILLS, pause_max=PAUSE_MAX)
    supply = iter(enumerate(lists(here, LISTS_MAX, LIST, aims=AIMS | {"released", "refused"}), start=1))
    async with progress(here) as network, officers(here):
        mayhem = Mayhem(here, network)

        async def customer() -> str:
            """Send lists until all lines were sent and all kills are done."""
            for number, one in supply:
                await asked.ask(*one, timeout_s=20.0)
                if mayhem.finished and number >= LINES // LIST:
                    break
            return "done"

        killing = asyncio.create_task(mayhem.run(kills))
        try:
            await gathered([asyncio.create_task(customer()) for _ in range(AT_ONCE)])
            await killing
        finally:
            killing.cancel()
            await asyncio.gather(killing, return_exceptions=True)
    verdict = await judge(here, asked, journal)
    sys.stderr.write(
        f"{len(asked.bodies)} lists, {len(mayhem.done)} kills; {verdict.outcomes()}; {verdict.report.amended} amended\n"
    )
    assert len(mayhem.done) == KILLS
    assert len(asked.bodies) * LIST >= LINES
    assert verdict.faults == []
    assert verdict.report.differences == []
    assert verdict.report.agreed == verdict.report.exchanges > LINES // 2
    assert named(here) == []
    assert complaints(here) == []
