"""Whom an incident affects (影響を受けた本人), on the agency API: ``POST /incidents/affected``.

The reply names persons by the agency's own addressee numbers; it is for that agency's officers, and for nobody else.
"""

from __future__ import annotations

import datetime as dt
from typing import Annotated

import msgspec

from chukan.platform.wire.network import AgencyCode, Code16, Instant, Message


class AffectedSearch(Message, frozen=True, kw_only=True):
    """Which records count: closed from ``since`` to before ``until``; of these kinds and counterparts (or all)."""

    since: Instant
    until: Instant
    kinds: Annotated[list[Code16], msgspec.Meta(max_length=200)] = msgspec.field(default_factory=list)
    counterparts: Annotated[list[AgencyCode], msgspec.Meta(max_length=200)] = msgspec.field(default_factory=list)


class AffectedKind(Message, frozen=True):
    """A kind of information that the records are about, and its items (項目)."""

    kind: Code16
    items: list[str]


class AffectedPerson(Message, frozen=True):
    """One person, by the agency's own number."""

    addressee: str | None
    """None where the agency has neither a link nor a copy of this person any more."""
    label: bytes
    """The person's label in the agency's log."""
    records: int
    kinds: list[Code16]
    first: dt.datetime
    last: dt.datetime


class Affected(Message, frozen=True, kw_only=True):
    """Who is affected, and how much of it there is; without ``people`` it names nobody and may go into a report."""

    agency: AgencyCode
    since: Instant
    until: Instant
    looked_at: int
    """How many records were opened."""
    records: int
    persons: int
    unnamed: int
    """Of the persons: those without an addressee number."""
    kinds: list[AffectedKind]
    counterparts: list[AgencyCode]
    people: list[AffectedPerson] = msgspec.field(default_factory=list)
