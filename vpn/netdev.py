"""Interfaces, addresses and routes of one network namespace, over rtnetlink: what shall be there is made to be there.

Every ``ensure_`` reads first, changes only what differs, and returns whether it changed anything: on a system that
nobody touched the second call changes nothing, so that a change is either our own new wish or somebody's hand (drift).

The socket is opened once a namespace: the library forks a child to open one in another namespace. It needs a plain
asyncio loop, for on uvloop the library does not run. Sums of routes are kept small on purpose: one for all links
together, never one for each.

Invariant: no call waits longer than its deadline; nothing is changed that was not named.
"""

import asyncio
import contextlib
import errno
import ipaddress
from collections.abc import AsyncIterator, Iterable
from socket import AF_INET, AF_INET6
from types import TracebackType
from typing import Any, Final, Self

import msgspec
from pyroute2 import AsyncIPRoute
from pyroute2.netlink import NLM_F_DUMP_INTR
from pyroute2.netlink.exceptions import NetlinkError

from chukan.errors import Problem

_TIMEOUT_S: Final = 5.0
_IFF_UP: Final = 1
_IFA_F_NODAD: Final = 2
_MAIN_TABLE: Final = 254
_UNICAST: Final = 1
_DUMPS_MAX: Final = 5
_INTERRUPTED: Final = frozenset({-1, errno.EINTR, errno.EBUSY})
"""How a listing fails that was changed while it was read; -1 is the library's own."""
_ROUTES_A_CALL: Final = 100
_IPV6_METRIC: Final = 1024
"""What the kernel makes of an IPv6 route without a metric."""
_IPV6: Final = 6


class Link(msgspec.Struct, frozen=True, kw_only=True):
    """One network interface; ``mtu`` in bytes, ``kind`` None where the driver names none (a tun device has ``tun``)."""

    index: int
    name: str
    up: bool
    mtu: int
    kind: str | None


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """One route of the main table. ``metric`` 0 is the kernel's default; the lowest one wins."""

    destination: str
    device: str
    metric: int = 0
    source: str | None = None
    """The address that packets of this host take on this way."""
    via: str | None = None
    """The next host, None where the device leads there itself."""


