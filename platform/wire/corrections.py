"""Corrections of records (訂正) as an agency's officers ask for them."""

from __future__ import annotations

import uuid
from typing import Annotated

import msgspec

from chukan.platform.wire.agency import Department
from chukan.platform.wire.network import Code16, Message


class RecordCorrection(Message, frozen=True):
    """``POST /records/{id}/correct``: what the record ought to have said; what is left out was right."""

    department: Department | None = None
    affair: Code16 | None = None
    procedure: Code16 | None = None
    items: Annotated[list[str], msgspec.Meta(min_length=1, max_length=500)] | None = None
    withheld: bool | None = None
    """不開示 (法23条2項)."""


class CorrectionView(Message, frozen=True):
    """What became of a correction. Outcome and times of an exchange are what happened, and nobody corrects them."""

    id: uuid.UUID
    """The amendment's own id."""
    amends: uuid.UUID
    notified: bool | None = None
    """Whether the network has taken the notice; it is sent until it has. None where it knows nothing of the line."""
