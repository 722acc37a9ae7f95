"""Keys that give way to the next ones, told by hand: what the gateway gives a link at each moment."""

import hashlib
import itertools

import msgspec
import pytest

from chukan.tenants import link_plan
from chukan.tenants.links import DesiredPeer
from chukan.vpn.gateway.desired import LinkGoal
from chukan.vpn.gateway.rotation import KEEPALIVE_S, NONE, PSK_TRIAL_S, Choice, Progress, choose, done, rotating
from chukan.vpn.model import Peer

LINK = "131016-1"
OLD, NEXT = (hashlib.sha256(word).digest() for word in (b"old", b"next"))
PSK, NEXT_PSK = b"p" * 32, b"n" * 32
PREFIXES = frozenset(link_plan.prefixes(LINK))
PLACE = "192.0.2.7:51820"


def goal(*, device: bool = False, psk: bool = False) -> LinkGoal:
    peer = DesiredPeer(
        link=LINK,
        body="131016",
        mode="pair",
        kind="wireguard",
        state="active",
        public_key=OLD,
        next_public_key=NEXT if device else None,
        psk=b"sealed",
        next_psk=b"sealed next" if psk else None,
        prefixes=link_plan.prefixes(LINK),
        valid_from=None,
        valid_until=None,
        generation=1,
        endpoint=None,
    )
    return LinkGoal(peer=peer, prefixes=PREFIXES, psk=PSK, next_psk=NEXT_PSK if psk else b"")


def ask(wish: LinkGoal, progress: Progress = NONE, now_s: float = 1000.0, **shook_at: float) -> Choice:
    keys = {"old": OLD, "next": NEXT}
    seen = {keys[name]: Peer(public_key=keys[name], handshake_at=at or None) for name, at in shook_at.items()}
    choice = choose(wish, seen, progress, PLACE, now_s)
    assert choice is not None
    return choice


def test_a_link_at_rest_is_one_peer_that_the_gateway_calls() -> None:
    choice = ask(goal())
    (wanted,) = choice.wanted
    assert (wanted.public_key, wanted.preshared_key, wanted.allowed) == (OLD, PSK, PREFIXES)
    assert (wanted.endpoint, wanted.keepalive_s) == (PLACE, KEEPALIVE_S)
    assert not choice.rotated
    assert not rotating(goal())


class TestDeviceKey:
    def test_the_next_key_is_awaited_without_prefixes_and_never_called(self) -> None:
        choice = ask(goal(device=True, psk=True), old=990, next=0)
        first, second = choice.wanted
        assert (first.public_key, first.preshared_key, first.allowed) == (OLD, PSK, PREFIXES)
        assert (second.public_key, second.preshared_key, second.allowed) == (NEXT, NEXT_PSK, frozenset())
        assert (second.endpoint, second.keepalive_s) == (None, 0)
        assert not choice.rotated
        assert rotating(goal(device=True))

    def test_without_a_next_one_the_pre_shared_key_stays(self) -> None:
        _, second = ask(goal(device=True)).wanted
        assert second.preshared_key == PSK

    def test_at_its_first_handshake_the_prefixes_move_and_the_old_peer_goes(self) -> None:
        choice = ask(goal(device=True, psk=True), old=990, next=999)
        (wanted,) = choice.wanted
        assert (wanted.public_key, wanted.preshared_key, wanted.allowed) == (NEXT, NEXT_PSK, PREFIXES)
        assert choice.rotated

    def test_what_was_seen_once_is_remembered_over_a_restart_of_everything(self) -> None:
        progress = ask(goal(device=True), next=999).progress
        choice = ask(goal(device=True), progress)
        assert [each.public_key for each in choice.wanted] == [NEXT]
        assert choice.rotated

    def test_once_the_database_has_it_nothing_is_left_to_remember(self) -> None:
        progress = ask(goal(device=True), next=999).progress
        assert ask(goal(), progress).progress == NONE


def follow(turned_at: float, until: float, pass_s: int = 1) -> tuple[list[float], Progress]:
    """Play a device that turns to the next pre-shared key; return when it shook hands, and what the gateway remembers.

    It asks for a new session every 120 s, every 5 s while it is refused, and is cut off 180 s after its last one.
    """
    shook_at, asked_at, now_s = [1000.0], 1000.0, 1000
    choice = ask(goal(psk=True), NONE, now_s, old=1000.0)
    progress = done(choice.progress, now_s)
    while now_s < until and not choice.rotated:
        now_s += 1
        if now_s % pass_s == 0:
            choice = ask(goal(psk=True), progress, now_s, old=shook_at[-1])
            progress = done(choice.progress, now_s)
        has = NEXT_PSK if now_s >= turned_at else PSK
        if now_s - shook_at[-1] >= 120 and now_s - asked_at >= 5:
            asked_at = now_s
            if choice.wanted[0].preshared_key == has:
                shook_at.append(now_s)
    return shook_at, progress


class TestPresharedKey:
    def test_the_present_one_stays_while_it_brings_handshakes(self) -> None:
        shook_at, progress = follow(turned_at=1e9, until=5000)
        assert progress.psk == "old"
        assert max(later - sooner for sooner, later in itertools.pairwise(shook_at)) <= 125

    @pytest.mark.parametrize("turned_at", [1001, 1100, 1119, 1121, 1500, 2345])
    @pytest.mark.parametrize("pass_s", [1, 7, 30])
    def test_the_gateway_follows_a_device_that_turned_before_its_session_ends(
        self, turned_at: float, pass_s: int
    ) -> None:
        shook_at, progress = follow(turned_at, turned_at + 600, pass_s)
        assert progress.psk == "next"
        assert shook_at[-1] > turned_at
        assert max(later - sooner for sooner, later in itertools.pairwise(shook_at)) < 180

    def test_only_a_handshake_that_was_under_it_for_sure_proves_it(self) -> None:
        quiet = Progress(psk_of=b"sealed next", psk="old", psk_since=1000)
        tried = ask(goal(psk=True), quiet, 1131, old=1000)
        assert tried.wanted[0].preshared_key == NEXT_PSK
        # The device shook hands under the old one while the next one was being set.
        unsure = ask(goal(psk=True), done(tried.progress, 1131.6), 1132, old=1131.5)
        assert not unsure.rotated
        assert unsure.wanted[0].preshared_key == NEXT_PSK
        assert ask(goal(psk=True), unsure.progress, 1140, old=1139).rotated

    def test_while_neither_brings_a_handshake_each_is_tried_in_turn(self) -> None:
        progress, given = NONE, []
        for now_s in range(1000, 1200):
            choice = ask(goal(psk=True), progress, now_s, old=500)
            progress = done(choice.progress, now_s)
            given.append(choice.wanted[0].preshared_key)
        changes = sum(sooner != later for sooner, later in itertools.pairwise(given))
        assert 8 <= changes <= 200 / PSK_TRIAL_S

    def test_where_the_present_one_is_lost_a_handshake_under_the_next_one_proves_it_at_once(self) -> None:
        lost = msgspec.structs.replace(goal(psk=True), psk=NEXT_PSK)
        first = ask(lost, old=990)
        assert (first.wanted[0].preshared_key, first.rotated) == (NEXT_PSK, False)
        assert ask(lost, first.progress, now_s=1010, old=1005).rotated

    def test_another_next_one_begins_anew(self) -> None:
        stale = Progress(psk_of=b"an earlier one", psk="next", psk_since=900)
        assert ask(goal(psk=True), stale, old=950).wanted[0].preshared_key == PSK
