"""Listeners of the sandbox's processes: bind, serve, and stop when the process is told to end."""

import asyncio
import signal
import ssl
from collections.abc import Awaitable, Callable
from typing import Final

from aiohttp import web

from chukan.ops.sandbox.config import Tls
from chukan.platform import tls

KEEP_ALIVE_S: Final = 75.0
SHUTDOWN_S: Final = 5.0


class Listener:
    """One bound address of an application; ``url`` tells the port that was really taken."""

    def __init__(self, app: web.Application, host: str, port: int, identity: Tls | None = None) -> None:
        self._app = app
        self._host = host
        self._port = port
        self._identity = identity
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        """Bind and serve. Raises ``OSError`` when the address is taken."""
        context: ssl.SSLContext | None = None
        if self._identity is not None:
            own = self._identity
            context = tls.server_context(own.certificate_file, own.key_file, own.ca_file)
        self._runner = web.AppRunner(
            self._app, access_log=None, keepalive_timeout=KEEP_ALIVE_S, shutdown_timeout=SHUTDOWN_S
        )
        await self._runner.setup()
        await web.TCPSite(self._runner, self._host, self._port, ssl_context=context, backlog=512).start()
        self._port = self._runner.addresses[0][1]

    @property
    def url(self) -> str:
        """Base URL of the listener."""
        scheme = "http" if self._identity is None else "https"
        return f"{scheme}://{self._host}:{self._port}"

    async def stop(self) -> None:
        """Let requests at work end, within a few seconds, and close."""
        if self._runner is not None:
            await self._runner.cleanup()


async def until_told(work: Callable[[asyncio.Event], Awaitable[None]]) -> None:
    """Run ``work`` with an event that SIGTERM or SIGINT sets."""
    told = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told.set)
    await work(told)
