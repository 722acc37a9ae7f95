"""Messages with the network about what officers register and correct: delegations (委任) and corrections (訂正の通知).

They travel in the same envelopes as the messages of ``wire.network``. None carries content of an answer; the one that
names a person does so by the recipient's own linkage code.
"""

from __future__ import annotations

import datetime as dt
import uuid
from typing import Annotated, Literal

import msgspec

from chukan.platform.wire.network import AgencyCode, Code16, Instant, Message


class Delegation(Message, frozen=True, kw_only=True):
    """Registers one agency's half of a delegation (委任情報登録); it holds once both halves are registered."""

    id: uuid.UUID
    """The agency's own id of its half; sent again with ``ended`` it ends it."""
    agency: AgencyCode
    role: Literal["given", "taken"]
    """Whether this agency delegates (委任元) or acts for the other one (委任先)."""
    side: Literal["inquirer", "provider"]
    counterpart: AgencyCode
    affair: Code16 | None = None
    """The affair that it is about; none for all."""
    valid_from: dt.date
    valid_until: dt.date | None = None
    """Days (JST), both inclusive."""
    ended: bool = False


class DelegationReply(Message, frozen=True):
    """Acknowledges one half of a delegation."""

    id: uuid.UUID
    status: Literal["accepted", "refused"]
    complete: bool = False
    """Whether the counterpart has registered its half too."""
    reason: str | None = None


class Corrected(Message, frozen=True):
    """What a record ought to have said (訂正); what is left out was right."""

    department: Annotated[str, msgspec.Meta(min_length=1, max_length=20)] | None = None
    affair: Code16 | None = None
    procedure: Code16 | None = None
    items: Annotated[list[str], msgspec.Meta(min_length=1, max_length=500)] | None = None
    withheld: bool | None = None


class Correction(Message, frozen=True):
    """Tells the network that an agency corrected its record (番号法31条による読替え後の個人情報保護法97条)."""

    id: uuid.UUID
    agency: AgencyCode
    side: Literal["inquirer", "provider"]
    reference: str
    """The network's number of the exchange."""
    corrected: Corrected
    corrected_at: Instant


class CorrectionReply(Message, frozen=True):
    """Acknowledges a correction; the counterpart is told by the network."""

    id: uuid.UUID
    status: Literal["accepted", "refused"]
    reason: str | None = None


class CorrectionNotice(Message, frozen=True):
    """Tells a party that its counterpart corrected its record of an exchange."""

    id: uuid.UUID
    agency: AgencyCode
    """Whom this is for."""
    side: Literal["inquirer", "provider"]
    """The side of whom this is for."""
    reference: str
    code: bytes
    """The recipient's own linkage code of the person, by which it finds its record."""
    corrected: Corrected
    corrected_at: Instant
