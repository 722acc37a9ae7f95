"""Calls to the network over real mutual TLS: only a signed, fitting answer of the network counts."""

import asyncio
import datetime as dt
import ssl
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, Protocol

import msgspec
import pytest
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from chukan.errors import Problem
from chukan.ops.certificates import Issued
from chukan.platform import peer as peer_module
from chukan.platform.envelope import Opened, Opener, Signed, Signer
from chukan.platform.peer import (
    ACQUISITIONS,
    ANSWER_KEYS,
    ANSWERS,
    HOLDERS,
    PERMIT_REQUESTS,
    NetworkPeer,
    NetworkTrouble,
)
from chukan.platform.wire.network import (
    AcquisitionReply,
    AcquisitionRequest,
    Answer,
    AnswerKey,
    HolderReply,
    KeyReply,
    PermitReply,
    Receipt,
)
from chukan.settings import Network

NOON = dt.datetime(2026, 11, 23, 3, 0, tzinfo=dt.UTC)
IDS = [uuid.UUID(int=number) for number in range(1, 6)]
ASKED = [msgspec.json.encode(AcquisitionRequest(id=one, agency="1310000000000001")) for one in IDS]


class Pki(Protocol):
    network: Issued
    exchange: Issued
    foreign: Issued
    foreign_ca: Path

    def server(self, issued: Issued) -> ssl.SSLContext: ...
    def client(self, issued: Issued) -> ssl.SSLContext: ...


class Parties(Protocol):
    network: Signer
    exchange: Signer
    stranger: Signer
    opener: Opener
    network_key: Ed25519PrivateKey


Serve = Callable[[web.Application, ssl.SSLContext | None], Awaitable[str]]


def number_for(name: object) -> bytes:
    return msgspec.json.encode(AcquisitionReply(id=uuid.UUID(str(name)), number=f"n-{name}"))


def response(signed: Signed) -> web.Response:
    return web.Response(status=signed.status, body=signed.body, headers=signed.headers)


class FakeNetwork:
    """Verifies what it is sent and answers as the test says."""

    def __init__(self, parties: Parties) -> None:
        self.parties = parties
        self.seen: list[tuple[str, Opened]] = []
        self.connections: set[int] = set()
        self.requests = 0
        self.reply: Callable[[Opened], Awaitable[web.StreamResponse]] = self.good
        self.app = web.Application(client_max_size=64 * 1024 * 1024)
        self.app.router.add_route("*", "/{path:.*}", self.handle)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.requests += 1
        self.connections.add(id(request.transport))
        body = await request.read()
        opened = self.parties.opener.request("POST", request.rel_url.raw_path, request.headers, body)
        self.seen.append((request.rel_url.raw_path, opened))
        return await self.reply(opened)

    async def good(self, opened: Opened) -> web.StreamResponse:
        names = [msgspec.json.decode(item)["id"] for item in opened.items]
        return response(self.parties.network.reply([number_for(name) for name in names], opened.message))

    def with_items(self, change: Callable[[list[bytes]], list[bytes]]) -> None:
        async def reply(opened: Opened) -> web.StreamResponse:
            items = [number_for(msgspec.json.decode(item)["id"]) for item in opened.items]
            return response(self.parties.network.reply(change(items), opened.message))

        self.reply = reply


@pytest.fixture
def network(parties: Parties) -> FakeNetwork:
    return FakeNetwork(parties)


@pytest.fixture
async def connect(parties: Parties, pki: Pki, network: FakeNetwork, serve: Serve) -> AsyncIterator[Any]:
    """Return a way to make peers of the served network; all are closed at the end."""
    made: list[NetworkPeer] = []
    url = await serve(network.app, pki.server(pki.network))

    def make(*, timeout_s: float = 5.0, url: str = url, tls: ssl.SSLContext | None = None, **more: Any) -> NetworkPeer:
        settings = Network(url=url, ca_file=Path("unused"), verify_key_file=Path("unused"), timeout_s=timeout_s)
        tls = tls or pki.client(pki.exchange)
        made.append(NetworkPeer(settings, parties.exchange, parties.opener, tls, **more))
        return made[-1]

    yield make
    for one in made:
        await one.close()


async def trouble(call: Awaitable[object]) -> NetworkTrouble:
    with pytest.raises(NetworkTrouble, match=r"^network_unavailable$") as caught:
        # Far below the deadline of a call that has not set its own.
        async with asyncio.timeout(3.0):
            await call
    assert isinstance(caught.value, Problem)
    assert caught.value.kind.retryable
    return caught.value


# ---------------------------------------------------------------- the five calls


