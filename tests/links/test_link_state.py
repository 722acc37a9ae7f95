"""How a link comes to be, is used, and ends: each step by somebody, some by two, all of it in the audit."""

import asyncio
import re

import asyncpg
import pytest

from chukan.errors import Problem
from chukan.tenants.link_plan import parse_link, prefixes
from chukan.tenants.links import RequestedPeer
from chukan.tests.support.link_desk import CENTRES, key, sealed, soon

pytestmark = pytest.mark.requirement("TEN-03")

STATES = ("invited", "requested", "active", "suspended", "revoked")
REASON = "as a test"


def approve(desk, link, **people):
    return desk.steward.approve(link, {centre: sealed() for centre in CENTRES}, **({"second": "berta"} | people))


ACTS = {
    "approve": (approve, {"requested"}),
    "suspend": (lambda desk, link: desk.steward.suspend(link, who="anna", reason=REASON), {"active"}),
    "resume": (lambda desk, link: desk.steward.resume(link, second="berta", reason=REASON), {"suspended"}),
    "revoke": (lambda desk, link: desk.steward.revoke(link, who="anna", reason=REASON), set(STATES) - {"revoked"}),
    "extend": (
        lambda desk, link: desk.steward.extend(link, valid_from=None, valid_until=soon(), who="anna", second="berta"),
        {"active", "suspended"},
    ),
    "rotate": (lambda desk, link: desk.steward.rotate(link, {"east": sealed()}, who="anna"), {"active", "suspended"}),
}
BECOMES = {"approve": "active", "suspend": "suspended", "resume": "active", "revoke": "revoked"}


async def refused(work):
    with pytest.raises(Problem) as raised:
        await work
    return raised.value.code


async def whole_history(desk, link):
    return [(each.act, each.who, each.second) for each in reversed(await desk.steward.history(link))]


async def test_a_link_lives_from_invitation_to_revocation(desk):
    body = desk.body()
    link = await desk.invited(body)
    assert link == f"{body}-1"
    found = await desk.steward.show(link)
    assert (found.state, found.body, found.prefixes, dict(found.peers)) == ("invited", body, prefixes(link), {})
    wish = await desk.wish(link)
    await desk.steward.request(link, wish, "anna")
    await approve(desk, link, valid_until=soon(300))
    found = await desk.steward.show(link)
    assert found.state == "active"
    assert (found.device_key, found.device_sealing_key) == (wish.device_key, wish.device_sealing_key)
    assert {centre: peer.public_key for centre, peer in found.peers.items()} == {
        centre: peer.public_key for centre, peer in wish.peers.items()
    }
    await desk.steward.suspend(link, who="anna", reason=REASON)
    await desk.steward.resume(link, second="berta", reason=REASON)
    await desk.steward.revoke(link, who="carla", reason=REASON)
    found = await desk.steward.show(link)
    assert found.state == "revoked"
    assert {peer.psk for peer in found.peers.values()} == {None}
    assert await whole_history(desk, link) == [
        ("invite", "anna", None),
        ("request", "anna", None),
        ("approve", "anna", "berta"),
        ("suspend", "anna", None),
        ("resume", "anna", "berta"),
        ("revoke", "carla", None),
    ]


@pytest.mark.parametrize("state", STATES)
async def test_in_each_state_only_its_acts_are_possible(desk, state):
    for name, (act, states) in ACTS.items():
        link = await desk.in_state(state)
        before = await desk.steward.show(link)
        lines = await desk.steward.history(link)
        if state in states:
            await act(desk, link)
            after = await desk.steward.show(link)
            assert after.state == BECOMES.get(name, state), (name, state)
            assert after.generation > before.generation
        else:
            assert await refused(act(desk, link)) == "link_state", (name, state)
            assert await desk.steward.show(link) == before
            assert await desk.steward.history(link) == lines


@pytest.mark.parametrize("state", STATES[1:])
async def test_nothing_is_asked_for_twice(desk, state):
    link = await desk.in_state(state)
    assert await refused(desk.steward.request(link, await desk.wish(link), "anna")) == "link_state"


async def test_a_request_that_is_handed_in_again_changes_nothing(desk):
    link = await desk.invited()
    wish = await desk.wish(link)
    await desk.steward.request(link, wish, "anna")
    before = await desk.steward.show(link), await desk.steward.history(link)
    await desk.steward.request(link, wish, "anna")
    assert (await desk.steward.show(link), await desk.steward.history(link)) == before


async def test_an_invitation_binds_to_its_key_and_its_time(desk):
    link = await desk.invited()
    wish = await desk.wish(link, invitation_key=key())
    assert await refused(desk.steward.request(link, wish, "anna")) == "invitation_invalid"
    wish = await desk.wish(link)
    await desk.admin.execute("UPDATE chukan.links SET invitation_expires_at = now() WHERE link = $1", link)
    assert await refused(desk.steward.request(link, wish, "anna")) == "invitation_invalid"
    for days in (-1, 0, 14.1, 400):
        assert await refused(desk.invited(expires_at=soon(days))) == "invitation_invalid"
    assert await desk.invited(expires_at=soon(14))


