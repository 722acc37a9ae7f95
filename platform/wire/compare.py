"""Reconciliation with the original (原本照合): ``POST /loads/{load}/compare`` of the agency API (REP-04)."""

from __future__ import annotations

import datetime as dt
import uuid
from typing import Annotated, Literal

import msgspec

from chukan.platform.wire.network import LINES_MAX, Message


class LoadCompare(Message, frozen=True):
    """Asks for a page of what an open load says otherwise than the copies in force; the first one has the counts."""

    after: Annotated[str, msgspec.Meta(pattern=r"^[0-9A-Za-z=_-]{1,200}$")] | None = None
    """Opaque cursor of the previous page."""
    limit: Annotated[int, msgspec.Meta(ge=1, le=LINES_MAX)] = LINES_MAX


class DifferenceCounts(Message, frozen=True):
    """How many copies differ from the original, by kind of difference."""

    missing_here: int
    """In the original and not here (未登録)."""
    missing_there: int
    """Here and not in the original (消込漏れ); only a full load can tell."""
    differing: int
    """In both, and not the same (内容相違)."""


class CopyDifference(Message, frozen=True):
    """One copy that is not as the original."""

    difference: Literal["missing_here", "missing_there", "differing"]
    addressee: str
    effective_from: dt.date
    items: list[str] = msgspec.field(default_factory=list)
    """Codes of the items that differ, never their values."""
    review: bool = False
    """Whether 自動応答不可 differs."""


class LoadDifferences(Message, frozen=True):
    """A page of differences."""

    load: uuid.UUID
    differences: list[CopyDifference]
    counts: DifferenceCounts | None = None
    """On the first page."""
    next: str | None = None