async def test_each_call_has_its_path_and_its_replies(network: FakeNetwork, connect: Any) -> None:
    replies: dict[str, msgspec.Struct] = {
        PERMIT_REQUESTS: PermitReply(id=IDS[0], outcome="no_code", reference="r", decided_at=NOON),
        ANSWERS: Receipt(id=IDS[0], status="accepted", at=NOON),
        ACQUISITIONS: AcquisitionReply(id=IDS[0], number="n"),
        ANSWER_KEYS: KeyReply(id="answer-1", status="accepted"),
        HOLDERS: HolderReply(id=IDS[0], outcome="answered", answered_at=NOON, providers=["1" * 16]),
    }

    async def reply(opened: Opened) -> web.StreamResponse:
        path = network.seen[-1][0]
        return response(network.parties.network.reply([msgspec.json.encode(replies[path])], opened.message))

    network.reply = reply
    peer = connect()
    answer = Answer(id=IDS[0], permit=IDS[1], route="r", provider="1" * 16, outcome="no_record", answered_at=NOON)
    key = AnswerKey(id="answer-1", agency="1" * 16, public=bytes(32))
    # A permit request is not read here, but for its id: its exact bytes come from an outbox.
    asked = b'{"id":"%s"}' % str(IDS[0]).encode()
    assert await peer.permit_requests([asked]) == [replies[PERMIT_REQUESTS]]
    assert await peer.answers([msgspec.json.encode(answer)]) == [replies[ANSWERS]]
    assert await peer.acquisitions([ASKED[0]]) == [replies[ACQUISITIONS]]
    assert await peer.answer_keys([msgspec.json.encode(key)]) == [replies[ANSWER_KEYS]]
    assert await peer.holders([asked]) == [replies[HOLDERS]]
    assert [path for path, _ in network.seen] == [PERMIT_REQUESTS, ANSWERS, ACQUISITIONS, ANSWER_KEYS, HOLDERS]
    assert network.seen[0][1].items == [asked]
    assert {opened.sender for _, opened in network.seen} == {"exchange-east"}


async def test_replies_come_back_in_the_order_of_the_items(network: FakeNetwork, connect: Any) -> None:
    network.with_items(lambda items: items[::-1])
    assert [reply.id for reply in await connect().acquisitions(ASKED)] == IDS


async def test_asking_again_sends_the_same_item_bytes_in_a_new_envelope(network: FakeNetwork, connect: Any) -> None:
    peer = connect()
    first, second = [await peer.acquisitions(ASKED) for _ in range(2)]
    assert first == second
    assert network.seen[0][1].items == network.seen[1][1].items == ASKED
    assert network.seen[0][1].message != network.seen[1][1].message


async def test_a_connection_is_kept_and_their_number_is_bounded(network: FakeNetwork, connect: Any) -> None:
    peer = connect(in_flight_max=2)
    for _ in range(5):
        await peer.acquisitions(ASKED[:1])
    assert len(network.connections) == 1
    await asyncio.gather(*(peer.acquisitions(ASKED) for _ in range(20)))
    assert len(network.connections) <= 2


async def test_an_id_stands_once_in_a_call(connect: Any) -> None:
    with pytest.raises(ValueError, match="twice"):
        await connect().acquisitions([ASKED[0], ASKED[0]])


# ---------------------------------------------------------------- replies that do not count


ITEM_CHANGES: dict[str, tuple[Callable[[list[bytes]], list[bytes]], str]] = {
    "one less": (lambda items: items[:-1], "wrong_items"),
    "one more": (lambda items: [*items, number_for(uuid.UUID(int=9))], "wrong_items"),
    "one twice": (lambda items: [*items, items[0]], "wrong_items"),
    "one instead of another": (lambda items: [items[0], *items[:-1]], "wrong_items"),
    "a foreign one": (lambda items: [*items[:-1], number_for(uuid.UUID(int=9))], "wrong_items"),
    "of another form": (lambda items: [*items[:-1], b'{"id":"x"}'], "bad_reply"),
    "with an unknown field": (lambda items: [*items[:-1], items[-1][:-1] + b',"more":1}'], "bad_reply"),
    "too deep": (lambda items: [*items[:-1], items[-1][:-1] + b',"x":' + b"[" * 500 + b"]" * 500 + b"}"], "bad_reply"),
    "not UTF-8": (lambda items: [*items[:-1], items[-1].replace(b"n-", b"\xff-")], "bad_reply"),
}