class NetDev:
    """The interfaces of a namespace. Every call raises ``Problem`` link_network_refused."""

    def __init__(self, netns: str | None = None) -> None:
        """``netns`` names the namespace, None for this process's own; nothing is opened yet."""
        self._netns = netns
        self._socket: Any = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the socket; a later call opens one again."""
        opened, self._socket = self._socket, None
        if opened is not None:
            opened.close()

    # ------------------------------------------------------------ interfaces

    async def link(self, name: str) -> Link | None:
        """Return an interface, None when there is none of that name."""
        async with self._call(f"reading {name}") as netlink:
            try:
                (found,) = await netlink.link("get", ifname=name)
            except NetlinkError as error:
                if error.code == errno.ENODEV:
                    return None
                raise
        return Link(
            index=found["index"],
            name=name,
            up=bool(found["flags"] & _IFF_UP),
            mtu=found.get("mtu"),
            kind=found.get(("linkinfo", "kind")),
        )

    async def ensure_up(self, name: str, mtu: int | None = None) -> bool:
        """Bring an interface up, with an MTU where one is given; return whether that changed anything."""
        link = await self._existing(name)
        wished: dict[str, Any] = {} if link.up else {"state": "up"}
        if mtu is not None and link.mtu != mtu:
            wished["mtu"] = mtu
        if wished:
            async with self._call(f"setting {name}") as netlink:
                await netlink.link("set", index=link.index, **wished)
        return bool(wished)

    async def ensure_link(self, name: str, kind: str, **attributes: object) -> bool:
        """Make an interface of a kind (``wireguard``, ``veth``) unless the name is there; return whether made."""
        if await self.link(name) is not None:
            return False
        async with self._call(f"making {name}") as netlink:
            await netlink.link("add", ifname=name, kind=kind, **attributes)
        return True

    async def ensure_no_link(self, name: str) -> bool:
        """Take an interface away; return whether there was one."""
        link = await self.link(name)
        if link is not None:
            async with self._call(f"removing {name}") as netlink:
                await netlink.link("del", index=link.index)
        return link is not None

    async def move(self, name: str, netns: str) -> None:
        """Move an interface to another namespace; it comes out there down and without addresses."""
        link = await self._existing(name)
        async with self._call(f"moving {name}") as netlink:
            await netlink.link("set", index=link.index, net_ns_fd=netns)

    async def link_gone(self, name: str) -> None:
        """Wait until an interface has gone from this namespace, at once when it is not there; without a deadline.

        Raises ``Problem`` link_network_refused where the kernel's news cannot be read (any more).
        """
        # A socket of its own, and bound before the look: what goes in between is told then.
        netlink = self._open()
        try:
            await netlink.bind()
            while await self.link(name) is not None:
                async for message in netlink.get():
                    if message["event"] == "RTM_DELLINK" and message.get("ifname") == name:
                        break
        except (OSError, NetlinkError) as error:
            raise Problem("link_network_refused", expected=f"news of {name}: {type(error).__name__}") from None
        finally:
            netlink.close()

    async def _existing(self, name: str) -> Link:
        link = await self.link(name)
        if link is None:
            raise Problem("link_network_refused", expected=f"an interface {name}")
        return link

    # ------------------------------------------------------------ addresses

    async def addresses(self, name: str) -> frozenset[str]:
        """Return an interface's addresses with their lengths (``10.255.0.1/32``), link-local ones left out."""
        link = await self._existing(name)
        dump = await self._dump(f"reading the addresses of {name}", "addr", index=link.index)
        found = [
            ipaddress.ip_interface(f"{each.get('local') or each.get('address')}/{each['prefixlen']}") for each in dump
        ]
        return frozenset(str(each) for each in found if not each.ip.is_link_local)

    async def ensure_address(self, name: str, address: str) -> bool:
        """Give an interface an address with its length; return whether it lacked it."""
        wanted = ipaddress.ip_interface(address)
        if str(wanted) in await self.addresses(name):
            return False
        link = await self._existing(name)
        # Nobody else can have an address of a tunnel, and one that is still being tried cannot be spoken from.
        flags = {"flags": _IFA_F_NODAD} if wanted.version == _IPV6 else {}
        async with self._call(f"an address of {name}") as netlink:
            await netlink.addr(
                "replace", index=link.index, address=str(wanted.ip), prefixlen=wanted.network.prefixlen, **flags
            )
        return True

    async def ensure_no_address(self, name: str, address: str) -> bool:
        """Take an address from an interface; return whether it had it."""
        wanted = ipaddress.ip_interface(address)
        if str(wanted) not in await self.addresses(name):
            return False
        link = await self._existing(name)
        async with self._call(f"an address of {name}") as netlink:
            await netlink.addr("del", index=link.index, address=str(wanted.ip), prefixlen=wanted.network.prefixlen)
        return True

    # ------------------------------------------------------------ routes

    async def routes(self) -> frozenset[Route]:
        """Return the unicast routes of the main table."""
        names = {each["index"]: each.get("ifname") for each in await self._dump("reading interfaces", "link")}
        dump = [
            each
            for family in (AF_INET, AF_INET6)
            for each in await self._dump("reading routes", "route", family=family)
        ]
        return frozenset(
            _route(each, names[each.get("oif")])
            for each in dump
            if each.get("table") == _MAIN_TABLE and each["type"] == _UNICAST and each.get("oif") in names
        )

    async def ensure_route(self, route: Route) -> bool:
        """Make a route; return whether it was not there just so.

        One to the same destination with the same metric is replaced in one step, through whichever device it leads: so
        the way of a service moves.
        """
        wanted = canonical_route(route)
        if wanted in await self.routes():
            return False
        link = await self._existing(wanted.device)
        async with self._call(f"a route through {wanted.device}") as netlink:
            await netlink.route("replace", oif=link.index, **_attributes(wanted))
        return True

    async def ensure_no_route(self, route: Route) -> bool:
        """Take a route away; return whether it was there. ``source`` and ``via`` do not count."""
        wanted = canonical_route(route)
        key = (wanted.destination, wanted.device, wanted.metric)
        if all((each.destination, each.device, each.metric) != key for each in await self.routes()):
            return False
        link = await self._existing(wanted.device)
        async with self._call(f"a route through {wanted.device}") as netlink:
            await netlink.route("del", dst=wanted.destination, oif=link.index, priority=wanted.metric)
        return True

    async def change_routes(self, add: Iterable[Route] = (), remove: Iterable[Route] = ()) -> None:
        """Make many routes and take many away, without reading which are there: what is gone already is no error."""
        wanted = [("replace", canonical_route(route)) for route in add]
        wanted += [("del", canonical_route(route)) for route in remove]
        indexes = {name: (await self._existing(name)).index for name in {route.device for _, route in wanted}}
        for at in range(0, len(wanted), _ROUTES_A_CALL):
            async with self._call("many routes") as netlink:
                for word, route in wanted[at : at + _ROUTES_A_CALL]:
                    named = (
                        {"dst": route.destination, "priority": route.metric} if word == "del" else _attributes(route)
                    )
                    try:
                        await netlink.route(word, oif=indexes[route.device], **named)
                    except NetlinkError as error:
                        if word != "del" or error.code != errno.ESRCH:
                            raise

    # ------------------------------------------------------------ settings of the kernel

    async def ensure_setting(self, key: str, value: str) -> bool:
        """Set a ``net/...`` setting of the namespace (sysctl, words parted by slashes); return whether it differed."""
        if (await self._sysctl(f"-n {key}")).strip() == value:
            return False
        await self._sysctl(f"-q -w {key}={value}")
        return True

    async def ensure_forwarding(self) -> bool:
        """Let the namespace forward packets of both families; which ones is the packet filter's business."""
        changed = [
            await self.ensure_setting(key, "1") for key in ("net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding")
        ]
        return any(changed)

    async def _sysctl(self, words: str) -> str:
        within = ["/usr/sbin/ip", "netns", "exec", self._netns] if self._netns else []
        pipe = asyncio.subprocess.PIPE
        refused = Problem("link_network_refused", expected=f"sysctl {words}")
        try:
            process = await asyncio.create_subprocess_exec(
                *within, "/usr/sbin/sysctl", *words.split(), stdin=asyncio.subprocess.DEVNULL, stdout=pipe, stderr=pipe
            )
        except OSError:
            raise refused from None
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                out, _ = await process.communicate()
        except TimeoutError:
            raise refused from None
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
        if process.returncode != 0:
            raise refused
        return out.decode("utf-8", errors="replace")

    # ------------------------------------------------------------ the socket

    async def _dump(self, what: str, table: str, **words: object) -> list[Any]:
        """Return a listing of the kernel's; one that was changed while it was read is read again."""
        for _ in range(_DUMPS_MAX):
            async with self._call(what) as netlink:
                try:
                    listed = [each async for each in await getattr(netlink, table)("dump", **words)]
                except NetlinkError as error:
                    if error.code not in _INTERRUPTED:
                        raise
                    continue
            if not any(each["header"]["flags"] & NLM_F_DUMP_INTR for each in listed):
                return listed
        raise Problem("link_network_refused", expected=f"{what}: it changed whenever it was read")

    def _open(self) -> Any:  # noqa: ANN401 - the library is not typed
        # Without flags=0 the library would make a namespace that is missing, and answer for an empty one.
        return AsyncIPRoute(netns=self._netns, flags=0) if self._netns else AsyncIPRoute()

    @contextlib.asynccontextmanager
    async def _call(self, what: str) -> AsyncIterator[Any]:
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                if self._socket is None:
                    self._socket = self._open()
                yield self._socket
        except NetlinkError as error:
            why = errno.errorcode.get(error.code, str(error.code))
            raise Problem("link_network_refused", expected=f"{what}: {why}") from None
        except (OSError, TimeoutError):
            self.close()
            raise Problem("link_network_refused", expected=f"{what}: no answer") from None


