"""Every decoder of bytes that come from outside, in one table: how it is called, what it may raise, and good seeds.

Each takes bytes alone, so that whoever makes bytes (hypothesis, Atheris) can try them all. What a decoder returns is
looked at too where it goes on into the database: no NUL in a text and no instant that cannot be told in UTC, for the
database refuses both, and its refusal would be a fault of ours.
"""

import base64
import datetime as dt
import functools
import importlib
import inspect
import pkgutil
import uuid
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import parse_qsl

import msgspec
from aiohttp.test_utils import make_mocked_request
from multidict import CIMultiDict, CIMultiDictProxy

from chukan.chance import SystemChance
from chukan.platform import envelope, permits, sealed, wire
from chukan.platform.exchange import officer_sessions
from chukan.platform.http import headers, problems
from chukan.platform.http.routes import ROUTES
from chukan.platform.wire.network import InquirerPermit, SignedPermit
from chukan.tenants import (
    copies,
    events,
    link_plan,
    load_compare,
    merkle,
    records,
)
from chukan.tests.support import decoder_files, decoder_messages, decoder_signed
from chukan.tests.support.decoder_forms import AGENCY, CLOCK, KEY, NOW, SEAL, Decoder, tellable

# ---------------------------------------------------------------- messages of both wires


def message_kinds() -> list[type[msgspec.Struct]]:
    """Return every struct of the wire's modules: all that a peer's or a client's JSON is decoded to."""
    found: set[type[msgspec.Struct]] = set()
    for module in pkgutil.iter_modules(wire.__path__):
        members = inspect.getmembers(importlib.import_module(f"{wire.__name__}.{module.name}"), inspect.isclass)
        found.update(kind for _, kind in members if issubclass(kind, msgspec.Struct) and kind is not msgspec.Struct)
    return sorted(found, key=lambda kind: (kind.__module__, kind.__qualname__))


def _messages() -> Iterator[Decoder]:
    bodies = {route.body: route for route in ROUTES if route.body is not None}
    for kind in message_kinds():
        route = bodies.get(kind)
        seeds = tuple(msgspec.json.encode(each.value) for each in route.examples) if route else (b"{}",)
        decoder = msgspec.json.Decoder(kind)
        yield Decoder(f"message {kind.__name__}", functools.partial(problems.decode, decoder), seeds)


def _params(kind: type[msgspec.Struct], raw: bytes) -> object:
    """Read query parameters as the engine does."""
    try:
        given = dict(parse_qsl(raw.decode("latin-1"), keep_blank_values=True, max_num_fields=64))
    except ValueError:
        return None
    try:
        return msgspec.convert(given, kind, strict=False)
    except msgspec.ValidationError as error:
        raise problems.from_decoder(error) from None


def _parameters() -> Iterator[Decoder]:
    seeds = (b"limit=5&after=AAAA", b"name=N1&charset=cp932", b"wait=9", b"from=1", b"first=2026-01&last=2026-02")
    for kind in {route.params for route in ROUTES if route.params is not None}:
        yield Decoder(f"parameters {kind.__name__}", functools.partial(_params, kind), seeds)


# ---------------------------------------------------------------- the network's envelopes


def _envelopes() -> Iterator[Decoder]:
    signer = envelope.Signer("network", KEY, CLOCK, SystemChance(CLOCK))
    opener = envelope.Opener({"network": KEY.public_key()}, CLOCK)
    item = b'{"id":"0199d8d4-0000-7000-8000-000000000001"}'
    sent = signer.request("POST", "/v1/notices", [item, item])
    head = "".join(f"{name}: {value}\n" for name, value in sent.headers.items()).encode()

    def opened(raw: bytes) -> object:
        return opener.request("POST", "/v1/notices", _fields(raw), sent.body)

    yield Decoder("envelope", envelope._decode, (sent.body,))
    yield Decoder("signed headers", opened, (head,))
    yield Decoder("message id", lambda raw: envelope.message_id(_fields(raw)), (head,), ())
    evidence = envelope.Opener({"network": KEY.public_key()}, CLOCK).request(
        "POST", "/v1/notices", sent.headers, sent.body
    )
    proof = msgspec.json.encode(evidence.evidence)

    def proven(raw: bytes) -> object:
        found = problems.decode(msgspec.json.Decoder(envelope.Evidence), raw)
        return envelope.verify_evidence(found, KEY.public_key())

    yield Decoder("message evidence", proven, (proof,))


def _fields(raw: bytes) -> CIMultiDictProxy[str]:
    found: CIMultiDict[str] = CIMultiDict()
    for line in raw.decode("latin-1").split("\n")[:100]:
        name, separator, value = line.partition(":")
        if separator:
            found.add(name, value.strip())
    return CIMultiDictProxy(found)


