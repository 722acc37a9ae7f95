"""What an exchange takes from the network: right caller, good signature, an answer per item, always signed."""

import asyncio
import datetime as dt
import gzip
import ssl
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import aiohttp
import msgspec
import pytest
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from chukan.chance import SystemChance
from chukan.clock import ManualClock
from chukan.errors import Problem
from chukan.ops.certificates import Issued
from chukan.platform.envelope import Opened, Opener, Signed, Signer
from chukan.platform.http import network as listener
from chukan.platform.http.network import ANSWERS, CODES, NOTICES, network_app
from chukan.platform.wire.agency import ProblemBody
from chukan.platform.wire.network import Ack, AcquiredCode, AnswerDelivery, Notice, SignedPermit

NOON = dt.datetime(2026, 11, 23, 3, 0, tzinfo=dt.UTC)
IDS = [uuid.UUID(int=number) for number in range(1, 6)]
PERMIT = SignedPermit(body=b"{}", list_id=IDS[0], index=0, size=1, path=[], key="k", signature=b"s")
NOTICE_ITEMS = [msgspec.json.encode(Notice(id=one, permit=PERMIT)) for one in IDS]
SMALL_CAP = 100_000


class Pki(Protocol):
    ca: Path
    network: Issued
    exchange: Issued
    system: Issued
    foreign: Issued

    def server(self, issued: Issued) -> ssl.SSLContext: ...
    def client(self, issued: Issued) -> ssl.SSLContext: ...


class Parties(Protocol):
    network: Signer
    exchange: Signer
    stranger: Signer
    opener: Opener
    network_key: Ed25519PrivateKey


Serve = Callable[[web.Application, ssl.SSLContext | None], Awaitable[str]]


class Inbox:
    """Takes everything, unless told otherwise; remembers what came."""

    def __init__(self) -> None:
        self.taken: list[Any] = []
        self.calls = 0
        self.answer: Callable[[list[Any]], Awaitable[list[Ack]]] = self.accept

    async def accept(self, items: list[Any]) -> list[Ack]:
        return [Ack(id=item.id, status="accepted") for item in items]

    async def notices(self, items: list[Notice], /) -> list[Ack]:
        return await self._take(items)

    async def answers(self, items: list[AnswerDelivery], /) -> list[Ack]:
        return await self._take(items)

    async def codes(self, items: list[AcquiredCode], /) -> list[Ack]:
        return await self._take(items)

    async def _take(self, items: list[Any]) -> list[Ack]:
        self.calls += 1
        self.taken += items
        return await self.answer(items)


class Reply(NamedTuple):
    """What came back, already verified as signed by the exchange and as the answer to the request."""

    status: int
    acks: list[Ack]
    problem: ProblemBody | None
    headers: dict[str, str]


class Wire:
    """Sends as the network does, and checks that every single answer is signed and names the request."""

    def __init__(self, url: str, session: aiohttp.ClientSession, parties: Parties) -> None:
        self.url = url
        self.session = session
        self.parties = parties

    async def push(self, path: str, items: list[bytes], **how: Any) -> Reply:
        return await self.send(self.parties.network.request("POST", path, items), **how)

    async def send(
        self, signed: Signed, *, method: str = "POST", path: str = "", body: Any = None, **headers: str
    ) -> Reply:
        fields = {**signed.headers, **{name.replace("_", "-"): value for name, value in headers.items()}}
        url = self.url + (path or signed.path)
        data = signed.body if body is None else body
        async with self.session.request(method, url, data=data, headers=fields) as response:
            received = await response.read()
            return self.opened(response, received, signed.message)

    def opened(self, response: aiohttp.ClientResponse, received: bytes, to: uuid.UUID) -> Reply:
        found = {name.lower(): value for name, value in response.headers.items()}
        assert found["cache-control"] == "no-store"
        if response.status == 200:
            opened: Opened = self.parties.opener.reply(200, response.headers, received, to=to)
            assert opened.sender == "exchange-east"
            acks = [msgspec.json.decode(item, type=Ack) for item in opened.items]
            return Reply(200, acks, None, found)
        sender, problem = self.parties.opener.refusal(response.status, response.headers, received, to=to)
        assert sender == "exchange-east"
        assert response.content_type == "application/problem+json"
        assert problem.status == response.status
        return Reply(response.status, [], problem, found)


