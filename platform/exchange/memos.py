"""What the exchange keeps about a line, sealed under its agency's key: the request, or the notice.

A memo holds what later steps and the record need and what no other agency's row may show (counterpart, affair, kind,
items): it exists in the clear only inside this process. It must never be logged or put into an exception.
"""

from __future__ import annotations

import datetime as dt
import uuid

import msgspec

from chukan.platform.wire.agency import QueryLine
from chukan.platform.wire.network import Message, ProviderPermit, SignedPermit
from chukan.tenants.sealing import AgencyKeys


class RequestMemo(Message, frozen=True):
    """A query line as accepted."""

    line: QueryLine
    items: list[str]
    asked_at: dt.datetime
    caller: str
    """Registered system that asked."""
    law: str
    """Number of the law data it was judged by."""
    list_item: str = ""
    resends: uuid.UUID | None = None
    """The line in whose place an officer sent this one (再送)."""


class NoticeMemo(Message, frozen=True):
    """A notice as judged."""

    signed: SignedPermit
    permit: ProviderPermit
    received_at: dt.datetime
    copies: tuple[uuid.UUID, ...] = ()


_REQUEST = msgspec.json.Decoder(RequestMemo)
_NOTICE = msgspec.json.Decoder(NoticeMemo)


def seal_request(keys: AgencyKeys, line: uuid.UUID, memo: RequestMemo) -> bytes:
    """Seal a request memo for its row."""
    return keys.seal("request", line.bytes, msgspec.json.encode(memo))


def open_request(keys: AgencyKeys, line: uuid.UUID, sealed: bytes) -> RequestMemo:
    """Open a request memo; raises SealError when row or key do not fit."""
    return _REQUEST.decode(keys.open("request", line.bytes, sealed))


def seal_notice(keys: AgencyKeys, line: uuid.UUID, memo: NoticeMemo) -> bytes:
    """Seal a notice memo for its row."""
    return keys.seal("notice", line.bytes, msgspec.json.encode(memo))


def open_notice(keys: AgencyKeys, line: uuid.UUID, sealed: bytes) -> NoticeMemo:
    """Open a notice memo; raises SealError when row or key do not fit."""
    return _NOTICE.decode(keys.open("notice", line.bytes, sealed))
