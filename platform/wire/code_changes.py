"""Repair of links on the agency's wire (符号の紐付け変更・統合・確認): proposals by one officer, decisions by another.

Addressee numbers travel in bodies only; a linkage code is in none of these messages.
"""

from __future__ import annotations

import uuid
from typing import Annotated, Final, Literal

import msgspec

from chukan.platform.wire.agency import PLAIN, Addressee, ProblemBody
from chukan.platform.wire.network import Instant, Message

CHANGES_MAX: Final = 100
"""Lines of one list: each is an officer's word about a person."""
Reason = Annotated[str, msgspec.Meta(min_length=1, max_length=200, pattern=PLAIN, description="理由")]


class RelinkLine(Message, frozen=True):
    """Says that a person's code belongs to another addressee number (付替).

    Without ``to`` the link is only put in doubt (疑義): it stays suspended. ``to`` the same number says that a
    suspended link is right after all. Where the other number has a code as well, the two were mixed up and swap.
    """

    addressee: Addressee
    reason: Reason
    to: Addressee | None = None


class CodeRelink(Message, frozen=True):
    """``POST /codes/relink`` by a first officer: the links are suspended at once, nothing else changes yet."""

    lines: Annotated[list[RelinkLine], msgspec.Meta(min_length=1, max_length=CHANGES_MAX)]


class MergeLine(Message, frozen=True):
    """Says that two addressee numbers are one person (統合): ``into`` stays, the other is given up."""

    addressee: Addressee
    into: Addressee
    reason: Reason


class CodeMerge(Message, frozen=True):
    """``POST /codes/merge`` by a first officer: the links are suspended at once."""

    lines: Annotated[list[MergeLine], msgspec.Meta(min_length=1, max_length=CHANGES_MAX)]


class ConfirmLine(Message, frozen=True):
    """Another officer's decision about one change: ``apply`` it, or ``withdraw`` it and let all be as it was."""

    change: uuid.UUID
    decision: Literal["apply", "withdraw"]


class CodeConfirm(Message, frozen=True):
    """``POST /codes/confirm`` by another officer."""

    lines: Annotated[list[ConfirmLine], msgspec.Meta(min_length=1, max_length=CHANGES_MAX)]


class CodeChangeLine(Message, frozen=True):
    """What became of one line; ``change`` names it in ``confirm``."""

    line: int
    status: Literal["open", "applied", "withdrawn", "refused"]
    change: uuid.UUID | None = None
    problem: ProblemBody | None = None


class CodeChangeLines(Message, frozen=True):
    """Result per line; ``taken_back`` counts queries under way for these persons that were cancelled."""

    lines: list[CodeChangeLine]
    taken_back: int = 0


class CodeChange(Message, frozen=True):
    """One entry of the history of a link."""

    id: uuid.UUID
    act: Literal["relink", "merge", "doubt", "reinstate"]
    state: Literal["open", "applied", "withdrawn"]
    addressee: str
    reason: str
    was: str
    """Status of the link when it was proposed."""
    proposed_by: str
    proposed_at: Instant
    to: str | None = None
    to_was: str | None = None
    decided_by: str | None = None
    decided_at: Instant | None = None


class CodeChanges(Message, frozen=True):
    """``GET /codes/changes`` (what waits for another officer) and ``POST /codes/history``."""

    changes: list[CodeChange]


class CodeHistoryAsk(Message, frozen=True):
    """``POST /codes/history``: everything that was changed about one addressee number's link."""

    addressee: Addressee
