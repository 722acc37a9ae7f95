"""The operations log (操作記録) on the agency API: what the agency's officers did, and what they were refused.

Checkpoints and proofs have the messages of ``wire.evidence``; ``record`` of a proof is the entry's canonical bytes.
"""

from __future__ import annotations

import datetime as dt
import uuid
from typing import Annotated, Literal

import msgspec

from chukan.platform.wire.network import Message

PAGE_MAX = 500
Position = Annotated[int, msgspec.Meta(ge=0, le=(1 << 53) - 1)]


class OperationEntry(Message, frozen=True):
    """One act. It names an officer's or system's registered id, a kind of act and a class; never a value."""

    position: int
    """In the log, from 1."""
    id: uuid.UUID
    at: dt.datetime
    actor: str
    kind: str
    """A dotted word, as ``session.login``, ``call.prepare_review``, ``account.add``."""
    subject_class: str
    outcome: Literal["done", "refused", "failed"]
    problem: str | None = None
    """The problem's code of what was refused or failed."""
    subject: uuid.UUID | None = None
    second: str | None = None
    """The second officer, where it took two."""
    times: int = 1
    """How often: refusals of the same kind that followed each other closely are one entry."""


class Operations(Message, frozen=True):
    """A page of the log, in its order."""

    entries: list[OperationEntry]
    next: int | None = None
    """The position behind which the next page begins; absent at the end."""


class OperationParams(Message, frozen=True, kw_only=True):
    """``?after=&limit=``: a position in the log, and how many of its leaves to look at."""

    after: Position = 0
    limit: Annotated[int, msgspec.Meta(ge=1, le=PAGE_MAX)] = 100
