"""One kind of tunnels over two interfaces, and over one that is the gateway's only for a time."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from chukan.tenants import link_plan
from chukan.tenants.links import Desired, DesiredPeer
from chukan.tests.support.gateway_stand import NOW, PRIVATE, A, B, MemoryTunnels, key, peer
from chukan.vpn.gateway.calling import GROUP
from chukan.vpn.gateway.desired import Kept, goal_of, merge
from chukan.vpn.gateway.kinds import Pass
from chukan.vpn.gateway.rotation import Progress
from chukan.vpn.gateway.wireguard import Device, WireGuardKind
from chukan.vpn.model import Actual, Interface, Step


class TestTwoInterfaces:
    """The gateway's own key is changed: make before break."""

    @staticmethod
    def kind(led: list[dict[str, str]], *backs: MemoryTunnels, **more: Any) -> WireGuardKind:
        async def prepared() -> None:
            return None

        async def lead(ways: Mapping[str, str]) -> None:
            led.append(dict(ways))

        devices = [
            Device(f"ckt{number}", back, Interface(private_key=PRIVATE, listen_port=51820 + number), prepared)
            for number, back in enumerate(backs)
        ]
        return WireGuardKind("wireguard", devices, lambda _: True, lead=lead, **more)

    @staticmethod
    def told(*rows: DesiredPeer) -> Pass:
        kept, _ = merge(Kept(), Desired(number=1, gateway=None, peers=rows))
        goal = goal_of(kept, NOW, lambda _link, sealed: sealed.ljust(32, b"s"))
        endpoints = {row.link: "192.0.2.9:1" for row in rows}
        return Pass(goal=goal, links=goal.links, progress={}, endpoints=endpoints, now_s=NOW.timestamp(), repair=True)

    async def test_a_link_is_called_where_it_shook_hands_last_and_only_awaited_on_the_other(self) -> None:
        old, new, led = MemoryTunnels(), MemoryTunnels(), list[dict[str, str]]()
        kind = self.kind(led, old, new)
        await kind.ensure()
        await kind.reconcile(self.told(peer(A), peer(B)))
        assert old.peers[key(A)].keepalive_s == 25
        assert (new.peers[key(A)].keepalive_s, new.peers[key(A)].endpoint) == (0, None)
        assert led[-1] == {}
        old.change(key(A), handshake_at=1.0)
        new.change(key(A), handshake_at=2.0)
        report = await kind.reconcile(self.told(peer(A), peer(B)))
        assert (old.peers[key(A)].keepalive_s, new.peers[key(A)].keepalive_s) == (0, 25)
        assert led[-1] == dict.fromkeys(link_plan.prefixes(A), "ckt1")
        assert report.sightings[A].handshake_at == 2.0

    async def test_what_was_planned_while_the_service_was_held_is_not_given_afterwards(self) -> None:
        back, answers = MemoryTunnels(), [False, True]
        kind = self.kind([], back, gate=lambda: answers.pop() if answers else False)
        await kind.ensure()
        await kind.reconcile(self.told(peer(A, mode="service")))
        assert back.log == []

    async def test_the_service_is_let_go_also_in_the_middle_of_a_pass(self) -> None:
        back, led, held = MemoryTunnels(), list[dict[str, str]](), [True]
        kind = self.kind(led, back, gate=lambda: held[0], apart=True)
        await kind.ensure()
        read = back.get

        async def read_and_lose() -> Actual:
            found = await read()
            held[0] = False
            return found

        back.get = read_and_lose  # type: ignore[method-assign]
        await kind.reconcile(self.told(peer(A, mode="service")))
        back.get = read  # type: ignore[method-assign]
        assert back.peers == {}
        held[0] = True
        await kind.reconcile(self.told(peer(A, mode="service")))
        assert set(back.peers) == {key(A)}
        assert led[-1] == dict.fromkeys(link_plan.prefixes(A), "ckt0")
        held[0] = False
        await kind.cut_all()
        assert back.peers == {}
        await kind.reconcile(self.told(peer(A, mode="service")))
        assert (back.peers, led[-1]) == ({}, {})

    async def test_a_handshake_in_the_middle_of_a_pass_does_not_undo_its_choice(self) -> None:
        """The next pre-shared key is set; the device shakes hands at once, before the pass reads again."""
        back = MemoryTunnels()
        kind = self.kind([], back)
        await kind.ensure()
        row = peer(A, next_psk=b"psk next")
        quiet = Progress(psk_of=b"psk next", psk="old", psk_since=0.0)
        await kind.reconcile(self.told(row))
        apply = back.apply

        async def apply_and_shake(steps: Sequence[Step]) -> None:
            await apply(steps)
            back.change(key(A), handshake_at=NOW.timestamp() + 0.001)

        back.apply = apply_and_shake  # type: ignore[method-assign]
        report = await kind.reconcile(msgspec.structs.replace(self.told(row), progress={A: quiet}))
        assert back.peers[key(A)].preshared_key == b"psk next".ljust(32, b"s")
        assert report.progress[A].psk == "next"
        assert (report.progress[A].psk_since or 0) >= NOW.timestamp()
        assert report.rotated == ()

    async def test_calling_many_devices_holds_up_nobody_who_is_to_be_cut(self) -> None:
        back = MemoryTunnels()
        kind = self.kind([], back)
        await kind.ensure()
        rows = [peer(f"131016-{serial}") for serial in range(1, 64)]
        rows += [peer(f"131024-{serial}") for serial in range(1, 64)]
        told = self.told(*rows)
        await kind.reconcile(msgspec.structs.replace(told, hurried=lambda: True))
        called = [each for each in back.peers.values() if each.keepalive_s]
        assert (len(back.peers), len(called)) == (126, GROUP)
        report = await kind.reconcile(told)
        assert all(each.keepalive_s for each in back.peers.values())
        assert report.differences == ()
