"""Delegations (委任) as an agency's officers register and see them: one agency's own half of each."""

from __future__ import annotations

import datetime as dt
import uuid
from typing import Literal

from chukan.platform.wire.network import AgencyCode, Code16, Message


class DelegationTerms(Message, frozen=True):
    """``POST /delegations``: what this agency gives to another one, or takes from it; a second officer approves."""

    role: Literal["given", "taken"]
    """``given``: this agency delegates (委任元); ``taken``: it acts for the other one (委任先)."""
    side: Literal["inquirer", "provider"]
    """Whether it is about asking (情報照会) or about answering (情報提供)."""
    counterpart: AgencyCode
    valid_from: dt.date
    valid_until: dt.date | None = None
    """Days (JST), both inclusive."""
    affair: Code16 | None = None
    """The affair that it is about; none for all of them."""


class DelegationView(Message, frozen=True):
    """This agency's half of a delegation."""

    id: uuid.UUID
    state: Literal["proposed", "in_force", "ended"]
    terms: DelegationTerms
    proposed_by: str
    approved_by: str | None = None
    ended_by: str | None = None
    complete: bool | None = None
    """Whether the other agency had registered its half when this reply was made; none where nobody was asked."""


class DelegationViews(Message, frozen=True):
    """``GET /delegations``."""

    delegations: list[DelegationView]


class DelegationListParams(Message, frozen=True):
    """``?ended=`` of the list."""

    ended: bool = False
