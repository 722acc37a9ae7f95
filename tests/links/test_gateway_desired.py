"""What shall be on a gateway: rows of the database, what was seen before, and the time, as one judgement."""

import datetime as dt
import hashlib
from typing import Any

import msgspec
import pytest

from chukan.tenants import link_plan
from chukan.tenants.links import Desired, DesiredPeer, GatewayRow
from chukan.vpn.gateway.desired import Goal, Kept, goal_of, merge

NOW = dt.datetime(2026, 11, 23, 12, tzinfo=dt.UTC)
HOUR = dt.timedelta(hours=1)


def key(word: str) -> bytes:
    return hashlib.sha256(word.encode()).digest()


def peer(link: str = "131016-1", generation: int = 5, **changes: Any) -> DesiredPeer:
    given: dict[str, Any] = {
        "link": link,
        "body": link[:6],
        "mode": "pair",
        "kind": "wireguard",
        "state": "active",
        "public_key": key(link),
        "next_public_key": None,
        "psk": b"sealed " + link.encode(),
        "next_psk": None,
        "prefixes": link_plan.prefixes(link),
        "valid_from": None,
        "valid_until": None,
        "generation": generation,
        "endpoint": None,
    }
    return DesiredPeer(**(given | changes))


def heard(*peers: DesiredPeer, number: int | None = None, gateway: GatewayRow | None = None) -> Desired:
    highest = max((each.generation for each in peers), default=0)
    return Desired(number=highest if number is None else number, gateway=gateway, peers=peers)


def gateway(generation: int, *, draining: bool) -> GatewayRow:
    return GatewayRow(
        centre="east",
        endpoint="198.51.100.1:51820",
        public_key=key("gateway"),
        sealing_key=key("sealing"),
        draining=draining,
        generation=generation,
    )


def opened(link: str, sealed: bytes) -> bytes | None:
    return hashlib.sha256(sealed).digest() if sealed.startswith(b"sealed") else None


def kept_of(*peers: DesiredPeer, **more: Any) -> Kept:
    return merge(Kept(), heard(*peers, **more))[0]


def goal(kept: Kept, now: dt.datetime = NOW) -> Goal:
    return goal_of(kept, now, opened)


class TestMerge:
    def test_what_is_newer_counts(self) -> None:
        kept, back = merge(kept_of(peer()), heard(peer(generation=6, state="suspended")))
        assert kept.peers["131016-1"].state == "suspended"
        assert back == ()

    @pytest.mark.requirement("TEN-03")
    def test_a_link_that_a_restored_database_never_had_ends_by_a_tombstone_of_its_name(self) -> None:
        kept = kept_of(peer(), peer("131016-2", generation=9))
        kept, back = merge(kept, heard(peer(), number=6))
        assert (kept.peers["131016-2"].state, back) == ("active", ("131016-2",))
        # Invited anew under that name, it is not told; revoked, it is, without any key.
        tombstone = peer("131016-2", generation=8, state="revoked", public_key=None, psk=None)
        kept, back = merge(kept, heard(peer(), tombstone, number=8))
        assert (set(goal(kept).links), back) == ({"131016-1"}, ())

    @pytest.mark.requirement("TEN-03")
    def test_a_stale_database_brings_no_revoked_link_back(self) -> None:
        revoked = kept_of(peer(generation=9, state="revoked", psk=None))
        kept, back = merge(revoked, heard(peer(generation=5), number=5))
        assert kept.peers["131016-1"].state == "revoked"
        assert back == ("131016-1",)
        assert goal(kept).links == {}

    def test_nor_does_one_that_has_forgotten_it(self) -> None:
        kept, back = merge(kept_of(peer(generation=9, state="revoked")), heard(number=4))
        assert kept.peers["131016-1"].state == "revoked"
        assert back == ("131016-1",)

    def test_a_link_that_a_restored_database_has_lost_goes_on(self) -> None:
        kept, back = merge(kept_of(peer(generation=9)), heard(number=4))
        assert "131016-1" in goal(kept).links
        assert back == ("131016-1",)

    def test_what_is_revoked_after_a_restore_is_revoked_though_its_number_is_lower(self) -> None:
        before = kept_of(peer(generation=40))
        restored, back = merge(before, heard(peer(generation=5), number=20))
        assert back == ("131016-1",)
        assert restored.floor == 20
        after, back = merge(restored, heard(peer(generation=21, state="revoked"), number=21))
        assert after.peers["131016-1"].state == "revoked"
        assert back == ()

    def test_no_act_of_a_new_history_revives_what_was_revoked_in_the_old_one(self) -> None:
        restored, _ = merge(kept_of(peer(generation=40, state="revoked")), heard(peer(generation=5), number=20))
        after, back = merge(restored, heard(peer(generation=22), number=22))
        assert after.peers["131016-1"].state == "revoked"
        assert back == ("131016-1",)

    def test_past_the_old_number_the_new_history_is_the_only_one(self) -> None:
        restored, _ = merge(kept_of(peer(generation=40)), heard(peer(generation=5), number=20))
        grown, _ = merge(restored, heard(peer(generation=41), number=41))
        assert grown.floor is None

    def test_an_endpoint_is_no_act_and_is_always_taken(self) -> None:
        kept, back = merge(kept_of(peer(generation=9)), heard(peer(generation=5, endpoint="192.0.2.1:51820"), number=5))
        assert kept.peers["131016-1"].endpoint == "192.0.2.1:51820"
        assert back == ("131016-1",)

    def test_a_drain_of_yesterday_is_not_heard_from_a_stale_database(self) -> None:
        kept = kept_of(peer(generation=9), gateway=gateway(8, draining=False))
        kept, _ = merge(kept, heard(peer(generation=9), gateway=gateway(7, draining=True)))
        assert not goal(kept).draining
        kept, _ = merge(kept, heard(peer(generation=9), gateway=gateway(10, draining=True), number=10))
        assert goal(kept).draining


