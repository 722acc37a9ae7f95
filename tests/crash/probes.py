"""Probes: clients at a counter that never repeat anything, so that every request that fails is seen.

A probe asks one line at a time and waits for its answer. It uses the exchange of its agency's home while that one's
``/readyz`` says yes, and the other one as soon as it does not, as a body's device does with its route.
"""

import asyncio
import contextlib
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from typing import Final

import aiohttp

from chukan.ops.demo import cast
from chukan.ops.demo.bring_up import EXCHANGES
from chukan.ops.sandbox.agency_client import AgencyClient
from chukan.ops.sandbox.transport import ClientError
from chukan.platform.wire.agency import Queries, QueryLine
from chukan.tests.crash.customers import client_of, questions
from chukan.tests.crash.journal import Entry, Journal, Told, notes
from chukan.tests.crash.town import Town, wait

WAIT_S: Final = 10
END_S: Final = 60.0
_LOOK_S: Final = 0.1
_LOOK_TIMEOUT_S: Final = 1.0
_OK: Final = 200


class Switch:
    """Which exchanges say that they are ready; ``run`` looks until cancelled."""

    def __init__(self, town: Town) -> None:
        self._town = town
        self._news = asyncio.Condition()
        self.ready = dict.fromkeys(EXCHANGES, True)

    def choose(self, home: str | None) -> str:
        """Return the exchange to use, the one in the home centre where it is ready."""
        order = sorted(EXCHANGES, key=lambda name: (not self.ready[name], EXCHANGES[name] != home))
        return order[0]

    async def until(self, name: str, *, ready: bool) -> None:
        """Wait until an exchange says so."""
        async with asyncio.timeout(60), self._news:
            await self._news.wait_for(lambda: self.ready[name] is ready)

    async def run(self, name: str) -> None:
        """Look at one exchange until cancelled."""
        url = f"{self._town.addresses.health_url(name)}/readyz"
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_LOOK_TIMEOUT_S)) as session:
            while True:
                ready = False
                with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                    async with session.get(url) as reply:
                        ready = reply.status == _OK
                async with self._news:
                    self.ready[name] = ready
                    self._news.notify_all()
                await wait(_LOOK_S)


class Probe:
    """One counter of one agency."""

    def __init__(self, town: Town, agency: str, lines: Iterator[QueryLine]) -> None:
        self._agency, self._lines = agency, lines
        self._home = cast.home(agency)
        self._clients = {name: client_of(town, agency, [name]) for name in EXCHANGES}
        self.results: Counter[str] = Counter()
        self.told_to_end = False

    async def run(self, switch: Switch, journal: Journal) -> None:
        """Ask one line after the other until told to end, and end with an answer."""
        async with contextlib.AsyncExitStack() as stack:
            for client in self._clients.values():
                await stack.enter_async_context(client)
            for line in self._lines:
                if self.told_to_end:
                    return
                await self._ask(self._clients[switch.choose(self._home)], line, journal)

    async def _ask(self, client: AgencyClient, line: QueryLine, journal: Journal) -> None:
        key = str(uuid.uuid4())
        journal.write(Entry("sending", key, self._agency, count=1))
        try:
            batch = await client.query(Queries(lines=[line]), key=key, wait_s=WAIT_S)
        except ClientError as error:
            self.results[f"{error.status} {error.code}"] += 1
            return
        self.results["good"] += 1
        said = [Told(told.line, told.state, told.outcome, told.id) for told in notes(batch.lines)]
        journal.write(Entry("accepted", key, self._agency, batch=batch.batch, lines=said))


class Load:
    """Probes at work, and what came of their requests."""

    def __init__(self, switch: Switch, probes: list[Probe]) -> None:
        self.switch = switch
        self._probes = probes

    def results(self) -> Counter[str]:
        """Count requests by what came of them: ``good``, or status and code."""
        return sum((probe.results for probe in self._probes), Counter())

    async def until(self, good: int) -> None:
        """Wait until so many more requests were answered."""
        wanted = self.results()["good"] + good
        async with asyncio.timeout(60):
            while self.results()["good"] < wanted:
                await wait(_LOOK_S)


@contextlib.asynccontextmanager
async def load(town: Town, journal: Journal, probes: int) -> AsyncIterator[Load]:
    """Put so many probes to work for the time of a block, at agencies of both halves of the country."""
    switch = Switch(town)
    lines: dict[str, list[QueryLine]] = {}
    for count, (agency, line) in enumerate(questions(town, 11)):
        lines.setdefault(agency, []).append(line)
        if count >= 1000:
            break
    agencies = sorted(lines, key=lambda agency: -len(lines[agency]))[:probes]
    working = [Probe(town, agency, _endless(lines[agency])) for agency in agencies]
    looking = [asyncio.create_task(switch.run(name)) for name in EXCHANGES]
    asking = [asyncio.create_task(probe.run(switch, journal)) for probe in working]
    try:
        yield Load(switch, working)
        for probe in working:
            probe.told_to_end = True
        async with asyncio.timeout(END_S):
            await asyncio.gather(*asking)
    finally:
        for task in (*looking, *asking):
            task.cancel()
        await asyncio.gather(*looking, *asking, return_exceptions=True)


def _endless(lines: list[QueryLine]) -> Iterator[QueryLine]:
    while True:
        yield from lines
