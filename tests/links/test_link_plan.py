"""Addresses inside the links, by rule: each link's are its own, and an address says whose it is."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chukan.tenants import link_plan
from chukan.tenants.bodies import bodies
from chukan.tenants.link_plan import (
    CENTRE_ADDRESSES,
    SERVICE_ADDRESS,
    SERVICE_RANGE,
    Link,
    inner_v4,
    inner_v6,
    link_of,
    owner,
    owner_body,
    parse_link,
    prefixes,
)
from chukan.tenants.numbers import body_check

pytestmark = pytest.mark.requirement("TEN-03")

CODES = st.integers(1, 65_535).map(lambda number: f"{number:05d}")
SERIALS = st.integers(1, 63)
LINKS = st.builds(lambda code, serial: f"{code}{body_check(code)}-{serial}", CODES, SERIALS)


def test_the_plan_is_what_both_centres_and_every_device_were_told():
    assert inner_v4("131016-1") == "10.76.203.65"
    assert prefixes("131016-1") == ("10.76.203.65/32", "fd6b:7573:332d:100::/56")
    assert inner_v6("131016-63") == "fd6b:7573:332d:3f00::1"
    assert parse_link("011002-12") == Link("011002", 12)


@given(LINKS)
def test_an_address_of_a_link_says_whose_it_is(link):
    body, serial = parse_link(link)
    for address in (inner_v4(link), inner_v6(link), f"::ffff:{inner_v4(link)}"):
        assert owner(address) == body[:5]
        assert owner_body(address) == body
        assert link_of(address) == (body[:5], serial)
    assert str(parse_link(link)) == link


@given(LINKS, LINKS)
def test_two_links_share_no_address(one, other):
    for mine, theirs in zip(prefixes(one), prefixes(other), strict=True):
        overlap = ipaddress.ip_network(mine).overlaps(ipaddress.ip_network(theirs))
        assert overlap == (one == other)


@given(LINKS)
def test_prefixes_are_canonical_within_their_ranges_and_of_no_service_address(link):
    v4, v6 = map(ipaddress.ip_network, prefixes(link))
    assert (str(v4), str(v6)) == prefixes(link)
    assert v4.subnet_of(link_plan.V4_RANGE)
    assert v6.subnet_of(link_plan.V6_RANGE)
    assert ipaddress.ip_address(inner_v6(link)) in v6
    assert not v4.overlaps(ipaddress.ip_network(SERVICE_RANGE))


@given(LINKS, st.integers(0, 2**72 - 1))
def test_every_address_of_a_prefix_is_the_bodys_and_the_next_one_is_not_the_links(link, within):
    start = int(ipaddress.ip_network(prefixes(link)[1]).network_address)
    parts = (parse_link(link).body[:5], parse_link(link).serial)
    assert link_of(str(ipaddress.IPv6Address(start + within))) == parts
    assert link_of(str(ipaddress.IPv6Address(start + 2**72 + within))) != parts


@given(st.integers(0, 2**32 - 1))
def test_an_ipv4_address_belongs_to_a_link_exactly_where_one_may_have_it(number):
    address = ipaddress.IPv4Address(number)
    expected = address in link_plan.V4_RANGE and number % 64 != 0 and number - int(link_plan.V4_RANGE[0]) >= 64
    assert (owner(str(address)) is not None) == expected


@given(st.integers(0, 2**96 - 1))
def test_an_ipv6_address_of_the_range_belongs_to_a_link_exactly_where_one_may_have_it(low):
    found = owner(str(ipaddress.IPv6Address(int(link_plan.V6_RANGE[0]) + low)))
    assert (found is not None) == (low >> 80 != 0 and 1 <= low >> 72 & 0xFF <= 63)


@given(st.one_of(st.text(max_size=40), st.ip_addresses().map(str)))
def test_what_is_no_inner_address_is_nobodys(text):
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        assert owner(text) is None
        return
    inside = address in (link_plan.V4_RANGE if address.version == 4 else link_plan.V6_RANGE)
    assert inside or owner(text) is None


@pytest.mark.parametrize(
    "address",
    [
        "10.63.255.255", "10.128.0.0", "10.64.0.0", "10.64.0.63", "10.76.203.64", SERVICE_ADDRESS, *CENTRE_ADDRESSES,
        "fd6b:7573::1", "fd6b:7573:332d::1", "fd6b:7573:332d:4000::1", "fd6b:7573:332d:ff00::1",
        "fd6b:7574:332d:100::1", "fd6b:7573:332d:100::1%wg0", "::ffff:10.63.0.1", "::10.76.203.65",
        "010.76.203.65", "10.76.203.65/32", "", "131016-1", "1" * 1000,
    ],
)  # fmt: skip
def test_addresses_at_the_edges_are_nobodys(address):
    assert owner(address) is None
    assert owner_body(address) is None


@pytest.mark.parametrize(
    "text",
    [
        "131016-0", "131016-64", "131016-01", "131016-", "131016", "131017-1", "13101-1", "131016-1-1", " 131016-1",
        "131016-1 ", "131016--1", "131016-+1", "131016-\uff11", "-1", "", "999997-1", "000001-1", "131016-100000000",
    ],
)  # fmt: skip
def test_what_is_no_link_has_no_address(text):
    for ask in (parse_link, inner_v4, inner_v6, prefixes):
        with pytest.raises(ValueError, match=r"link") as raised:
            ask(text)
        assert text in ("", "-1") or text not in str(raised.value)


def test_every_body_of_today_has_its_place():
    links = [f"{body.code}-{serial}" for body in bodies() for serial in (1, 63)]
    assert len({inner_v4(link) for link in links}) == len({inner_v6(link) for link in links}) == len(links)
    assert {owner_body(inner_v4(link)) for link in links} == {body.code for body in bodies()}