class TestGoal:
    def test_an_active_link_may_pass_with_its_own_prefixes_and_keys(self) -> None:
        found = goal(kept_of(peer())).links["131016-1"]
        assert found.prefixes == frozenset(link_plan.prefixes("131016-1"))
        assert found.psk == hashlib.sha256(b"sealed 131016-1").digest()
        assert found.next_psk == b""

    @pytest.mark.parametrize("state", ["suspended", "revoked"])
    def test_another_one_may_not(self, state: str) -> None:
        found = goal(kept_of(peer(state=state)))
        assert found.links == {}
        assert found.known == {key("131016-1"): "131016-1"}

    def test_validity_is_a_matter_of_the_clock_alone(self) -> None:
        kept = kept_of(peer(valid_from=NOW + HOUR, valid_until=NOW + 2 * HOUR))
        assert goal(kept).links == {}
        assert goal(kept).next_turn == NOW + HOUR
        assert "131016-1" in goal(kept, NOW + HOUR).links
        assert goal(kept, NOW + HOUR).next_turn == NOW + 2 * HOUR
        assert goal(kept, NOW + 2 * HOUR).links == {}
        assert goal(kept, NOW + 2 * HOUR).next_turn is None

    def test_a_key_that_does_not_open_holds_its_link_as_it_is(self) -> None:
        found = goal(kept_of(peer(psk=b"of another gateway"), peer("131016-2")))
        assert found.held == {"131016-1": "sealed"}
        assert list(found.links) == ["131016-2"]

    def test_one_whose_next_pre_shared_key_alone_opens_is_given_that_one(self) -> None:
        # The gateway lost the key that the present one was sealed for, and keys were laid down for its new one.
        found = goal(kept_of(peer(psk=b"for the lost key", next_psk=b"sealed anew")))
        fresh = hashlib.sha256(b"sealed anew").digest()
        assert (found.links["131016-1"].psk, found.links["131016-1"].next_psk) == (fresh, fresh)
        assert found.held == {}
        assert goal(kept_of(peer(psk=b"for the lost key", next_psk=b"for it too"))).held == {"131016-1": "sealed"}

    def test_two_links_with_one_key_are_both_held(self) -> None:
        found = goal(kept_of(peer(), peer("131016-2", public_key=key("131016-1")), peer("131016-3")))
        assert found.held == {"131016-1": "doubled", "131016-2": "doubled"}
        assert list(found.links) == ["131016-3"]

    def test_nothing_of_it_shows_a_key(self) -> None:
        kept = kept_of(peer())
        found = goal(kept)
        shown = repr((kept, found, found.links))
        assert "sealed" not in shown
        assert key("131016-1").hex() not in shown
        assert str(key("131016-1")) not in shown

    def test_what_is_kept_survives_the_disk(self) -> None:
        kept = kept_of(peer(valid_until=NOW, config={"proposals": ["aes256"]}), gateway=gateway(3, draining=True))
        assert msgspec.json.decode(msgspec.json.encode(kept), type=Kept) == kept
