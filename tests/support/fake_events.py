"""A service of events that lives in memory: tests put pages in, streams yield them."""

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Any

from chukan.errors import Problem
from chukan.platform.wire.events import EventPage
from chukan.tenants.directory import AgencyRow


@dataclass
class Events:
    """EventService in memory; None ends a stream."""

    calls: list[Any] = field(default_factory=list)
    pages: asyncio.Queue[EventPage | None] = field(default_factory=asyncio.Queue)
    fails_with: Problem | None = None
    open: int = 0

    async def follow(self, agency: AgencyRow, cursor: str | None) -> AsyncGenerator[EventPage, None]:
        self.calls.append(("follow", agency.code, cursor))
        return self._pages()

    async def _pages(self) -> AsyncGenerator[EventPage, None]:
        if self.fails_with is not None:
            raise self.fails_with
        self.open += 1
        try:
            yield EventPage(cursor="c0", events=[])
            while (page := await self.pages.get()) is not None:
                yield page
        finally:
            self.open -= 1
