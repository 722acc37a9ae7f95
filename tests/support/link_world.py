"""A gateway, two municipalities and an exchange's host in namespaces of their own, with real tunnels between them.

Everything is made by the code under test: the processes, the peers, the addresses and routes, the packet filter. The
exchange's host answers on its agency and health ports by repeating what it is told; a third port is open there too,
and nobody may reach it.
"""

import asyncio
import dataclasses
import socket
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from chukan.tests.support.link_spaces import Spaces, spaces
from chukan.vpn.firewall import Ruleset
from chukan.vpn.model import Interface, Wanted
from chukan.vpn.netdev import NetDev, Route
from chukan.vpn.nft import Firewall
from chukan.vpn.plan import plan
from chukan.vpn.wireguard.keys import new_private_key, public_key_of
from chukan.vpn.wireguard.userspace import Userspace

CENTRE, SHARED = "10.255.0.1", "10.255.255.1"
CENTRE_V6 = "fd6b:7573:0:ff00::1"
AGENCY_PORT, HEALTH_PORT, OTHER_PORT = 8443, 8445, 9000
LISTEN_PORT = 51820
GATEWAY_OUTER, GATEWAY_INNER, EXCHANGE_INNER = "192.0.2.1", "198.51.100.1", "198.51.100.2"
BODIES = ("a", "b")
_READY_TIMEOUT_S = 10.0


@dataclasses.dataclass(frozen=True)
class Body:
    """A municipality: its namespace is its name."""

    name: str
    outer: str
    v4: str
    v6: str
    link: str
    private_key: bytes = dataclasses.field(repr=False)
    psk: bytes = dataclasses.field(repr=False)

    @property
    def prefixes(self) -> frozenset[str]:
        return frozenset({f"{self.v4}/32", f"{self.v6}/56"})


@dataclasses.dataclass(frozen=True)
class World:
    """What a test may use; objects that belong to an event loop are made anew in each test."""

    spaces: Spaces
    folder: Path
    gateway_key: bytes = dataclasses.field(repr=False)
    bodies: Mapping[str, Body]

    def device(self, short: str) -> Userspace:
        """Return the WireGuard of ``gw`` or of a body; ``ensure`` adopts it."""
        log = self.folder / f"{short}.log"
        return Userspace(self.spaces.interface(short[0]), netns=self.spaces.name(short), log=log)

    @property
    def firewall(self) -> Firewall:
        return Firewall(self.spaces.name("gw"))

    @property
    def ruleset(self) -> Ruleset:
        return Ruleset(
            tunnels=frozenset({self.spaces.interface("g")}),
            outer="outer",
            inner="inner",
            listen_ports=frozenset({LISTEN_PORT}),
            ipsec=False,
            services=frozenset(
                (address, port) for address in (CENTRE, SHARED, CENTRE_V6) for port in (AGENCY_PORT, HEALTH_PORT)
            ),
            health_ports=frozenset({HEALTH_PORT}),
            prefixes=frozenset[str]().union(*(body.prefixes for body in self.bodies.values())),
        )

    def wanted(self, *names: str) -> dict[bytes, Wanted]:
        """Return the gateway's peers of some bodies, of all unless named."""
        chosen = [self.bodies[name] for name in names or BODIES]
        return {
            public_key_of(body.private_key): Wanted(
                link=body.link,
                public_key=public_key_of(body.private_key),
                preshared_key=body.psk,
                allowed=body.prefixes,
            )
            for body in chosen
        }

    def peer_of(self, body: Body, *, allowed: frozenset[str] | None = None) -> dict[bytes, Wanted]:
        """Return the one peer of a body's device: the gateway."""
        key = public_key_of(self.gateway_key)
        wanted = Wanted(
            link=body.link,
            public_key=key,
            preshared_key=body.psk,
            allowed=allowed or frozenset({"10.255.0.0/16", f"{CENTRE_V6}/128"}),
            endpoint=f"{GATEWAY_OUTER}:{LISTEN_PORT}",
        )
        return {key: wanted}

    @asynccontextmanager
    async def connection(
        self, body: str, port: int, address: str = CENTRE, timeout_s: float = 3.0
    ) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        """Connect from a body to a service; ``OSError`` or ``TimeoutError`` when that fails."""
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        connecting = self.spaces.socket(body, family=family)
        try:
            async with asyncio.timeout(timeout_s):
                await asyncio.get_running_loop().sock_connect(connecting, (address, port))
                reader, writer = await asyncio.open_connection(sock=connecting)
        except BaseException:
            connecting.close()
            raise
        try:
            yield reader, writer
        finally:
            writer.transport.abort()


async def echo(streams: tuple[asyncio.StreamReader, asyncio.StreamWriter], timeout_s: float = 3.0) -> bool:
    """Say something on a connection; tell whether it comes back in time. ``OSError`` when the connection is broken."""
    reader, writer = streams
    try:
        async with asyncio.timeout(timeout_s):
            writer.write(b"hello\n")
            await writer.drain()
            return await reader.readline() == b"hello\n"
    except TimeoutError:
        return False


