"""The network of a lab with links: who reaches whom before any tunnel stands, and what is left of it."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from chukan.ops.centres.layout import NUMBERS, lab_site
from chukan.ops.centres.link_wires import LinkWires
from chukan.ops.centres.wires import Namespaces
from chukan.ops.namespaces import NAMED, sockets_in, standing
from chukan.replication.site import Site

BODY = "131121"
Laid = tuple[Namespaces, LinkWires, Site]


@pytest.fixture
def laid(tmp_path: Path) -> Iterator[Laid]:
    wires = Namespaces(tmp_path)
    site = lab_site(tmp_path, "2+1", wires, links=True)
    links = LinkWires(wires, site, [BODY])
    try:
        wires.build(NUMBERS)
        links.build()
        yield wires, links, site
    finally:
        wires.remove()


def reached(wires: Namespaces, at: str, address: str, within_s: float = 0.5) -> bool:
    """Tell whether a host answers: nobody listens, so that its kernel refuses.

    Who asked in vain for its hardware address before asks again after a second.
    """
    with standing(wires.name(at)), socket.socket() as probe:
        probe.settimeout(within_s)
        try:
            probe.connect((address, 9))
        except ConnectionRefusedError:
            return True
        except OSError:
            return False
    return False


@pytest.mark.requirement("TEN-03")
def test_only_a_gateway_forwards_and_only_its_centre_has_the_service_addresses(laid: Laid) -> None:
    wires, _, site = laid
    assert reached(wires, f"town-{BODY}", site.address("gateway-east"))
    assert reached(wires, "gateway-east", site.address("east-1"))
    assert reached(wires, "east", "10.255.0.1")
    assert not reached(wires, f"town-{BODY}", "10.255.0.1")
    forwards = {}
    for name in ("gateway-east", "gateway-west", "east", "west", f"town-{BODY}"):
        with standing(wires.name(name)):
            forwards[name] = Path("/proc/sys/net/ipv4/ip_forward").read_text(encoding="ascii").strip()
    assert [name for name, on in forwards.items() if on == "1"] == ["gateway-east", "gateway-west"]


def test_a_gateway_is_cut_and_isolated_with_its_centre_and_keeps_it(laid: Laid) -> None:
    wires, _, site = laid
    wires.cut("east", "west")
    assert not reached(wires, "gateway-east", site.address("west-1"))
    assert reached(wires, "gateway-east", site.address("east-1"))
    assert reached(wires, "gateway-east", site.address("witness-1"))
    wires.mend()
    assert reached(wires, "gateway-east", site.address("west-1"), 5.0)
    wires.isolate("east")
    assert not reached(wires, f"town-{BODY}", site.address("gateway-east"))
    wires.rejoin("east")


def test_a_lost_gateway_has_no_cable_and_the_other_one_does(laid: Laid) -> None:
    wires, links, site = laid
    links.lose("east")
    assert not reached(wires, f"town-{BODY}", site.address("gateway-east"))
    assert reached(wires, f"town-{BODY}", site.address("gateway-west"))


def test_a_socket_stays_where_it_was_made(laid: Laid) -> None:
    _, links, _ = laid
    made = sockets_in(links.town(BODY))((socket.AF_INET, socket.SOCK_STREAM, 6, "", ("", 0)))
    with made:
        assert made.getblocking() is False
        made.bind((links.town_address(BODY), 0))  # this machine itself has no such address
    with pytest.raises(OSError, match="assign"), socket.socket() as other:
        other.bind((links.town_address(BODY), 0))


def test_nothing_is_left(tmp_path: Path) -> None:
    wires = Namespaces(tmp_path)
    site = lab_site(tmp_path, "2+1", wires, links=True)
    wires.build(NUMBERS)
    LinkWires(wires, site, [BODY, "281000"]).build()
    prefix = wires.name("")
    assert len(list(NAMED.glob(f"{prefix}*"))) == 8
    Namespaces(tmp_path).remove()
    assert list(NAMED.glob(f"{prefix}*")) == []
