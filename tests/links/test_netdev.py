"""Interfaces, addresses and routes: made to be there once, found to be there from then on, and read back."""

import asyncio
import errno
from collections.abc import AsyncIterator, Iterator
from functools import partial
from typing import Any

import pytest
from pyroute2.netlink import NLM_F_DUMP_INTR
from pyroute2.netlink.exceptions import NetlinkError

from chukan.errors import Problem
from chukan.tests.support.link_spaces import Spaces, spaces
from chukan.vpn.netdev import NetDev, Route, canonical_route


@pytest.fixture
def made() -> Iterator[Spaces]:
    with spaces() as lent:
        lent.make("one", "two")
        lent.wire("one", "v0", "two", "v1")
        yield lent


async def test_an_interface_is_made_and_set_up_once(made: Spaces) -> None:
    async with NetDev(made.name("one")) as netdev:
        assert await netdev.link("nothing") is None
        assert await netdev.ensure_link("b0", "bridge")
        assert not await netdev.ensure_link("b0", "bridge")
        link = await netdev.link("b0")
        assert link is not None
        assert (link.name, link.up, link.mtu, link.kind) == ("b0", False, 1500, "bridge")
        assert await netdev.ensure_up("b0", 1380)
        assert not await netdev.ensure_up("b0", 1380)
        assert not await netdev.ensure_up("b0")
        made.do("one", "link set b0 mtu 1400")
        assert await netdev.ensure_up("b0", 1380)
        after = await netdev.link("b0")
        assert after is not None
        assert (after.up, after.mtu) == (True, 1380)
        assert await netdev.ensure_no_link("b0")
        assert not await netdev.ensure_no_link("b0")


@pytest.mark.parametrize(
    "address", ["10.255.0.1/32", "192.0.2.1/24", "fd6b:7573:1:100::1/56"], ids=["one", "of a net", "version 6"]
)
async def test_an_address_is_given_once_and_taken_once(made: Spaces, address: str) -> None:
    async with NetDev(made.name("one")) as netdev:
        before = await netdev.addresses("v0")
        assert await netdev.ensure_address("v0", address)
        assert not await netdev.ensure_address("v0", address)
        assert await netdev.addresses("v0") - before == {address}
        made.do("one", f"addr del {address} dev v0")
        assert await netdev.ensure_address("v0", address), "what somebody took away is found and given back"
        assert await netdev.ensure_no_address("v0", address)
        assert not await netdev.ensure_no_address("v0", address)
        assert await netdev.addresses("v0") == before


async def test_an_address_in_another_writing_is_the_same(made: Spaces) -> None:
    async with NetDev(made.name("one")) as netdev:
        assert await netdev.ensure_address("v0", "fd6b:7573:0001:0100:0::1/56")
        assert not await netdev.ensure_address("v0", "fd6b:7573:1:100::1/56")


@pytest.mark.parametrize(
    "route",
    [
        Route(destination="10.64.0.0/10", device="v0"),
        Route(destination="10.255.255.1/32", device="v0", metric=100, source="192.0.2.1"),
        Route(destination="10.255.0.0/16", device="v0", via="192.0.2.2"),
        Route(destination="fd6b:7573::/32", device="v0"),
        Route(destination="fd6b:7573:0001::/48", device="v0", metric=50, via="fd00:9::2", source="fd00:9::1"),
        Route(destination="0.0.0.0/0", device="v0", via="192.0.2.2"),
    ],
    ids=["all links", "with source", "by a host", "version 6", "version 6 by a host", "default"],
)
async def test_a_route_is_made_once_read_back_and_taken_once(made: Spaces, route: Route) -> None:
    async with NetDev(made.name("one")) as netdev:
        await netdev.ensure_address("v0", "192.0.2.1/24")
        await netdev.ensure_address("v0", "fd00:9::1/64")
        assert await netdev.ensure_route(route)
        assert not await netdev.ensure_route(route)
        assert canonical_route(route) in await netdev.routes()
        version = "-6" if ":" in route.destination else "-4"
        made.run("one", "ip", version, "route", "del", route.destination, "dev", "v0")
        assert await netdev.ensure_route(route), "what somebody took away is found and made again"
        assert await netdev.ensure_no_route(route)
        assert not await netdev.ensure_no_route(route)


async def test_the_way_of_a_service_moves_in_one_step(made: Spaces) -> None:
    made.wire("one", "w0", "two", "w1")
    first = Route(destination="10.255.255.1/32", device="v0", metric=100, source="192.0.2.1")
    second = Route(destination="10.255.255.1/32", device="w0", metric=100, source="192.0.2.1")
    async with NetDev(made.name("one")) as netdev:
        await netdev.ensure_address("v0", "192.0.2.1/24")
        await netdev.ensure_route(first)
        assert await netdev.ensure_route(second)
        ways = {each for each in await netdev.routes() if each.destination == "10.255.255.1/32"}
        assert ways == {second}
        assert await netdev.ensure_route(first)
        # A route that bears another address of this host has drifted.
        made.do("one", "addr add 192.0.2.7/24 dev v0", "route replace 10.255.255.1/32 dev v0 metric 100 src 192.0.2.7")
        assert await netdev.ensure_route(first)
        assert first in await netdev.routes()


