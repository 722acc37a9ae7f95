"""Clients that ask through one exchange each, never retrying, and write down what they were told, and when."""

import asyncio
import itertools
import time
import uuid
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from chukan.errors import Problem
from chukan.ops.centres.running import CentresRunning
from chukan.ops.demo import cast
from chukan.ops.demo.bring_up import EXCHANGES
from chukan.ops.demo.questions import Planned
from chukan.ops.sandbox.agency_client import AgencyClient
from chukan.ops.sandbox.transport import ClientError, Connection
from chukan.platform.wire.agency import Queries

WAIT_S = 5
PAUSE_S = 0.1


@dataclass(frozen=True)
class Told:
    """One acknowledged query: when its acknowledgement came, who asked, and by what it is found again."""

    at: float
    agency: str
    batch: uuid.UUID


@dataclass
class Journal:
    """What the clients were told; ``failed`` counts refusals by code."""

    told: list[Told] = field(default_factory=list)
    failed: Counter[str] = field(default_factory=Counter)
    news: asyncio.Event = field(default_factory=asyncio.Event)

    def write(self, told: Told) -> None:
        self.told.append(told)
        self.news.set()

    async def more(self, count: int, home: str | None = None) -> None:
        """Wait until so many more were acknowledged, of agencies of one home if given."""
        goal = self._count(home) + count
        while self._count(home) < goal:
            self.news.clear()
            await self.news.wait()

    def _count(self, home: str | None) -> int:
        return sum(1 for told in self.told if home is None or cast.home(told.agency) == home)

    def gap_s(self, home: str, begun: float, ended: float) -> float:
        """Return the longest time without an acknowledgement of agencies of one home."""
        at = [begun, *(told.at for told in self.told if cast.home(told.agency) == home and told.at >= begun), ended]
        return max(later - earlier for earlier, later in itertools.pairwise(at))


def client(running: CentresRunning, agency: str, exchange: str) -> AgencyClient:
    issued = running.credentials.clients[cast.system_of(agency)]
    url = running.addresses.agency_url(exchange)
    trusted = running.credentials.authority.trusted
    return AgencyClient(Connection(agency, [url], trusted, issued.certificate, issued.key, timeout_s=15.0))


async def ask_while(running: CentresRunning, planned: Sequence[Planned], journal: Journal, done: asyncio.Event) -> None:
    """Ask through both exchanges for agencies of both homes until ``done``, each query once."""
    groups = [(name, home) for name in EXCHANGES for home in EXCHANGES.values()]
    shares = [[query for query in planned if cast.home(query.inquirer) == home] for _, home in groups]
    halves = [share[number // 2 :: 2] for number, share in enumerate(shares)]
    works = (_ask_all(running, name, share, journal, done) for (name, _), share in zip(groups, halves, strict=True))
    await asyncio.gather(*works)


async def _ask_all(
    running: CentresRunning, exchange: str, planned: Sequence[Planned], journal: Journal, done: asyncio.Event
) -> None:
    clients: dict[str, AgencyClient] = {}
    try:
        number = 0
        while not done.is_set():
            query = planned[number % len(planned)]
            number += 1
            one = clients.setdefault(query.inquirer, client(running, query.inquirer, exchange))
            try:
                batch = await one.query(Queries(lines=[query.line], collect=False))
                journal.write(Told(time.monotonic(), query.inquirer, batch.batch))
            except ClientError as error:
                journal.failed[error.code] += 1
            except (Problem, OSError, TimeoutError) as error:
                journal.failed[type(error).__name__] += 1
            with suppress(TimeoutError):
                async with asyncio.timeout(PAUSE_S):
                    await done.wait()
    finally:
        await asyncio.gather(*(each.close() for each in clients.values()))


async def look_again(running: CentresRunning, journal: Journal) -> Counter[str]:
    """Ask for every acknowledged query once more; returns how many have which outcome, ``lost`` for none at all."""
    outcomes: Counter[str] = Counter()
    clients: dict[str, AgencyClient] = {}
    try:
        for told in journal.told:
            exchange = next(iter(EXCHANGES))
            one = clients.setdefault(told.agency, client(running, told.agency, exchange))
            try:
                batch = await one.view(told.batch, wait_s=WAIT_S)
                outcomes[batch.lines[0].outcome or "open"] += 1
            except ClientError as error:
                outcomes["lost" if error.code == "not_found" else error.code] += 1
    finally:
        await asyncio.gather(*(each.close() for each in clients.values()))
    return outcomes
