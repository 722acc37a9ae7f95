"""Set functions of link changes (付替・統合・疑義): one officer proposes, another confirms; sets of one agency.

A proposal suspends the links that it touches in its own commit, a confirmation moves the code in its own. Neither may
ever leave a link active between the two. What is under way for the persons is found by ``open_lines``.
"""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass

from chukan.tenants.sets.common import SetCaller, columns, same_length
from chukan.tenants.states import InquiryState


@dataclass(frozen=True, slots=True)
class Proposal:
    """One proposed change of a link."""

    id: uuid.UUID
    act: str
    """``relink``, ``merge``, ``doubt`` (疑義: suspend only) or ``reinstate``."""
    person: bytes
    target: bytes | None
    body: bytes
    """Keyed digest of what must be the same when it comes again."""
    detail: bytes
    """Sealed."""
    target_addressee: bytes | None
    """Sealed addressee number of the target."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What another officer decided about a change."""

    id: uuid.UUID
    apply: bool
    request: uuid.UUID
    """For the acquisition that is open for a number that lost its code."""


class CodeChangeSets(SetCaller):
    """Set functions that change links on officers' words."""

    async def propose_changes(self, agency: int, generation: int, officer: str, rows: Sequence[Proposal]) -> list[str]:
        """Propose changes; a word a row: ``open``, ``repeat``, ``reused``, ``no_link``, ``pending``, ``conflict``."""
        if not rows:
            return []
        given = columns(rows, "id", "act", "person", "target", "body", "detail", "target_addressee")
        return same_length(await self._words("propose_changes", agency, generation, officer, *given), rows)

    async def decide_changes(self, agency: int, generation: int, officer: str, rows: Sequence[Decision]) -> list[str]:
        """Decide about changes; a word a row.

        ``applied``, ``withdrawn``; ``late`` (decided otherwise), ``same_officer``, ``not_found``, ``changed`` (a link
        is not as it was when the change was proposed).
        """
        if not rows:
            return []
        given = columns(rows, "id", "apply", "request")
        return same_length(await self._words("decide_changes", agency, generation, officer, *given), rows)

    async def open_lines(
        self, agency: int, persons: Sequence[bytes], *, limit: int = 1000
    ) -> list[tuple[uuid.UUID, InquiryState]]:
        """Return the agency's query lines that are under way for these persons, at most ``limit``."""
        rows = await self._call("open_lines", agency, list(persons), limit)
        return [(row["id"], InquiryState(row["state"])) for row in rows]
