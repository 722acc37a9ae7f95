"""Calls to the information-provision network (情報提供ネットワークシステム): five lists out, an answer per item back.

One kept-alive, mutually authenticated TLS 1.3 connection pool; every call has one total deadline and is never repeated
here: the items rest in an outbox, and their owners ask again with the same bytes.

Invariant: what a call returns was signed by the network, answers this very request, and has exactly one reply for each
item that was sent. Everything else is ``NetworkTrouble`` (problem ``network_unavailable``), which says nothing about
whether the network acted: the same items, asked again, get the same replies.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol, TypeVar

import aiohttp
import msgspec
import yarl

from chukan.errors import REGISTRY, Problem
from chukan.platform import revocation
from chukan.platform.envelope import OK, Opened
from chukan.platform.proofs import Proven, proofs
from chukan.platform.wire.checkpoints import CheckpointReply
from chukan.platform.wire.network import (
    AcquisitionReply,
    HolderReply,
    InventoryReply,
    KeyReply,
    PermitReply,
    Receipt,
    RedeliveryReply,
)
from chukan.platform.wire.network_asks import AcquisitionAskReply, ProviderKeyReply
from chukan.platform.wire.registrations import CorrectionReply, DelegationReply

if TYPE_CHECKING:
    import ssl
    from collections.abc import Mapping, Sequence

    from aiohttp.tracing import Trace

    from chukan.platform.envelope import Opener, Signed, Signer
    from chukan.settings import Network

PERMIT_REQUESTS: Final = "/network/v1/permit-requests"
ANSWERS: Final = "/network/v1/answers"
ACQUISITIONS: Final = "/network/v1/acquisitions"
ANSWER_KEYS: Final = "/network/v1/answer-keys"
HOLDERS: Final = "/network/v1/holders"
PROVIDER_KEYS: Final = "/network/v1/provider-keys"
ACQUISITION_ASKS: Final = "/network/v1/acquisition-requests"
INVENTORIES: Final = "/network/v1/inventories"
REDELIVERIES: Final = "/network/v1/redeliveries"
CHECKPOINTS: Final = "/network/v1/checkpoints"
DELEGATIONS: Final = "/network/v1/delegations"
CORRECTIONS: Final = "/network/v1/corrections"

BODY_BYTES_MAX: Final = 16 * 1024 * 1024
NETWORK: Final = "network"
"""The name under which the network signs and shows its certificate, unless a site calls it otherwise."""

_KEEP_ALIVE_S: Final = 30.0
_RETRY_AFTER_MAX_S: Final = 3600
_RATE_LIMITED: Final = 429
_SERVER_ERRORS: Final = 500

_Reply = TypeVar(
    "_Reply",
    PermitReply,
    Receipt,
    AcquisitionReply,
    KeyReply,
    HolderReply,
    InventoryReply,
    RedeliveryReply,
    DelegationReply,
    CorrectionReply,
    ProviderKeyReply,
    AcquisitionAskReply,
    CheckpointReply,
)


class NetworkTrouble(Problem):
    """The network did not answer as agreed; ``reason`` is a stable word for metrics and logs.

    ``timeout``, ``unreachable``, ``certificate_revoked`` (the network's own), ``too_large``, ``bad_reply``,
    ``wrong_items``, ``wrong_sender``, or a code of the error registry: from our own check of the reply
    (``signature_invalid``, ``message_stale``, ``malformed_json``…) or from the network's signed refusal.
    ``about_items`` is true where one item may be to blame for the rest.
    """

    def __init__(self, reason: str, *, retry_after_s: int | None = None, about_items: bool = False) -> None:
        super().__init__("network_unavailable", retry_after_s=retry_after_s)
        self.reason = reason
        self.about_items = about_items


class Revoked(Protocol):
    """Knows which certificates are revoked (``RevocationLists``)."""

    def refuses(self, identity: revocation.Identity | None) -> bool:
        """Tell whether a certificate is revoked."""
        ...

    def refused(self) -> None:
        """Count one connection that was refused or ended."""
        ...


class _RevokedError(aiohttp.ClientConnectionError):
    """The server's certificate is revoked."""


class _Connector(aiohttp.TCPConnector):
    """Hands out connections, new and kept ones, for a request; none whose server's certificate is revoked."""

    def __init__(self, tls: ssl.SSLContext, limit: int, revoked: Revoked | None) -> None:
        super().__init__(ssl=tls, limit=limit, keepalive_timeout=_KEEP_ALIVE_S)
        self._revoked = revoked

    async def connect(
        self,
        req: aiohttp.ClientRequest,
        traces: list[Trace],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 (aiohttp's signature)
    ) -> aiohttp.connector.Connection:
        connection = await super().connect(req, traces, timeout)
        if self._revoked is not None and self._revoked.refuses(revocation.identity(connection.transport)):
            self._revoked.refused()
            connection.close()
            raise _RevokedError
        return connection


class _Named(msgspec.Struct):
    id: str


class _Received(NamedTuple):
    status: int
    headers: Mapping[str, str]
    body: bytes


class NetworkPeer:
    """The network as an exchange calls it. Bound to one event loop; ``close`` when done.

    ``tls`` is a client context; ``name`` is whom the replies must be signed by; at most ``in_flight_max`` calls are
    under way, further ones wait within their own deadline. Raises ``Problem`` setting_invalid for a URL that is not
    plainly ``https://host:port``.
    """

    def __init__(
        self,
        settings: Network,
        signer: Signer,
        opener: Opener,
        tls: ssl.SSLContext,
        *,
        name: str = NETWORK,
        in_flight_max: int = 16,
        revoked: Revoked | None = None,
    ) -> None:
        self._url = _origin(settings.url)
        self._timeout_s = settings.timeout_s
        self._signer = signer
        self._opener = opener
        self._tls = tls
        self._name = name
        self._in_flight_max = in_flight_max
        self._revoked = revoked
        self._opened_session: aiohttp.ClientSession | None = None
        self.answered = True
        """Whether the last call that ended got a signed answer; for health."""

    async def permit_requests(self, items: Sequence[bytes]) -> list[PermitReply]:
        """Ask for permits (提供の求め): JSON of ``PermitRequest`` each; a reply per item, in their order.

        Raises ``NetworkTrouble``.
        """
        return await self._call(PERMIT_REQUESTS, items, PermitReply)

    async def answers(self, items: Sequence[bytes]) -> list[Receipt]:
        """Hand over answers (提供): JSON of ``Answer`` each; a receipt per item. Raises ``NetworkTrouble``."""
        return await self._call(ANSWERS, items, Receipt)

    async def acquisitions(self, items: Sequence[bytes]) -> list[AcquisitionReply]:
        """Ask for acquisition numbers (取得番号): JSON of ``AcquisitionRequest``. Raises ``NetworkTrouble``."""
        return await self._call(ACQUISITIONS, items, AcquisitionReply)

    async def answer_keys(self, items: Sequence[bytes]) -> list[KeyReply]:
        """Announce answer keys: JSON of ``AnswerKey`` each. Raises ``NetworkTrouble``."""
        return await self._call(ANSWER_KEYS, items, KeyReply)

    async def holders(self, items: Sequence[bytes]) -> list[HolderReply]:
        """Ask who holds a code (通知先の通知): JSON of ``HolderRequest`` each. Raises ``NetworkTrouble``."""
        return await self._call(HOLDERS, items, HolderReply)

    async def provider_keys(self, items: Sequence[bytes]) -> list[ProviderKeyReply]:
        """Ask for keys of providers without a code: JSON of ``ProviderKeyRequest`` each. Raises ``NetworkTrouble``."""
        return await self._call(PROVIDER_KEYS, items, ProviderKeyReply)

    async def acquisition_asks(self, items: Sequence[bytes]) -> list[AcquisitionAskReply]:
        """Ask providers to acquire codes: JSON of ``AcquisitionAsk`` each. Raises ``NetworkTrouble``."""
        return await self._call(ACQUISITION_ASKS, items, AcquisitionAskReply)

    async def inventories(self, items: Sequence[bytes]) -> list[InventoryReply]:
        """Ask what was exchanged since an instant: JSON of ``InventoryRequest`` each. Raises ``NetworkTrouble``."""
        return await self._call(INVENTORIES, items, InventoryReply)

    async def delegations(self, items: Sequence[bytes]) -> list[DelegationReply]:
        """Register halves of delegations (委任): JSON of ``Delegation`` each. Raises ``NetworkTrouble``."""
        return await self._call(DELEGATIONS, items, DelegationReply)

    async def checkpoints(self, items: Sequence[bytes]) -> list[CheckpointReply]:
        """Tell of checkpoints (チェックポイントの通知): JSON of ``CheckpointTold`` each. Raises ``NetworkTrouble``."""
        return await self._call(CHECKPOINTS, items, CheckpointReply)

    async def corrections(self, items: Sequence[bytes]) -> list[CorrectionReply]:
        """Tell of corrected records (訂正の通知): JSON of ``Correction`` each. Raises ``NetworkTrouble``."""
        return await self._call(CORRECTIONS, items, CorrectionReply)

    async def redeliveries(self, items: Sequence[bytes]) -> list[RedeliveryReply]:
        """Have messages pushed again: JSON of ``RedeliveryRequest`` each. Raises ``NetworkTrouble``."""
        return await self._call(REDELIVERIES, items, RedeliveryReply)

    async def close(self) -> None:
        """Close the connections; calls that are under way fail."""
        if self._opened_session is not None:
            await self._opened_session.close()

    async def _call(self, path: str, items: Sequence[bytes], kind: type[_Reply]) -> list[_Reply]:
        asked = [msgspec.json.decode(item, type=_Named).id for item in items]
        if len(set(asked)) != len(asked):
            raise ValueError("an item's id stands twice in one call")
        signed = self._signer.request("POST", path, items)
        try:
            received = await self._post(path, signed)
            opened = self._open(received, signed)
        except NetworkTrouble:
            self.answered = False
            raise
        self.answered = True
        return _in_order(asked, opened, kind)

    async def _post(self, path: str, signed: Signed) -> _Received:
        try:
            async with (
                asyncio.timeout(self._timeout_s),
                self._session().post(
                    self._url + path, data=signed.body, headers=signed.headers, allow_redirects=False
                ) as response,
            ):
                return _Received(response.status, response.headers, await _read(response))
        except TimeoutError:
            raise NetworkTrouble("timeout") from None
        except _RevokedError:
            raise NetworkTrouble("certificate_revoked") from None
        except (aiohttp.ClientError, OSError):
            raise NetworkTrouble("unreachable") from None

    def _session(self) -> aiohttp.ClientSession:
        if self._opened_session is None:
            connector = _Connector(self._tls, self._in_flight_max, self._revoked)
            self._opened_session = aiohttp.ClientSession(
                connector=connector,
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                headers={"accept-encoding": "identity"},
                # The one deadline of a call is set around it; a second one would only hide which of them struck.
                timeout=aiohttp.ClientTimeout(total=None),
            )
        return self._opened_session

    def _open(self, received: _Received, signed: Signed) -> Opened:
        try:
            if received.status != OK:
                raise self._refusal(received, signed)
            opened = self._opener.reply(OK, received.headers, received.body, to=signed.message)
        except NetworkTrouble:
            raise
        except Problem as problem:
            raise NetworkTrouble(problem.code) from None
        if opened.sender != self._name:
            raise NetworkTrouble("wrong_sender")
        return opened

    def _refusal(self, received: _Received, signed: Signed) -> NetworkTrouble:
        status, headers, body = received
        sender, document = self._opener.refusal(status, headers, body, to=signed.message)
        if sender != self._name:
            return NetworkTrouble("wrong_sender")
        wait_s = document.retry_after_s
        return NetworkTrouble(
            document.code if document.code in REGISTRY else "bad_reply",
            retry_after_s=None if wait_s is None else max(1, min(wait_s, _RETRY_AFTER_MAX_S)),
            about_items=status < _SERVER_ERRORS and status != _RATE_LIMITED,
        )


def _origin(text: str) -> str:
    """Return the base URL; anything but https would carry linkage codes in the clear."""
    with contextlib.suppress(ValueError):
        url = yarl.URL(text)
        if url.scheme == "https" and url.host and url == url.origin().with_path("/"):
            return str(url.origin())
    raise Problem("setting_invalid", pointer="/network/url", expected="https://host:port")


async def _read(response: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for piece in response.content.iter_any():
        body += piece
        if len(body) > BODY_BYTES_MAX:
            raise NetworkTrouble("too_large")
    return bytes(body)


def _in_order(asked: list[str], opened: Opened, kind: type[_Reply]) -> Proven[_Reply]:
    """Return the replies in the order of what was asked; the network may send them in any order."""
    decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(kind)
    items = opened.items
    try:
        replies: dict[str, _Reply] = {str(reply.id): reply for reply in map(decoder.decode, items)}
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise NetworkTrouble("bad_reply", about_items=True) from None
    if len(items) != len(asked) or replies.keys() != set(asked):
        raise NetworkTrouble("wrong_items", about_items=True)
    return Proven([replies[name] for name in asked], proofs(opened, list(replies)))
