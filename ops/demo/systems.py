"""The systems and officers of the demo's agencies as clients, each with its own certificate.

They reach the platform as any system would: by address and certificate, the exchange of the agency's home centre first
and the other one when that fails. The registry network (住基ネット) is reached by the sandbox's own client, because the
resident codes that it carries must never come near an exchange.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final, TypeVar

from chukan.chance import SystemChance
from chukan.clock import SystemClock
from chukan.ops.demo import cast
from chukan.ops.demo.bring_up import Running
from chukan.ops.demo.neighbours import NETWORK, REGISTRY
from chukan.ops.sandbox.agency_client import AgencyClient
from chukan.ops.sandbox.config import RegistryConfig, Tls
from chukan.ops.sandbox.registry import RegistryClient
from chukan.ops.sandbox.transport import Connection

AT_ONCE: Final = 6
"""Agencies that work at the same time; each agency's own work stays in order."""
RETRY_S: Final = 60.0
"""How long a call is repeated when an exchange asks to come back."""

T = TypeVar("T")


class Systems:
    """One client for each agency's system and each officer, and the registry network's."""

    def __init__(self, running: Running) -> None:
        """Use ``connect``."""
        self._running = running
        self._clock = SystemClock()
        self._chance = SystemChance(self._clock)
        self.agencies = {
            agency.code: self._client(agency.code, cast.system_of(agency.code)) for agency in cast.agencies()
        }
        self.officers = {
            agency.code: tuple(self._client(agency.code, officer.id) for officer in cast.officers_of(agency.code))
            for agency in cast.agencies()
        }
        self.registry = RegistryClient(self._registry(), self._clock, self._chance)

    def _client(self, agency: str, client: str) -> AgencyClient:
        issued = self._running.credentials.clients[client]
        addresses = self._running.addresses
        connection = Connection(
            agency=agency,
            urls=addresses.client_urls(agency),
            ca=self._running.credentials.authority.trusted,
            certificate=issued.certificate,
            key=issued.key,
            retry_s=RETRY_S,
            namespace=addresses.namespace(agency),
        )
        return AgencyClient(connection, clock=self._clock, chance=self._chance)

    def _registry(self) -> RegistryConfig:
        credentials = self._running.credentials
        issued = credentials.peers[REGISTRY]
        return RegistryConfig(
            name=REGISTRY,
            network_url=self._running.around.network_url,
            network_name=NETWORK,
            network_verify_key_file=credentials.signing[NETWORK].public_file,
            tls=Tls(certificate_file=issued.certificate, key_file=issued.key, ca_file=credentials.authority.trusted),
            signing_key_file=credentials.signing[REGISTRY].private_file,
        )


@asynccontextmanager
async def connect(running: Running) -> AsyncIterator[Systems]:
    """Give the systems of a running demo, and close their connections at the end."""
    systems = Systems(running)
    async with AsyncExitStack() as stack:
        for client in (*systems.agencies.values(), *(one for pair in systems.officers.values() for one in pair)):
            await stack.enter_async_context(client)
        stack.push_async_callback(systems.registry.close)
        yield systems


async def for_each(items: Iterable[T], work: Callable[[T], Awaitable[None]], at_once: int = AT_ONCE) -> None:
    """Do some work for each item, a few at a time; the first failure ends the others and is raised as it is."""
    places = asyncio.Semaphore(at_once)

    async def one(item: T) -> None:
        async with places:
            await work(item)

    tasks = [asyncio.ensure_future(one(item)) for item in items]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
