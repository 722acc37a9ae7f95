"""Business systems as clients: they ask, come back when told or cut off, and journal every word that they get.

A ``Customer`` behaves as a real system does: on a broken connection, a timeout or a 5xx it sends the same bytes with
the same Idempotency-Key again, to the other exchange where the first one does not answer. Each reply is in the journal,
on disk, before the next request leaves.
"""

import asyncio
import contextlib
import uuid
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from typing import Final

from chukan.ops.demo import cast
from chukan.ops.demo.bring_up import EXCHANGES
from chukan.ops.demo.questions import plan
from chukan.ops.sandbox.agency_client import AgencyClient
from chukan.ops.sandbox.transport import Connection
from chukan.platform.wire.agency import Batch, Queries, QueryLine
from chukan.tests.crash.journal import Entry, Journal, Told, notes
from chukan.tests.crash.town import Town

RETRY_S: Final = 600.0
"""How long a customer comes back; far longer than any outage of a test."""
SETTLE_S: Final = 900.0
POLL_S: Final = 2
AIMS: Final = frozenset({"answered", "no_record", "no_code", "not_permitted", "stopped", "bad_request"})
"""What is asked: everything that ends by itself, without an officer."""


def client_of(town: Town, agency: str, exchanges: Sequence[str] = (), *, timeout_s: float = 60.0) -> AgencyClient:
    """Return a client of an agency's system for these exchanges, by default for both with the home's first."""
    urls = [town.addresses.agency_url(name) for name in exchanges]
    if not urls:
        home = town.addresses.home_url(agency)
        urls = [home, *(url for url in map(town.addresses.agency_url, EXCHANGES) if url != home)]
    issued = town.credentials.clients[cast.system_of(agency)]
    connection = Connection(
        agency=agency,
        urls=urls,
        ca=town.credentials.authority.trusted,
        certificate=issued.certificate,
        key=issued.key,
        # A client of one exchange is a probe: it takes the first answer, whatever that is.
        retry_s=0.0 if exchanges else RETRY_S,
        timeout_s=timeout_s,
    )
    return AgencyClient(connection)


def questions(town: Town, run: int, aims: AbstractSet[str] = AIMS) -> Iterator[tuple[str, QueryLine]]:
    """Yield (inquirer, line) without end, a bit of everything in every stretch."""
    while True:
        for planned in plan(town.population, town.law, 1000, run):
            if planned.aim in aims:
                yield planned.inquirer, planned.line
        run += 1


def lists(
    town: Town, count: int, size: int, run: int = 0, aims: AbstractSet[str] = AIMS
) -> list[tuple[str, list[QueryLine]]]:
    """Return ``count`` lists of ``size`` lines, each of one inquirer; the busiest inquirers come first."""
    piles: dict[str, list[QueryLine]] = {}
    for asked, (agency, line) in enumerate(questions(town, run, aims)):
        piles.setdefault(agency, []).append(line)
        if asked % 1000 == 0 and sum(len(pile) // size for pile in piles.values()) >= count:
            break
    whole = [
        (agency, pile[start : start + size])
        for agency, pile in sorted(piles.items(), key=lambda one: -len(one[1]))
        for start in range(0, len(pile) - size + 1, size)
    ]
    return whole[:count]


class Customer:
    """One system of one agency; send its lists one after the other with ``ask``, or several customers at once."""

    def __init__(self, client: AgencyClient, journal: Journal) -> None:
        self._client = client
        self._journal = journal

    async def ask(self, lines: Sequence[QueryLine]) -> str:
        """Send a list, follow it until every line is final, collect; returns its key."""
        body = Queries(lines=list(lines))
        key = str(uuid.uuid4())
        self._note("sending", key, count=len(body.lines))
        batch = await self._client.query(body, key=key)
        self._note("accepted", key, batch)
        await self._follow(key, batch)
        await self._collect(key, batch)
        return key

    async def _follow(self, key: str, batch: Batch) -> None:
        known: dict[int, Told] = {}
        async with asyncio.timeout(SETTLE_S):
            latest = notes(batch.lines)
            while not all(told.final for told in latest):
                view = await self._client.view(batch.batch, wait_s=POLL_S)
                latest = notes(view.lines)
                news = [told for told in latest if told.final and known.get(told.line) != told]
                known.update((told.line, told) for told in news)
                if news:
                    self._journal.write(Entry("told", key, self._client.agency, batch=batch.batch, lines=news))

    async def _collect(self, key: str, batch: Batch) -> None:
        self._note("collected", key, await self._client.collect(batch.batch))

    def _note(self, event: str, key: str, batch: Batch | None = None, count: int = 0) -> None:
        given = {} if batch is None else {"batch": batch.batch, "lines": notes(batch.lines)}
        self._journal.write(Entry(event, key, self._client.agency, count=count, **given))  # type: ignore[arg-type]


class Asked:
    """Lists that were sent, with their bodies, so that they can be sent again."""

    def __init__(self, town: Town, journal: Journal) -> None:
        self._town = town
        self._journal = journal
        self.bodies: dict[str, tuple[str, Sequence[QueryLine]]] = {}

    async def ask(self, agency: str, lines: Sequence[QueryLine], *, timeout_s: float = 60.0) -> str:
        """Ask one list to its end."""
        async with client_of(self._town, agency, timeout_s=timeout_s) as client:
            key = await Customer(client, self._journal).ask(lines)
        self.bodies[key] = (agency, lines)
        return key

    async def again(self) -> None:
        """Send every list once more with its key: the same batch and the same lines must come back (journalled)."""
        for key, (agency, lines) in self.bodies.items():
            batch = await self._town.systems.agencies[agency].query(Queries(lines=list(lines)), key=key)
            said = [Told(told.line, told.state, told.outcome, told.id) for told in notes(batch.lines)]
            self._journal.write(Entry("accepted", key, agency, batch=batch.batch, lines=said))


async def gathered(work: Sequence[asyncio.Task[str]]) -> list[str]:
    """Wait for all customers; the first failure ends the others and is raised."""
    try:
        return list(await asyncio.gather(*work))
    finally:
        for task in work:
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(*work, return_exceptions=True)
