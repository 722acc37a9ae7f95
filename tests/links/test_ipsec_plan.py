"""The plan for charon: what is carried out makes what is wanted, whatever was there, and nobody else's session ends."""

from collections.abc import Mapping
from ipaddress import ip_network

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chukan.tenants.link_plan import prefixes
from chukan.tests.support.model_charon import carried_out
from chukan.vpn.ipsec import messages
from chukan.vpn.ipsec.model import (
    Actual,
    Association,
    Child,
    DropSecret,
    Gateway,
    Loaded,
    PutConnection,
    PutSecret,
    Terminate,
    TerminateOne,
    Unload,
    Wanted,
    expected,
    ike_secret,
    link_of,
    mark,
    overlaps,
    remote_id,
    selectors,
    within,
)
from chukan.vpn.ipsec.plan import plan
from chukan.vpn.model import Drift

GATEWAY = Gateway(centre="east", address="198.51.100.1")
SERVICES = frozenset({"10.255.0.1/32", "10.255.255.1/32"})
LINKS = ("131016-1", "131016-2", "011002-1", "271004-1")
SECRETS = tuple(bytes([n]) * 32 for n in range(1, 4))


def wanted_of(link: str, secret: bytes = SECRETS[0]) -> Wanted:
    local, remote = selectors(prefixes(link), SERVICES)
    return Wanted(link=link, centre="east", auth="psk", secret=secret, local=local, remote=remote)


def by_name(*ones: Wanted) -> dict[str, Wanted]:
    return {one.name: one for one in ones}


def connected(one: Wanted, number: int, **changed: object) -> Association:
    child = Child(stands=True, local=one.local, remote=one.remote, rx=0, tx=0)
    association = Association(
        number=number,
        name=one.name,
        identity=remote_id(one),
        established=True,
        age_s=1,
        endpoint="192.0.2.9:4500",
        children=(child,),
    )
    return msgspec.structs.replace(association, **changed)


def having(*ones: Wanted, associations: tuple[Association, ...] = ()) -> Actual:
    return Actual(
        connections={one.name: expected(one, GATEWAY) for one in ones},
        secrets=frozenset(one.name for one in ones),
        associations=associations,
    )


wanteds = st.builds(wanted_of, st.sampled_from(LINKS), st.sampled_from(SECRETS))
goals = st.lists(wanteds, max_size=6).map(lambda ones: by_name(*ones))


@st.composite
def actuals(draw: st.DrawFn) -> Actual:
    """Charon as somebody may have left it: ours, by hand, half of it, and people connected by any of it."""
    loaded: dict[str, Loaded] = {}
    for one in draw(st.lists(wanteds, max_size=6)):
        told = expected(one, GATEWAY)
        tampered = draw(
            st.sampled_from(
                [
                    {},
                    {"remote": frozenset({"10.64.0.0/10"})},
                    {"remote": frozenset({"10.0.0.1..10.0.0.9"})},
                    {"local_id": "other"},
                    {"children": frozenset({"service", "more"})},
                ]
            )
        )
        name = draw(st.sampled_from([one.name, one.name, "by-hand", "131016-1.00000000"]))
        loaded[name] = msgspec.structs.replace(told, **tampered)
    names = [*loaded, "by-hand", "gone.00000000"]
    secrets = frozenset(draw(st.lists(st.sampled_from(names), max_size=6)))
    people = draw(st.lists(st.tuples(wanteds, st.sampled_from([None, *names]), st.booleans()), max_size=6))
    associations = tuple(
        connected(
            one,
            number,
            **({} if name is None else {"name": name}),
            **({"identity": "somebody"} if changed else {}),
        )
        for number, (one, name, changed) in enumerate(people, start=1)
    )
    return Actual(connections=loaded, secrets=secrets, associations=associations)