async def test_an_invitation_that_is_made_again_is_the_same_one(desk):
    body, same = desk.body(), key()
    link = await desk.invited(body, public_key=same)
    assert await desk.invited(body, public_key=same) == link
    assert len(await desk.steward.list(body)) == 1
    assert await refused(desk.invited(public_key=same)) == "invitation_invalid"
    assert await refused(desk.invited(body, public_key=same, mode="service")) == "invitation_invalid"


async def test_a_body_has_three_open_invitations_at_most(desk):
    body = desk.body()
    links = [await desk.invited(body) for _ in range(3)]
    assert await refused(desk.invited(body)) == "invitations_open"
    await desk.steward.request(links[0], await desk.wish(links[0]), "anna")
    assert await refused(desk.invited(body)) == "invitations_open"
    await approve(desk, links[0])
    assert await desk.invited(body) == f"{body}-4"
    await desk.admin.execute("UPDATE chukan.links SET invitation_expires_at = now() WHERE link = $1", links[1])
    assert await desk.invited(body) == f"{body}-5"


async def test_a_serial_is_never_given_twice_and_there_are_63(desk):
    body = desk.body()
    given = []
    for _ in range(63):
        link = await desk.invited(body)
        given.append(parse_link(link).serial)
        await desk.steward.revoke(link, who="anna", reason=REASON)
    assert given == list(range(1, 64))
    assert await refused(desk.invited(body)) == "links_full"
    assert len(await desk.steward.list(body)) == 63


@pytest.mark.parametrize(
    ("people", "allowed"),
    [
        ({"second": "berta"}, True),
        ({"second": "anna"}, False),
        ({"second": "Anna"}, False),
        ({"who": "berta", "second": "berta"}, False),
        ({"who": "berta", "second": "anna"}, False),
        ({"who": "berta", "second": "carla"}, True),
    ],
)
async def test_an_approval_and_a_resumption_need_another_person(desk, people, allowed):
    requested, suspended = await desk.requested(), await desk.in_state("suspended")
    resume = desk.steward.resume(suspended, reason=REASON, **people)
    if allowed:
        await approve(desk, requested, **people)
        await resume
        assert (await desk.steward.show(requested)).state == (await desk.steward.show(suspended)).state == "active"
        return
    assert await refused(approve(desk, requested, **people)) == "second_person"
    assert await refused(resume) == "second_person"
    assert (await desk.steward.show(requested)).state == "requested"
    assert (await desk.steward.show(suspended)).state == "suspended"


async def test_whoever_names_a_second_person_names_another_one(desk):
    link = await desk.active()
    for act in (desk.steward.suspend, desk.steward.revoke):
        assert await refused(act(link, who="anna", second="anna", reason=REASON)) == "second_person"
    await desk.steward.revoke(link, who="anna", second="berta", reason=REASON)


async def test_an_appliances_next_keys_need_another_person_too(desk):
    link = await desk.invited(kind="ipsec")
    ends = {"east": RequestedPeer(public_key=None, config={"auth": "psk"})}
    await desk.steward.request(link, await desk.wish(link, peers=ends), "anna")
    await desk.steward.approve(link, {"east": sealed()}, second="berta")
    for second in (None, "anna", "ANNA"):
        act = desk.steward.put_next_key(link, "east", psk=sealed(), who="anna", second=second)
        assert await refused(act) == "second_person"
    await desk.steward.put_next_key(link, "east", psk=sealed(), who="anna", second="berta")
    assert (await whole_history(desk, link))[-1] == ("next_key", "anna", "berta")


@pytest.mark.parametrize("who", ["", "  ", "a b", "ann\u200ba", "x" * 121, "-a", "a\nb"])
async def test_nobody_acts_without_a_name(desk, who):
    link = await desk.requested()
    assert await refused(desk.invited(who=who)) == "invalid_field"
    assert await refused(approve(desk, link, second=who)) == "invalid_field"
    assert await refused(desk.steward.revoke(link, who=who, reason=REASON)) == "invalid_field"


async def test_of_two_approvals_at_once_one_wins(desk):
    link = await desk.requested()
    people = [f"person-{n}" for n in range(6)]
    done = await asyncio.gather(*(approve(desk, link, second=who) for who in people), return_exceptions=True)
    assert sorted(str(each) for each in done) == ["None", *["link_state"] * 5]
    lines = [each for each in await desk.steward.history(link) if each.act == "approve"]
    assert len(lines) == 1
    assert lines[0].second == people[done.index(None)]