@pytest.mark.parametrize("what", ITEM_CHANGES)
async def test_a_reply_with_other_items_does_not_count(network: FakeNetwork, connect: Any, what: str) -> None:
    change, reason = ITEM_CHANGES[what]
    network.with_items(change)
    found = await trouble(connect().acquisitions(ASKED))
    assert (found.reason, found.about_items) == (reason, True)


def signed_by(signer: Signer, opened: Opened) -> Signed:
    return signer.reply([number_for(msgspec.json.decode(item)["id"]) for item in opened.items], opened.message)


@pytest.mark.requirement("TXR-04")
@pytest.mark.parametrize("what", ["unsigned", "by a stranger", "by an exchange", "to another request", "tampered"])
async def test_a_reply_that_the_network_did_not_sign_does_not_count(
    network: FakeNetwork, connect: Any, parties: Parties, what: str
) -> None:
    def make(opened: Opened) -> Signed:
        if what == "unsigned":
            return signed_by(parties.network, opened)._replace(headers={"content-type": "application/json"})
        if what == "by a stranger":
            return signed_by(parties.stranger, opened)
        if what == "by an exchange":
            return signed_by(parties.exchange, opened)
        if what == "to another request":
            return signed_by(parties.network, opened._replace(message=uuid.UUID(int=1)))
        signed = signed_by(parties.network, opened)
        return signed._replace(body=signed.body.replace(b'"n-', b'"m-', 1))

    async def reply(opened: Opened) -> web.StreamResponse:
        return response(make(opened))

    network.reply = reply
    found = await trouble(connect().acquisitions(ASKED))
    assert found.reason == ("wrong_sender" if what == "by an exchange" else "signature_invalid")
    assert not found.about_items


@pytest.mark.parametrize(
    ("problem", "about_items"),
    [
        (Problem("busy", retry_after_s=7), False),
        (Problem("rate_limited", retry_after_s=7), False),
        (Problem("internal"), False),
        (Problem("invalid_field", pointer="/items/3"), True),
        (Problem("message_stale"), True),
    ],
)
async def test_a_signed_refusal_tells_its_reason(
    network: FakeNetwork,
    connect: Any,
    problem: Problem,
    about_items: bool,  # noqa: FBT001
) -> None:
    async def reply(opened: Opened) -> web.StreamResponse:
        return response(network.parties.network.refusal(problem, opened.message))

    network.reply = reply
    found = await trouble(connect().acquisitions(ASKED))
    assert (found.reason, found.retry_after_s) == (problem.code, problem.retry_after_s)
    assert found.about_items == about_items


@pytest.mark.parametrize("status", [301, 307, 404, 500, 503, 204])
async def test_an_unsigned_refusal_tells_nothing(network: FakeNetwork, connect: Any, status: int) -> None:
    async def reply(_: Opened) -> web.StreamResponse:
        return web.Response(status=status, headers={"location": "/elsewhere", "retry-after": "99999"})

    network.reply = reply
    found = await trouble(connect().acquisitions(ASKED))
    assert (found.reason, found.retry_after_s, found.about_items) == ("signature_invalid", None, False)
    assert network.requests == 1, "a redirection is not followed"


async def test_a_refusal_of_a_stranger_tells_nothing(network: FakeNetwork, connect: Any, parties: Parties) -> None:
    async def reply(opened: Opened) -> web.StreamResponse:
        signer = parties.stranger if len(network.seen) == 1 else parties.exchange
        return response(signer.refusal(Problem("invalid_field"), opened.message))

    network.reply = reply
    peer = connect()
    assert (await trouble(peer.acquisitions(ASKED))).reason == "signature_invalid"
    found = await trouble(peer.acquisitions(ASKED))
    assert (found.reason, found.about_items) == ("wrong_sender", False)


async def test_a_wait_of_a_refusal_is_bounded(network: FakeNetwork, connect: Any) -> None:
    async def reply(opened: Opened) -> web.StreamResponse:
        return response(network.parties.network.refusal(Problem("busy", retry_after_s=10**9), opened.message))

    network.reply = reply
    assert (await trouble(connect().acquisitions(ASKED))).retry_after_s == 3600


# ---------------------------------------------------------------- time, size, connection


async def test_a_network_that_is_silent_is_given_up_at_the_deadline(network: FakeNetwork, connect: Any) -> None:
    release = asyncio.Event()

    async def reply(opened: Opened) -> web.StreamResponse:
        await release.wait()
        return await network.good(opened)

    network.reply = reply
    assert (await trouble(connect(timeout_s=0.3).acquisitions(ASKED))).reason == "timeout"
    release.set()