@pytest.fixture
def inbox() -> Inbox:
    return Inbox()


@pytest.fixture
async def url(inbox: Inbox, parties: Parties, pki: Pki, serve: Serve) -> str:
    app = network_app(inbox, parties.opener, parties.exchange, body_bytes_max=SMALL_CAP, in_flight_max=4)
    return await serve(app, pki.server(pki.exchange))


@pytest.fixture
async def wire(url: str, parties: Parties, pki: Pki) -> AsyncIterator[Wire]:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=pki.client(pki.network))) as session:
        yield Wire(url, session, parties)


def refusal(reply: Reply) -> str:
    assert reply.problem is not None
    return reply.problem.code


# ---------------------------------------------------------------- the three calls


@pytest.mark.requirement("TXR-04")
async def test_each_call_reaches_its_inbox_and_every_item_has_its_ack(wire: Wire, inbox: Inbox) -> None:
    answer = AnswerDelivery(
        id=IDS[1], request=IDS[0], inquirer="1" * 16, permit=PERMIT, outcome="no_record", answered_at=NOON,
        received_at=NOON,
    )  # fmt: skip
    code = AcquiredCode(id=IDS[2], agency="1" * 16, number="n", status="acquired", code=b"c")
    for path, item in ((NOTICES, Notice(id=IDS[0], permit=PERMIT)), (ANSWERS, answer), (CODES, code)):
        reply = await wire.push(path, [msgspec.json.encode(item)])
        assert reply.acks == [Ack(id=item.id, status="accepted")]
        assert inbox.taken[-1] == item


async def test_acks_come_in_the_order_of_the_items(wire: Wire, inbox: Inbox) -> None:
    async def turned(items: list[Notice]) -> list[Ack]:
        return [Ack(id=item.id, status="refused", reason=f"{item.id.int}") for item in items[::-1]]

    inbox.answer = turned
    assert [ack.reason for ack in (await wire.push(NOTICES, NOTICE_ITEMS)).acks] == ["1", "2", "3", "4", "5"]


async def test_an_item_that_the_inbox_passed_over_comes_again(wire: Wire, inbox: Inbox) -> None:
    """An ack lists only lines whose cell has committed; silence is never consent."""

    async def some(items: list[Notice]) -> list[Ack]:
        return [Ack(id=items[1].id, status="accepted"), Ack(id=uuid.UUID(int=77), status="accepted")]

    inbox.answer = some
    acks = (await wire.push(NOTICES, NOTICE_ITEMS)).acks
    assert [ack.status for ack in acks] == ["again", "accepted", "again", "again", "again"]
    assert [ack.id for ack in acks] == IDS


async def test_a_repeat_reaches_the_inbox_again(wire: Wire, inbox: Inbox, parties: Parties) -> None:
    """Repeats are the inbox's affair: it gives each the first outcome."""
    signed = parties.network.request("POST", NOTICES, NOTICE_ITEMS[:1])
    first, second = [await wire.send(signed) for _ in range(2)]
    assert first.acks == second.acks
    assert len(inbox.taken) == 2


# ---------------------------------------------------------------- who is calling


async def test_a_caller_without_a_certificate_has_no_connection(url: str, pki: Pki, inbox: Inbox) -> None:
    context = ssl.create_default_context(cafile=str(pki.ca))
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context)) as session:
        with pytest.raises((aiohttp.ClientError, OSError)):
            await session.post(url + NOTICES, data=b"{}")
    assert inbox.taken == []


async def test_a_certificate_of_another_root_has_no_connection(url: str, pki: Pki, inbox: Inbox) -> None:
    context = ssl.create_default_context(cafile=str(pki.ca))
    context.load_cert_chain(pki.foreign.certificate, pki.foreign.key)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context)) as session:
        with pytest.raises((aiohttp.ClientError, OSError)):
            await session.post(url + NOTICES, data=b"{}")
    assert inbox.taken == []