@contextmanager
def link_world(folder: Path) -> Iterator[World]:
    """Lend a world, everything up and one packet through each tunnel."""
    with spaces() as made:
        world = World(
            made, folder, new_private_key(), {name: _body(number, name) for number, name in enumerate(BODIES)}
        )
        try:
            asyncio.run(_set_up(world))
            yield world
        finally:
            asyncio.run(_end(world))


def _body(number: int, name: str) -> Body:
    return Body(
        name=name,
        outer=f"192.0.2.{11 + number}",
        v4=f"10.64.0.{11 + number}",
        v6=f"fd6b:7573:{11 + number:x}:100::",
        link=f"13101{6 + number}-1",
        private_key=new_private_key(),
        psk=bytes([number + 1]) * 32,
    )


async def _set_up(world: World) -> None:
    made = world.spaces
    # The bridge stands apart: what a bridge passes on goes through the packet filter of its own namespace too.
    made.make("wan", "gw", "ex", *BODIES)
    made.do("wan", "link add wan type bridge", "link set wan up")
    made.wire("wan", "to-gw", "gw", "outer")
    made.do("gw", f"addr add {GATEWAY_OUTER}/24 dev outer")
    for body in world.bodies.values():
        made.wire("wan", f"to-{body.name}", body.name, "uplink")
        made.do(body.name, f"addr add {body.outer}/24 dev uplink")
    made.do("wan", *(f"link set to-{name} master wan" for name in ("gw", *BODIES)))
    made.wire("gw", "inner", "ex", "uplink")
    made.do("gw", f"addr add {GATEWAY_INNER}/24 dev inner", "addr add fd00:9::1/64 dev inner nodad")
    made.do(
        "ex",
        f"addr add {EXCHANGE_INNER}/24 dev uplink",
        "addr add fd00:9::2/64 dev uplink nodad",
        *(f"addr add {address}/32 dev lo" for address in (CENTRE, SHARED)),
        f"addr add {CENTRE_V6}/128 dev lo nodad",
        f"route add 10.64.0.0/10 via {GATEWAY_INNER}",
        "route add fd6b:7573::/32 via fd00:9::1",
    )
    await _set_up_gateway(world)
    for body in world.bodies.values():
        await _set_up_device(world, body)


async def _set_up_gateway(world: World) -> None:
    device, name = world.device("gw"), world.spaces.interface("g")
    assert await device.ensure()
    await device.tunnels.set_interface(Interface(private_key=world.gateway_key, listen_port=LISTEN_PORT))
    await device.tunnels.apply(plan(world.wanted(), {}).steps)
    async with NetDev(world.spaces.name("gw")) as netdev:
        await netdev.ensure_up(name, 1380)
        for route in (
            Route(destination="10.64.0.0/10", device=name),
            Route(destination="fd6b:7573::/32", device=name),
            Route(destination="10.255.0.0/16", device="inner", via=EXCHANGE_INNER),
            Route(destination=f"{CENTRE_V6}/128", device="inner", via="fd00:9::2"),
        ):
            await netdev.ensure_route(route)
        await netdev.ensure_forwarding()
    await world.firewall.load(world.ruleset)
    device.close()


async def _set_up_device(world: World, body: Body) -> None:
    device, name = world.device(body.name), world.spaces.interface(body.name)
    assert await device.ensure()
    await device.tunnels.set_interface(Interface(private_key=body.private_key, listen_port=0))
    await device.tunnels.apply(plan(world.peer_of(body), {}).steps)
    async with NetDev(world.spaces.name(body.name)) as netdev:
        await netdev.ensure_address(name, f"{body.v4}/32")
        await netdev.ensure_address(name, f"{body.v6}1/56")
        await netdev.ensure_up(name, 1380)
        await netdev.ensure_route(Route(destination="10.255.0.0/16", device=name, source=body.v4))
        await netdev.ensure_route(Route(destination=f"{CENTRE_V6}/128", device=name, source=f"{body.v6}1"))
    device.close()


async def _end(world: World) -> None:
    for short in ("gw", *BODIES):
        device = world.device(short)
        if device.adopt():
            await device.stop()


@asynccontextmanager
async def serving(world: World) -> AsyncIterator[None]:
    """Let the exchange's host answer, on all addresses and the three ports."""
    servers = []
    for family, address in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):  # noqa: S104 - inside a namespace
        for port in (AGENCY_PORT, HEALTH_PORT, OTHER_PORT):
            listening = world.spaces.socket("ex", family=family)
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listening.bind((address, port))
            servers.append(await asyncio.start_server(repeat, sock=listening))
    try:
        yield
    finally:
        for server in servers:
            server.close()


async def repeat(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Say each line again, until the other end has enough."""
    try:
        while line := await reader.readline():
            writer.write(line)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()
