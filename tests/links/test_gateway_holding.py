"""The filter keeps the service's port open as long as a lease is known to last; what is gone for good is forgotten."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from chukan.errors import Problem
from chukan.tests.support.gateway_stand import A, B, MemoryFirewall, Stand, key, peer
from chukan.vpn.firewall import Ruleset
from chukan.vpn.gateway.tenant_filter import TenantFilter
from chukan.vpn.nft import Difference

PORT = 51822
RULES = Ruleset(
    tunnels=frozenset({"ckt0"}),
    outer="outer",
    inner=None,
    listen_ports=frozenset({PORT}),
    leased=frozenset({PORT}),
    ipsec=False,
    services=frozenset({("10.255.0.1", 8443)}),
    health_ports=frozenset({8445}),
)


class HeldFirewall(MemoryFirewall):
    """One whose leased port is open or shut; a lost table takes it with it."""

    def __init__(self) -> None:
        super().__init__([])
        self.open_s: float | None = None

    async def hold(self, _ports: Iterable[int], left_s: Callable[[], float], *, renew: bool) -> None:
        if self.table is None or (renew and self.open_s is None):
            raise Problem("link_firewall_refused")
        self.log.append("renewed" if renew else "opened")
        self.open_s = left_s() if left_s() >= 1 else self.open_s

    async def shut(self, _ports: Iterable[int]) -> None:
        self.open_s = None

    async def repair(self, ruleset: Ruleset, difference: Difference) -> None:
        await super().repair(ruleset, difference)
        if difference.table:
            self.open_s = None


@pytest.fixture
def wall() -> HeldFirewall:
    return HeldFirewall()


@pytest.fixture
def tenants(wall: HeldFirewall) -> TenantFilter:
    return TenantFilter(wall, RULES)  # type: ignore[arg-type]


async def look(tenants: TenantFilter) -> None:
    await tenants.reconcile(frozenset(), draining=False, repair=True)


async def test_before_the_table_stands_nothing_is_opened_and_then_at_once(
    wall: HeldFirewall, tenants: TenantFilter
) -> None:
    await tenants.hold(lambda: 5.0)
    assert wall.log == []
    await look(tenants)
    assert (wall.log, wall.open_s) == (["opened"], 5.0)


async def test_a_renewal_renews_and_opens_only_what_is_still_held(wall: HeldFirewall, tenants: TenantFilter) -> None:
    await look(tenants)
    left = 5.0
    await tenants.hold(lambda: left)
    await tenants.hold(lambda: left)
    assert wall.log == ["opened", "renewed"]
    # The time ran out, in the kernel and here: as after a freeze.
    wall.open_s, left = None, 0.0
    await tenants.hold(lambda: left)
    assert wall.open_s is None
    left = 5.0
    await tenants.hold(lambda: left)
    assert wall.open_s == 5.0


async def test_what_is_let_go_stays_shut_whatever_is_repaired(wall: HeldFirewall, tenants: TenantFilter) -> None:
    await look(tenants)
    await tenants.hold(lambda: 5.0)
    await tenants.let_go()
    wall.table = None
    await look(tenants)
    assert wall.open_s is None


async def test_a_table_that_somebody_took_away_comes_back_with_the_port_open(
    wall: HeldFirewall, tenants: TenantFilter
) -> None:
    await look(tenants)
    await tenants.hold(lambda: 5.0)
    wall.table = None
    await look(tenants)
    assert wall.open_s == 5.0
    wall.log.clear()
    await look(tenants)
    assert wall.log == [], "what is in order is left alone"


async def test_the_place_of_a_revoked_links_device_is_forgotten(tmp_path: Path) -> None:
    stand = Stand(tmp_path)
    stand.new()
    stand.cell.say(peer(A), peer(B))
    await stand.passes()
    for link in (A, B):
        stand.tunnels.change(key(link), endpoint="192.0.2.9:4000", handshake_at=1_790_000_000.0)
    await stand.passes()
    assert set(places(tmp_path)) == {A, B}
    stand.cell.say(peer(A), peer(B, generation=2, state="revoked"), number=2)
    await stand.passes()
    assert set(places(tmp_path)) == {A}
    stand.new()
    await stand.controller.start()
    await stand.passes()
    assert set(places(tmp_path)) == {A}
    assert stand.tunnels.peers[key(A)].endpoint == "192.0.2.9:4000"


def places(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "endpoints.json").read_bytes())
    return found