async def test_nothing_older_than_tls_1_3_is_spoken(url: str, pki: Pki) -> None:
    context = ssl.create_default_context(cafile=str(pki.ca))
    context.load_cert_chain(pki.network.certificate, pki.network.key)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context)) as session:
        with pytest.raises((aiohttp.ClientError, OSError)):
            await session.post(url + NOTICES, data=b"{}")


@pytest.mark.parametrize("who", ["exchange", "system"])
async def test_another_peer_is_refused_even_with_the_networks_signature(
    url: str, parties: Parties, pki: Pki, inbox: Inbox, who: str
) -> None:
    context = pki.client(getattr(pki, who))
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context)) as session:
        reply = await Wire(url, session, parties).push(NOTICES, NOTICE_ITEMS)
    assert (reply.status, refusal(reply)) == (403, "unregistered_system")
    assert inbox.taken == []


async def test_a_connection_without_tls_is_unauthenticated(inbox: Inbox, parties: Parties, serve: Serve) -> None:
    url = await serve(network_app(inbox, parties.opener, parties.exchange), None)
    async with aiohttp.ClientSession() as session:
        reply = await Wire(url, session, parties).push(NOTICES, NOTICE_ITEMS)
    assert (reply.status, refusal(reply)) == (401, "unauthenticated")
    assert inbox.taken == []


# ---------------------------------------------------------------- signatures


@pytest.mark.requirement("TXR-04")
@pytest.mark.parametrize("how", ["unsigned", "stranger", "exchange", "other path", "body", "digest", "stale"])
async def test_a_message_that_the_network_did_not_sign_like_this_is_refused(
    wire: Wire, inbox: Inbox, parties: Parties, how: str
) -> None:
    signed = parties.network.request("POST", NOTICES, NOTICE_ITEMS)
    expected = "signature_invalid"
    if how == "unsigned":
        signed = signed._replace(headers={**signed.headers, "signature": ""})
    if how == "stranger":
        signed = parties.stranger.request("POST", NOTICES, NOTICE_ITEMS)
    if how == "exchange":
        signed = parties.exchange.request("POST", NOTICES, NOTICE_ITEMS)
    if how == "other path":
        signed = parties.network.request("POST", ANSWERS, NOTICE_ITEMS)._replace(path=NOTICES)
    if how == "body":
        signed = signed._replace(body=signed.body.replace(b'"size":1', b'"size":2', 1))
    if how == "digest":
        signed = signed._replace(headers={**signed.headers, "content-digest": "sha-256=:" + "A" * 43 + "=:"})
    if how == "stale":
        old = ManualClock(dt.datetime(2020, 1, 1, tzinfo=dt.UTC))
        signer = Signer("network", parties.network_key, old, SystemChance(old))
        signed, expected = signer.request("POST", NOTICES, NOTICE_ITEMS), "message_stale"
    reply = await wire.send(signed)
    assert (reply.status, refusal(reply)) == (401, expected)
    assert inbox.taken == []


async def test_a_query_would_stand_outside_the_signature(wire: Wire, inbox: Inbox, parties: Parties) -> None:
    reply = await wire.send(parties.network.request("POST", NOTICES, NOTICE_ITEMS), path=f"{NOTICES}?x=1")
    assert (reply.status, refusal(reply)) == (400, "malformed_request")
    assert inbox.taken == []


async def test_an_encoded_path_is_not_the_signed_path(wire: Wire, inbox: Inbox, parties: Parties) -> None:
    """The router decodes a path, the signature covers the one on the wire."""
    import yarl  # noqa: PLC0415 - only here

    signed = parties.network.request("POST", NOTICES, NOTICE_ITEMS)
    url = yarl.URL(wire.url + "/exchange/v1/%6Eotices", encoded=True)
    async with wire.session.post(url, data=signed.body, headers=signed.headers) as response:
        reply = wire.opened(response, await response.read(), signed.message)
    assert refusal(reply) == "signature_invalid"
    assert inbox.taken == []


