"""What a body can do through its IPsec link, and what it cannot: tried on real charons."""

import asyncio
import socket
from collections.abc import Iterator

import pytest
from pyroute2.netns import create_socket

from chukan.tenants.link_plan import prefixes
from chukan.tests.support.ipsec_world import (
    CENTRE_ADDRESS,
    ELSEWHERE,
    FIRST,
    GATE,
    PORT,
    PSKS,
    QUICK_S,
    SECOND,
    SERVICES,
    World,
    connect_both,
    counted,
    datagram,
    ip,
    kept,
    nft,
    running,
    says_back,
    wanted_of,
)
from chukan.vpn import firewall, firewall_words
from chukan.vpn.ipsec import messages
from chukan.vpn.ipsec.model import Gateway, mark
from chukan.vpn.ipsec.settings import INTERFACE


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with running() as world:
        yield world


@pytest.fixture
def up(world: World) -> World:
    return connect_both(world)


@pytest.mark.requirement("TEN-03")
def test_a_device_reaches_the_services_and_nothing_else(up: World) -> None:
    for address in SERVICES:
        with up.first.call(address) as connection:
            assert says_back(connection)
    # Whatever the device sends into its tunnel: what is no service has no selector.
    ip("route", "replace", "10.255.0.0/16", "dev", "ipsec0", "src", up.first.address, netns=up.first.netns)
    with pytest.raises(TimeoutError):
        up.first.call(ELSEWHERE, timeout_s=0.5)
    report = kept(up)
    assert set(report.sightings) == {FIRST, SECOND}
    assert report.sightings[FIRST].rx > 0
    assert report.sightings[FIRST].tx > 0
    assert report.sightings[FIRST].endpoint == "198.51.100.2:4500"


def test_a_wider_wish_is_narrowed_to_the_links_own(up: World) -> None:
    up.second.disconnect()
    up.second.configure(
        PSKS[SECOND], **{f"{up.second.address}/32": "10.64.0.0/10", "10.255.0.1/32, 10.255.255.1/32": "10.255.0.0/16"}
    )
    up.second.connect()
    actual = asyncio.run(up.kind._vici.get())
    (child,) = [child for one in actual.associations if one.name.startswith(SECOND) for child in one.children]
    assert child.remote == {f"{up.second.address}/32"}
    assert child.local == {f"{address}/32" for address in SERVICES}


@pytest.mark.requirement("TEN-03")
def test_another_links_address_cannot_be_claimed(up: World) -> None:
    before = up.number(FIRST)
    up.second.disconnect()
    up.second.configure(PSKS[SECOND], **{f"{up.second.address}/32": f"{up.first.address}/32"})
    assert "TS_UNACCEPTABLE" in up.second.refused()
    assert not kept(up).sightings.keys() - {FIRST}
    # Nor can the other's identity be shown with one's own key: the gateway refuses, not the device.
    up.second.configure(
        PSKS[SECOND],
        **{
            f"{mark(PSKS[SECOND])}.{SECOND}": f"{mark(PSKS[FIRST])}.{FIRST}",
            f"{up.second.address}/32": f"{up.first.address}/32",
        },
    )
    assert "IKE_AUTH response 1 [ N(AUTH_FAILED) ]" in up.second.refused()
    assert up.number(FIRST) == before


@pytest.mark.requirement("TEN-03")
def test_a_packet_with_anothers_source_does_not_come_out_of_the_tunnel(up: World) -> None:
    """A device that encrypts what it likes: the gateway looks at what comes out, and drops what is not the link's."""
    with create_socket(netns=up.netns, family=socket.AF_INET, socket_type=socket.SOCK_DGRAM) as service:
        service.settimeout(QUICK_S)
        service.bind((CENTRE_ADDRESS, 9999))
        up.second.send(datagram(up.second.address, b"my own"), 1000)
        assert service.recvfrom(64) == (b"my own", (up.second.address, 9999))
        up.second.send(datagram(up.first.address, b"as the first"), 1001)
        up.second.send(datagram("10.255.255.1", b"as the service"), 1002)
        up.second.send(datagram(up.second.address, b"my own again"), 1003)
        assert service.recvfrom(64) == (b"my own again", (up.second.address, 9999))

        # The same packet comes through a connection that somebody widened by hand.
        second = wanted_of(SECOND)
        sent = messages.connection(second, Gateway(centre="east", address=GATE))
        sent["children"]["service"]["remote_ts"] = ["10.64.0.0/10"]
        up.session().load_conn({second.name: sent})
        up.second.disconnect()
        up.second.configure(PSKS[SECOND], **{f"{up.second.address}/32": "10.64.0.0/10"})
        up.second.connect()
        up.second.send(datagram(up.first.address, b"as the first"), 1000)
        assert service.recvfrom(64) == (b"as the first", (up.first.address, 9999))


@pytest.mark.requirement("TEN-03")
def test_the_packet_filter_stands_behind_ipsec_as_behind_wireguard(up: World) -> None:
    every = frozenset(prefix for link in PSKS for prefix in prefixes(link))
    ruleset = firewall.Ruleset(
        tunnels=frozenset({INTERFACE}),
        outer="outer",
        inner=None,
        listen_ports=frozenset(),
        ipsec=True,
        services=frozenset((address, PORT) for address in SERVICES),
        health_ports=frozenset(),
        prefixes=every,
    )
    with create_socket(netns=up.netns, family=socket.AF_INET, socket_type=socket.SOCK_STREAM) as closed:
        closed.bind((CENTRE_ADDRESS, 9))
        closed.listen()
        nft(up.netns, firewall.load(ruleset))
        try:
            up.second.disconnect()
            up.second.connect()
            with up.first.call() as connection, up.second.call() as other:
                assert says_back(connection)
                with pytest.raises(TimeoutError):
                    up.first.call(port=9, timeout_s=0.5)
                assert counted(up.netns, "closed_port") > 0
                nft(up.netns, firewall.change(remove=prefixes(FIRST)))
                connection.settimeout(0.5)
                with pytest.raises(TimeoutError):
                    says_back(connection)
                assert counted(up.netns, "unknown") > 0
                assert says_back(other)
        finally:
            nft(up.netns, [{"delete": {"table": {"family": firewall_words.FAMILY, "name": firewall_words.TABLE}}}])