@pytest.mark.requirement("TEN-03")
@settings(max_examples=120, deadline=None)
@given(wanted=goals, actual=actuals(), refreshed=st.booleans())
def test_what_is_carried_out_is_what_was_wanted_and_a_second_time_nothing(
    wanted: Mapping[str, Wanted], actual: Actual, *, refreshed: bool
) -> None:
    fresh = frozenset(wanted) if refreshed else frozenset()
    after = carried_out(actual, plan(wanted, GATEWAY, actual, fresh).steps, GATEWAY)
    assert after.connections == {name: expected(one, GATEWAY) for name, one in wanted.items()}
    assert after.secrets == frozenset(wanted)
    for one in after.associations:
        goal = wanted[one.name]
        assert one.identity == remote_id(goal)
        assert all(child.remote <= goal.remote and child.local <= goal.local for child in one.children)
    again = plan(wanted, GATEWAY, after, frozenset(wanted))
    assert again == ((), ())


@settings(max_examples=120, deadline=None)
@given(wanted=goals, actual=actuals(), refreshed=st.booleans())
def test_who_is_connected_as_wanted_stays_connected(
    wanted: Mapping[str, Wanted], actual: Actual, *, refreshed: bool
) -> None:
    fresh = frozenset(wanted) if refreshed else frozenset()
    good = [
        one
        for one in actual.associations
        if one.name in wanted
        and one.identity == remote_id(wanted[one.name])
        and all(within(child.remote, wanted[one.name].remote) for child in one.children)
    ]
    after = carried_out(actual, plan(wanted, GATEWAY, actual, fresh).steps, GATEWAY)
    assert set(good) <= set(after.associations)


@settings(max_examples=80, deadline=None)
@given(goals, actuals())
def test_what_is_taken_away_comes_before_what_is_put(wanted: Mapping[str, Wanted], actual: Actual) -> None:
    steps = plan(wanted, GATEWAY, actual).steps
    put = [n for n, step in enumerate(steps) if isinstance(step, PutSecret | PutConnection)]
    taken = [n for n, step in enumerate(steps) if isinstance(step, Unload | DropSecret | Terminate)]
    assert not put or not taken or max(taken) < min(put)
    # Nobody comes back by what goes: the session ends after the connection and the secret went.
    ended = [n for n, step in enumerate(steps) if isinstance(step, Terminate)]
    closed = [n for n, step in enumerate(steps) if isinstance(step, Unload | DropSecret)]
    assert not ended or not closed or max(closed) < min(ended)


def test_what_differs_is_named() -> None:
    mine, other = wanted_of("131016-1"), wanted_of("131016-2")
    wanted, fresh = by_name(mine, other), {mine.name, other.name}
    whole = having(mine, other)
    assert plan(wanted, GATEWAY, whole, fresh) == ((), ())

    def drift(actual: Actual) -> tuple[Drift, ...]:
        return plan(wanted, GATEWAY, actual, fresh).drift

    assert drift(having(mine)) == (Drift("missing", "131016-2"),)
    assert drift(msgspec.structs.replace(whole, secrets=frozenset({mine.name}))) == (Drift("psk", "131016-2"),)
    wide = msgspec.structs.replace(expected(mine, GATEWAY), remote=frozenset({"10.64.0.0/10"}))
    assert drift(msgspec.structs.replace(whole, connections={**whole.connections, mine.name: wide})) == (
        Drift("allowed", "131016-1"),
    )
    assert drift(msgspec.structs.replace(whole, connections={**whole.connections, "by-hand": wide})) == (
        Drift("stolen", "131016-1"),
    )
    elsewhere = msgspec.structs.replace(wide, remote=frozenset({"172.16.0.0/12"}))
    assert drift(msgspec.structs.replace(whole, connections={**whole.connections, "by-hand": elsewhere})) == (
        Drift("rogue", None),
    )


def test_another_key_is_another_connection_beside_the_first() -> None:
    old, new = wanted_of("131016-1", SECRETS[0]), wanted_of("131016-1", SECRETS[1])
    assert old.name != new.name
    assert remote_id(old) != remote_id(new)
    assert link_of(old.name) == link_of(new.name) == "131016-1"
    actual = having(old, associations=(connected(old, 1),))
    added = plan(by_name(old, new), GATEWAY, actual, {old.name})
    assert added.steps == (PutSecret(new), PutConnection(new))
    both = having(old, new, associations=(connected(old, 1), connected(new, 2)))
    done = plan(by_name(new), GATEWAY, both, {old.name, new.name})
    assert done.steps == (Unload(old.name), DropSecret(old.name), Terminate(old.name))