# ---------------------------------------------------------------- the form of requests


async def test_unknown_paths_and_methods_are_refused_with_a_signature(wire: Wire, parties: Parties) -> None:
    signed = parties.network.request("POST", NOTICES, NOTICE_ITEMS)
    assert refusal(await wire.send(signed, path="/exchange/v1/nothing")) == "not_found"
    assert refusal(await wire.send(signed, path="/")) == "not_found"
    assert refusal(await wire.send(signed, method="PUT")) == "method_not_allowed"


async def test_another_content_type_is_refused(wire: Wire, parties: Parties) -> None:
    signed = parties.network.request("POST", NOTICES, NOTICE_ITEMS)
    signed.headers["content-type"] = "text/plain"
    assert refusal(await wire.send(signed)) == "unsupported_media_type"


async def test_a_compressed_body_is_refused_unread(wire: Wire, inbox: Inbox, parties: Parties) -> None:
    signed = parties.network.request("POST", NOTICES, NOTICE_ITEMS)
    reply = await wire.send(signed, body=gzip.compress(signed.body), content_encoding="gzip")
    assert refusal(reply) == "unsupported_encoding"
    assert inbox.taken == []


async def test_a_body_beyond_the_cap_is_refused(wire: Wire, inbox: Inbox, parties: Parties) -> None:
    big = b'{"id":"%s"}' % (b"x" * SMALL_CAP)
    signed = parties.network.request("POST", NOTICES, [big])
    reply = await wire.send(signed)
    assert (reply.status, refusal(reply)) == (413, "too_large")
    assert reply.problem is not None
    assert reply.problem.limit == SMALL_CAP

    async def pieces() -> AsyncIterator[bytes]:
        for at in range(0, len(signed.body), 1000):
            yield signed.body[at : at + 1000]

    # Without an announced length the cap holds all the same; the server may close before everything is sent.
    with suppress(aiohttp.ClientError):
        assert refusal(await wire.send(signed, body=pieces())) == "too_large"
    assert inbox.taken == []


# ---------------------------------------------------------------- items


BAD_ITEMS = {
    "wrong type": b'{"id":"%s","permit":7}' % str(IDS[1]).encode(),
    "missing field": b'{"id":"%s"}' % str(IDS[1]).encode(),
    "unknown field": NOTICE_ITEMS[1][:-1] + b',"note":"x"}',
    "another message": msgspec.json.encode(AcquiredCode(id=IDS[1], agency="1" * 16, number="n", status="acquired")),
    "not UTF-8": b'{"id":"%s","permit":{"key":"\xff"}}' % str(IDS[1]).encode(),
    "size of a list": NOTICE_ITEMS[1].replace(b'"size":1', b'"size":100000'),
}


@pytest.mark.parametrize("what", BAD_ITEMS)
async def test_an_unreadable_item_is_refused_alone(wire: Wire, inbox: Inbox, what: str) -> None:
    reply = await wire.push(NOTICES, [NOTICE_ITEMS[0], BAD_ITEMS[what], NOTICE_ITEMS[2]])
    assert [ack.status for ack in reply.acks] == ["accepted", "refused", "accepted"]
    assert reply.acks[1] == Ack(id=IDS[1], status="refused", reason="invalid_item")
    assert [item.id for item in inbox.taken] == [IDS[0], IDS[2]]


async def test_nothing_readable_never_troubles_the_inbox(wire: Wire, inbox: Inbox) -> None:
    reply = await wire.push(NOTICES, [BAD_ITEMS["wrong type"]])
    assert [ack.status for ack in reply.acks] == ["refused"]
    assert inbox.calls == 0


