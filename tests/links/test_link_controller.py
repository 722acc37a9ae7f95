"""What a gateway's process is told of links, what it tells, and who has those that only one centre may have."""

import asyncio
import datetime as dt

import pytest

from chukan.clock import SystemClock
from chukan.errors import Problem
from chukan.tenants.link_plan import prefixes
from chukan.tenants.links import Drifted, GatewayPart, Seen
from chukan.tests.support.link_desk import CENTRES, key, sealed, soon

pytestmark = pytest.mark.requirement("TEN-03")

REASON = "as a test"


async def refused(work):
    with pytest.raises(Problem) as raised:
        await work
    return raised.value.code


def ago(minutes=0.0):
    return SystemClock().now() - dt.timedelta(minutes=minutes)


def sighting(link, endpoint="192.0.2.1:51820", minutes=0.0):
    return Seen(link=link, endpoint=endpoint, handshake_at=ago(minutes))


# ---------------------------------------------------------------- what is desired


async def test_a_gateway_is_told_of_links_that_may_be_there_and_of_those_that_may_not(desk):
    links = {state: await desk.in_state(state) for state in ("invited", "requested", "active", "suspended", "revoked")}
    told = {peer.link: peer for peer in (await desk.controller.desired("east")).peers}
    assert {state for state, link in links.items() if link in told} == {"active", "suspended", "revoked"}
    assert {state: told[link].state for state, link in links.items() if link in told} == {
        state: state for state in ("active", "suspended", "revoked")
    }
    active = told[links["active"]]
    row = await desk.steward.show(links["active"])
    assert (active.public_key, active.psk) == (row.peers["east"].public_key, row.peers["east"].psk)
    assert (active.prefixes, active.generation) == (prefixes(links["active"]), row.generation)
    assert active.psk != row.peers["west"].psk
    assert told[links["revoked"]].psk is None
    assert told[links["revoked"]].public_key is not None


async def test_a_centre_that_nothing_was_asked_for_has_the_tombstone_alone(desk):
    link = await desk.active()
    await desk.admin.execute("DELETE FROM chukan.link_peers WHERE link = $1 AND centre = 'west'", link)
    assert await desk.desired("west", link) is None
    await desk.steward.revoke(link, who="anna", reason=REASON)
    tombstone = await desk.desired("west", link)
    assert (tombstone.state, tombstone.public_key, tombstone.prefixes) == ("revoked", None, prefixes(link))


async def test_the_gateway_comes_with_what_it_must_have(desk):
    assert (await desk.controller.desired("north")).gateway is None
    await desk.gateways()
    east = (await desk.controller.desired("east")).gateway
    assert east == (await desk.steward.gateways())["east"]
    assert (east.centre, east.endpoint, east.draining) == ("east", "east.example:51820", False)


async def test_validity_reaches_the_gateway(desk):
    link = await desk.requested()
    start, end = soon(1), soon(2)
    psks = {centre: sealed() for centre in CENTRES}
    await desk.steward.approve(link, psks, second="berta", valid_from=start, valid_until=end)
    peer = await desk.desired("east", link)
    assert (peer.valid_from, peer.valid_until) == (start, end)
    assert await refused(
        desk.steward.extend(link, valid_from=None, valid_until=soon(9), who="anna", second="anna")
    ) == "second_person"  # fmt: skip
    await desk.steward.extend(link, valid_from=None, valid_until=None, who="anna", second="berta")
    peer = await desk.desired("east", link)
    assert (peer.valid_from, peer.valid_until) == (None, None)


# ---------------------------------------------------------------- where devices were seen


