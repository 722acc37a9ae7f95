"""The states, outcomes and sides that rest in the database and travel on the wires, each with one number and one name.

A line (one person × one kind) has a state on each side that took part. The two sides never share a row, so each
side has its own states; outcomes (回答区分) are shared words. Numbers are stored, names travel; neither is ever reused.
This module must never know of SQL, HTTP or time: it is the vocabulary that the rooms share.
"""

from __future__ import annotations

import enum
from typing import Final


class Side(enum.IntEnum):
    """Which part an agency plays in one exchange (照会者 or 提供者)."""

    INQUIRER = 1
    PROVIDER = 2


class InquiryState(enum.IntEnum):
    """State of a query line at the inquirer (情報照会の状態)."""

    ACCEPTED = 10
    """Durable here; the permit request has never been answered and was never known to be sent."""
    PERMIT_REQUESTED = 20
    """Sent at least once, reply unknown: it is asked again with the same bytes."""
    PERMITTED = 30
    HELD = 40
    """The provider's officer is reviewing (under_review): interim, exactly one final outcome follows."""
    ANSWERED = 50
    REFUSED = 60
    NO_CODE = 61
    NOT_PERMITTED = 62
    STOPPED = 63
    EXPIRED = 64
    CANCELLED = 65
    FAILED = 66
    COLLECTED = 80
    PURGED = 90


class ProvisionState(enum.IntEnum):
    """State of a line at the provider (情報提供の状態)."""

    HELD = 40
    """An officer must decide (自動応答不可)."""
    ANSWERED = 50
    """Sealed and recorded; the answer's bytes wait in the outbox until the network gives a receipt."""
    RECEIPTED = 70
    LAPSED = 71
    """The network's receipt said that the permit had lapsed: the record has an amendment."""
    PURGED = 90


class Outcome(enum.IntEnum):
    """Kind of answer (回答区分). 不開示 is a flag beside any of them, never one of them."""

    NONE = 0
    PROVIDED = 1
    PROVIDED_WITH_GAPS = 2
    NO_RECORD = 3
    NO_CODE = 4
    UNDER_REVIEW = 5
    REFUSED = 6
    EXPIRED = 7
    STOPPED = 8
    NOT_PERMITTED = 9
    CANCELLED = 10
    BAD_REQUEST = 11
    FAILED = 12

    @property
    def word(self) -> str:
        """The stable code that travels, e.g. ``provided_with_gaps``."""
        return self.name.lower()


class LinkStatus(enum.IntEnum):
    """Status of the link between an addressee number and a linkage code (符号の状態)."""

    REQUESTED = 1
    ACTIVE = 2
    SUSPENDED = 3
    MERGED = 4
    DUPLICATE = 5
    """The network said "already acquired" for a person whose code stands under another addressee number here."""


OPEN_INQUIRY: Final = frozenset(
    {InquiryState.ACCEPTED, InquiryState.PERMIT_REQUESTED, InquiryState.PERMITTED, InquiryState.HELD}
)
"""States from which a line still awaits its one final outcome."""

STATE_OF_OUTCOME: Final = {
    Outcome.PROVIDED: InquiryState.ANSWERED,
    Outcome.PROVIDED_WITH_GAPS: InquiryState.ANSWERED,
    Outcome.NO_RECORD: InquiryState.ANSWERED,
    Outcome.NO_CODE: InquiryState.NO_CODE,
    Outcome.UNDER_REVIEW: InquiryState.HELD,
    Outcome.REFUSED: InquiryState.REFUSED,
    Outcome.EXPIRED: InquiryState.EXPIRED,
    Outcome.STOPPED: InquiryState.STOPPED,
    Outcome.NOT_PERMITTED: InquiryState.NOT_PERMITTED,
    Outcome.CANCELLED: InquiryState.CANCELLED,
    Outcome.FAILED: InquiryState.FAILED,
}
"""The inquirer's state that an outcome leads to. BAD_REQUEST is refused before acceptance and has none."""

SHARDS: Final = 64
"""Leases are held per (side, shard); an agency's shard is ``shard_of`` of its number."""


def shard_of(agency: int) -> int:
    """Shard of an agency (0…63). A multiplicative hash spreads consecutive agency numbers."""
    return (agency * 2654435761 >> 16) % SHARDS