@pytest.mark.parametrize(
    "item",
    [
        b"{}",
        b'{"id":7}',
        b'{"id":"secret-looking"}',
        b'{"id":"%s","x":%s%s}' % (str(IDS[1]).encode(), b"[" * 1500, b"]" * 1500),
        b'{"id":"\xff"}',
    ],
    ids=["empty", "number", "no uuid", "deep", "not UTF-8"],
)
async def test_a_list_with_a_nameless_item_is_refused_as_a_whole(wire: Wire, inbox: Inbox, item: bytes) -> None:
    reply = await wire.push(NOTICES, [NOTICE_ITEMS[0], item])
    assert refusal(reply) in {"invalid_field", "too_deep", "malformed_json"}
    assert reply.problem is not None
    assert "secret" not in str(msgspec.to_builtins(reply.problem))
    assert inbox.taken == []


async def test_the_place_of_a_nameless_item_is_told(wire: Wire) -> None:
    reply = await wire.push(NOTICES, [NOTICE_ITEMS[0], b"{}"])
    assert reply.problem is not None
    assert (reply.problem.pointer, reply.problem.line) == ("/items/1/id", 2)


async def test_an_id_stands_once_in_a_list(wire: Wire, inbox: Inbox) -> None:
    assert refusal(await wire.push(NOTICES, [NOTICE_ITEMS[0], NOTICE_ITEMS[0]])) == "invalid_field"
    assert refusal(await wire.push(NOTICES, [NOTICE_ITEMS[1], BAD_ITEMS["wrong type"]])) == "invalid_field"
    assert inbox.taken == []


# ---------------------------------------------------------------- trouble behind the listener


async def test_a_problem_of_the_inbox_is_a_signed_refusal(wire: Wire, inbox: Inbox) -> None:
    async def away(_: list[Notice]) -> list[Ack]:
        raise Problem("no_primary", retry_after_s=3)

    inbox.answer = away
    reply = await wire.push(NOTICES, NOTICE_ITEMS)
    assert (reply.status, refusal(reply), reply.headers["retry-after"]) == (503, "no_primary", "3")


async def test_a_fault_of_the_inbox_tells_nothing_of_itself(
    wire: Wire, inbox: Inbox, capfd: pytest.CaptureFixture[str]
) -> None:
    async def broken(items: list[Notice]) -> list[Ack]:
        raise KeyError(f"{items[0].id} secret value")

    inbox.answer = broken
    reply = await wire.push(NOTICES, NOTICE_ITEMS)
    assert (reply.status, refusal(reply)) == (500, "internal")
    assert "secret" not in str(msgspec.to_builtins(reply.problem))
    logged = capfd.readouterr().err
    assert "a push failed" in logged
    assert "KeyError" in logged
    assert "secret" not in logged
    inbox.answer = inbox.accept
    assert (await wire.push(NOTICES, NOTICE_ITEMS)).status == 200


async def test_an_inbox_that_hangs_is_given_up_at_the_deadline(
    wire: Wire, inbox: Inbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener, "_WORK_DEADLINE_S", 0.2)

    async def hangs(_: list[Notice]) -> list[Ack]:
        await asyncio.Event().wait()
        raise AssertionError

    inbox.answer = hangs
    reply = await wire.push(NOTICES, NOTICE_ITEMS)
    assert (reply.status, refusal(reply)) == (504, "deadline_exceeded")


async def test_beyond_so_many_at_once_the_answer_is_busy(wire: Wire, inbox: Inbox) -> None:
    release = asyncio.Event()
    inside = asyncio.Semaphore(0)

    async def waits(items: list[Notice]) -> list[Ack]:
        inside.release()
        await release.wait()
        return await inbox.accept(items)

    inbox.answer = waits
    under_way = [asyncio.ensure_future(wire.push(NOTICES, NOTICE_ITEMS)) for _ in range(4)]
    async with asyncio.timeout(5):
        for _ in under_way:
            await inside.acquire()
    reply = await wire.push(NOTICES, NOTICE_ITEMS)
    assert (reply.status, refusal(reply), reply.headers["retry-after"]) == (503, "busy", "1")
    release.set()
    assert [one.status for one in await asyncio.gather(*under_way)] == [200] * 4
    assert (await wire.push(NOTICES, NOTICE_ITEMS)).status == 200
