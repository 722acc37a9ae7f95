"""Members of a cell whose REST says what a test wants: real HTTP servers on free ports, as Patroni's answers look."""

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from chukan.tests.replication.pair import pause

SYSTEM = "7711293333273585705"
BLACK_HOLE_S = 30.0


@dataclass
class FakeMember:
    """One member; every attribute may be changed while it serves."""

    name: str
    scope: str = "here"
    leads: bool = False
    role: str = "replica"
    state: str = "running"
    timeline: int | None = 1
    system: str = SYSTEM
    streaming: bool = True
    leader_seen: str | None = None
    black_hole: bool = False
    garbage: bool = False
    delay_s: float = 0.0
    asked: int = 0
    orders: list[tuple[str, str, Any]] = field(default_factory=list)
    refuses: str = ""
    url: str = ""

    def lead(self, timeline: int) -> None:
        """Be the primary with the leader's key."""
        self.leads, self.role, self.timeline, self.streaming = True, "primary", timeline, False

    def follow(self, timeline: int) -> None:
        """Be a replica that streams."""
        self.leads, self.role, self.timeline, self.streaming = False, "replica", timeline, True

    def document(self) -> dict[str, Any]:
        found: dict[str, Any] = {
            "state": self.state,
            "role": self.role,
            "server_version": 150018,
            "xlog": {"location": 100} if self.role == "primary" else {"received_location": 90},
            "timeline": self.timeline,
            "database_system_identifier": self.system,
            "patroni": {"version": "4.1.5", "scope": self.scope, "name": self.name},
        }
        if self.streaming:
            found["replication_state"] = "streaming"
        return found

    async def handle(self, request: web.Request) -> web.Response:
        self.asked += 1
        if self.black_hole:
            await pause(BLACK_HOLE_S)
        await pause(self.delay_s)
        if self.garbage:
            return web.Response(text="<html>it works</html>")
        path = request.path.strip("/")
        if request.method in {"POST", "PATCH"}:
            self.orders.append((request.method, path, await request.json()))
            if self.refuses:
                return web.Response(status=412, text=self.refuses)
            return web.Response(text="Successfully switched over")
        if path == "cluster":
            members = [
                {"name": name, "role": "leader" if name == self.leader_seen else "replica", "state": "running",
                 "timeline": self.timeline, "lag": 0}
                for name in {self.name, self.leader_seen or self.name}
            ]  # fmt: skip
            return web.json_response({"members": members, "scope": self.scope})
        if path == "config":
            return web.json_response({"ttl": 20})
        return web.json_response(self.document(), status=200 if self.leads or path == "patroni" else 503)


@contextlib.asynccontextmanager
async def serving(*members: FakeMember) -> AsyncIterator[dict[str, str]]:
    """Serve members; yields name -> URL."""
    runners = []
    for member in members:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", member.handle)
        runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        runners.append(runner)
        port = site._server.sockets[0].getsockname()[1]
        member.url = f"http://127.0.0.1:{port}"
    try:
        yield {member.name: member.url for member in members}
    finally:
        for runner in runners:
            await runner.cleanup()
