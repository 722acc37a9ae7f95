"""The simulated network's steering wheel: what its loopback admin endpoint takes and gives. The sandbox only.

A real network has no such endpoint. ``NetworkRecord`` is the network's own provision record (番号法23条3項, 命令85号
47条) as reconciliation reads it: names, times, items, department, affair, flags, outcome and management code — never
content.
"""

import datetime as dt
import uuid
from typing import Annotated, Literal

import msgspec

from chukan.platform.wire.network import LINES_MAX, AgencyCode, Instant, Message

ROUTE_FORM = "[a-z0-9][a-z0-9.-]{0,63}"


class AgencyEntry(Message, frozen=True):
    """An agency as the network knows it: its name, the route that leads to it, and whether its PIA is published."""

    code: AgencyCode
    name: Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
    route: Annotated[str, msgspec.Meta(pattern=f"^{ROUTE_FORM}$")]
    pia: bool = True


class Agencies(Message, frozen=True):
    """``PUT /admin/agencies``: adds agencies or replaces what is known of them; none is removed."""

    agencies: Annotated[list[AgencyEntry], msgspec.Meta(max_length=10_000)]


class StopEntry(Message, frozen=True):
    """What is stopped: a kind, a procedure, or a kind within a procedure; both absent stops everything."""

    kind: str | None = None
    procedure: str | None = None


class Stops(Message, frozen=True):
    """``PUT /admin/stops``: all stops in force from now on."""

    stops: Annotated[list[StopEntry], msgspec.Meta(max_length=1_000)]


class PiaEntry(Message, frozen=True):
    """Whether an agency's assessment (特定個人情報保護評価書) is published (28条)."""

    agency: AgencyCode
    published: bool


class PiaFlags(Message, frozen=True):
    """``PUT /admin/pia``."""

    flags: Annotated[list[PiaEntry], msgspec.Meta(max_length=10_000)]


class NetworkRecord(Message, frozen=True):
    """One line as the network recorded it. ``outcome`` is None while its permit is open."""

    position: int
    reference: uuid.UUID
    request: uuid.UUID
    """The inquirer's message id."""
    inquirer: AgencyCode
    inquirer_name: str
    provider: AgencyCode
    provider_name: str
    department: str
    affair: str
    procedure: str
    kind: str
    items: list[str]
    asked_at: Instant
    decided_at: Instant
    outcome: str | None
    reason: str | None = None
    withheld: bool = False
    """不開示, by the request or by the provision."""
    pia_refusal: bool = False
    expires_at: Instant | None = None
    notified_at: Instant | None = None
    """When the provider acknowledged the notice."""
    provided_at: Instant | None = None
    closed_at: Instant | None = None
    delivered_at: Instant | None = None
    """When the inquirer acknowledged the answer."""
    management_code: str | None = None
    """Hexadecimal; None where the person could not be told."""


class NetworkRecords(Message, frozen=True):
    """``GET /admin/records?after=``: a page; ``next`` is the position to go on after, None at the end."""

    records: list[NetworkRecord]
    next: int | None = None


class Process(Message, frozen=True):
    """``GET /admin/process``: who answers here, for whoever started it and waits until it serves."""

    pid: int


class State(Message, frozen=True):
    """``GET /admin/state``: counts only."""

    name: str
    now: Instant
    agencies: int
    stops: int
    codes: int
    open_acquisitions: int
    exchanges: dict[str, int]
    """By outcome; ``open`` for those that have none yet."""
    outbox: dict[str, int]
    """What waits to be pushed, by ``route/channel``."""


class Done(Message, frozen=True):
    """Reply to a PUT."""

    status: Literal["done"] = "done"
    count: int = 0


PAGE_MAX = LINES_MAX


def to_microseconds(instant: dt.datetime) -> int:
    """Return an aware instant as microseconds since 1970, exactly."""
    return (instant - _EPOCH) // _MICROSECOND


def from_microseconds(value: int) -> dt.datetime:
    """Return the instant of a number of microseconds since 1970, in UTC."""
    return _EPOCH + value * _MICROSECOND


_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_MICROSECOND = dt.timedelta(microseconds=1)