def canonical_route(route: Route) -> Route:
    """Return a route as it is read back. ``ValueError`` for no prefix or address."""
    network = ipaddress.ip_network(route.destination, strict=False)
    return Route(
        destination=str(network),
        device=route.device,
        metric=route.metric or (_IPV6_METRIC if network.version == _IPV6 else 0),
        source=None if route.source is None else str(ipaddress.ip_address(route.source)),
        via=None if route.via is None else str(ipaddress.ip_address(route.via)),
    )


def _attributes(route: Route) -> dict[str, Any]:
    attributes: dict[str, Any] = {"dst": route.destination, "priority": route.metric}
    if ipaddress.ip_network(route.destination).version == _IPV6:
        attributes["family"] = AF_INET6
    if route.source is not None:
        attributes["prefsrc"] = route.source
    if route.via is not None:
        attributes["gateway"] = route.via
    return attributes


def _route(message: Any, device: str) -> Route:  # noqa: ANN401 - the library is not typed
    anywhere = "::" if message["family"] == AF_INET6 else "0.0.0.0"  # noqa: S104 - the default route
    return Route(
        destination=f"{message.get('dst') or anywhere}/{message['dst_len']}",
        device=device,
        metric=message.get("priority") or 0,
        source=message.get("prefsrc"),
        via=message.get("gateway"),
    )
