"""Streams of events of an agency's own lines: what happened since, then what happens, in pages as they come.

A stream looks when this process committed something for the agency, when another one hinted that it did, and once a
second by itself. It ends by itself after an hour, so that nobody lives for ever on one connection; the reader comes
back with its cursor and misses nothing (``tenants.events`` says how).

Invariant: streams are few (``PER_AGENCY_MAX``, ``STREAMS_MAX``) and hold one page each; none holds a transaction open.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, aclosing
from typing import Final

from chukan.errors import Problem
from chukan.platform.exchange.context import Context
from chukan.platform.exchange.waiters import Waiters
from chukan.platform.wire.events import EventPage, LineEvent
from chukan.tenants import events
from chukan.tenants.directory import AgencyRow
from chukan.tenants.partition import Partition
from chukan.tenants.states import InquiryState, ProvisionState, Side

PER_AGENCY_MAX: Final = 4
STREAMS_MAX: Final = 128
HEARTBEAT_S: Final = 15.0
"""A stream says something at least this often, so that a dead connection is found out by both ends."""
LIFE_S: Final = 3600.0

Door = Callable[[AgencyRow], AbstractAsyncContextManager[Partition]]


class EventStreams:
    """Implements ``services.EventService``."""

    def __init__(self, context: Context, waiters: Waiters, door: Door) -> None:
        self._context = context
        self._waiters = waiters
        self._door = door
        self._open: Counter[int] = Counter()

    async def follow(self, agency: AgencyRow, cursor: str | None) -> AsyncGenerator[EventPage, None]:
        """Return pages of events behind a cursor, or from now on; an empty page is a heartbeat.

        Raises:
            Problem: invalid_field for what is no cursor; with the first page rate_limited, when the agency or all
                agencies together have too many.
        """
        given = None if cursor is None else events.parse_cursor(cursor)
        return self._counted(agency, given)

    async def _counted(self, agency: AgencyRow, given: events.Cursor | None) -> AsyncGenerator[EventPage, None]:
        if self._open[agency.number] >= PER_AGENCY_MAX or self._open.total() >= STREAMS_MAX:
            raise Problem("rate_limited", retry_after_s=5, limit=PER_AGENCY_MAX)
        self._open[agency.number] += 1
        try:
            async with aclosing(self._pages(agency, given)) as pages:
                async for page in pages:
                    yield page
        finally:
            self._open[agency.number] -= 1
            self._open += Counter()  # forgets the agencies that have none

    async def _pages(self, agency: AgencyRow, given: events.Cursor | None) -> AsyncGenerator[EventPage, None]:
        clock = self._context.clock
        reset = given is not None and given.generation != agency.generation
        if given is None or reset:
            async with self._door(agency) as partition:
                place = await events.start(partition, agency.generation)
        else:
            place = given
        yield EventPage(cursor=str(place), reset=reset, events=[])
        ends_at = clock.monotonic() + LIFE_S
        mark: events.Mark | None = None
        while clock.monotonic() < ends_at:
            page = await self._next(agency, place, mark)
            place, mark = page.cursor, page.mark
            yield EventPage(cursor=str(place), events=[_view(event) for event in page.events])

    async def _next(self, agency: AgencyRow, place: events.Cursor, mark: events.Mark | None) -> events.Page:
        """Return the next page that holds something, or an empty one when the heartbeat is due."""
        last = (place, mark)

        async def look() -> tuple[bool, events.Page]:
            nonlocal last
            async with self._door(agency) as partition:
                page = await events.read(partition, *last)
            last = (page.cursor, page.mark)
            return bool(page.events), page

        return await self._waiters.until(agency.cell, agency.number, look, HEARTBEAT_S)


def _view(event: events.Event) -> LineEvent:
    side = Side(event.side)
    states = InquiryState if side is Side.INQUIRER else ProvisionState
    return LineEvent(
        n=event.n,
        id=event.id,
        side="inquirer" if side is Side.INQUIRER else "provider",
        state=states(event.after).name.lower(),
        before=None if event.before is None else states(event.before).name.lower(),
        at=event.at,
    )
