"""The plan: from whatever a device has to what it shall have, in one round, and nobody else is touched."""

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chukan.vpn.model import Actual, Drift, Interface, Peer, Put, Remove, Step, Wanted, canonical_prefixes
from chukan.vpn.plan import plan, settled
from chukan.vpn.wireguard.keys import new_private_key, public_key_of

KEYS = [bytes([number]) * 32 for number in range(1, 9)]
PREFIXES = [f"10.64.0.{number}/32" for number in range(1, 9)] + [
    f"fd6b:7573:1:{number:x}00::/56" for number in range(1, 5)
]
PSKS = [b"", b"p" * 32, b"q" * 32]


class ModelDevice:
    """What a WireGuard interface does with steps, and with a prefix that is given to a second peer."""

    def __init__(self, peers: dict[bytes, Peer]) -> None:
        self.peers = dict(peers)
        self.touched: list[bytes] = []

    def apply(self, steps: tuple[Step, ...]) -> None:
        for step in steps:
            key = step.public_key if isinstance(step, Remove) else step.wanted.public_key
            self.touched.append(key)
            if isinstance(step, Remove):
                self.peers.pop(key, None)
            elif step.new or key in self.peers:
                self._put(key, step)

    def _put(self, key: bytes, step: Put) -> None:
        peer, wanted = self.peers.get(key, Peer(public_key=key)), step.wanted
        if step.psk:
            peer = msgspec.structs.replace(peer, preshared_key=wanted.preshared_key)
        if step.endpoint:
            peer = msgspec.structs.replace(peer, endpoint=wanted.endpoint)
        if step.keepalive:
            peer = msgspec.structs.replace(peer, keepalive_s=wanted.keepalive_s)
        if step.allowed:
            for other, theirs in self.peers.items():
                kept = theirs.allowed - wanted.allowed
                self.peers[other] = msgspec.structs.replace(theirs, allowed=kept)
            peer = msgspec.structs.replace(peer, allowed=wanted.allowed)
        self.peers[key] = peer


@st.composite
def sharing(draw: st.DrawFn) -> dict[bytes, frozenset[str]]:
    """Deal prefixes out among some peers: each has one owner at most."""
    keys = draw(st.lists(st.sampled_from(KEYS), unique=True))
    owners = draw(st.lists(st.sampled_from([*keys, None]), min_size=len(PREFIXES), max_size=len(PREFIXES)))
    return {key: frozenset(p for p, owner in zip(PREFIXES, owners, strict=True) if owner == key) for key in keys}


@st.composite
def wanted_peers(draw: st.DrawFn) -> dict[bytes, Wanted]:
    return {
        key: Wanted(
            link=f"131016-{KEYS.index(key) + 1}",
            public_key=key,
            preshared_key=draw(st.sampled_from(PSKS)),
            allowed=allowed,
            endpoint=draw(st.sampled_from([None, "192.0.2.1:51820", "[2001:db8::1]:51820"])),
            keepalive_s=draw(st.sampled_from([0, 25])),
        )
        for key, allowed in draw(sharing()).items()
    }


@st.composite
def actual_peers(draw: st.DrawFn) -> dict[bytes, Peer]:
    return {
        key: Peer(
            public_key=key,
            preshared_key=draw(st.sampled_from(PSKS)),
            allowed=allowed,
            endpoint=draw(st.sampled_from([None, "198.51.100.9:4000"])),
            keepalive_s=draw(st.sampled_from([0, 25])),
        )
        for key, allowed in draw(sharing()).items()
    }


def as_wanted(peer: Peer, one: Wanted) -> bool:
    """Tell whether a peer is as it shall be; where it is seen is its own affair."""
    same = (peer.preshared_key, peer.allowed, peer.keepalive_s) == (one.preshared_key, one.allowed, one.keepalive_s)
    return same and (one.endpoint is None or peer.endpoint is not None)


@pytest.mark.requirement("TEN-03")
@settings(max_examples=400, deadline=None)
@given(wanted=wanted_peers(), actual=actual_peers())
def test_one_round_leads_from_anything_to_what_is_wanted(
    wanted: dict[bytes, Wanted], actual: dict[bytes, Peer]
) -> None:
    found = plan(wanted, actual)
    device = ModelDevice(actual)
    device.apply(found.steps)
    assert device.peers.keys() == wanted.keys()
    assert all(as_wanted(device.peers[key], one) for key, one in wanted.items())
    again = plan(wanted, device.peers)
    assert again.steps == ()
    assert again.drift == ()


@settings(max_examples=300, deadline=None)
@given(wanted=wanted_peers(), actual=actual_peers())
def test_removals_come_first_and_nothing_that_is_right_is_touched(
    wanted: dict[bytes, Wanted], actual: dict[bytes, Peer]
) -> None:
    steps = plan(wanted, actual).steps
    kinds = [isinstance(step, Remove) for step in steps]
    assert kinds == sorted(kinds, reverse=True)
    device = ModelDevice(actual)
    device.apply(steps)
    right = {key for key, one in wanted.items() if key in actual and as_wanted(actual[key], one)}
    assert right.isdisjoint(device.touched)
    assert len(device.touched) == len(set(device.touched))
    for key in right:
        assert device.peers[key] == actual[key]
    for key, peer in actual.items():
        if key in wanted and peer.endpoint is not None:
            assert device.peers[key].endpoint == peer.endpoint


def one(link: str, key: bytes, *prefixes: str, psk: bytes = b"", endpoint: str | None = None) -> Wanted:
    return Wanted(link=link, public_key=key, preshared_key=psk, allowed=frozenset(prefixes), endpoint=endpoint)


