"""Real connections: certificates of an authority made for the tests, servers on loopback, keys of both ends."""

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import NamedTuple

import pytest
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from chukan.chance import SystemChance
from chukan.clock import SystemClock
from chukan.ops.certificates import Authority, Issued
from chukan.platform.envelope import Opener, Signer
from chukan.platform.tls import client_context, server_context


class Pki(NamedTuple):
    """Certificates by name, their root, and a certificate of the same name under another root."""

    ca: Path
    network: Issued
    exchange: Issued
    system: Issued
    foreign: Issued
    foreign_ca: Path

    def server(self, issued: Issued) -> ssl.SSLContext:
        return server_context(issued.certificate, issued.key, self.ca)

    def client(self, issued: Issued) -> ssl.SSLContext:
        return client_context(issued.certificate, issued.key, self.ca)


@pytest.fixture(scope="session")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    clock = SystemClock()
    ours = Authority.create(tmp_path_factory.mktemp("pki") / "ours", "Test", clock)
    other = Authority.create(tmp_path_factory.mktemp("pki") / "other", "Other", clock)
    return Pki(
        ca=ours.trusted,
        network=ours.issue_peer("network"),
        exchange=ours.issue_peer("exchange-east"),
        system=ours.issue_client("kokuho"),
        foreign=other.issue_peer("network"),
        foreign_ca=other.trusted,
    )


class Parties(NamedTuple):
    """Signers and the opener that knows their keys; ``stranger`` signs in the network's name with another key."""

    network: Signer
    exchange: Signer
    stranger: Signer
    opener: Opener
    network_key: Ed25519PrivateKey


@pytest.fixture(scope="session")
def parties() -> Parties:
    clock = SystemClock()
    chance = SystemChance(clock)
    network, exchange, stranger = (Ed25519PrivateKey.generate() for _ in range(3))
    known = {"network": network.public_key(), "exchange-east": exchange.public_key()}
    return Parties(
        Signer("network", network, clock, chance),
        Signer("exchange-east", exchange, clock, chance),
        Signer("network", stranger, clock, chance),
        Opener(known, clock),
        network,
    )


Serve = Callable[[web.Application, ssl.SSLContext | None], Awaitable[str]]


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """Serve an application on a free loopback port and return its base URL; closed at the end of the test."""
    async with AsyncExitStack() as stack:

        async def start(app: web.Application, context: ssl.SSLContext | None) -> str:
            runner = web.AppRunner(app, shutdown_timeout=0.1, access_log=None)
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
            await site.start()
            port = runner.addresses[0][1]
            return f"{'https' if context else 'http'}://127.0.0.1:{port}"

        yield start