def _permits() -> Iterator[Decoder]:
    signed = SignedPermit(body=b"{}", list_id=uuid.UUID(int=1), index=0, size=1, path=[], key="k", signature=bytes(64))
    verifier = permits.PermitVerifier({"k": KEY.public_key()}, CLOCK, 30)

    def verified(raw: bytes) -> object:
        return verifier.verify(problems.decode(msgspec.json.Decoder(SignedPermit), raw))

    def trusted(raw: bytes) -> object:
        """A permit whose list was signed as it should be, whatever stands in it."""
        message = permits.signed_bytes(uuid.UUID(int=1), 1, merkle.leaf_hash(raw))
        found = verifier.verify(msgspec.structs.replace(signed, body=raw, signature=KEY.sign(message)))
        return verifier.check_current(found)

    yield Decoder("signed permit", verified, (msgspec.json.encode(signed),))
    yield Decoder("permit", trusted, (b'{"face":"provider"}', _permit()))


def _permit() -> bytes:
    """An inquirer's face of the first second that there is."""
    first = dt.datetime.min.replace(tzinfo=dt.UTC)
    face = InquirerPermit(
        permit=uuid.UUID(int=1),
        request=uuid.UUID(int=2),
        inquirer=AGENCY,
        provider=AGENCY,
        affair="JM01000000121000",
        procedure="JT01010000000214",
        kind="TM00000000000002",
        items=[],
        issued_at=first,
        expires_at=first + dt.timedelta(seconds=1),
    )
    return msgspec.json.encode(face)


def _sealed() -> Iterator[Decoder]:
    public = SEAL.public_key().public_bytes_raw()
    facts = sealed.seal_facts(public, AGENCY, AGENCY, b"{}")
    unreadable = (sealed.UnreadableAnswerError,)
    yield Decoder("sealed facts", lambda raw: sealed.open_facts(raw, AGENCY, AGENCY, SEAL), (facts,), unreadable)
    yield Decoder("answer key", sealed.is_answer_key, (public,), ())


# ---------------------------------------------------------------- headers, cursors, tokens


def _headers() -> Iterator[Decoder]:
    def request(name: str, raw: bytes) -> Any:
        return make_mocked_request("POST", "/", headers={name: raw.decode("latin-1")})

    key = b"0199d8d4-0000-7000-8000-000000000001"
    largest = b"ffffffff-ffff-7fff-bfff-ffffffffffff"
    yield Decoder(
        "idempotency key",
        lambda raw: headers.idempotency_key(request(headers.IDEMPOTENCY_KEY, raw), CLOCK),
        (key, b'"' + key + b'"', largest),
    )
    yield Decoder(
        "prefer", lambda raw: headers.preferred_wait_s(request(headers.PREFER, raw)), (b"wait=5, x; y=1",), ()
    )
    yield Decoder(
        "content type", lambda raw: headers.media_type(request("Content-Type", raw)), (b"text/csv; charset=cp932",), ()
    )
    digest = b"sha-256=:" + base64.b64encode(bytes(32)) + b":"
    yield Decoder("content digest", lambda raw: headers.content_digest(request("Content-Digest", raw)), (digest,))
    yield Decoder("address", lambda raw: link_plan.owner_body(raw.decode("latin-1")), (b"10.64.0.1", b"fd00::1"), ())


def _cursors() -> Iterator[Decoder]:
    def packed(at: object) -> bytes:
        return base64.urlsafe_b64encode(msgspec.msgpack.encode((5, at, uuid.UUID(int=1))))

    def of(read: Callable[[str], object]) -> Callable[[bytes], object]:
        return lambda raw: tellable(tuple(read(raw.decode("latin-1"))))  # type: ignore[arg-type] # a tuple each

    listed = (packed(NOW), packed("0001-01-01T00:00:00+14:00"), packed("9999-12-31T23:59:59-14:00"))
    yield Decoder("cursor of records", of(records._from_cursor), listed)
    place = copies._CURSOR.pack(bytes(32), 739_000, 202506)
    kept = tuple(base64.urlsafe_b64encode(place + rest) for rest in (b"2026", b"", b"\0", b"\xff"))
    yield Decoder("cursor of copies", of(copies._from_cursor), kept)
    compared = base64.urlsafe_b64encode(load_compare._CURSOR.pack(bytes(32), 739_000))
    yield Decoder("cursor of a comparison", of(load_compare._from_cursor), (compared,))
    yield Decoder("cursor of events", of(events.parse_cursor), (b"1/00000001/5/5:7:6", b"1/00000001/5/5:7:6/8/5:9:6"))
    token = base64.urlsafe_b64encode(bytes(officer_sessions.TOKEN_BYTES)).rstrip(b"=")
    yield Decoder("session", lambda raw: officer_sessions._token(raw.decode("latin-1")), (token,))


@functools.cache
def all_decoders() -> dict[str, Decoder]:
    """Return every decoder by its name."""
    sources = (_messages, _parameters, _envelopes, _permits, _sealed, _headers, _cursors)
    sources += (decoder_files.file_decoders, decoder_signed.signed_decoders, decoder_messages.message_decoders)
    found = [each for source in sources for each in source()]
    assert len({each.name for each in found}) == len(found)
    return {each.name: each for each in found}
