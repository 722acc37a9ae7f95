"""An operator's orders: what they plan, whom they refuse, and the fence on a real etcd."""

import asyncio
import base64
import socket
import subprocess
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest

from chukan.errors import Problem
from chukan.ops import failover
from chukan.ops.failover import Hand, Move, Standing, candidate_in, plan_drain, plan_failback
from chukan.replication.etcd import Etcd
from chukan.replication.patroni import NodeState, Patroni
from chukan.tests.replication.fake_members import FakeMember, serving
from chukan.tests.replication.pair import until


@dataclass
class FakeSite:
    """Two cells crosswise; of a site only what the orders ask."""

    cells: dict[str, Any] = field(default_factory=dict)
    centres: tuple[str, ...] = ("east", "west")

    def __post_init__(self) -> None:
        for cell, names in {"east": ("e1", "e2", "ew1", "ew2"), "west": ("w1", "w2", "we1", "we2")}.items():
            self.cells[cell] = SimpleNamespace(nodes=[SimpleNamespace(name=name, host=name) for name in names])

    def where(self, host: str) -> str:
        return "west" if host.startswith(("ew", "w1", "w2")) else "east"

    def node(self, name: str) -> tuple[str, Any]:
        return "west" if name.startswith("w") else "east", SimpleNamespace(name=name, host=name)


def state(*, leads: bool = False, sync: bool = False, streaming: bool = True) -> NodeState:
    return NodeState(leads, "primary" if leads else "replica", "running", 1, "7", sync=sync, streaming=streaming)


EAST = Standing(
    "east",
    "e1",
    {"e1": state(leads=True), "e2": state(sync=True), "ew1": state(), "ew2": state(sync=True)},
)
WEST = Standing("west", "we1", {"we1": state(leads=True), "w1": state(sync=True), "w2": state(), "we2": state()})


def test_a_cell_goes_to_a_synchronous_standby_of_the_other_centre() -> None:
    assert candidate_in(FakeSite(), EAST, avoid="east") == "ew2", "ew1 may lack a commit"
    with pytest.raises(Problem, match="order_refused"):
        candidate_in(FakeSite(), EAST._replace(states={"e1": state(leads=True), "e2": state(sync=True)}), avoid="east")


def test_a_drain_moves_what_is_led_from_the_centre_and_nothing_else() -> None:
    assert plan_drain(FakeSite(), [EAST, WEST], "east") == [Move("east", "e1", "ew2"), Move("west", "we1", "w1")]
    assert plan_drain(FakeSite(), [EAST, WEST], "west") == []
    with pytest.raises(Problem, match="site_name_unknown"):
        plan_drain(FakeSite(), [EAST], "north")


def test_a_failback_goes_home_and_waits_for_who_does_not_stream() -> None:
    assert plan_failback(FakeSite(), [EAST, WEST]) == [Move("west", "we1", "w1")]
    lagging = WEST._replace(states={**WEST.states, "w1": state(streaming=False)})
    with pytest.raises(Problem, match="order_refused"):
        plan_failback(FakeSite(), [lagging])
    assert plan_failback(FakeSite(), [WEST._replace(leader=None)]) == []


def test_nothing_is_done_before_the_name_is_typed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rich.console.Console.input", lambda *_a, **_k: "yes")
    with pytest.raises(Problem, match="not_confirmed"):
        failover.confirm("Cell east: e1 hands over to ew1.", "east", yes=False)
    monkeypatch.setattr("rich.console.Console.input", lambda *_a, **_k: " east ")
    failover.confirm("Cell east: e1 hands over to ew1.", "east", yes=False)


@pytest.fixture
async def etcd(tmp_path: Any) -> AsyncIterator[str]:
    """A real etcd of one voter; yields its address."""
    ports = []
    for _ in range(2):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            ports.append(probe.getsockname()[1])
    client, peer = (f"http://127.0.0.1:{port}" for port in ports)
    words = ["/usr/bin/etcd", "--name", "one", "--data-dir", str(tmp_path / "etcd"), "--logger", "zap"]
    words += ["--listen-client-urls", client, "--advertise-client-urls", client, "--listen-peer-urls", peer]
    words += ["--initial-advertise-peer-urls", peer, "--initial-cluster", f"one={peer}"]
    process = await asyncio.create_subprocess_exec(*words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    asking = Etcd([client], None)

    async def healthy() -> bool:
        return all((await asking.health()).values())

    try:
        await until(healthy, "etcd answers")
        yield client
    finally:
        await asking.close()
        process.kill()
        await process.wait()


async def grant(url: str, cell: str, holder: str) -> str:
    """Hold a leader key as Patroni does: a key with a lease."""
    async with aiohttp.ClientSession() as session:
        async with session.post(f"{url}/v3/lease/grant", json={"TTL": 600}) as answer:
            lease = (await answer.json(content_type=None))["ID"]
        key, value = (base64.b64encode(text.encode()).decode() for text in (f"/chukan/{cell}/leader", holder))
        async with session.post(f"{url}/v3/kv/put", json={"key": key, "value": value, "lease": lease}) as answer:
            assert answer.status == 200
    return str(lease)


async def test_a_fence_revokes_the_lease_of_the_dead_and_nobody_elses(etcd: str) -> None:
    e1, e2 = FakeMember("e1", scope="east"), FakeMember("e2", scope="east")
    e1.lead(1)
    async with serving(e1, e2) as urls:
        asking, patroni = Etcd(["http://127.0.0.1:9", etcd], None), Patroni(urls, None)
        hand = Hand(FakeSite(), SimpleNamespace(etcd=asking, patroni={"east": patroni}))
        assert list((await asking.health()).values()) == [False, True]
        with pytest.raises(Problem, match="no_primary"):
            await hand.holder("east")
        lease = await grant(etcd, "east", "e1")
        assert await hand.holder("east") == "e1"
        assert (await asking.leader_key("east")).lease == lease
        with pytest.raises(Problem, match="order_refused"):
            await hand.fence("east", "e1")  # it says that it leads
        e1.black_hole = True
        with pytest.raises(Problem, match="not_confirmed"):
            await hand.fence("east", "e2")  # somebody else holds the key
        assert await asking.leader_key("east") is not None

        async def elected() -> None:
            await until(_gone(asking), "the key goes with its lease")
            e2.lead(2)

        moved, _ = await asyncio.gather(hand.fence("east", "e1"), elected())
        assert (moved.leader, moved.timeline) == ("e2", 2)
        await asking.close()
        await patroni.close()


def _gone(asking: Etcd) -> Any:
    async def met() -> bool:
        return await asking.leader_key("east") is None

    return met


async def test_a_switchover_is_given_to_the_leader_and_waited_for() -> None:
    e1, e2 = FakeMember("e1", scope="east"), FakeMember("e2", scope="east")
    e1.lead(1)
    async with serving(e1, e2) as urls:
        patroni = Patroni(urls, None)
        hand = Hand(FakeSite(), SimpleNamespace(etcd=None, patroni={"east": patroni}))
        assert (await hand.standing("east")).leader == "e1"

        async def happens() -> None:
            async def ordered() -> bool:
                return bool(e1.orders)

            await until(ordered, "the order arrives")
            e1.follow(1)
            e2.lead(2)

        moved, _ = await asyncio.gather(hand.hand_over(Move("east", "e1", "e2")), happens())
        assert (moved.cell, moved.leader, moved.timeline) == ("east", "e2", 2)
        with pytest.raises(Problem, match="site_name_unknown"):
            await hand.standing("north")
        await patroni.close()
