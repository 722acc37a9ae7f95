"""Reads what all parties hold when a crash test is over, and watches how far the network has come meanwhile.

Agencies are read through the agency API as they would read themselves, the national counterparts and the network from
their own endpoints. A record is visible once it has its place in its agency's log, so reading waits, within a bound,
until ``chukan reconcile`` finds nothing on its way any more.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Final, NamedTuple

import aiohttp
import msgspec

from chukan.clock import SystemClock
from chukan.ops.reconcile import Report, reconcile
from chukan.ops.sandbox.admin import State
from chukan.ops.sandbox.agency_client import AgencyClient
from chukan.ops.sandbox.parties import read_counterparts, read_network
from chukan.platform.wire.agency import Record
from chukan.platform.wire.network import LINES_MAX
from chukan.tests.crash.checker import Evidence, Fault, check
from chukan.tests.crash.customers import Asked
from chukan.tests.crash.journal import Journal, Told, notes
from chukan.tests.crash.town import Town, wait

SETTLE_S: Final = 120.0
REACH_S: Final = 900.0
PASSING: Final = frozenset({"open", "not_recorded", "outcome_differs"})
"""Faults that may only be something still on its way."""
_LOOK_S: Final = 0.5
_WATCH_S: Final = 0.1
_READ_S: Final = 5.0


class Verdict(NamedTuple):
    """What came of a crash test."""

    faults: list[Fault]
    report: Report
    evidence: Evidence

    def outcomes(self) -> dict[str, int]:
        """How many lines have which outcome."""
        counts: dict[str, int] = {}
        for told in (told for here in self.evidence.views.values() for told in here):
            counts[told.outcome or told.state] = counts.get(told.outcome or told.state, 0) + 1
        return dict(sorted(counts.items()))


async def judge(town: Town, asked: Asked, journal: Journal, settle_s: float = SETTLE_S) -> Verdict:
    """Ask everything once more by its key, read all parties, and judge; what is on its way gets ``settle_s``."""
    await asked.again()
    told = journal.read()
    deadline = asyncio.get_running_loop().time() + settle_s
    while True:
        evidence = await _read(town, {entry.agency for entry in told})
        report = reconcile(evidence.records, evidence.network, as_of=SystemClock().now())
        faults = check(told, evidence)
        waiting = bool(report.pending or report.differences) or any(fault.kind in PASSING for fault in faults)
        if not waiting or asyncio.get_running_loop().time() >= deadline:
            return Verdict(faults, report, evidence)
        await wait(_LOOK_S)


async def _read(town: Town, asking: Iterable[str]) -> Evidence:
    agencies = town.systems.agencies
    views = {agency: await _lines(agencies[agency]) for agency in asking}
    records: dict[str, Sequence[Record]] = {code: await client.all_records() for code, client in agencies.items()}
    records.update(await read_counterparts(town.addresses.counterparts_admin_url))
    return Evidence(views, records, await read_network(town.addresses.network_admin_url))


async def _lines(client: AgencyClient) -> list[Told]:
    """Return every line that an agency has ever asked, as it stands."""
    found: list[Told] = []
    after: str | None = None
    while True:
        page = await client.queries(after=after, limit=LINES_MAX)
        found += notes(page.lines)
        if page.next is None:
            return found
        after = page.next


class Count:
    """A number that grows; ``reach`` waits for it, ``end`` lets nobody wait any longer."""

    def __init__(self) -> None:
        self._news = asyncio.Condition()
        self._over = False
        self.number = 0

    async def reach(self, number: int) -> bool:
        """Return True once it is so high; False when it will not grow any more."""
        async with asyncio.timeout(REACH_S), self._news:
            await self._news.wait_for(lambda: self._over or self.number >= number)
            return not self._over

    async def more(self, by: int) -> None:
        """Let it grow."""
        await self.set(self.number + by)

    async def set(self, number: int) -> None:
        """Say how high it is."""
        async with self._news:
            self.number = number
            self._news.notify_all()

    async def end(self) -> None:
        """Say that it will not grow any more."""
        async with self._news:
            self._over = True
            self._news.notify_all()


class Progress(Count):
    """How many exchanges the network has closed since it was made."""

    def __init__(self, town: Town) -> None:
        super().__init__()
        self._url = f"{town.addresses.network_admin_url}/admin/state"
        self._before: int | None = None

    async def watch(self) -> None:
        """Look until cancelled; while the network is away nothing becomes known."""
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_READ_S)) as session:
            while True:
                with contextlib.suppress(aiohttp.ClientError, TimeoutError, msgspec.MsgspecError):
                    async with session.get(self._url) as reply:
                        await self._note(msgspec.json.decode(await reply.read(), type=State))
                await wait(_WATCH_S)

    async def _note(self, state: State) -> None:
        closed = sum(count for outcome, count in state.exchanges.items() if outcome != "open")
        if self._before is None:
            self._before = closed
        await self.set(closed - self._before)


@contextlib.asynccontextmanager
async def progress(town: Town) -> AsyncIterator[Progress]:
    """Watch the network's progress for the time of a block."""
    watched = Progress(town)
    task = asyncio.create_task(watched.watch())
    try:
        await watched.reach(0)
        yield watched
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