async def test_sightings_are_written_where_they_changed_and_not_in_the_audit(desk):
    one, other = await desk.active(), await desk.active()
    lines = len(await desk.steward.history(limit=1000))
    number = await desk.controller.number()
    assert await desk.controller.seen("east", [sighting(one, minutes=9), sighting(other, minutes=9)]) == 2
    assert await desk.controller.seen("east", [sighting(one, minutes=8), sighting(other, minutes=5)]) == 0
    assert await desk.controller.seen("east", [sighting(one, minutes=3), sighting(other, "[2001:db8::1]:4")]) == 2
    assert await desk.controller.seen("east", [sighting(one, "192.0.2.9:1", minutes=8)]) == 0
    assert (await desk.desired("east", one)).endpoint == "192.0.2.1:51820"
    assert (await desk.desired("east", other)).endpoint == "[2001:db8::1]:4"
    assert (await desk.desired("west", one)).endpoint is None
    assert (await desk.steward.show(one)).peers["east"].endpoint == "192.0.2.1:51820"
    assert len(await desk.steward.history(limit=1000)) == lines
    assert await desk.controller.number() == number


async def test_sightings_of_links_that_are_not_in_use_are_passed_over(desk):
    link = await desk.active()
    assert await desk.controller.seen("east", [sighting("131016-63"), sighting(link), sighting(link)]) == 1
    await desk.steward.revoke(link, who="anna", reason=REASON)
    assert await desk.controller.seen("east", [sighting(link)]) == 0
    assert await desk.admin.fetchval("SELECT count(*) FROM chukan.link_sightings WHERE link = $1", link) == 0


async def test_a_gateways_clock_that_is_ahead_counts_as_now(desk):
    link = await desk.active()
    await desk.controller.seen("east", [sighting(link, minutes=-60)])
    assert await desk.controller.seen("east", [sighting(link, "192.0.2.9:1")]) == 1
    assert (await desk.desired("east", link)).endpoint == "192.0.2.9:1"


async def test_of_a_link_with_one_tunnel_the_newest_sighting_counts_at_both_centres(desk):
    link = await desk.active(mode="service")
    await desk.controller.seen("east", [sighting(link, "192.0.2.1:1", minutes=9)])
    await desk.controller.seen("west", [sighting(link, "192.0.2.2:2", minutes=2)])
    assert {(await desk.desired(centre, link)).endpoint for centre in CENTRES} == {"192.0.2.2:2"}


# ---------------------------------------------------------------- differences


async def test_repairs_are_in_the_audit_and_what_is_only_reported_once_in_ten_minutes(desk):
    link = await desk.active()
    rogue = Drifted(link=None, kind=f"rogue_{'x' * 9}", repaired=False)
    found = [Drifted(link=link, kind="stolen", repaired=True), Drifted(link=link, kind="psk", repaired=False), rogue]
    assert await desk.controller.drifted("east", found) == 3
    assert await desk.controller.drifted("east", found) == 1
    assert await desk.controller.drifted("west", found) == 3
    await desk.admin.execute("UPDATE chukan.link_change SET at = at - interval '11 minutes' WHERE act = 'drift'")
    assert await desk.controller.drifted("east", found) == 3
    line = (await desk.steward.history(link))[0]
    assert (line.act, line.who, line.centre) == ("drift", "gateway:east", "east")
    assert line.after == {"kind": "psk", "repaired": False}
    assert await desk.controller.drifted("east", [Drifted(link="131016-63", kind="psk", repaired=True)]) == 0
    assert await refused(desk.controller.drifted("east", [Drifted(link=None, kind="A B", repaired=True)])) == (
        "invalid_field"
    )


# ---------------------------------------------------------------- rotation