async def test_many_routes_are_made_and_taken_at_once_whatever_is_gone_already(made: Spaces) -> None:
    routes = [Route(destination=f"10.64.{number // 250}.{number % 250}/32", device="v0") for number in range(250)]
    routes += [Route(destination=f"fd6b:7573:{number:x}:100::/56", device="v0") for number in range(20)]
    async with NetDev(made.name("one")) as netdev:
        before = await netdev.routes()
        await netdev.change_routes(routes)
        await netdev.change_routes(routes)
        assert await netdev.routes() - before == {canonical_route(route) for route in routes}
        await netdev.change_routes(remove=routes[:200])
        await netdev.change_routes(add=routes[:10], remove=routes)
        assert await netdev.routes() == before
        with pytest.raises(Problem, match="link_network_refused"):
            await netdev.change_routes([Route(destination="10.9.0.0/16", device="v0", via="203.0.113.9")])


class Interrupted:
    """A netlink socket whose listings are changed while they are read, so many times."""

    def __init__(self, inner: Any, times: int, fails_with: int | None) -> None:
        self._inner = inner
        self._fails_with = fails_with
        self.left = times

    def __getattr__(self, name: str) -> Any:
        call = getattr(self._inner, name)
        return partial(self._dump, call) if name in {"addr", "route", "link"} else call

    async def _dump(self, call: Any, word: str, **words: Any) -> Any:
        found = await call(word, **words)
        return self._listing(found) if word == "dump" else found

    async def _listing(self, found: Any) -> AsyncIterator[Any]:
        interrupted, self.left = self.left > 0, self.left - 1
        async for message in found:
            if interrupted and self._fails_with is None:
                message["header"]["flags"] |= NLM_F_DUMP_INTR
            yield message
        if interrupted and self._fails_with is not None:
            raise NetlinkError(self._fails_with)


@pytest.mark.parametrize("fails_with", [None, errno.EINTR, -1], ids=["marked", "refused", "by the library"])
async def test_a_listing_that_changed_while_it_was_read_is_read_again_and_not_for_ever(
    made: Spaces, fails_with: int | None
) -> None:
    async with NetDev(made.name("one")) as netdev:
        wanted = await netdev.routes(), await netdev.addresses("v0")
        netdev._socket = Interrupted(netdev._socket, 2, fails_with)
        assert await netdev.routes() == wanted[0]
        netdev._socket.left = 2
        assert await netdev.addresses("v0") == wanted[1]
        netdev._socket.left = 100
        for read in (netdev.routes, partial(netdev.addresses, "v0")):
            with pytest.raises(Problem, match="link_network_refused") as refused:
                await read()
            assert "changed whenever" in (refused.value.expected or "")
        assert netdev._socket.left > 80, "it is bounded"
        netdev._socket.left = 0


async def test_an_interface_moves_to_another_namespace(made: Spaces) -> None:
    async with NetDev(made.name("one")) as here, NetDev(made.name("two")) as there:
        made.do("one", "tuntap add dev t0 mode tun")
        await here.ensure_up("t0")
        await here.move("t0", made.name("two"))
        assert await here.link("t0") is None
        moved = await there.link("t0")
        assert moved is not None
        assert not moved.up


async def test_that_an_interface_goes_away_is_told(made: Spaces) -> None:
    async with NetDev(made.name("one")) as netdev:
        await netdev.ensure_link("b0", "bridge")
        await netdev.ensure_link("b1", "bridge")
        waiting = asyncio.create_task(netdev.link_gone("b0"))
        made.do("one", "link del b1")
        await netdev.ensure_up("b0")
        assert not waiting.done()
        made.do("one", "link del b0")
        async with asyncio.timeout(5):
            await waiting
        async with asyncio.timeout(5):
            await netdev.link_gone("b0")


async def test_forwarding_and_other_settings_are_set_once(made: Spaces) -> None:
    async with NetDev(made.name("one")) as netdev:
        assert await netdev.ensure_forwarding()
        assert not await netdev.ensure_forwarding()
        assert made.run("one", "sysctl", "-n", "net.ipv4.ip_forward").strip() == "1"
        assert made.run("two", "sysctl", "-n", "net.ipv4.ip_forward").strip() == "0"
        assert await netdev.ensure_setting("net/ipv4/conf/v0/rp_filter", "2")
        assert not await netdev.ensure_setting("net/ipv4/conf/v0/rp_filter", "2")
        with pytest.raises(Problem, match="link_network_refused"):
            await netdev.ensure_setting("net/ipv4/no_such_setting", "1")


async def test_what_the_kernel_refuses_is_a_problem_with_its_reason(made: Spaces) -> None:
    async with NetDev(made.name("one")) as netdev:
        for attempt, reason in (
            (netdev.ensure_link("x0", "no-such-kind"), "making x0: ENOTSUP"),
            (netdev.ensure_up("nothing"), "an interface nothing"),
            (netdev.ensure_address("nothing", "10.0.0.1/32"), "an interface nothing"),
            (netdev.ensure_route(Route(destination="10.9.0.0/16", device="nothing")), "an interface nothing"),
            (netdev.ensure_route(Route(destination="10.9.0.0/16", device="v0", via="203.0.113.9")), "ENETUNREACH"),
        ):
            with pytest.raises(Problem) as refused:
                await attempt
            assert refused.value.code == "link_network_refused"
            assert reason in (refused.value.expected or "")


async def test_a_namespace_that_is_missing_is_not_made(made: Spaces) -> None:
    name = f"{made.name('one')}-missing"
    async with NetDev(name) as netdev:
        with pytest.raises(Problem, match="link_network_refused"):
            await netdev.link("lo")
    assert name not in made.run("one", "ip", "netns", "list")
