"""What the information-provision network pushes to an exchange: notices, answers and linkage codes (配信の受信).

Three calls, each a signed list of 1…1,000 items with an acknowledgement per item. Any exchange takes any push. The
order of the checks is fixed: certificate, form of the request, signature, age, and only then is a byte of the body
parsed. An item that cannot be read is refused alone, by its id; the others go on to the ``NetworkInbox``.

Invariant: ``accepted`` is said for an item only when the inbox said so, which it does after the commit; an item that
the inbox passed over in silence is ``again``. Every answer is signed and names the request, refusals too.
"""

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from typing import Any, Final, Protocol, TypeVar

import msgspec
from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from chukan import log
from chukan.errors import Problem
from chukan.platform import tls
from chukan.platform.envelope import Opened, Opener, Signed, Signer, message_id
from chukan.platform.http import bodies, headers, problems
from chukan.platform.peer import BODY_BYTES_MAX, NETWORK
from chukan.platform.proofs import Proven, proofs
from chukan.platform.wire.network import Ack, AcquiredCode, AnswerDelivery, Notice
from chukan.platform.wire.network_asks import AcquisitionNotice
from chukan.platform.wire.registrations import CorrectionNotice

NOTICES: Final = "/exchange/v1/notices"
ANSWERS: Final = "/exchange/v1/answers"
CODES: Final = "/exchange/v1/codes"
ACQUISITION_ASKS: Final = "/exchange/v1/acquisition-requests"
CORRECTIONS: Final = "/exchange/v1/corrections"

INVALID_ITEM: Final = "invalid_item"
_WORK_DEADLINE_S: Final = 30.0
_IN_FLIGHT_MAX: Final = 64
_RETRY_AFTER_S: Final = 1

_Item = TypeVar("_Item", Notice, AnswerDelivery, AcquiredCode, AcquisitionNotice, CorrectionNotice)
AskTaker = Callable[[list[AcquisitionNotice]], Awaitable[list[Ack]]]
"""Takes requests to acquire a code (施行令26条3項), as the inbox takes the rest."""
CorrectionTaker = Callable[[list[CorrectionNotice]], Awaitable[list[Ack]]]
"""Takes notices that a counterpart corrected its record (訂正の通知)."""


class NetworkInbox(Protocol):
    """Takes what the network pushes. Each call returns an acknowledgement per item, in any order, after the commit."""

    async def notices(self, items: list[Notice], /) -> list[Ack]:
        """Take notices that somebody asks (通知, 施行令26条1項)."""
        ...

    async def answers(self, items: list[AnswerDelivery], /) -> list[Ack]:
        """Take answers to our queries."""
        ...

    async def codes(self, items: list[AcquiredCode], /) -> list[Ack]:
        """Take linkage codes that were acquired (施行令27条5・6項)."""
        ...


class _Named(msgspec.Struct):
    id: uuid.UUID


class _Desk:
    """What the handlers share: who may call, how to verify and sign, and how many calls may be under way."""

    def __init__(
        self, opener: Opener, signer: Signer, *, network: str, body_bytes_max: int, in_flight_max: int
    ) -> None:
        self._opener = opener
        self._signer = signer
        self._network = network
        self._body_bytes_max = body_bytes_max
        self._free = in_flight_max

    async def handle(
        self, request: web.Request, kind: type[_Item], take: Callable[[list[_Item]], Awaitable[list[Ack]]]
    ) -> web.Response:
        """Answer one push."""
        self._check_caller(request)
        if self._free <= 0:
            raise Problem("busy", retry_after_s=_RETRY_AFTER_S)
        self._free -= 1
        try:
            opened = await self._open(request)
            acks = await _acknowledge(opened, kind, take)
        finally:
            self._free += 1
        return _response(self._signer.reply([msgspec.json.encode(ack) for ack in acks], opened.message))

    def refuse(self, request: web.Request, problem: Problem) -> web.Response:
        """Return the signed problem document for a request."""
        return _response(self._signer.refusal(problem, message_id(request.headers)))

    def _check_caller(self, request: web.Request) -> None:
        urn = tls.peer_urn(request)
        if urn is None:
            raise Problem("unauthenticated")
        if urn != tls.PEER_URN + self._network:
            raise Problem("unregistered_system")

    async def _open(self, request: web.Request) -> Opened:
        headers.refuse_nonsense(request.headers)
        if request.query_string:
            # A query would stand outside the signature.
            raise Problem("malformed_request", expected="no query")
        body = await bodies.read_json(request, self._body_bytes_max)
        opened = self._opener.request(request.method, request.rel_url.raw_path, request.headers, body)
        if opened.sender != self._network:
            raise Problem("signature_invalid")
        return opened


