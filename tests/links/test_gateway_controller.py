"""The controller's loop over back ends in memory: what it does, what it leaves alone, and what it outlives."""

import asyncio
import datetime as dt
from collections.abc import Sequence
from pathlib import Path

import pytest

from chukan.errors import Problem
from chukan.tenants import link_plan
from chukan.tenants.links import Desired, GatewayRow
from chukan.tests.support.gateway_stand import NOW, A, B, C, Stand, key, peer, until
from chukan.vpn.gateway.state import Place, Store
from chukan.vpn.model import Peer, Remove, Step


@pytest.fixture
def stand(tmp_path: Path) -> Stand:
    made = Stand(tmp_path)
    made.new()
    return made


class TestAPass:
    async def test_what_is_active_gets_its_peer_and_may_pass_and_nobody_else(self, stand: Stand) -> None:
        stand.cell.say(peer(A), peer(B, state="suspended"), peer(C, state="revoked"))
        await stand.passes()
        assert set(stand.tunnels.peers) == {key(A)}
        assert stand.tunnels.peers[key(A)].allowed == frozenset(link_plan.prefixes(A))
        assert stand.prefixes() == frozenset(link_plan.prefixes(A))
        assert stand.cell.audit == []

    async def test_a_second_one_changes_nothing(self, stand: Stand) -> None:
        stand.cell.say(peer(A), peer(B))
        await stand.passes()
        stand.tunnels.log.clear()
        await stand.passes(2)
        assert stand.tunnels.log == []

    @pytest.mark.requirement("TEN-03")
    async def test_who_is_revoked_is_cut_in_the_filter_first_and_then_as_a_peer(self, stand: Stand) -> None:
        stand.cell.say(peer(A), peer(B))
        await stand.passes()
        stand.tunnels.log.clear()
        apply = stand.tunnels.apply

        async def noted(steps: Sequence[Step]) -> None:
            stand.order.append("peer")
            await apply(steps)

        stand.tunnels.apply = noted  # type: ignore[method-assign]
        stand.cell.say(peer(A, 2, state="revoked"), peer(B), number=2)
        await stand.passes()
        assert stand.order[:2] == ["filter", "peer"]
        assert set(stand.tunnels.peers) == {key(B)}
        assert stand.prefixes() == frozenset(link_plan.prefixes(B))
        assert stand.tunnels.log == [Remove(key(A))]
        assert stand.cell.audit == []

    async def test_a_hand_is_found_repaired_and_told_and_others_are_left_alone(self, stand: Stand) -> None:
        stand.cell.say(peer(A), peer(B), peer(C))
        await stand.passes()
        stand.tunnels.log.clear()
        del stand.tunnels.peers[key(A)]
        stand.tunnels.peers[key("thief")] = Peer(public_key=key("thief"), allowed=frozenset({link_plan.prefixes(B)[0]}))
        stand.tunnels.change(key(B), allowed=frozenset({link_plan.prefixes(B)[1]}))
        await stand.passes()
        assert set(stand.tunnels.peers) == {key(A), key(B), key(C)}
        assert stand.tunnels.peers[key(B)].allowed == frozenset(link_plan.prefixes(B))
        touched = {
            step.public_key if isinstance(step, Remove) else step.wanted.public_key for step in stand.tunnels.log
        }
        assert touched == {key(A), key(B), key("thief")}
        told = {(row.link, row.kind, row.repaired) for row in stand.cell.audit}
        assert told == {(A, "missing", True), (None, "rogue", True), (B, "stolen", True)}
        drift = stand.controller.snapshot().drift
        assert drift == {(A, "missing"): 1, (None, "rogue"): 1, (B, "stolen"): 1}

    async def test_so_is_a_hand_at_the_packet_filter(self, stand: Stand) -> None:
        stand.cell.say(peer(A), peer(B))
        await stand.passes()
        stand.firewall._put(add=link_plan.prefixes(C), remove=link_plan.prefixes(A))
        await stand.passes()
        assert stand.prefixes() == frozenset({*link_plan.prefixes(A), *link_plan.prefixes(B)})
        assert {(row.link, row.kind) for row in stand.cell.audit} == {(A, "shut_out"), (C, "let_in")}
        stand.firewall.table = None
        await stand.passes()
        assert stand.prefixes() == frozenset({*link_plan.prefixes(A), *link_plan.prefixes(B)})
        assert stand.cell.audit[-1].kind == "firewall"

    async def test_a_revoked_key_that_somebody_puts_back_is_taken_away_and_told(self, stand: Stand) -> None:
        stand.cell.say(peer(A), peer(B, state="revoked"))
        await stand.passes()
        stand.tunnels.peers[key(B)] = Peer(public_key=key(B))
        await stand.passes()
        assert set(stand.tunnels.peers) == {key(A)}
        assert [(row.link, row.kind) for row in stand.cell.audit] == [(B, "rogue")]

    async def test_in_report_mode_nothing_is_changed_and_everything_told(self, stand: Stand) -> None:
        stand.cell.say(peer(A), peer(B))
        await stand.passes()
        del stand.tunnels.peers[key(A)]
        stand.tunnels.peers[key("rogue")] = Peer(public_key=key("rogue"))
        stand.firewall._put(add=link_plan.prefixes(C))
        before = dict(stand.tunnels.peers), stand.firewall.table, (stand.folder / "state.json").read_bytes()
        stand.tunnels.log.clear()
        stand.new("report")
        await stand.controller.start()
        await stand.passes()
        assert (stand.tunnels.peers, stand.firewall.table) == before[:2]
        assert stand.tunnels.log == []
        assert (stand.folder / "state.json").read_bytes() == before[2]
        told = {(row.link, row.kind, row.repaired) for row in stand.cell.audit}
        assert told == {(A, "missing", False), (None, "rogue", False), (C, "let_in", False)}

    async def test_in_report_mode_also_what_was_never_there_is_told(self, stand: Stand) -> None:
        stand.new("report")
        stand.cell.say(peer(A))
        await stand.passes()
        assert {(row.link, row.kind) for row in stand.cell.audit} == {(A, "missing"), (None, "firewall")}
        assert (stand.tunnels.starts, stand.firewall.table) == (0, None)

    async def test_where_nothing_was_ever_known_nothing_is_touched(self, stand: Stand) -> None:
        await stand.tunnels.ensure()
        stand.tunnels.peers[key(A)] = Peer(public_key=key(A))
        stand.cell.away = True
        await stand.learner.once()
        assert [str(each) for each in await stand.controller.once()] == ["unavailable"]
        assert set(stand.tunnels.peers) == {key(A)}
        assert stand.firewall.table is None
        assert not stand.controller.healthy()

    @pytest.mark.requirement("TEN-03")
    async def test_no_tunnel_is_brought_up_before_the_packet_filter_stands(
        self, stand: Stand, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def refuse(*_: object) -> None:
            raise Problem("link_firewall_refused")

        stand.cell.say(peer(A))
        await stand.learner.once()
        with monkeypatch.context() as broken:
            broken.setattr(stand.firewall, "repair", refuse)
            for _ in range(2):
                assert [str(each) for each in await stand.controller.once()] == ["link_firewall_refused"]
        assert (stand.tunnels.starts, stand.tunnels.peers, stand.firewall.table) == (0, {}, None)
        await stand.passes()
        assert set(stand.tunnels.peers) == {key(A)}
        assert stand.prefixes() == frozenset(link_plan.prefixes(A))

    async def test_validity_ends_by_the_clock_while_the_cell_is_away(self, stand: Stand) -> None:
        stand.cell.say(peer(A, valid_until=NOW + dt.timedelta(hours=1)), peer(B))
        await stand.passes()
        stand.cell.away = True
        stand.clock.advance(3599)
        await stand.controller.once()
        assert key(A) in stand.tunnels.peers
        assert stand.controller._due_s() <= 1
        stand.clock.advance(1)
        await stand.controller.once(whole=False)
        assert set(stand.tunnels.peers) == {key(B)}
        assert stand.prefixes() == frozenset(link_plan.prefixes(B))

    async def test_a_back_end_that_fails_holds_up_neither_filter_nor_loop(self, stand: Stand) -> None:
        stand.cell.say(peer(A))
        await stand.passes()
        stand.tunnels.fails = Problem("link_interface_away")
        stand.cell.say(peer(A), peer(B, 2), number=2)
        await stand.learner.once()
        assert len(await stand.controller.once()) == 1
        assert stand.prefixes() == frozenset({*link_plan.prefixes(A), *link_plan.prefixes(B)})
        stand.tunnels.fails = RuntimeError("a defect")
        await stand.controller._pass_safely(whole=True)
        stand.tunnels.fails = None
        await stand.controller._pass_safely(whole=True)
        assert set(stand.tunnels.peers) == {key(A), key(B)}
        assert stand.controller.snapshot().passes == {"done": 1, "failed": 1}

    async def test_a_drain_is_carried_into_the_filter(self, stand: Stand) -> None:
        row = GatewayRow(centre="east", endpoint="e:1", public_key=key("g"), sealing_key=key("s"), draining=True)
        stand.cell.say(peer(A))
        await stand.passes()
        stand.cell.say(peer(A), gateway=row)
        await stand.learner.once()
        await stand.controller.once(whole=False)
        assert stand.firewall.table is not None
        assert stand.firewall.table.draining
        assert stand.controller.draining()

    async def test_a_row_that_cannot_be_used_ends_no_session(self, stand: Stand) -> None:
        stand.cell.say(peer(A), peer(B))
        await stand.passes()
        stand.tunnels.log.clear()
        stand.cell.say(peer(A, 2, psk=b"sealed for somebody else"), peer(B), number=2)
        await stand.passes()
        assert set(stand.tunnels.peers) == {key(A), key(B)}
        assert stand.tunnels.log == []
        assert set(link_plan.prefixes(A)) <= stand.prefixes()
        assert [(row.link, row.kind) for row in stand.cell.audit] == [(A, "sealed")]
        assert stand.controller.snapshot().held == 1

    async def test_a_next_key_that_another_one_replaced_is_no_rogue(self, stand: Stand) -> None:
        stand.cell.say(peer(A, 2, next_public_key=key("lost")))
        await stand.passes()
        stand.cell.say(peer(A, 3, next_public_key=key("next")), number=3)
        await stand.passes()
        assert set(stand.tunnels.peers) == {key(A), key("next")}
        assert stand.cell.audit == []


class TestWhatIsKept:
    async def test_a_restart_changes_nothing_and_is_no_drift(self, stand: Stand) -> None:
        stand.cell.say(peer(A), peer(B))
        await stand.passes()
        stand.tunnels.log.clear()
        stand.new()
        await stand.controller.start()
        await stand.passes()
        assert stand.tunnels.log == []
        assert stand.cell.audit == []

    async def test_what_was_changed_while_it_was_dead_is_repaired_and_told(self, stand: Stand) -> None:
        stand.cell.say(peer(A), peer(B))
        await stand.passes()
        del stand.tunnels.peers[key(A)]
        stand.new()
        await stand.controller.start()
        await stand.passes()
        assert set(stand.tunnels.peers) == {key(A), key(B)}
        assert [(row.link, row.kind) for row in stand.cell.audit] == [(A, "missing")]

    async def test_it_runs_on_what_it_knew_while_the_cell_is_away(self, stand: Stand) -> None:
        stand.cell.say(peer(A))
        await stand.passes()
        stand.cell.away = True
        stand.tunnels.kill()
        stand.new()
        await stand.controller.start()
        await stand.learner.once()
        stand.clock.advance(500)
        assert await stand.controller.once() == []
        assert set(stand.tunnels.peers) == {key(A)}
        assert stand.controller.snapshot().desired_age_s == 500

    async def test_a_stale_database_brings_nobody_back_after_a_restart(self, stand: Stand) -> None:
        stand.cell.say(peer(A, 7, state="revoked"), peer(B, 3), number=7)
        await stand.passes()
        stand.new()
        await stand.controller.start()
        stand.cell.say(peer(A, 2), peer(B, 3), number=3)
        await stand.passes()
        assert set(stand.tunnels.peers) == {key(B)}
        assert [(row.link, row.kind) for row in stand.cell.audit] == [(A, "desired_went_back")]

    async def test_a_back_end_that_was_started_anew_gets_peers_with_their_last_places(self, stand: Stand) -> None:
        stand.cell.say(peer(A))
        await stand.passes()
        stand.tunnels.change(key(A), endpoint="192.0.2.9:40000", handshake_at=NOW.timestamp())
        await stand.passes()
        assert [row.endpoint for row in stand.cell.sightings] == ["192.0.2.9:40000"]
        stand.cell.away = True
        stand.tunnels.kill()
        stand.new()
        await stand.controller.start()
        await stand.learner.once()
        await stand.controller.once()
        again = stand.tunnels.peers[key(A)]
        assert (again.endpoint, again.keepalive_s) == ("192.0.2.9:40000", 25)
        assert stand.tunnels.starts == 2

    async def test_what_could_not_be_told_is_told_later_and_once(self, stand: Stand) -> None:
        stand.cell.say(peer(A))
        await stand.passes()
        del stand.tunnels.peers[key(A)]
        stand.cell.away = True
        await stand.controller.once()
        assert not await stand.teller.tell()
        assert not await stand.teller.tell()
        stand.cell.away = False
        assert await stand.teller.tell()
        assert await stand.teller.tell()
        assert [row.kind for row in stand.cell.audit] == ["missing"]

    async def test_no_key_lies_on_the_disk_in_the_clear_and_nobody_else_reads_it(self, stand: Stand) -> None:
        stand.cell.say(peer(A))
        await stand.passes()
        state = stand.folder / "state.json"
        clear = b"psk of 131016-1".ljust(32, b"s")
        assert stand.tunnels.peers[key(A)].preshared_key == clear
        assert clear not in state.read_bytes()
        assert state.stat().st_mode & 0o077 == 0

    async def test_a_broken_file_is_put_aside(self, stand: Stand) -> None:
        (stand.folder / "state.json").write_bytes(b"{ half a")
        assert stand.store.read().read_at is None
        assert (stand.folder / "state.json.unreadable").exists()
        (stand.folder / "endpoints.json").write_bytes(b"[]")
        assert stand.store.read_places() == {}

    async def test_of_another_centre_nothing_is_believed(self, stand: Stand) -> None:
        stand.cell.say(peer(A))
        await stand.passes()
        assert Store(stand.folder, "west").read().kept.peers == {}
        stand.store.write_places({A: Place("192.0.2.1:1", 1.0)})
        assert stand.store.read_places() == {A: Place("192.0.2.1:1", 1.0)}


class TestRotation:
    async def test_a_device_key_moves_at_its_first_handshake_and_the_database_is_told(self, stand: Stand) -> None:
        stand.cell.say(peer(A))
        await stand.passes()
        stand.cell.say(peer(A, 2, next_public_key=key("next"), next_psk=b"psk next"), number=2)
        await stand.passes()
        assert stand.tunnels.peers[key("next")].allowed == frozenset()
        assert stand.tunnels.peers[key(A)].allowed == frozenset(link_plan.prefixes(A))
        assert stand.controller._due_s() <= 1
        stand.tunnels.change(key("next"), handshake_at=NOW.timestamp())
        await stand.passes()
        assert set(stand.tunnels.peers) == {key("next")}
        assert stand.tunnels.peers[key("next")].allowed == frozenset(link_plan.prefixes(A))
        assert stand.cell.turned == [(A, 2)]
        assert stand.cell.audit == []

    async def test_it_stays_moved_though_the_database_does_not_hear_and_everything_restarts(self, stand: Stand) -> None:
        stand.cell.say(peer(A, 2, next_public_key=key("next")))
        await stand.passes()
        stand.tunnels.change(key("next"), handshake_at=NOW.timestamp())
        stand.cell.away = True
        await stand.controller.once()
        await stand.teller.keep()
        stand.tunnels.kill()
        stand.new()
        await stand.controller.start()
        await stand.learner.once()
        await stand.controller.once()
        assert set(stand.tunnels.peers) == {key("next")}


class TestTheLoop:
    async def test_a_hint_is_enough(self, stand: Stand) -> None:
        stand.cell.say(peer(A))
        async with stand.running():
            await until(lambda: key(A) in stand.tunnels.peers)
            stand.cell.say(peer(A), peer(B, 2), number=2)
            await until(lambda: key(B) in stand.tunnels.peers)

    async def test_a_dead_back_end_is_started_again_at_once(self, stand: Stand) -> None:
        stand.cell.say(peer(A))
        async with stand.running():
            await until(lambda: key(A) in stand.tunnels.peers)
            stand.cell.away = True
            stand.tunnels.kill()
            await until(lambda: stand.tunnels.starts == 2 and key(A) in stand.tunnels.peers)
        assert not any(stand.controller.snapshot().drift.values()), "what is new on a new back end has not drifted"

    async def test_the_end_of_a_validity_needs_no_hint(self, stand: Stand) -> None:
        stand.cell.say(peer(A, valid_until=NOW + dt.timedelta(seconds=0.3)), peer(B))
        async with stand.running():
            await until(lambda: key(A) in stand.tunnels.peers)
            stand.clock.advance(0.3)
            await until(lambda: set(stand.tunnels.peers) == {key(B)})

    async def test_a_pass_that_hangs_on_the_cell_is_none(self, stand: Stand) -> None:
        """Learning may hang as long as it likes: passes go on."""
        stand.cell.say(peer(A))
        async with stand.running():
            await until(lambda: key(A) in stand.tunnels.peers)

            async def hangs(_centre: str) -> Desired:
                await asyncio.Event().wait()
                raise AssertionError

            stand.cell.desired = hangs  # type: ignore[method-assign]
            stand.learner.ask()
            del stand.tunnels.peers[key(A)]
            stand.controller.wake()
            await until(lambda: key(A) in stand.tunnels.peers)

    async def test_no_defect_of_a_loop_ends_the_process(self, stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("chukan.vpn.gateway.lasting.AGAIN_S", 0.01)
        stand.cell.say(peer(A))
        answer, faults = stand.cell.desired, [ValueError("a row of another release"), KeyError("a defect")]

        async def broken(centre: str) -> Desired:
            if faults:
                raise faults.pop()
            return await answer(centre)

        stand.cell.desired = broken  # type: ignore[method-assign]
        async with stand.running():
            await until(lambda: key(A) in stand.tunnels.peers)
        assert faults == []
