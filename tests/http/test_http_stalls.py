"""A cell whose commits wait takes only a part of the places, and the canary that finds out is one at a time."""

import asyncio
import datetime as dt

import pytest

from chukan.clock import ManualClock
from chukan.errors import Problem
from chukan.platform.http.drain import Drain
from chukan.platform.http.health import Health, Sources
from chukan.platform.http.stalls import Stalls
from chukan.platform.metrics import Metrics
from chukan.replication.durability import Durability
from chukan.replication.leader import Leader
from chukan.replication.patroni import NodeState
from chukan.replication.primary import CellPicture


def test_a_stalled_cell_has_its_share_and_the_other_all_it_wants() -> None:
    stalled = {"east": False, "west": False}
    stalls = Stalls(lambda cell: not stalled[cell], most=2)
    with stalls.enter("east"), stalls.enter("east"), stalls.enter("east"):
        stalled["east"] = True
        with pytest.raises(Problem) as caught:
            stalls.enter("east").__enter__()
        assert (caught.value.code, caught.value.retry_after_s) == ("no_primary", 2)
        with stalls.enter("west"), stalls.enter("west"), stalls.enter("west"):
            pass
        stalled["east"] = False
        with stalls.enter("east"):
            pass
    stalled["east"] = True
    with stalls.enter("east"):
        pass  # those who were in have left


class Cell:
    """A canary that may wait, and counts."""

    def __init__(self) -> None:
        self.sung = 0
        self.release = asyncio.Event()
        self.picture: CellPicture | None = None

    async def sing(self) -> None:
        self.sung += 1
        await self.release.wait()

    def health(self, clock: ManualClock) -> Health:
        sources = Sources(
            canaries={"east": self.sing},
            keys=lambda: 1,
            common_age_s=lambda: 0.0,
            snapshot=lambda: 7,
            picture=lambda _: self.picture,
        )
        return Health(sources, clock, Metrics(), Drain())


async def test_a_canary_that_waits_is_looked_after_and_not_sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chukan.platform.http.health.CANARY_TIMEOUT_S", 0.02)
    cell, clock = Cell(), ManualClock(dt.datetime(2026, 11, 23, tzinfo=dt.UTC))
    health = cell.health(clock)
    for _ in range(5):
        await health.check_cell("east")
        assert health.cells["east"].code == "deadline_exceeded"
    assert cell.sung == 1, "no session is left behind for each look"
    clock.advance(1.5)
    assert not health.commits("east")
    cell.release.set()
    await health.check_cell("east")
    assert (health.cells["east"].code, cell.sung) == (None, 1)
    assert health.cells["east"].commit_s == 1.5
    assert health.commits("east")


async def test_readiness_tells_who_leads_and_how_far_a_commit_reaches() -> None:
    cell, clock = Cell(), ManualClock(dt.datetime(2026, 11, 23, tzinfo=dt.UTC))
    cell.release.set()
    health = cell.health(clock)
    node = NodeState(leads=True, role="primary", state="running", timeline=4, system="7", position=100)
    standby = NodeState(leads=False, role="replica", state="running", timeline=4, system="7", sync=True, position=90)
    cell.picture = CellPicture(
        leader=Leader("e1", 4, "7"),
        serving=True,
        since_s=12.0,
        leaderless_s=2.5,
        changes=3,
        nodes={"e1": node, "ew1": standby, "ew2": None},
        centres={"e1": "east", "ew1": "west", "ew2": "west"},
        durability=Durability.ONE_CENTRE,
    )
    await health.check_cell("east")
    detail = health.detail()
    told = detail["cells"]["east"]
    assert (told["leader"], told["timeline"], told["durability"], told["leader_changes"]) == ("e1", 4, "one-centre", 3)
    assert told["members"]["ew1"] == {"role": "replica", "timeline": 4, "sync": True}
    assert told["members"]["ew2"] is None
    assert detail["warnings"] == ["durability:east"], "loudly, and out of service for nobody"
    health._report()
    page = health._metrics.render().decode()
    for line in (
        'chukan_cell_leader{cell="east",member="e1"} 1.0',
        'chukan_cell_timeline{cell="east"} 4.0',
        'chukan_cell_leader_changes{cell="east"} 3.0',
        'chukan_cell_leaderless_seconds{cell="east"} 2.5',
        'chukan_cell_member_role{cell="east",member="ew2",role="silent"} 1.0',
        'chukan_cell_member_lag_bytes{cell="east",member="ew1"} 10.0',
        'chukan_cell_sync_standbys{cell="east"} 1.0',
        'chukan_cell_durability{cell="east",level="one-centre"} 1.0',
    ):
        assert line in page
