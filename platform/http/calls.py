"""A call of the agency API: its row in the route table, what a handler is given, and what it returns.

A route is data. What a call needs (right, body, parameters, key) is declared there once; the engine (``api``) enforces
it and ``openapi`` documents it, so that neither can forget what the other knows. A handler only says what is done.
"""

import enum
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Final, TypeVar

import msgspec
from aiohttp import web

from chukan.clock import Clock
from chukan.errors import Problem
from chukan.platform.admission import Admission, Priority
from chukan.platform.exchange.officer_services import OfficerServices
from chukan.platform.exchange.officer_sessions import Acting
from chukan.platform.http.auth import Right, Tell, untold
from chukan.platform.http.drain import Drain
from chukan.platform.http.ports import AgencyExchange, Desks, RequestKey
from chukan.platform.http.stalls import Stalls
from chukan.platform.law import Law
from chukan.platform.law.calendar import Calendar, CalendarFile
from chukan.platform.metrics import Metrics
from chukan.tenants.directory import AgencyRow, ClientRow
from chukan.tenants.operations import OperationLog

BASE: Final = "/v1/agencies/{agency}"

S = TypeVar("S", bound=msgspec.Struct)


class Work(enum.Enum):
    """How a call uses its place among the requests at work."""

    HELD = "held"
    """The engine takes a place around the handler."""
    OWN = "own"
    """The handler takes and leaves places itself, because it waits or streams in between."""


@dataclass(frozen=True, slots=True)
class Example:
    """An example for the documentation: a body that the call's own decoder accepts, or a reply."""

    summary: str
    value: msgspec.Struct


@dataclass(frozen=True, slots=True)
class Route:
    """One call. ``path`` hangs under ``/v1/agencies/{agency}``; its names in braces are ids of our own."""

    method: str
    path: str
    name: str
    """Operation id, and the label in metrics and logs together with the template."""
    summary: str
    right: Right
    handler: "Callable[[Call], Awaitable[Reply]]"
    priority: Priority
    body: type[msgspec.Struct] | None = None
    params: type[msgspec.Struct] | None = None
    reply: type[msgspec.Struct] | None = None
    statuses: tuple[int, ...] = (200,)
    key: bool = False
    """Whether an Idempotency-Key is demanded."""
    bulk: bool = False
    """A long body of this call is a batch and not somebody at a counter."""
    work: Work = Work.HELD
    streams: tuple[str, ...] = ()
    """Media types of a body that the handler reads itself."""
    stream_form: str = ""
    """What such a body is, for the documentation; the two forms of load parts need no words."""
    produces: tuple[str, str] | None = None
    """Media type of a reply that is written piece by piece, and what it is."""
    prefer_wait: bool = False
    signing_in: bool = False
    """A call by which officers sign in: it takes no session, and asks the certificate for no function."""
    bootstraps: bool = False
    """A call that officers' cards may make beside accounts; its service judges until when."""
    by_affair: bool = False
    """The handler itself holds an officer to his affairs (事務), or there is nothing of an affair in the call. Without
    it, only an officer whose right is for every affair may make the call."""
    problems: tuple[str, ...] = ()
    """Codes of problems beside those that every call may answer with."""
    examples: tuple[Example, ...] = field(default=(), compare=False)
    """Of the body."""
    shows: tuple[Example, ...] = field(default=(), compare=False)
    """Examples of the reply."""

    @property
    def template(self) -> str:
        """The whole path with its names in braces."""
        return BASE + self.path


@dataclass(frozen=True, slots=True)
class Pieces:
    """A reply that is written piece by piece, each when the one before has left; closed in the end, come what may.

    What fails on the way cuts the reply off, so that nobody takes a part for the whole.
    """

    media_type: str
    """With its charset."""
    of: AsyncGenerator[bytes, None]


@dataclass(frozen=True, slots=True)
class Reply:
    """What a handler answers with."""

    body: msgspec.Struct | Pieces
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


async def _unknown() -> str:
    return "unknown"


async def _open() -> None:
    """Let every write pass."""


def _always() -> Calendar:
    return Calendar(CalendarFile())


@dataclass(frozen=True, slots=True)
class Services:
    """Everything that handlers may use; made once at start."""

    exchange: AgencyExchange
    desks: Desks
    law: Law
    admission: Admission
    metrics: Metrics
    clock: Clock
    drain: Drain
    request_bytes_max: int
    durability: "Callable[[str], Awaitable[str]]" = field(default=lambda _: _unknown())
    """Where everything committed in a cell so far is on disk; what ``Cells.told_durability`` says."""
    stalls: Stalls = field(default_factory=Stalls)
    admit: "Callable[[str], Awaitable[None]]" = field(default=lambda _: _open())
    """Lets a write to a cell pass; raises ``Problem`` cell_restored where it was restored and is not opened yet."""
    refused: Tell = untold
    """Hears of every caller that is not let in."""
    calendar: "Callable[[], Calendar]" = _always
    """The service calendar in force (運用カレンダー)."""
    officers: OfficerServices | None = None
    """Accounts and sessions of officers (職員); without them no agency has any."""
    operations: OperationLog | None = None
    """Where officers' calls are entered (操作記録)."""


@dataclass(slots=True)
class Call:
    """One request of a caller that was let in, decoded and checked for its form."""

    request: web.Request
    route: Route
    services: Services
    client: ClientRow
    """The registered client; in a session, the officer."""
    agency: AgencyRow
    priority: Priority
    raw: bytes = b""
    body: msgspec.Struct | None = None
    params: msgspec.Struct | None = None
    key: RequestKey | None = None
    officer: Acting | None = None
    """The session that the call was made in."""
    terminal: ClientRow | None = None
    """The registered client of the connection that a session's call came over."""

    def body_as(self, kind: type[S]) -> S:
        """Return the decoded body as the type that the route declares."""
        return _typed(self.body, kind)

    def params_as(self, kind: type[S]) -> S:
        """Return the decoded query parameters as the type that the route declares."""
        return _typed(self.params, kind)

    def need_key(self) -> RequestKey:
        """Return the Idempotency-Key of a route that demands one."""
        if self.key is None:
            raise LookupError("the route declares no key")
        return self.key

    def id(self, name: str) -> uuid.UUID:
        """Return an id of the path. Raises ``Problem`` not_found where it is none."""
        text = self.request.match_info[name]
        try:
            value = uuid.UUID(text)
        except ValueError:
            raise Problem("not_found") from None
        if str(value) != text.lower():
            # One id has one spelling: braces, missing hyphens or a urn prefix would be others.
            raise Problem("not_found")
        return value

    @asynccontextmanager
    async def place(self, lines: int = 1, *, reading: bool = False) -> AsyncIterator[None]:
        """Hold a place among the requests at work. Raises ``Problem`` rate_limited, busy; no_primary at a stall."""
        admission, number = self.services.admission, self.agency.number
        with self.services.stalls.enter(self.agency.cell):
            async with admission.work(number, self.priority, lines, reading=reading):
                yield

    @contextmanager
    def park(self) -> Iterator[bool]:
        """Say whether this request may wait for an outcome without holding a place."""
        with self.services.admission.park(self.agency.number) as free:
            yield free


def _typed(value: msgspec.Struct | None, kind: type[S]) -> S:
    if not isinstance(value, kind):
        raise TypeError(f"the route does not declare {kind.__name__}")
    return value
