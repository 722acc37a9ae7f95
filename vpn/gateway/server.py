"""The gateway's own small HTTP server: ``/metrics`` and ``/healthz``, for Prometheus and who supervises the process.

The text is made in a thread and shared by all who ask within a second, so that neither 2,500 bodies nor many askers
block the loop on which the links are kept.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Final

from aiohttp import web
from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector, generate_latest

from chukan.clock import Clock
from chukan.vpn.gateway.metrics import CONTENT_TYPE, Snapshot, render

FRESH_S: Final = 1.0
SHUTDOWN_S: Final = 2.0


class Figures:
    """Makes the text of ``/metrics``, once a second at most."""

    def __init__(self, snapshot: Callable[[], Snapshot], clock: Clock) -> None:
        self._snapshot = snapshot
        self._clock = clock
        self._turn = asyncio.Lock()
        self._text = b""
        self._made_at: float | None = None
        self._registry = CollectorRegistry()
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self._registry)

    async def text(self) -> bytes:
        """Return the text exposition."""
        async with self._turn:
            if self._made_at is None or self._clock.monotonic() - self._made_at >= FRESH_S:
                self._text = await asyncio.to_thread(self._make)
                self._made_at = self._clock.monotonic()
            return self._text

    def _make(self) -> bytes:
        return render(self._snapshot()) + generate_latest(self._registry)


def application(figures: Figures, healthy: Callable[[], bool]) -> web.Application:
    """Return the application of the two paths."""

    async def metrics(_request: web.Request) -> web.Response:
        return web.Response(body=await figures.text(), headers={"Content-Type": CONTENT_TYPE})

    async def healthz(_request: web.Request) -> web.Response:
        good = healthy()
        return web.json_response({"status": "ok" if good else "no good pass lately"}, status=200 if good else 503)

    app = web.Application()
    app.router.add_get("/metrics", metrics)
    app.router.add_get("/healthz", healthz)
    return app


@contextlib.asynccontextmanager
async def serving(app: web.Application, host: str, port: int) -> AsyncIterator[int]:
    """Serve while entered; yields the port. Raises ``OSError`` where it cannot be listened on."""
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=SHUTDOWN_S)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port)
        await site.start()
        addresses = runner.addresses
        yield int(addresses[0][1])
    finally:
        await runner.cleanup()