def test_a_wider_session_of_a_repaired_connection_is_ended_and_a_narrower_one_stays() -> None:
    mine = wanted_of("131016-1")
    wide = Child(stands=True, local=mine.local, remote=frozenset({"10.64.0.0/10"}), rx=0, tx=0)
    narrow = Child(stands=True, local=frozenset({"10.255.0.1/32"}), remote=mine.remote, rx=0, tx=0)
    actual = having(mine, associations=(connected(mine, 7, children=(wide,)), connected(mine, 8, children=(narrow,))))
    assert plan(by_name(mine), GATEWAY, actual, {mine.name}).steps == (TerminateOne(7),)


def test_what_is_sent_is_what_is_expected_back() -> None:
    one = wanted_of("131016-1")
    sent = messages.connection(one, GATEWAY)
    assert sent["remote"] == {"auth": "psk", "id": f"{mark(one.secret)}.131016-1.link.chukan"}
    assert sent["local"] == {"auth": "psk", "id": "east.gateway.chukan"}
    (child,) = sent["children"].values()
    assert child["remote_ts"] == [prefixes("131016-1")[0]]
    assert child["esp_proposals"] == ["aes256gcm16-ecp384"]
    assert set(sent["proposals"]) == {"aes256gcm16-prfsha384-ecp384", "aes256-sha384-ecp384"}
    assert messages.secret(one)["data"] == ike_secret(one.secret)
    # Were the gateway an owner too, charon would take any link's key for any link's identity.
    assert messages.secret(one)["owners"] == [sent["remote"]["id"]]
    bound = messages.connection(one, msgspec.structs.replace(GATEWAY, if_id=9))["children"]["service"]
    assert (bound["if_id_in"], bound["if_id_out"]) == ("9", "9")


def test_selectors_are_of_the_families_that_both_sides_have() -> None:
    both = prefixes("131016-1")
    assert selectors(both, ["10.255.0.1"]) == (frozenset({"10.255.0.1/32"}), frozenset({both[0]}))
    assert selectors(both, ["10.255.0.1", "fd6b::1"])[1] == frozenset(both)
    with pytest.raises(ValueError, match="no address family in common"):
        selectors(both, [])


networks = st.tuples(st.integers(0, 255), st.integers(16, 32)).map(
    lambda pair: str(ip_network(f"10.64.{pair[0]}.0/{pair[1]}", strict=False))
)


@given(st.frozensets(networks, min_size=1, max_size=4), st.frozensets(networks, min_size=1, max_size=4))
def test_within_and_overlap_are_those_of_sets_of_addresses(mine: frozenset[str], theirs: frozenset[str]) -> None:
    pairs = [(ip_network(one), ip_network(other)) for one in mine for other in theirs]
    assert overlaps(mine, theirs) == any(one.overlaps(other) for one, other in pairs)
    inside = all(any(ip_network(one).subnet_of(ip_network(other)) for other in theirs) for one in mine)
    assert within(mine, theirs) == inside


def test_what_is_no_prefix_lies_in_nothing() -> None:
    assert not within(frozenset({"10.64.0.1..10.64.0.9"}), ["0.0.0.0/0"])
    assert not within(frozenset({"10.64.0.1/32[tcp/22]"}), ["0.0.0.0/0"])
    assert not overlaps(["10.64.0.1..10.64.0.9"], ["0.0.0.0/0"])
    assert not within(frozenset({"fd6b::/64"}), ["0.0.0.0/0"])


def test_nothing_shows_a_key_an_identity_or_an_endpoint() -> None:
    one = wanted_of("131016-1")
    person = connected(one, 1)
    shown = repr(
        [one, GATEWAY, expected(one, GATEWAY), person, person.children, having(one), PutSecret(one), PutConnection(one)]
    )
    for hidden in (repr(one.secret), ike_secret(one.secret).decode(), remote_id(one), "192.0.2.9", "198.51.100.1"):
        assert hidden not in shown
