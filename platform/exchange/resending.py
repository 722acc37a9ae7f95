"""Sending a failed line once more (再送, INQ-10): which lines may be, and where the new one stands.

Nothing is sent again by itself. A line that ended without an answer stays as it is, with its record; the new one is
judged like any other — list, delegation, consent, stop and link of now — and has an outcome and a record of its own.

Invariant: a line is sent again once. Its place is a batch whose id follows from the line's, under a key that follows
from it, so that two officers, or one who presses twice, make one new line; that one may be sent again in its turn. Keys
are kept for seven days, so a line that ended longer ago is asked anew instead.
"""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final, NamedTuple

from chukan.platform.exchange.facts import KEY_AGE_MAX
from chukan.tenants.rows import AcceptBatch
from chukan.tenants.states import InquiryState

if TYPE_CHECKING:
    from chukan.platform.wire.agency import QueryLine
    from chukan.tenants.directory import AgencyRow
    from chukan.tenants.rows import InquiryView
    from chukan.tenants.sealing import AgencyKeys

RESENDABLE: Final = frozenset(
    {
        InquiryState.NO_CODE,
        InquiryState.NOT_PERMITTED,
        InquiryState.STOPPED,
        InquiryState.EXPIRED,
        InquiryState.CANCELLED,
        InquiryState.FAILED,
        InquiryState.REFUSED,
    }
)
"""States of lines that ended without an answer. ``no_record`` is an answer: to ask again is a new query."""


class Again(NamedTuple):
    """A line to send again, and the line in whose place it stands."""

    old: uuid.UUID
    ordinal: int
    line: QueryLine

    @property
    def batch(self) -> uuid.UUID:
        """The one batch in which the new line can stand."""
        return uuid.uuid5(self.old, "resent")

    def key(self, keys: AgencyKeys) -> bytes:
        """The keyed digest under which it is accepted once."""
        return keys.digest("key", b"resend " + self.old.bytes)

    def opening(self, agency: AgencyRow, keys: AgencyKeys) -> AcceptBatch:
        """What the new line's batch begins with."""
        return AcceptBatch(
            agency=agency.number,
            generation=agency.generation,
            key=self.key(keys),
            body=keys.digest("body", self.old.bytes),
            batch=self.batch,
        )


def resendable(rows: Iterable[InquiryView], now: dt.datetime) -> list[InquiryView]:
    """Return those of an agency's lines that an officer may send again."""
    return [row for row in rows if row.state in RESENDABLE and now - row.updated_at < KEY_AGE_MAX]