async def test_a_next_key_and_psk_hold_beside_the_present_ones_until_they_are_seen_in_use(desk):
    link = await desk.active()
    before = await desk.desired("east", link)
    fresh, psk = key(), sealed()
    await desk.steward.put_next_key(link, "east", public_key=fresh, psk=psk, who="anna")
    staged = await desk.desired("east", link)
    assert (staged.public_key, staged.psk) == (before.public_key, before.psk)
    assert (staged.next_public_key, staged.next_psk) == (fresh, psk)
    assert (await desk.desired("west", link)).next_public_key is None
    assert await desk.controller.rotated("east", link, staged.generation - 1) is False
    assert await desk.controller.rotated("west", link) is False
    assert await desk.controller.rotated("east", link, staged.generation) is True
    after = await desk.desired("east", link)
    assert (after.public_key, after.psk, after.next_public_key, after.next_psk) == (fresh, psk, None, None)
    assert after.generation > staged.generation
    assert await desk.controller.rotated("east", link) is False
    line = (await desk.steward.history(link))[0]
    assert (line.act, line.who, line.centre) == ("rotated", "gateway:east", "east")
    # The key that was given up never comes back, not even to the link that had it.
    old = desk.steward.put_next_key(link, "east", public_key=before.public_key, who="anna")
    assert await refused(old) == "link_key_taken"


async def test_pre_shared_keys_rotate_alone(desk):
    link = await desk.active()
    before = await desk.desired("west", link)
    psks = {centre: sealed() for centre in CENTRES}
    await desk.steward.rotate(link, psks, who="anna")
    await desk.steward.rotate(link, psks, who="anna")
    assert await desk.controller.rotated("west", link) is True
    after = await desk.desired("west", link)
    assert (after.public_key, after.psk) == (before.public_key, psks["west"])
    assert (await desk.desired("east", link)).next_psk == psks["east"]


async def test_a_next_key_is_replaced_on_demand_only(desk):
    link = await desk.active()
    first, second = key(), key()
    await desk.steward.put_next_key(link, "east", public_key=first, who="anna")
    await desk.steward.put_next_key(link, "east", public_key=first, who="anna")
    other = desk.steward.put_next_key(link, "east", public_key=second, who="anna")
    assert await refused(other) == "link_state"
    await desk.steward.put_next_key(link, "east", public_key=second, replace=True, who="anna")
    assert (await desk.desired("east", link)).next_public_key == second
    again = desk.steward.put_next_key(link, "east", public_key=first, replace=True, who="anna")
    assert await refused(again) == "link_key_taken"
    await desk.steward.put_next_key(link, "east", public_key=second, psk=sealed(), replace=True, who="anna")


async def test_a_next_key_may_be_the_other_centres_and_no_other_links(desk):
    link, stranger = await desk.active(), await desk.active()
    east = (await desk.desired("east", link)).public_key
    theirs = (await desk.desired("east", stranger)).public_key
    for taken in (east, theirs):
        assert await refused(desk.steward.put_next_key(link, "east", public_key=taken, who="anna")) == "link_key_taken"
    await desk.steward.put_next_key(link, "west", public_key=east, who="anna")
    nothing = desk.steward.put_next_key(link, "east", who="anna")
    assert await refused(nothing) == "invalid_field"
    nowhere = desk.steward.put_next_key(link, "north", psk=sealed(), who="anna")
    assert await refused(nowhere) == "no_such_link"


async def test_a_gateways_next_key_and_endpoint_become_its_present_ones(desk):
    first, fresh, service = key(), key(), key()
    missing = desk.steward.gateway("south", GatewayPart(endpoint="south.example:1"), "anna")
    assert await refused(missing) == "gateway_incomplete"
    assert await refused(desk.steward.drain("south", on=True, who="anna")) == "gateway_incomplete"
    whole = GatewayPart(endpoint="south.example:1", public_key=first, sealing_key=key())
    await desk.steward.gateway("south", whole, "anna")
    assert await refused(desk.steward.turn_gateway("south", "anna")) == "link_state"
    part = GatewayPart(next_public_key=fresh, next_endpoint="[2001:db8::1]:2", service_public_key=service)
    await desk.steward.gateway("south", part, "anna")
    staged = (await desk.controller.desired("south")).gateway
    assert (staged.public_key, staged.next_public_key) == (first, fresh)
    await desk.steward.turn_gateway("south", "anna")
    turned = (await desk.steward.gateways())["south"]
    assert (turned.public_key, turned.endpoint) == (fresh, "[2001:db8::1]:2")
    assert (turned.next_public_key, turned.next_endpoint, turned.service_public_key) == (None, None, service)
    assert turned.generation > staged.generation
    for endpoint in ("nowhere", "a b:1", "host:", ":1", "2001:db8::1:2"):
        assert await refused(desk.steward.gateway("south", GatewayPart(endpoint=endpoint), "anna")) == "invalid_field"
    device = (await desk.steward.show(await desk.active())).peers["east"].public_key
    stolen = desk.steward.gateway("south", GatewayPart(next_public_key=device), "anna")
    assert await refused(stolen) == "link_key_taken"
    acts = [each.act for each in await desk.steward.history(limit=50) if each.centre == "south"]
    assert acts == ["gateway_turn", "gateway", "gateway"]