async def test_a_suspension_and_a_revocation_at_once_end_in_revocation(desk):
    link = await desk.active()
    await asyncio.gather(
        desk.steward.suspend(link, who="anna", reason=REASON),
        desk.steward.revoke(link, who="berta", reason=REASON),
        return_exceptions=True,
    )
    assert (await desk.steward.show(link)).state == "revoked"


async def test_generations_rise_with_each_act_and_the_number_is_the_highest(desk):
    seen = [await desk.controller.number()]
    one, other = await desk.active(), await desk.active()
    for link in (one, other, one):
        await desk.steward.extend(link, valid_from=None, valid_until=soon(), who="anna", second="berta")
        seen.append((await desk.steward.show(link)).generation)
    assert seen == sorted(set(seen))
    assert await desk.controller.number() == seen[-1]
    assert (await desk.controller.desired("east")).number == seen[-1]


async def test_generations_go_on_far_above_those_that_a_failover_or_a_restore_may_have_lost(desk):
    link = await desk.active()
    before = (await desk.steward.show(link)).generation
    await desk.admin.execute("UPDATE chukan.link_counter SET timeline = timeline + 1")
    await desk.steward.suspend(link, who="anna", reason=REASON)
    after = (await desk.steward.show(link)).generation
    assert after >= before + 1000
    opened = await desk.admin.fetchval("SELECT epoch FROM chukan.opening()")
    await desk.admin.execute("INSERT INTO chukan.cell_opening (epoch, opened_at) VALUES ($1, now())", opened + 1)
    await desk.admin.execute("UPDATE chukan.cell SET epoch = $1", opened + 1)
    try:
        # As an administrator: the settings of these tests do not know the restored epoch.
        await desk.admin.execute("SELECT chukan.link_resume($1, NULL, 'berta', 'x')", link)
        generation = "SELECT generation FROM chukan.links WHERE link = $1"
        assert await desk.admin.fetchval(generation, link) > opened * 10**12 > after
    finally:
        await desk.admin.execute("UPDATE chukan.cell SET epoch = $1", opened)


async def test_a_key_is_one_links_for_ever(desk):
    first = await desk.active()
    mine = (await desk.steward.show(first)).peers["east"].public_key
    await desk.steward.revoke(first, who="anna", reason=REASON)
    second = await desk.invited()
    stolen = await desk.wish(second, peers={"east": RequestedPeer(public_key=mine)})
    assert await refused(desk.steward.request(second, stolen, "anna")) == "link_key_taken"
    await desk.gateways()
    gateway = (await desk.steward.gateways())["west"].public_key
    stolen = await desk.wish(second, peers={"east": RequestedPeer(public_key=gateway)})
    assert await refused(desk.steward.request(second, stolen, "anna")) == "link_key_taken"
    assert (await desk.steward.show(second)).state == "invited"
    shared = key()
    both = await desk.wish(second, peers={centre: RequestedPeer(public_key=shared) for centre in CENTRES})
    await desk.steward.request(second, both, "anna")


async def test_an_approval_brings_a_sealed_key_for_each_centre(desk):
    link = await desk.requested()
    for psks in ({}, {"east": sealed()}, {"east": sealed(), "north": sealed()}, dict.fromkeys(CENTRES, b"")):
        assert await refused(desk.steward.approve(link, psks, second="berta")) == "invalid_field"
    for psks in (dict.fromkeys(CENTRES, b"x" * 1025), {**dict.fromkeys(CENTRES, b"x"), "north": b"x"}):
        assert await refused(desk.steward.approve(link, psks, second="berta")) == "invalid_field"
    assert await refused(approve(desk, link, valid_until=soon(-1))) == "invalid_field"
    assert await refused(approve(desk, link, valid_from=soon(3), valid_until=soon(2))) == "invalid_field"
    assert (await desk.steward.show(link)).state == "requested"


async def test_a_request_fits_its_kind(desk):
    link = await desk.invited(kind="ipsec")
    keyed = await desk.wish(link)
    assert await refused(desk.steward.request(link, keyed, "anna")) == "invalid_field"
    config = {"identity": "device.example", "proposals": ["aes256gcm16-ecp384"]}
    peers = {"east": RequestedPeer(public_key=None, config=config)}
    await desk.steward.request(link, await desk.wish(link, peers=peers), "anna")
    assert (await desk.steward.show(link)).peers["east"].config == config
    link = await desk.invited()
    for peers in ({}, {"east": RequestedPeer(public_key=None)}, {"east": RequestedPeer(public_key=b"short")}):
        assert await refused(desk.steward.request(link, await desk.wish(link, peers=peers), "anna")) == "invalid_field"
    many = {f"c{n}": RequestedPeer(public_key=key()) for n in range(5)}
    assert await refused(desk.steward.request(link, await desk.wish(link, peers=many), "anna")) == "invalid_field"


