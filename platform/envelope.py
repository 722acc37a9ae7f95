"""The envelope around a list of messages: RFC 9421 signature, RFC 9530 Content-Digest, and a digest list (電文の署名).

One strict profile of RFC 9421 is spoken, so nothing has to be negotiated and little has to be parsed: one signature
with the label ``chukan``, Ed25519, a fixed order of components and parameters. A request covers its method, path,
content, digest list and message id; a reply covers its status and the same, and names the request that it answers.
``keyid`` is the sender's name, or ``<sender>#<anything>`` while a key is being replaced.

The signature covers the content twice: as bytes (``content-digest``), and as SHA-256 over the SHA-256 digests of the
items (``chukan-item-digests``). The second one still verifies after the content is gone: see ``Evidence``.

Invariant: not one byte of a body is parsed before its signature has verified. Repeats within the tolerance of time are
not refused here; every item has an id and its receiver gives a repeat the first outcome.
"""

from __future__ import annotations

import hashlib
import re
import uuid
from base64 import b64decode, b64encode
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec
from cryptography.exceptions import InvalidSignature

from chukan.errors import Problem
from chukan.platform.wire.agency import ProblemBody
from chukan.platform.wire.network import LINES_MAX, Envelope

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Iterable, Mapping, Sequence

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

    from chukan.chance import Chance
    from chukan.clock import Clock

LABEL: Final = "chukan"
TAG: Final = "chukan-network-v1"
OK: Final = 200
NOBODY: Final = uuid.UUID(int=0)
"""Stands in ``chukan-in-reply-to`` of a refusal where the request had no readable message id."""
MAX_AHEAD_S: Final = 30
"""How far a sender's clock may be ahead of ours."""

