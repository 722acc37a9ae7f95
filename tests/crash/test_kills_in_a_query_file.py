"""kill -9 of exchanges, databases and the network at seeded moments while a query file of 10,000 lines is on its way.

The file is cut off while it is sent, its exchanges are closed under kills, its result is fetched under kills; meanwhile
agencies of both cells ask by list. ``CHUKAN_CRASH_SEED`` repeats a run's moments; the seed is printed first.
"""

import asyncio
import contextlib
import itertools
import sys
from collections.abc import AsyncIterator
from collections.abc import Set as AbstractSet
from typing import Any, Final

import pytest

from chukan.clock import JST, SystemClock
from chukan.ops.demo import cast
from chukan.ops.demo.bring_up import EXCHANGES
from chukan.platform.wire.agency import QueryLine
from chukan.tests.crash import layout
from chukan.tests.crash.customers import AIMS, Asked, gathered, lists, questions
from chukan.tests.crash.evidence import Count, judge, progress
from chukan.tests.crash.file_customer import FileCustomer, ToSend
from chukan.tests.crash.journal import Journal
from chukan.tests.crash.logs import complaints, named
from chukan.tests.crash.mayhem import Kill, Mayhem, plan
from chukan.tests.crash.officers import officers
from chukan.tests.crash.town import VICTIMS, Town

LINES = 10_000
DRAWN = 3000
"""Queries from which the file's are taken; after the last one they come again."""
HELD: Final = frozenset({"released", "refused"})
HELD_DRAWN = 200
KILLS_MIN, KILLS_MAX = 20, 40
PAUSE_MAX = 20
"""Exchanges closed at the network between two kills."""
EARLY_MAX = 50
RESULT_KILLS, RESULT_PAUSE_MAX = 3, 2000
LIST, LISTS_MAX, LISTERS = 40, 200, 2
Moments = Any


def test_the_plan_follows_from_its_seed_and_spares_nobody(make_moments: Any) -> None:
    first, again, other = (plan(make_moments(seed).number, kills=22, pause_max=PAUSE_MAX) for seed in (1, 1, 2))
    assert first == again != other
    for start in range(0, 20, len(VICTIMS)):
        assert {kill.victim for kill in first[start : start + len(VICTIMS)]} == set(VICTIMS)
    assert {kill.stays_away for kill in first} == {True, False}
    assert all(1 <= kill.after <= PAUSE_MAX for kill in first)


def _drawn(here: Town, aims: AbstractSet[str], count: int) -> dict[str, list[QueryLine]]:
    drawn: dict[str, list[QueryLine]] = {}
    for agency, line in itertools.islice(questions(here, 0, aims), count):
        drawn.setdefault(agency, []).append(line)
    return drawn


def _file(here: Town, moments: Moments) -> ToSend:
    """Write a file of an agency of one of the two cells, in one of the two charsets."""
    drawn = _drawn(here, AIMS, DRAWN)
    busiest = sorted(drawn, key=lambda agency: -len(drawn[agency]))
    agency = moments.one_of([next(one for one in busiest if cast.home(one) == home) for home in EXCHANGES.values()])
    charset = moments.one_of(layout.CHARSETS)
    lines = list(itertools.islice(itertools.cycle(drawn[agency]), LINES))
    # An officer decides one line after the other: only some of the lines wait for one, evenly among the others.
    held = _drawn(here, HELD, HELD_DRAWN).get(agency, [])
    for n, line in enumerate(held):
        lines[n * LINES // len(held)] = line
    path = here.root / "P640R110_20261123093000_0001.DAT"
    path.write_bytes(layout.written(lines, agency, charset, SystemClock().now().astimezone(JST)))
    return ToSend(agency, path.name, path, charset, LINES)


def _kills(moments: Moments, file: ToSend) -> list[Kill]:
    """Begin with the exchange that the file is being sent to, when its first lines are already closed."""
    first = next(name for name, centre in EXCHANGES.items() if centre == cast.home(file.agency))
    return [
        Kill(moments.number(1, EARLY_MAX), first, stays_away=True),
        *plan(moments.number, kills=KILLS_MAX - 1, pause_max=PAUSE_MAX),
    ]


@contextlib.asynccontextmanager
async def _listers(here: Town, asked: Asked, agency: str) -> AsyncIterator[None]:
    """Have others ask by list, one after the other, for the time of a block."""
    supply = iter([one for one in lists(here, LISTS_MAX, LIST, run=50) if one[0] != agency])
    over = asyncio.Event()

    async def customer() -> str:
        for one in supply:
            await asked.ask(*one, timeout_s=20.0)
            if over.is_set():
                break
        return "done"

    asking = asyncio.gather(*(customer() for _ in range(LISTERS)))
    try:
        yield
        over.set()
        await asking
    finally:
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)


async def _asked_under_kills(here: Town, customer: FileCustomer, kills: list[Kill], moments: Moments) -> Mayhem:
    """Send, follow and fetch; return what was killed meanwhile."""
    mayhem = Mayhem(here)
    async with progress(here) as network:
        killing = asyncio.create_task(mayhem.run(kills, network, "lines"))
        try:
            sent = await customer.send()
            sys.stderr.write(f"    the file is through after {len(mayhem.done)} kills, {dict(customer.cuts)}\n")
            await customer.follow(sent)
            await network.end()
            await killing
        finally:
            killing.cancel()
            await asyncio.gather(killing, return_exceptions=True)
    sys.stderr.write(f"    every line has its outcome after {len(mayhem.done)} kills\n")
    assert len(mayhem.done) >= KILLS_MIN
    rows = Count()
    late = plan(moments.number, kills=RESULT_KILLS, pause_max=RESULT_PAUSE_MAX)

    async def fetch() -> str:
        await customer.fetch(sent, rows)
        await rows.end()
        return "done"

    await gathered([asyncio.create_task(fetch()), asyncio.create_task(mayhem.run(late, rows, "rows"))])
    return mayhem


@pytest.mark.full
@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.requirement("TXR-03", "CON-03")
async def test_ten_thousand_lines_of_a_file_survive_every_kill(
    here: Town, asked: Asked, journal: Journal, moments: Moments
) -> None:
    file = _file(here, moments)
    customer = FileCustomer(here, journal, file)
    started = asyncio.get_running_loop().time()
    async with officers(here), _listers(here, asked, file.agency):
        mayhem = await _asked_under_kills(here, customer, _kills(moments, file), moments)
    seconds = asyncio.get_running_loop().time() - started
    await customer.again()
    verdict = await judge(here, asked, journal)
    sys.stderr.write(
        f"{file.lines} lines in {file.charset} and {len(asked.bodies)} lists of {LIST}, {len(mayhem.done)} kills, "
        f"{seconds:.0f} s; cut off {dict(customer.cuts)}; {verdict.outcomes()}; {verdict.report.amended} amended; "
        f"{len(verdict.faults)} faults, {len(verdict.report.differences)} differences\n"
    )
    assert verdict.faults == []
    assert verdict.report.differences == []
    assert verdict.report.pending == 0
    assert verdict.report.agreed == verdict.report.exchanges > LINES // 2
    assert sum(customer.cuts[f"send {code}"] for code in ("unreachable", "no_primary", "unavailable")) > 0
    assert named(here) == []
    assert complaints(here) == []