def has(key: bytes, *prefixes: str, psk: bytes = b"", endpoint: str | None = None) -> Peer:
    return Peer(public_key=key, preshared_key=psk, allowed=frozenset(prefixes), endpoint=endpoint)


def by_key(*peers: Peer) -> dict[bytes, Peer]:
    return {peer.public_key: peer for peer in peers}


A, B, C = KEYS[:3]
WANTED = {A: one("131016-1", A, "10.64.0.1/32", psk=b"p" * 32), B: one("131024-1", B, "10.64.0.2/32")}


@pytest.mark.parametrize(
    ("actual", "drift"),
    [
        (by_key(has(A, "10.64.0.1/32", psk=b"p" * 32), has(B, "10.64.0.2/32")), set()),
        (by_key(has(A, "10.64.0.1/32", psk=b"p" * 32)), {Drift("missing", "131024-1")}),
        (
            by_key(has(A, "10.64.0.1/32", psk=b"p" * 32), has(B, "10.64.0.2/32"), has(C, "10.64.0.3/32")),
            {Drift("rogue", None)},
        ),
        (
            by_key(has(A, "10.64.0.1/32", "10.64.0.2/32", psk=b"p" * 32), has(B)),
            {Drift("allowed", "131016-1"), Drift("stolen", "131024-1")},
        ),
        (
            by_key(has(A, psk=b"p" * 32), has(B, "10.64.0.2/32"), has(C, "10.64.0.1/32")),
            {Drift("stolen", "131016-1"), Drift("rogue", None)},
        ),
        (by_key(has(A, "10.64.0.1/32", psk=b"q" * 32), has(B, "10.64.0.2/32")), {Drift("psk", "131016-1")}),
        (by_key(has(A, "10.64.0.1/32"), has(B, "10.64.0.2/32", psk=bytes(32))), {Drift("psk", "131016-1")}),
        (by_key(has(A, psk=b"p" * 32), has(B, "10.64.0.2/32")), {Drift("allowed", "131016-1")}),
    ],
    ids=["as wanted", "removed", "rogue", "stolen", "stolen by a rogue", "psk", "psk of zeros is none", "taken away"],
)
def test_each_way_of_tampering_has_its_name(actual: dict[bytes, Peer], drift: set[Drift]) -> None:
    found = plan(WANTED, actual)
    assert set(found.drift) == drift
    assert len(found.drift) == len(drift)
    assert bool(found.steps) == bool(drift)


def test_a_prefix_that_is_written_in_another_way_is_the_same() -> None:
    wanted = {A: one("131016-1", A, "fd6b:7573:0001:0100:0::/56", "10.64.0.1/32")}
    assert plan(wanted, by_key(has(A, "fd6b:7573:1:100::/56", "10.64.0.1/32"))).steps == ()
    assert canonical_prefixes(["10.64.0.1"]) == {"10.64.0.1/32"}


def test_an_endpoint_is_given_once_and_never_taken_back() -> None:
    wanted = {A: one("131016-1", A, endpoint="192.0.2.1:51820")}
    (step,) = plan(wanted, by_key(has(A))).steps
    assert isinstance(step, Put)
    assert (step.new, step.psk, step.allowed, step.endpoint, step.keepalive) == (False, False, False, True, False)
    assert plan(wanted, by_key(has(A, endpoint="198.51.100.7:40000"))).steps == ()
    (made,) = plan(wanted, {}).steps
    assert isinstance(made, Put)
    assert made.new
    assert made.endpoint


def test_two_links_with_one_prefix_are_no_plan() -> None:
    with pytest.raises(ValueError, match="131024-1 and 131016-1 claim one prefix"):
        plan({A: one("131016-1", A, "10.64.0.1/32"), B: one("131024-1", B, "10.64.0.1")}, {})
    with pytest.raises(ValueError, match="a key that is not its own"):
        plan({B: one("131016-1", A)}, {})


def test_a_new_key_of_a_link_waits_without_prefixes_and_then_takes_over() -> None:
    before = by_key(has(A, "10.64.0.1/32"))
    waiting = {A: one("131016-1", A, "10.64.0.1/32"), B: one("131016-1", B)}
    device = ModelDevice(before)
    device.apply(plan(waiting, before).steps)
    assert device.touched == [B]
    device.apply(plan({B: one("131016-1", B, "10.64.0.1/32")}, device.peers).steps)
    assert device.peers == by_key(has(B, "10.64.0.1/32"))


def test_an_interface_that_has_its_key_and_port_is_settled() -> None:
    private = new_private_key()
    interface = Interface(private_key=private, listen_port=51820)
    assert settled(interface, Actual(public_key=public_key_of(private), listen_port=51820, peers={}))
    assert not settled(interface, Actual(public_key=public_key_of(private), listen_port=51821, peers={}))
    assert not settled(interface, Actual(public_key=None, listen_port=51820, peers={}))
    assert not settled(interface, Actual(public_key=A, listen_port=51820, peers={}))


def test_no_text_of_the_model_shows_a_key_or_an_endpoint() -> None:
    key, psk, place = b"K" * 32, b"S" * 32, "192.0.2.99:4500"
    wanted = one("131016-1", key, "10.64.0.1/32", psk=psk, endpoint=place)
    peer = has(key, "10.64.0.1/32", psk=psk, endpoint=place)
    things = [
        wanted,
        peer,
        Interface(private_key=key, listen_port=1),
        Actual(public_key=key, listen_port=1, peers={key: peer}),
        Put(wanted=wanted, psk=True),
        plan({key: wanted}, {}),
        plan({}, {key: peer}),
    ]
    text = " ".join(f"{thing!r} {thing}" for thing in things)
    for secret in ("KKK", "SSS", key.hex(), psk.hex(), "192.0.2.99"):
        assert secret not in text
