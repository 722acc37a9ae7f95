"""What this server reads from a request's headers, and the nonsense that it refuses there.

A header that decides something may stand once only: two of a kind are read differently by different programs, and that
difference is how requests are smuggled. Headers that a proxy might add (``X-Forwarded-For`` and its kin) are never
read: who is calling is told by the tunnel, the certificate and the path, and by nothing else (invariant 8).
"""

import base64
import binascii
import datetime as dt
import re
import uuid
from collections.abc import Iterator
from typing import Final

from aiohttp import hdrs, web
from multidict import CIMultiDictProxy

from chukan.chance import uuid7_time
from chukan.clock import Clock
from chukan.errors import Problem

IDEMPOTENCY_KEY: Final = "Idempotency-Key"
PREFER: Final = "Prefer"
PREFERENCE_APPLIED: Final = "Preference-Applied"
REQUEST_ID: Final = "X-Request-Id"
SESSION: Final = "Chukan-Session"
"""An officer's session (職員のセッション), as signing in gave it."""
DURABILITY: Final = "Chukan-Durability"
"""Where what was just acknowledged is on disk: ``two-centres``, ``one-centre``, ``one-disk``, ``one-server``, or
``unknown`` where it could not be asked in time (``replication.durability``); for a cell of several members with the
leader that told it (``; leader=e1; timeline=3``)."""

KEY_AGE_MAX: Final = dt.timedelta(days=7)
KEY_AHEAD_MAX: Final = dt.timedelta(minutes=5)
"""How far a key's own time may lie before and after our clock: keys are kept for seven days, never for longer."""
WAIT_MAX_S: Final = 60

_ONCE: Final = (
    hdrs.HOST,
    hdrs.CONTENT_TYPE,
    hdrs.CONTENT_LENGTH,
    hdrs.CONTENT_ENCODING,
    hdrs.TRANSFER_ENCODING,
    hdrs.EXPECT,
    hdrs.AUTHORIZATION,
    IDEMPOTENCY_KEY,
    SESSION,
    "Content-Digest",
)
_KEY: Final = re.compile(r"[\x21-\x7e]{8,64}")
_KEY_FORM: Final = "Idempotency-Key: 8 to 64 visible ASCII characters, best a fresh UUIDv7"
_PREFERENCE: Final = re.compile(
    r"[\s,]*([A-Za-z0-9!#$%&'*+.^_`|~-]+)\s*"  # its name
    r"(?:=\s*(\"(?:[^\"\\]|\\.)*\"|[^,;\"]*))?"  # its value
    r"[^,]*(?:,|$)"  # its parameters, which none of ours has
)
_PREFERENCES_MAX: Final = 16
_WAIT: Final = re.compile(r"[0-9]{1,9}")
_SHA256: Final = re.compile(r"(?:^|,)\s*sha-256=:([A-Za-z0-9+/=]*):")


def refuse_nonsense(headers: CIMultiDictProxy[str]) -> None:
    """Raise ``Problem`` malformed_request for ambiguous headers, unsupported_encoding for a compressed body."""
    for name in _ONCE:
        if len(headers.getall(name, ())) > 1:
            raise Problem("malformed_request", expected=f"one {name} header")
    if hdrs.CONTENT_LENGTH in headers and hdrs.TRANSFER_ENCODING in headers:
        raise Problem("malformed_request", expected="Content-Length or Transfer-Encoding")
    if headers.get(hdrs.CONTENT_ENCODING, "identity").strip().lower() != "identity":
        raise Problem("unsupported_encoding")
    if headers.get(hdrs.EXPECT, "100-continue").strip().lower() != "100-continue":
        raise Problem("malformed_request", expected="Expect: 100-continue")
    if hdrs.UPGRADE in headers:
        raise Problem("malformed_request", expected="no Upgrade header")


def idempotency_key(request: web.Request, clock: Clock) -> str:
    """Return the request's key (RFC draft httpapi-idempotency-key-header).

    Raises ``Problem``: idempotency_key_missing; invalid_field for a wrong form; idempotency_key_too_old for a UUIDv7
    whose own time lies outside the days for which keys are kept, so that an old retry is never taken for a new request.
    """
    key = request.headers.get(IDEMPOTENCY_KEY)
    if not key:
        raise Problem("idempotency_key_missing")
    # The draft has it as a structured-field string, in quotes; both forms name the same key.
    bare = key[1:-1] if len(key) > 1 and key[0] == key[-1] == '"' else key
    if not _KEY.fullmatch(bare):
        raise Problem("invalid_field", expected=_KEY_FORM)
    made_at = _time_of(bare)
    if made_at is not None and not clock.now() - KEY_AGE_MAX <= made_at <= clock.now() + KEY_AHEAD_MAX:
        raise Problem("idempotency_key_too_old")
    return bare


def _time_of(key: str) -> dt.datetime | None:
    try:
        return uuid7_time(uuid.UUID(key))
    except ValueError:
        return None


def preferred_wait_s(request: web.Request) -> int | None:
    """Return the seconds of ``Prefer: wait=N`` (RFC 7240 §4.3), at most 60; None where there is no such preference.

    What is not understood is ignored, as the RFC demands; of two preferences of one name the first counts.
    """
    text = ", ".join(request.headers.getall(PREFER, ()))
    for name, value in _preferences(text):
        if name == "wait":
            return min(int(value), WAIT_MAX_S) if _WAIT.fullmatch(value) else None
    return None


def _preferences(text: str) -> Iterator[tuple[str, str]]:
    at = 0
    for _ in range(_PREFERENCES_MAX):
        found = _PREFERENCE.match(text, at)
        if found is None:
            return
        yield found[1].lower(), (found[2] or "").strip().strip('"')
        at = found.end()


def media_type(request: web.Request) -> tuple[str, str | None, dict[str, str]]:
    """Return a request's media type, its charset where one is declared, and its other parameters, all lower case."""
    message = request.headers.get(hdrs.CONTENT_TYPE, "")
    kind, *rest = (part.strip() for part in message.split(";"))
    parameters: dict[str, str] = {}
    for part in rest:
        name, separator, value = part.partition("=")
        if separator:
            parameters.setdefault(name.strip().lower(), value.strip().strip('"').lower())
    return kind.lower(), parameters.pop("charset", None), parameters


def content_digest(request: web.Request) -> bytes | None:
    """Return the SHA-256 of ``Content-Digest``; None where none is announced. Raises ``Problem`` malformed_request."""
    text = request.headers.get("Content-Digest")
    if text is None:
        return None
    found = _SHA256.search(text)
    try:
        return base64.b64decode(found[1], validate=True) if found else None
    except binascii.Error:
        raise Problem("malformed_request", expected="Content-Digest: sha-256=:<base64>:") from None