async def test_a_drain_is_an_act_and_done_once(desk):
    await desk.gateways()
    before = await desk.controller.number()
    assert await desk.steward.drain("west", on=True, who="anna") is True
    gateway = (await desk.controller.desired("west")).gateway
    assert gateway.draining
    assert gateway.generation > before
    assert await desk.steward.drain("west", on=True, who="anna") is False
    assert await desk.steward.drain("west", on=False, who="berta") is True
    acts = [(each.act, each.who) for each in await desk.steward.history(limit=9) if each.centre == "west"]
    assert acts[:2] == [("undrain", "berta"), ("drain", "anna")]


# ---------------------------------------------------------------- the lease


@pytest.fixture
async def free(desk):
    """Nobody has the links with one tunnel."""
    await desk.admin.execute("UPDATE chukan.link_service SET owner = NULL, until = '-infinity'")
    return desk


def hold(desk, owner, ttl_s=30.0, centre="east"):
    return desk.controller.hold_service(centre, owner, ttl_s)


async def test_one_has_the_links_with_one_tunnel_and_its_epoch_stands_while_it_renews(free):
    first = await hold(free, "east-1")
    assert first is not None
    assert await hold(free, "west-1", centre="west") is None
    assert await hold(free, "east-1") == first
    assert await free.controller.leave_service("west-1") is False
    assert await free.controller.leave_service("east-1") is True
    assert await hold(free, "west-1", centre="west") == first + 1


async def test_an_expired_lease_is_anybodys_and_even_its_own_holder_gets_a_new_epoch(free):
    first = await hold(free, "east-1")
    expire = "UPDATE chukan.link_service SET until = clock_timestamp() - interval '1 second'"
    await free.admin.execute(expire)
    second = await hold(free, "east-1")
    assert second == first + 1
    await free.admin.execute(expire)
    assert await hold(free, "west-1") == second + 1
    assert await hold(free, "east-1") is None


async def test_of_many_who_ask_at_once_one_gets_it(free):
    given = await asyncio.gather(*(hold(free, f"owner-{n}") for n in range(8)))
    assert len([epoch for epoch in given if epoch is not None]) == 1


async def test_on_a_new_timeline_whoever_held_is_believed_to_hold_a_whole_time_more(free):
    first = await hold(free, "east-1", ttl_s=60)
    lost = "UPDATE chukan.link_service SET timeline = timeline + 1, until = clock_timestamp() - interval '1 hour'"
    await free.admin.execute(lost)
    assert await hold(free, "west-1", ttl_s=10) is None
    left = await free.admin.fetchval("SELECT until - clock_timestamp() FROM chukan.link_service")
    assert dt.timedelta(seconds=50) < left <= dt.timedelta(seconds=60)
    assert await hold(free, "east-1", ttl_s=60) >= first + 1000


@pytest.mark.parametrize("ttl_s", [0.0, 0.5, 301.0, -5.0])
async def test_a_lease_has_bounds(free, ttl_s):
    assert await refused(hold(free, "east-1", ttl_s)) == "invalid_field"
    assert await refused(hold(free, "a name with spaces")) == "invalid_field"
