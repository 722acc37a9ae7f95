"""The exchange as a client: a network whose certificate was revoked is not called, on a kept connection neither."""

import ssl
from collections.abc import Callable
from typing import Any, Protocol

import pytest
from aiohttp import web

from chukan.ops.certificates import Issued, read_certificates
from chukan.platform.peer import NetworkPeer, NetworkTrouble
from chukan.platform.revocation import Identity
from chukan.settings import Network


class Pki(Protocol):
    network: Issued
    exchange: Issued
    ca: Any

    def server(self, issued: Issued) -> ssl.SSLContext: ...
    def client(self, issued: Issued) -> ssl.SSLContext: ...


class Revoked:
    """Refuses the certificates that it is given."""

    def __init__(self) -> None:
        self.identities: set[Identity] = set()
        self.counted = 0

    def refuses(self, identity: Identity | None) -> bool:
        assert identity is not None
        return identity in self.identities

    def refused(self) -> None:
        self.counted += 1


async def test_a_network_that_was_revoked_is_not_called(pki: Pki, parties: Any, serve: Callable[..., Any]) -> None:
    asked: list[bytes] = []

    async def permits(request: web.Request) -> web.Response:
        asked.append(await request.read())
        return web.Response(status=500)

    app = web.Application()
    app.router.add_post("/network/v1/permit-requests", permits)
    url = await serve(app, pki.server(pki.network))
    revoked = Revoked()
    settings = Network(url=url, ca_file=pki.ca, verify_key_file=pki.ca)
    peer = NetworkPeer(settings, parties.exchange, parties.opener, pki.client(pki.exchange), revoked=revoked)
    try:
        with pytest.raises(NetworkTrouble) as answered:
            await peer.permit_requests([b'{"id":"a"}'])
        assert (len(asked), answered.value.reason != "certificate_revoked") == (1, True)
        certificate = read_certificates(pki.network.certificate)[0]
        revoked.identities.add(Identity(certificate.issuer.public_bytes(), certificate.serial_number))
        for _ in range(2):  # first on the connection that was kept, then on a new one
            with pytest.raises(NetworkTrouble) as refused:
                await peer.permit_requests([b'{"id":"a"}'])
            assert refused.value.reason == "certificate_revoked"
        assert (len(asked), revoked.counted, peer.answered) == (1, 2, False)
    finally:
        await peer.close()
