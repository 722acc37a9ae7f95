"""Whoever has to do with links: an operator's steward, a gateway's controller, and what a device would ask for."""

import contextlib
import dataclasses
import datetime as dt
import hashlib
import itertools
from collections.abc import AsyncIterator
from typing import Any

from chukan.clock import SystemClock
from chukan.replication.primary import Cells
from chukan.tenants.bodies import bodies
from chukan.tenants.links import GatewayPart, LinkController, LinkSteward, Requested, RequestedPeer

CELL = "here"
CENTRES = ("east", "west")
NUMBERS = itertools.count(1)
BODIES = (each.code for each in bodies())


def key(text: str | None = None) -> bytes:
    """Return 32 bytes that stand for a public key: a new one, or the one of a word."""
    return hashlib.sha256((text or f"key {next(NUMBERS)}").encode()).digest()


def sealed() -> bytes:
    """Return what stands for a pre-shared key that is sealed for a gateway."""
    return b"sealed:" + key()


def soon(days: float = 7) -> dt.datetime:
    return SystemClock().now() + dt.timedelta(days=days)


class KeptCells:
    """Cells whose steward's connections are kept for the next act: a new one each time would be most of a test."""

    def __init__(self, cells: Cells) -> None:
        self._cells = cells
        self._idle: list[Any] = []
        self._open = contextlib.AsyncExitStack()

    @contextlib.asynccontextmanager
    async def steward(self, name: str) -> AsyncIterator[Any]:
        if not self._idle:
            self._idle.append(await self._open.enter_async_context(self._cells.steward(name)))
        connection = self._idle.pop()
        try:
            yield connection
        finally:
            self._idle.append(connection)

    async def close(self) -> None:
        await self._open.aclose()


@dataclasses.dataclass
class LinkDesk:
    """Everybody who has to do with links, in one cell; a test takes bodies of its own."""

    steward: LinkSteward
    controller: LinkController
    cells: Cells
    gateway_cells: Cells
    admin: Any

    def body(self) -> str:
        """Return a body that no test has had."""
        return next(BODIES)

    async def invited(self, body: str | None = None, **changes: Any) -> str:
        """Return a link that was invited by ``anna``."""
        given = {"mode": "pair", "kind": "wireguard", "public_key": key(), "expires_at": soon(), "who": "anna"}
        return await self.steward.invite(body or self.body(), **(given | changes))

    async def wish(self, link: str, **changes: Any) -> Requested:
        """Return what a device would ask for under its invitation."""
        given: dict[str, Any] = {
            "invitation_key": (await self.steward.show(link)).invitation_key,
            "device_key": key(),
            "device_sealing_key": key(),
            "digest": key(),
            "peers": {centre: RequestedPeer(public_key=key()) for centre in CENTRES},
        }
        return Requested(**(given | changes))

    async def requested(self, body: str | None = None, **changes: Any) -> str:
        """Return a link that a device has asked for."""
        link = await self.invited(body, **changes)
        await self.steward.request(link, await self.wish(link), "anna")
        return link

    async def active(self, body: str | None = None, **changes: Any) -> str:
        """Return a link that ``berta`` has approved."""
        link = await self.requested(body, **changes)
        await self.steward.approve(link, {centre: sealed() for centre in CENTRES}, second="berta")
        return link

    async def in_state(self, state: str) -> str:
        """Return a link in a state."""
        if state == "invited":
            return await self.invited()
        if state == "requested":
            return await self.requested()
        link = await self.active()
        if state == "suspended":
            await self.steward.suspend(link, who="anna", reason="as a test")
        if state == "revoked":
            await self.steward.revoke(link, who="anna", reason="as a test")
        return link

    async def gateways(self) -> None:
        """Make both centres' gateways known, where they are not."""
        known = await self.steward.gateways()
        for centre in CENTRES:
            if centre not in known:
                part = GatewayPart(endpoint=f"{centre}.example:51820", public_key=key(), sealing_key=key())
                await self.steward.gateway(centre, part, "anna")

    async def desired(self, centre: str, link: str) -> Any:
        """Return what a gateway must have of one link."""
        return next((peer for peer in (await self.controller.desired(centre)).peers if peer.link == link), None)
