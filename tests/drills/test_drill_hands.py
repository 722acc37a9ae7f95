"""Every sentence does what it says: which calls of the stage and of an operator's hand it makes, and on whom."""

import asyncio
from typing import Any

import pytest

from chukan.errors import Problem
from chukan.ops.drills import waits
from chukan.ops.drills.hands import Hands
from chukan.ops.drills.ports import Node, View
from chukan.ops.drills.scenario import _BRINGS_BACK, read_all
from chukan.ops.drills.vocabulary import GIVEN, WHEN, understand


class Place:
    """An installation that does at once what it is told, and writes it down; also the clients, always served."""

    name, topology, marked = "place", "2+2", True

    def __init__(self) -> None:
        self.stage = self.steering = self
        self.calls: list[str] = []
        self.leaders = {"east": "e1", "west": "w1"}
        self.settled_by: str | None = None
        self.time = 0.0

    def __getattr__(self, name: str) -> Any:
        if name not in _STAGE:
            raise AttributeError(name)

        async def call(*words: str) -> list[str]:
            self.calls.append(" ".join([name, *words]))
            return []

        return call

    def offers(self, need: str) -> bool:
        return need in {"namespaces", "small disks"}

    def home(self, cell: str) -> str:
        return cell

    async def view(self) -> View:
        nodes = [
            Node(name, cell, centre, "primary" if self.leaders[cell] == name else "sync", 1)
            for name, cell, centre in (
                ("e1", "east", "east"), ("e2", "east", "east"), ("ew1", "east", "west"), ("ew2", "east", "west"),
                ("w1", "west", "west"), ("w2", "west", "west"), ("we1", "west", "east"),
            )
        ]  # fmt: skip
        return View(tuple(nodes))

    async def switchover(self, cell: str, leader: str, candidate: str) -> None:
        self.calls.append(f"switchover {cell} {leader} {candidate}")
        self.leaders[cell] = candidate

    async def settled(self, timeout_s: float) -> None:
        self.calls.append(f"settled {timeout_s:g}")

    def served(self, cell: str, since: float) -> bool:
        self.calls.append(f"served {cell} {since:g}")
        return True

    async def sequenced(self, since: float) -> bool:
        self.calls.append(f"sequenced {since:g}")
        return True

    def now(self) -> float:
        self.time += 1.0
        return self.time


_STAGE = {"kill", "freeze", "thaw", "start", "stop", "lose_centre", "return_centre", "cut", "mend", "isolate", "rejoin",
          "fill_disk", "free_disk", "heal", "fence"}  # fmt: skip


async def said(place: Place, *texts: str) -> Hands:
    does = Hands(place, place, lambda _: None)
    for text in texts:
        await does.do(understand(text, (*GIVEN, *WHEN), "/x"))
    return does


@pytest.mark.parametrize(
    ("text", "calls"),
    [
        ("switch cell east over to the other centre", ["switchover east e1 ew1"]),
        ("switch cell east back home", []),
        ("kill the primary's postgres in cell west", ["kill postgres-w1"]),
        ("kill the primary's node in cell east", ["kill patroni-e1", "kill postgres-e1"]),
        ("freeze the primary's node in cell east", ["freeze patroni-e1", "freeze postgres-e1"]),
        ("freeze Patroni alone on the primary of cell east", ["freeze patroni-e1"]),
        ("kill etcd-witness", ["kill etcd-witness"]),
        ("freeze exchange-east", ["freeze exchange-east"]),
        ("drain exchange-west", ["stop exchange-west"]),
        ("lose the centre east", ["lose_centre east"]),
        ("return the centre east", ["return_centre east"]),
        ("cut the link between east and west", ["cut east west"]),
        ("mend the link between east and west", ["mend east west"]),
        ("isolate the centre west from everybody", ["isolate west"]),
        ("let the centre west rejoin", ["rejoin west"]),
        ("say that the primary of cell east is dead", ["fence east"]),
        ("fill the disk of the primary of cell east", ["fill_disk e1"]),
        ("wait at most 7 s until the site is settled", ["settled 7"]),
        ("wait at most 7 s until clients of home east are served", ["served east 1"]),
        ("wait at most 7 s until new records get their place", ["sequenced 2"]),
        ("every leader is at home", []),
    ],
)
async def test_a_sentence_makes_its_calls(text: str, calls: list[str]) -> None:
    place = Place()
    await said(place, text)
    assert place.calls == calls


async def test_what_was_ended_or_frozen_is_brought_back_last_first() -> None:
    place = Place()
    does = await said(
        place, "kill etcd-witness", "kill etcd-west", "start again what was killed", "freeze network",
        "thaw what is frozen", "fill the disk of the primary of cell east", "free the disk",
    )  # fmt: skip
    assert place.calls == [
        "kill etcd-witness", "kill etcd-west", "start etcd-west", "start etcd-witness", "freeze network",
        "thaw network", "fill_disk e1", "free_disk e1",
    ]  # fmt: skip
    assert (does.ended, does.frozen) == ([], [])


async def test_another_leader_is_another_than_the_one_that_was_hit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waits, "LOOK_S", 0.01)
    place = Place()
    does = await said(place, "kill the primary's node in cell east")
    waiting = asyncio.create_task(
        does.do(understand("wait at most 5 s until cell east has another leader", WHEN, "/x"))
    )
    await asyncio.sleep(0)
    assert not waiting.done()
    place.leaders["east"] = "e2"
    await waiting


async def test_a_leader_away_from_home_is_brought_home() -> None:
    place = Place()
    place.leaders["west"] = "we1"
    await said(place, "every leader is at home")
    assert place.calls == ["switchover west we1 w1", "settled 120"]


async def test_a_wait_ends_with_its_time() -> None:
    with pytest.raises(Problem) as told:
        await said(Place(), "wait at most 0.1 s until cell east is led from the other centre")
    assert told.value.code == "drill_step_failed"


async def test_the_operators_word_is_remembered() -> None:
    does = await said(Place(), "say that the primary of cell east is dead")
    assert (does.word_at, does.word_cell) == (2.0, "east")
    assert [event.kind for event in does.events] == ["step", "word"]


async def test_what_is_not_offered_is_refused() -> None:
    with pytest.raises(Problem) as told:
        await said(Place(), "rotate the data keys of the drill's agencies")
    assert told.value.code == "not_possible_here"


def test_every_sentence_has_a_hand_or_says_what_it_needs() -> None:
    does = Hands(Place(), Place(), lambda _: None)
    without = [sentence for sentence in (*GIVEN, *WHEN) if sentence.verb not in does._verbs]
    assert all(sentence.needs not in {"", "namespaces", "small disks"} for sentence in without)
    assert set(does._verbs) <= {sentence.verb for sentence in (*GIVEN, *WHEN)}
    assert {*_BRINGS_BACK, *_BRINGS_BACK.values()} <= {sentence.verb for sentence in WHEN}


def test_what_a_shipped_drill_needs_is_known() -> None:
    needs = {need for scenario in read_all().values() for need in scenario.needs}
    assert needs == {"namespaces", "small disks", "backup", "links", "key rotation", "agency moves"}