async def test_the_deadline_holds_for_the_whole_reply(network: FakeNetwork, connect: Any) -> None:
    """A body that drips must not outlive the deadline."""
    release = asyncio.Event()

    class Dripping(web.StreamResponse):
        async def write_eof(self, data: bytes = b"") -> None:
            await self.write(b"[")
            await release.wait()
            await super().write_eof(data)

    async def reply(_: Opened) -> web.StreamResponse:
        return Dripping()

    network.reply = reply
    assert (await trouble(connect(timeout_s=0.3).acquisitions(ASKED))).reason == "timeout"
    release.set()


async def test_waiting_for_a_free_connection_counts(network: FakeNetwork, connect: Any) -> None:
    release = asyncio.Event()

    async def reply(opened: Opened) -> web.StreamResponse:
        await release.wait()
        return await network.good(opened)

    network.reply = reply
    peer = connect(timeout_s=0.3, in_flight_max=1)
    found = await asyncio.gather(*(trouble(peer.acquisitions(ASKED)) for _ in range(3)))
    assert [one.reason for one in found] == ["timeout"] * 3
    release.set()


async def test_a_reply_without_end_is_cut_off(
    network: FakeNetwork, connect: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peer_module, "BODY_BYTES_MAX", 100_000)

    async def reply(_: Opened) -> web.StreamResponse:
        return web.Response(body=bytes(100_001))

    network.reply = reply
    assert (await trouble(connect().acquisitions(ASKED))).reason == "too_large"


async def test_a_network_that_is_away_is_unreachable(connect: Any, pki: Pki) -> None:
    assert (await trouble(connect(url="https://127.0.0.1:9").acquisitions(ASKED))).reason == "unreachable"


async def test_a_connection_that_breaks_is_unreachable(network: FakeNetwork, connect: Any) -> None:
    class Breaking(web.StreamResponse):
        async def write_eof(self, data: bytes = b"") -> None:
            await self.write(b"[")
            assert self._req is not None
            assert self._req.transport is not None
            self._req.transport.abort()

    async def reply(_: Opened) -> web.StreamResponse:
        return Breaking()

    network.reply = reply
    assert (await trouble(connect().acquisitions(ASKED))).reason == "unreachable"


async def test_after_trouble_the_next_call_works(network: FakeNetwork, connect: Any) -> None:
    peer = connect()
    network.with_items(lambda items: items[:-1])
    await trouble(peer.acquisitions(ASKED))
    network.reply = network.good
    assert len(await peer.acquisitions(ASKED)) == 5


# ---------------------------------------------------------------- TLS


async def test_a_network_under_another_root_is_sent_nothing(
    network: FakeNetwork, connect: Any, pki: Pki, serve: Serve
) -> None:
    url = await serve(network.app, pki.server(pki.foreign))
    assert (await trouble(connect(url=url).acquisitions(ASKED))).reason == "unreachable"
    assert network.seen == []


async def test_a_network_of_another_name_is_sent_nothing(network: FakeNetwork, connect: Any) -> None:
    # The certificate holds localhost and 127.0.0.1 only.
    peer = connect()
    peer._url = peer._url.replace("127.0.0.1", "127.0.0.2")
    assert (await trouble(peer.acquisitions(ASKED))).reason == "unreachable"
    assert network.seen == []


async def test_nothing_older_than_tls_1_3_is_spoken(network: FakeNetwork, connect: Any, pki: Pki, serve: Serve) -> None:
    old = pki.server(pki.network)
    old.minimum_version = ssl.TLSVersion.TLSv1_2
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    url = await serve(network.app, old)
    assert (await trouble(connect(url=url).acquisitions(ASKED))).reason == "unreachable"
    assert network.seen == []


async def test_plain_http_finds_no_tls_and_no_items(network: FakeNetwork, connect: Any, serve: Serve) -> None:
    url = await serve(network.app, None)
    https = url.replace("http:", "https:")
    assert (await trouble(connect(url=https).acquisitions(ASKED))).reason == "unreachable"
    assert network.seen == []


@pytest.mark.parametrize(
    "url",
    ["http://127.0.0.1:1", "127.0.0.1:1", "https://", "https://h/path", "https://h/?q", "https://u@h/", "ftp://h"],
)
async def test_anything_but_https_is_refused_at_the_start(connect: Any, url: str) -> None:
    with pytest.raises(Problem, match="setting_invalid"):
        connect(url=url)


async def test_a_slash_at_the_end_of_the_url_changes_nothing(network: FakeNetwork, connect: Any) -> None:
    peer = connect()
    again = connect(url=peer._url + "/")
    assert len(await again.acquisitions(ASKED)) == 5