def network_app(
    inbox: NetworkInbox,
    opener: Opener,
    signer: Signer,
    *,
    network: str = NETWORK,
    body_bytes_max: int = BODY_BYTES_MAX,
    in_flight_max: int = _IN_FLIGHT_MAX,
    acquisition_asks: AskTaker | None = None,
    corrections: CorrectionTaker | None = None,
) -> web.Application:
    """Return the application of the network listener; serve it with ``tls.server_context`` only.

    ``network`` is the name in the network's certificate (``urn:chukan:peer:<name>``) and the sender that must have
    signed.
    """
    desk = _Desk(opener, signer, network=network, body_bytes_max=body_bytes_max, in_flight_max=in_flight_max)
    app = web.Application(middlewares=[_refusals(desk)], client_max_size=body_bytes_max)
    for path, handler in (
        (NOTICES, _handler(desk, Notice, inbox.notices)),
        (ANSWERS, _handler(desk, AnswerDelivery, inbox.answers)),
        (CODES, _handler(desk, AcquiredCode, inbox.codes)),
    ):
        app.router.add_post(path, handler, expect_handler=bodies.expect_later)
    if acquisition_asks is not None:
        handler = _handler(desk, AcquisitionNotice, acquisition_asks)
        app.router.add_post(ACQUISITION_ASKS, handler, expect_handler=bodies.expect_later)
    if corrections is not None:
        handler = _handler(desk, CorrectionNotice, corrections)
        app.router.add_post(CORRECTIONS, handler, expect_handler=bodies.expect_later)
    return app


def _handler(desk: _Desk, kind: type[_Item], take: Callable[[list[_Item]], Awaitable[list[Ack]]]) -> Handler:
    async def handler(request: web.Request) -> web.StreamResponse:
        return await desk.handle(request, kind, take)

    return handler


def _refusals(desk: _Desk) -> Middleware:
    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except Problem as problem:
            return desk.refuse(request, problem)
        except web.HTTPException as error:
            return desk.refuse(request, problems.from_framework(error))
        except Exception as error:  # noqa: BLE001 - the boundary of a request: one bad push must not end the listener
            log.get("http.network").error("a push failed", exc_info=error)
            return desk.refuse(request, Problem("internal"))

    return middleware


async def _acknowledge(
    opened: Opened, kind: type[_Item], take: Callable[[list[_Item]], Awaitable[list[Ack]]]
) -> list[Ack]:
    """Return an acknowledgement for every item, in their order."""
    names: list[uuid.UUID] = []
    readable: list[_Item] = []
    acks: dict[uuid.UUID, Ack] = {}
    decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(kind)
    for place, item in enumerate(opened.items):
        try:
            readable.append(decoder.decode(item))
            names.append(readable[-1].id)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            names.append(_name(item, place))
            acks[names[-1]] = Ack(id=names[-1], status="refused", reason=INVALID_ITEM)
    if len(set(names)) != len(names):
        raise Problem("invalid_field", pointer="/items", expected="ids that stand once")
    if readable:
        proven = Proven(readable, proofs(opened, names))
        acks |= {ack.id: ack for ack in await _in_time(take(proven))}
    return [acks.get(name) or Ack(id=name, status="again") for name in names]


def _name(item: bytes, place: int) -> uuid.UUID:
    try:
        return msgspec.json.decode(item, type=_Named).id
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Problem("invalid_field", pointer=f"/items/{place}/id", line=place + 1, expected="a UUID") from None


async def _in_time(work: Awaitable[list[Ack]]) -> list[Ack]:
    try:
        async with asyncio.timeout(_WORK_DEADLINE_S):
            return await work
    except TimeoutError:
        raise Problem("deadline_exceeded") from None


def _response(signed: Signed) -> web.Response:
    return web.Response(status=signed.status, body=signed.body, headers={**signed.headers, "cache-control": "no-store"})
