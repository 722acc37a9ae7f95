"""Reads what all parties hold when a drill is over: agencies through the public API as they would themselves.

What is still on its way gets a bounded time: a line closes by its own deadline at the latest, and a record is shown
once it has its place in its agency's log.
"""

import asyncio
import datetime as dt
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Final, Self, TypeVar

from chukan.chance import make_uuid7
from chukan.ops.drills.checkers.every import all_faults
from chukan.ops.drills.facts import Evidence, Exchanged, Recorded
from chukan.ops.drills.journal import Account, Line
from chukan.ops.drills.ports import Installation
from chukan.ops.drills.probing import Prober
from chukan.ops.drills.restored import Restored, gone
from chukan.ops.sandbox.agency_client import AgencyClient
from chukan.ops.sandbox.transport import ClientError, Connection
from chukan.platform.wire.agency import Record
from chukan.platform.wire.network import LINES_MAX

PAGES_MAX: Final = 10_000
LOOK_S: Final = 1.0
RETRY_S: Final = 60.0
CALL_S: Final = 15.0
PASSING: Final = frozenset({
    "query_never_closed", "no_record_at_inquirer", "no_record_at_provider", "no_record_at_network",
    "record_tells_another_outcome", "sides_tell_different_outcomes",
})  # fmt: skip
"""Faults that may only be something still on its way."""

T = TypeVar("T")


class Reader:
    """Reads for one drill; ``async with``."""

    def __init__(self, installation: Installation, agencies: Sequence[str], since: dt.datetime) -> None:
        """``since``: the instant at which the drill began; what is older is not looked at."""
        self._installation, self._agencies, self._since = installation, agencies, since
        self._stack = AsyncExitStack()
        self._clients: dict[str, AgencyClient] = {}
        self._places: dict[str, str | None] = {}

    async def __aenter__(self) -> Self:
        for agency in self._agencies:
            self._clients[agency] = await self._stack.enter_async_context(AgencyClient(self._connection(agency)))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    def _connection(self, agency: str) -> Connection:
        """All exchanges, and patience: when a drill is over, a reader may repeat."""
        found = [self._installation.connection(agency, name) for name in self._installation.exchanges()]
        first = found[0]
        urls = list(dict.fromkeys(connection.urls[0] for connection in found))
        return Connection(
            first.agency, urls, first.ca, first.certificate, first.key, RETRY_S, CALL_S, namespace=first.namespace
        )

    async def mark_places(self) -> None:
        """Note how far each agency's log goes now, so that only what comes after is read. Raises ``Problem``."""
        for agency, client in self._clients.items():
            after: str | None = None
            for _ in range(PAGES_MAX):
                page = await _told(client.records(after=after, limit=LINES_MAX))
                if page.next is None:
                    break
                after = page.next
            self._places[agency] = after

    async def read(self, probers: Mapping[str, Prober]) -> Evidence:
        """Read everything once. Raises ``Problem``."""
        lines = {agency: await self._lines(agency) for agency in self._agencies}
        records = {agency: await self._records(agency) for agency in self._agencies}
        copies: dict[str, dict[str, str]] = {}
        for prober in probers.values():
            copies.update(await prober.final_copies())
        return Evidence(lines, records, await self._network(), copies)

    async def settled(
        self,
        accounts: Sequence[Account],
        probers: Mapping[str, Prober],
        timeout_s: float,
        say: Callable[[str], None],
        restored: Restored | None = None,
    ) -> Evidence:
        """Read until nothing is on its way any more, or as it stands at the end of the time. Raises ``Problem``."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        while True:
            evidence = await self.read(probers)
            faults = all_faults(accounts, evidence, frozenset(), restored)
            waiting = [fault for fault in faults if fault.kind in PASSING]
            nobody = gone(accounts, evidence, restored) if restored is not None else {}
            open_here = [one for one in evidence.network if one.outcome is None and one.request not in nobody]
            if not (waiting or open_here) or loop.time() >= deadline:
                return evidence
            say(f"{len(waiting)} lines and records are still on their way")
            await asyncio.sleep(LOOK_S)

    async def shown(self, agency: str) -> set[uuid.UUID]:
        """Return the lines of an agency whose records have their place. Raises ``Problem``."""
        return {record.id for record in await self._records(agency)}

    async def _lines(self, agency: str) -> list[Line]:
        found: list[Line] = []
        after: str | None = str(make_uuid7(self._since, bytes(10)))
        for _ in range(PAGES_MAX):
            page = await _told(self._clients[agency].queries(after=after, limit=LINES_MAX))
            found += [Line(view.id, view.state, view.outcome) for view in page.lines if view.id is not None]
            after = page.next
            if after is None:
                break
        return found

    async def _records(self, agency: str) -> list[Recorded]:
        found: list[Record] = []
        after = self._places.get(agency)
        for _ in range(PAGES_MAX):
            page = await _told(self._clients[agency].records(after=after, limit=LINES_MAX))
            found += page.records
            after = page.next
            if after is None:
                break
        return [
            Recorded(one.id, one.side, one.outcome, one.reference or "", one.amends,
                     -1 if one.position is None else one.position)
            for one in found
            if one.asked_at >= self._since
        ]  # fmt: skip

    async def _network(self) -> list[Exchanged]:
        ours = set(self._agencies)
        return [
            Exchanged(one.request, str(one.reference), one.inquirer, one.provider, one.outcome,
                      one.expires_at is not None and (one.notified_at is not None or one.outcome != "expired"))
            for one in await self._installation.network_records()
            if one.asked_at >= self._since and one.inquirer in ours
        ]  # fmt: skip


async def contents(probers: Mapping[str, Prober], accounts: Sequence[Account], most: int) -> list[Line]:
    """Collect the newest lines of every client once more, at most ``most`` of each."""

    async def of(account: Account) -> list[Line]:
        lines = [line for entry in account.of("told") if entry.act == "query" for line in entry.lines][-most:]
        again = [await probers[account.client.name].contents(line) for line in lines]
        return [line for line in again if line is not None]

    return [line for lines in await asyncio.gather(*map(of, accounts)) for line in lines]


async def _told(call: Awaitable[T]) -> T:
    """Return what was told. Raises the ``Problem`` that an exchange told instead."""
    try:
        return await call
    except ClientError as error:
        raise error.as_problem() from None