async def test_a_reason_is_short_and_holds_no_individual_number(desk):
    link = await desk.active()
    for reason in ("", "   ", "x" * 201):
        assert await refused(desk.steward.suspend(link, who="anna", reason=reason)) == "invalid_field"
    number = "999000000013"
    codes = {await refused_or_none(desk, link, f"{number[:-1]}{last}") for last in range(10)}
    assert codes == {None, "individual_number_present"}
    await desk.steward.revoke(link, who="anna", reason="x" * 200)


async def refused_or_none(desk, link, reason):
    try:
        await desk.steward.suspend(link, who="anna", reason=reason)
    except Problem as problem:
        return problem.code
    await desk.steward.resume(link, second="berta", reason=REASON)
    return None


async def test_a_link_that_there_is_not_is_said_so(desk):
    for name in (f"{desk.body()}-1", "131017-1", "x", "131016-64"):
        assert await refused(desk.steward.show(name)) == "no_such_link"
        assert await refused(desk.steward.revoke(name, who="anna", reason=REASON)) == "no_such_link"
    assert await refused(desk.invited("131017")) == "no_such_link"


async def test_the_audit_tells_before_and_after_and_no_key(desk):
    link = await desk.invited()
    wish = await desk.wish(link)
    await desk.steward.request(link, wish, "anna")
    psks = {centre: sealed() for centre in CENTRES}
    await desk.steward.approve(link, psks, second="berta")
    await desk.controller.seen("east", [])
    approved, requested, invited = await desk.steward.history(link)
    assert invited.before is None
    assert (invited.after["state"], requested.before["state"]) == ("invited", "invited")
    assert requested.after == approved.before
    assert approved.before["peers"]["east"]["psk"] is False
    assert approved.after["peers"]["east"]["psk"] is True
    ids = {approved.after["device_key"], *(peer["key"] for peer in approved.after["peers"].values())}
    assert all(re.fullmatch(r"[0-9a-f]{8}", each) for each in ids)
    assert len(ids) == 3
    text = await desk.admin.fetchval("SELECT string_agg(c::text, '') FROM chukan.link_change c WHERE link = $1", link)
    for secret in (wish.device_key, *psks.values(), *(peer.public_key for peer in wish.peers.values())):
        assert secret.hex()[:16] not in text


async def test_an_act_and_its_line_are_one_commit(desk):
    link = await desk.active()
    before = await desk.steward.show(link)
    await desk.admin.execute("ALTER TABLE chukan.link_change ADD CONSTRAINT broken CHECK (act <> 'suspend') NOT VALID")
    try:
        code = await refused(desk.steward.suspend(link, who="anna", reason=REASON))
    finally:
        await desk.admin.execute("ALTER TABLE chukan.link_change DROP CONSTRAINT broken")
    assert code == "invalid_field"
    assert await desk.steward.show(link) == before


async def test_the_audit_and_the_tombstones_can_not_be_changed_by_any_role(desk):
    await desk.in_state("revoked")
    roles = await desk.admin.fetch("SELECT rolname FROM pg_roles WHERE rolname ~ '^(chukan_|a[0-9]{5}$)'")
    assert {"chukan_fn", "chukan_links", "chukan_steward"} <= {row[0] for row in roles}
    kept = {"link_change": ("UPDATE", "DELETE", "TRUNCATE"), "link_keys": ("UPDATE", "DELETE", "TRUNCATE")}
    kept |= dict.fromkeys(("links", "link_peers", "link_gateways", "link_counter"), ("DELETE", "TRUNCATE"))
    for (role,) in roles:
        for table, rights in kept.items():
            for right in rights:
                sql = "SELECT has_table_privilege($1, $2, $3)"
                assert not await desk.admin.fetchval(sql, role, f"chukan.{table}", right), (role, table, right)
    await desk.admin.execute("SET ROLE chukan_fn")
    try:
        for sql in ("UPDATE chukan.link_change SET who = 'x'", "DELETE FROM chukan.links"):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await desk.admin.execute(sql)
    finally:
        await desk.admin.execute("RESET ROLE")


async def test_history_is_bounded_and_of_a_body_or_of_all(desk):
    body = desk.body()
    one, other = await desk.active(body), await desk.invited(body)
    stranger = await desk.invited()
    assert [each.link for each in await desk.steward.history(body=body)] == [other, one, one, one]
    newest = await desk.steward.history(limit=2)
    assert [each.link for each in newest] == [stranger, other]
    assert newest[0].n > newest[1].n


async def test_nothing_that_is_printed_shows_a_key(desk):
    link = await desk.active()
    shown = repr(await desk.steward.show(link)) + repr(await desk.controller.desired("east"))
    shown += repr(await desk.wish(link)) + repr(await desk.steward.history(link))
    assert "\\x" not in shown
    assert "b'" not in shown