_REQUEST: Final = ("@method", "@path", "content-digest", "chukan-item-digests", "chukan-message")
_REPLY: Final = ("@status", "content-digest", "chukan-item-digests", "chukan-message", "chukan-in-reply-to")
_REFUSAL: Final = ("@status", "content-digest", "chukan-message", "chukan-in-reply-to")
_RETRY_STATUSES: Final = frozenset({429, 503})
_KEY_ID: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}(#[A-Za-z0-9._-]{1,32})?")
_INPUT: Final = re.compile(
    rf'{LABEL}=(\([^()]*\));created=([1-9][0-9]{{0,11}});keyid="({_KEY_ID.pattern})";alg="ed25519";tag="{TAG}"'
)
_BYTES: Final = re.compile(rf"{LABEL}=:([A-Za-z0-9+/]{{85}}[AQgw]==):")
_DIGEST_BYTES: Final = 32
_envelope: Final = msgspec.json.Decoder(Envelope)
_document: Final = msgspec.json.Decoder(ProblemBody)


class Signed(NamedTuple):
    """A message ready to send. For a reply ``method`` and ``path`` are empty; ``status`` is 0 for a request."""

    headers: dict[str, str]
    body: bytes
    message: uuid.UUID
    method: str = ""
    path: str = ""
    status: int = 0


class Evidence(msgspec.Struct, frozen=True):
    """Proof that ``key`` signed a list of items, of which only the digests are needed (電文の証跡).

    It holds no content: ``base`` is the RFC 9421 signature base, ``digests`` the items' SHA-256 in order.
    """

    base: bytes
    signature: bytes
    key: str
    digests: list[bytes]


class Opened(NamedTuple):
    """A verified message: who sent it, its id, its items' exact bytes, and what proves it later."""

    sender: str
    message: uuid.UUID
    sent_at: dt.datetime
    items: list[bytes]
    evidence: Evidence


class _Checked(NamedTuple):
    """What a verified signature says, before the body is read."""

    key_id: str
    created: int
    base: bytes
    signature: bytes
    fields: dict[str, str]


class Signer:
    """Makes signed envelopes in the name of ``sender``; ``key_id`` is the sender's name unless given."""

    def __init__(
        self, sender: str, key: Ed25519PrivateKey, clock: Clock, chance: Chance, *, key_id: str | None = None
    ) -> None:
        self.sender = sender
        self._key_id = key_id or sender
        if _KEY_ID.fullmatch(self._key_id) is None or _sender(self._key_id) != sender:
            raise ValueError("a key id is the sender's name, or starts with it and a number sign")
        self._key = key
        self._clock = clock
        self._chance = chance

    def request(self, method: str, path: str, items: Sequence[bytes]) -> Signed:
        """Wrap 1…1,000 items (JSON objects, their bytes kept) in a signed request.

        ``ValueError`` when there are none or too many, or where an item's bytes would not survive as they are.
        """
        body, message, at = self._wrap(items)
        values = {"@method": method, "@path": path, **_content_fields(body, message)}
        values["chukan-item-digests"] = _digest_field(_over(_digests(items)))
        headers = self._sign(_REQUEST, values, at)
        return Signed(headers, body, message, method, path)

    def reply(self, items: Sequence[bytes], to: uuid.UUID, *, status: int = OK) -> Signed:
        """Wrap the items that answer the request ``to`` (its message id); ``ValueError`` as for a request."""
        body, message, at = self._wrap(items)
        values = {"@status": str(status), "chukan-in-reply-to": str(to), **_content_fields(body, message)}
        values["chukan-item-digests"] = _digest_field(_over(_digests(items)))
        return Signed(self._sign(_REPLY, values, at), body, message, status=status)

    def refusal(self, problem: Problem, to: uuid.UUID) -> Signed:
        """Wrap a problem document (RFC 9457) that refuses the request ``to`` as a whole."""
        body = msgspec.json.encode(problem.as_dict())
        message, at = self._chance.uuid7(), self._clock.now()
        values = {"@status": str(problem.status), "chukan-in-reply-to": str(to), **_content_fields(body, message)}
        headers = self._sign(_REFUSAL, values, at)
        headers["content-type"] = "application/problem+json"
        if problem.retry_after_s is not None or problem.status in _RETRY_STATUSES:
            headers["retry-after"] = str(problem.retry_after_s or 1)
        return Signed(headers, body, message, status=problem.status)

    def _wrap(self, items: Sequence[bytes]) -> tuple[bytes, uuid.UUID, dt.datetime]:
        if not 1 <= len(items) <= LINES_MAX:
            raise ValueError("an envelope has 1 to 1,000 items")
        if not all(item.startswith(b"{") and item.endswith(b"}") for item in items):
            raise ValueError("an item is a JSON object without white space around it")
        message, at = self._chance.uuid7(), self._clock.now()
        envelope = Envelope(
            message=message, sender=self.sender, sent_at=at, items=[msgspec.Raw(item) for item in items]
        )
        return msgspec.json.encode(envelope), message, at

    def _sign(self, components: Sequence[str], values: Mapping[str, str], at: dt.datetime) -> dict[str, str]:
        parameters = _parameters(components, int(at.timestamp()), self._key_id)
        signature = self._key.sign(_base(components, values, parameters))
        headers = {name: value for name, value in values.items() if not name.startswith("@")}
        headers["content-type"] = "application/json"
        headers["signature-input"] = f"{LABEL}={parameters}"
        headers["signature"] = f"{LABEL}=:{b64encode(signature).decode()}:"
        return headers


class Opener:
    """Verifies envelopes under the senders' keys (by key id); ``max_age_s`` bounds the age of a signature."""

    def __init__(self, keys: Mapping[str, Ed25519PublicKey], clock: Clock, max_age_s: float = 300) -> None:
        self._keys = keys
        self._clock = clock
        self._max_age_s = max_age_s

    def request(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Opened:
        """Verify a request; ``path`` is the path on the wire, without a query.

        Raises ``Problem`` signature_invalid, message_stale, malformed_json, too_deep, too_many_lines.
        """
        return self._open(_REQUEST, {"@method": method, "@path": path}, headers, body)

    def reply(self, status: int, headers: Mapping[str, str], body: bytes, *, to: uuid.UUID) -> Opened:
        """Verify the reply to our request ``to``; the same problems, and a reply to another request is invalid."""
        return self._open(_REPLY, {"@status": str(status)}, headers, body, to)

    def refusal(
        self, status: int, headers: Mapping[str, str], body: bytes, *, to: uuid.UUID
    ) -> tuple[str, ProblemBody]:
        """Verify a signed problem document; return its sender and the document. Problems as for ``reply``."""
        checked = self._check(_REFUSAL, {"@status": str(status)}, headers, body, to)
        try:
            return _sender(checked.key_id), _document.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise Problem("malformed_json") from None

    def _open(
        self,
        components: Sequence[str],
        derived: Mapping[str, str],
        headers: Mapping[str, str],
        body: bytes,
        to: uuid.UUID | None = None,
    ) -> Opened:
        checked = self._check(components, derived, headers, body, to)
        envelope = _decode(body)
        items = [bytes(item) for item in envelope.items]
        digests = _digests(items)
        said = (_sender(checked.key_id), checked.created, checked.fields["chukan-message"])
        inside = (envelope.sender, int(envelope.sent_at.timestamp()), str(envelope.message))
        if said != inside or checked.fields["chukan-item-digests"] != _digest_field(_over(digests)):
            # What stands in the body and what stands in the signed headers must be one statement.
            raise Problem("signature_invalid")
        evidence = Evidence(checked.base, checked.signature, checked.key_id, digests)
        return Opened(envelope.sender, envelope.message, envelope.sent_at, items, evidence)

    def _check(
        self,
        components: Sequence[str],
        derived: Mapping[str, str],
        headers: Mapping[str, str],
        body: bytes,
        to: uuid.UUID | None,
    ) -> _Checked:
        """Return the message's signed statement; its signature, time, content digest and addressee hold."""
        fields = _single(headers, [*(c for c in components if c[0] != "@"), "signature-input", "signature"])
        given, sealed = _INPUT.fullmatch(fields["signature-input"]), _BYTES.fullmatch(fields["signature"])
        if given is None or sealed is None or given[1] != _names(components) or not _plain(*derived.values()):
            raise Problem("signature_invalid")
        created, key_id, signature = int(given[2]), given[3], b64decode(sealed[1])
        base = _base(components, {**fields, **derived}, _parameters(components, created, key_id))
        self._verify(key_id, base, signature)
        age_s = self._clock.now().timestamp() - created
        if not -MAX_AHEAD_S <= age_s <= self._max_age_s:
            raise Problem("message_stale")
        if fields["content-digest"] != _digest_field(hashlib.sha256(body).digest()):
            raise Problem("signature_invalid")
        if to is not None and fields["chukan-in-reply-to"] != str(to):
            raise Problem("signature_invalid")
        return _Checked(key_id, created, base, signature, fields)

    def _verify(self, key_id: str, base: bytes, signature: bytes) -> None:
        key = self._keys.get(key_id)
        if key is None:
            raise Problem("signature_invalid")
        try:
            key.verify(signature, base)
        except InvalidSignature:
            raise Problem("signature_invalid") from None


def verify_evidence(evidence: Evidence, key: Ed25519PublicKey) -> None:
    """Check that ``key`` signed exactly the items of the digest list; no content is needed.

    Raises ``Problem`` signature_invalid.
    """
    try:
        key.verify(evidence.signature, evidence.base)
    except InvalidSignature:
        raise Problem("signature_invalid") from None
    lines = evidence.base.decode("ascii", "replace").split("\n")
    said = f'"chukan-item-digests": {_digest_field(_over(evidence.digests))}'
    name = f';keyid="{evidence.key}";alg='
    whole = all(len(digest) == _DIGEST_BYTES for digest in evidence.digests)
    if not whole or lines.count(said) != 1 or name not in lines[-1]:
        raise Problem("signature_invalid")


def message_id(headers: Mapping[str, str]) -> uuid.UUID:
    """Return the message id that a request claims, for a refusal to name; ``NOBODY`` where it cannot be read."""
    try:
        claimed = _single(headers, ["chukan-message"])["chukan-message"]
        message = uuid.UUID(claimed)
    except (Problem, ValueError):
        return NOBODY
    return message if str(message) == claimed else NOBODY


def _decode(body: bytes) -> Envelope:
    try:
        return _envelope.decode(body)
    except RecursionError:
        raise Problem("too_deep") from None
    except msgspec.ValidationError as error:
        if f"length <= {LINES_MAX}" in str(error):
            raise Problem("too_many_lines", limit=LINES_MAX) from None
        raise Problem("malformed_json", expected="an envelope") from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise Problem("malformed_json") from None


def _sender(key_id: str) -> str:
    return key_id.partition("#")[0]


def _content_fields(body: bytes, message: uuid.UUID) -> dict[str, str]:
    return {"content-digest": _digest_field(hashlib.sha256(body).digest()), "chukan-message": str(message)}


def _digests(items: Iterable[bytes]) -> list[bytes]:
    return [hashlib.sha256(item).digest() for item in items]


def _over(digests: Iterable[bytes]) -> bytes:
    return hashlib.sha256(b"".join(digests)).digest()


def _digest_field(digest: bytes) -> str:
    return f"sha-256=:{b64encode(digest).decode()}:"


def _plain(*values: str) -> bool:
    """Tell whether each value may stand in one line of a signature base."""
    return all(value.isascii() and value.isprintable() for value in values)


def _names(components: Sequence[str]) -> str:
    return "(" + " ".join(f'"{name}"' for name in components) + ")"


def _parameters(components: Sequence[str], created: int, key_id: str) -> str:
    return f'{_names(components)};created={created};keyid="{key_id}";alg="ed25519";tag="{TAG}"'


def _base(components: Sequence[str], values: Mapping[str, str], parameters: str) -> bytes:
    """Return the signature base (RFC 9421 §2.5): one line a component, the parameters last, no final line feed."""
    lines = [f'"{name}": {values[name]}' for name in components]
    return "\n".join([*lines, f'"@signature-params": {parameters}']).encode("ascii", "strict")


def _single(headers: Mapping[str, str], names: Sequence[str]) -> dict[str, str]:
    """Return the wanted header fields; each must be there exactly once, in printable ASCII."""
    found: dict[str, str] = {}
    wanted = frozenset(names)
    for name, value in headers.items():
        key = name.lower()
        if key not in wanted:
            continue
        if key in found or not _plain(value):
            raise Problem("signature_invalid")
        found[key] = value
    if len(found) != len(wanted):
        raise Problem("signature_invalid")
    return found
