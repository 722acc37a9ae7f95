"""Set functions of requests to acquire a code (符号取得の依頼): taken, decided, and purged when their time is over.

The four facts of a person are seen here only sealed. Nothing here must ever keep one beyond its time: ``purge`` is
told the instant by the caller's clock and deletes what is older, whatever became of it.
"""

import datetime as dt
import uuid
from collections.abc import Sequence
from dataclasses import dataclass

from chukan.tenants.sets.common import SetCaller, columns, same_length


@dataclass(frozen=True, slots=True)
class AskRow:
    """One request as the network pushed it."""

    agency: int
    inbox: uuid.UUID
    id: uuid.UUID
    sealed: bytes
    received_at: dt.datetime


class AskSets(SetCaller):
    """Set functions of ``acquisition_asks``."""

    async def put_acquisition_asks(self, rows: Sequence[AskRow]) -> list[str]:
        """Store requests with their inbox keys: ``stored`` or ``repeat``."""
        if not rows:
            return []
        given = columns(rows, "agency", "inbox", "id", "sealed", "received_at")
        return same_length(await self._words("put_acquisition_asks", *given), rows)

    async def decide_acquisition_ask(
        self, agency: int, generation: int, ask: uuid.UUID, word: str, officer: str, at: dt.datetime
    ) -> str:
        """Say what became of a request: the word itself, ``late`` or ``not_found``."""
        return (await self._words("decide_acquisition_ask", agency, generation, ask, word, officer, at))[0]

    async def purge_acquisition_asks(
        self, after: int, before: dt.datetime, *, agencies: int = 50, limit: int = 1000
    ) -> tuple[int, int]:
        """Delete requests received before an instant at the next agencies; where to go on (0 at the end), how many."""
        (row,) = await self._call("purge_acquisition_asks", after, before, agencies, limit)
        return row["next"] or 0, row["gone"]
