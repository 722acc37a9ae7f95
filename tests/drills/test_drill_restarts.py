"""Restarts one after the other, and an agency that moves and comes home: what is done, in which order, what heals."""

import sys
from pathlib import Path

import msgspec
import pytest

from chukan.errors import Problem
from chukan.ops.drills import commands
from chukan.ops.drills import mover as moving
from chukan.ops.drills.hands import Hands
from chukan.ops.drills.mover import CommandMover
from chukan.ops.drills.ports import Node, View
from chukan.ops.drills.vocabulary import WHEN, understand

CENTRES = {"e1": "east", "e2": "east", "ew1": "west", "ew2": "west"}


class Place:
    """One cell of four nodes that follows at once, and its clients; it counts what is away."""

    name, topology, marked = "place", "2+2", True

    def __init__(self) -> None:
        self.stage = self.steering = self.mover = self
        self.calls: list[str] = []
        self.leader = "e1"
        self.away: set[str] = set()
        self.lives = "east"
        self.refuse: list[str] = []
        self.time = 0.0

    def offers(self, need: str) -> bool:
        return need == "agency moves"

    def home(self, cell: str) -> str:
        return cell

    async def view(self) -> View:
        # The first far node and a peer at home are synchronous, as a site is rendered.
        peer = next(name for name in ("e1", "e2") if name != self.leader)
        roles = {self.leader: "primary", peer: "sync", "ew1": "sync"}
        return View(tuple(Node(name, "east", where, roles.get(name, "replica")) for name, where in CENTRES.items()))

    async def stop(self, name: str) -> None:
        assert not self.away, "two at a time"
        assert name != f"patroni-{self.leader}", "a leader that has not handed over"
        self.away.add(name)
        self.calls.append(f"stop {name}")

    async def start(self, name: str) -> None:
        self.away.remove(name)

    async def settled(self, timeout_s: float) -> None:
        assert not self.away
        self.calls.append("settled")

    async def switchover(self, cell: str, leader: str, candidate: str) -> None:
        assert (cell, leader) == ("east", self.leader)
        self.leader = candidate
        self.calls.append(f"{leader} to {candidate}")

    async def move(self, agency: str, cell: str) -> None:
        if cell in self.refuse:
            self.refuse.remove(cell)
            raise Problem("no_primary")
        self.lives = cell
        self.calls.append(f"move {agency} {cell}")

    async def heal(self) -> list[str]:
        return []

    def agency_of(self, cell: str) -> str:
        return f"agency-{cell}"

    def served(self, cell: str, since: float) -> bool:
        return True

    async def sequenced(self, since: float) -> bool:
        return True

    def now(self) -> float:
        self.time += 1.0
        return self.time


async def said(place: Place, *texts: str) -> Hands:
    does = Hands(place, place, lambda _: None)
    for text in texts:
        await does.do(understand(text, WHEN, "/x"))
    return does


async def test_an_exchange_is_stopped_and_started() -> None:
    place = Place()
    does = await said(place, "restart exchange-east in good order")
    assert (place.calls, place.away) == (["stop exchange-east"], set())
    assert does.restarts.nodes_from is None


async def test_nodes_are_restarted_one_by_one_and_the_leader_last_after_it_handed_over() -> None:
    place = Place()
    does = await said(place, "restart the nodes of cell east one by one, within 10 s")
    assert [call for call in place.calls if call != "settled"] == [
        "stop patroni-e2", "stop patroni-ew1", "stop patroni-ew2", "e1 to e2", "stop patroni-e1", "e2 to e1",
    ]  # fmt: skip
    # Each only once the one before follows again.
    assert place.calls[1::2] == ["settled"] * 6
    assert place.leader == "e1"
    assert does.restarts.nodes_from == 2.0
    assert len([event for event in does.events if event.kind == "restart"]) == 6


async def test_the_agency_that_moved_comes_home() -> None:
    place = Place()
    does = await said(place, "move an agency of home east to cell west", "move that agency back home")
    assert place.calls == ["move agency-east west", "move agency-east east"]
    assert does.moves.agency == "agency-east"
    assert await does.heal() == []
    assert len(place.calls) == 2


async def test_an_agency_that_is_left_away_is_brought_home_by_healing() -> None:
    place = Place()
    does = await said(place, "move an agency of home east to cell west")
    place.refuse = ["east"]
    assert await does.heal() == ["move agency agency-east to cell east"]
    assert await does.heal() == []
    assert place.lives == "east"


async def test_an_agency_of_an_interrupted_move_is_brought_home_too() -> None:
    place = Place()
    place.refuse = ["west"]
    does = Hands(place, place, lambda _: None)
    with pytest.raises(Problem):
        await does.do(understand("move an agency of home east to cell west", WHEN, "/x"))
    assert await does.heal() == []
    assert place.calls == ["move agency-east east"]


# ---------------------------------------------------------------- the operator's command

FAKE = """
import json, sys
words = sys.argv[sys.argv.index("agency") + 1:]
with open(__file__ + ".calls", "a+") as file:
    file.seek(0)
    before = file.read()
    file.write(" ".join(words[:4]) + "\\n")
assert words[words.index("--admin-password-file") + 1].endswith("passwords/{cell}-superuser"), words
assert words[words.index("--config") + 1].endswith("operator.toml"), words
if words[0] == "move" and "discard" not in before and "west" in words:
    print(json.dumps({"code": "old_copy_kept", "status": 409}))
    sys.exit(2)
print(json.dumps({"agency": words[1], "from": "east" if words[0] == "move" else None, "cell": "west"}))
"""


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[CommandMover, Path]:
    """The mover of a site whose command is a program of our own, which writes down what it was called with."""
    script = tmp_path / "fake.py"
    script.write_text(FAKE, encoding="utf-8")
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} {script} "$@"\n', encoding="utf-8")
    python.chmod(0o755)
    monkeypatch.setattr(commands.sys, "executable", str(python))
    operator = type("Operator", (), {"directory": tmp_path})
    return CommandMover(type("Site", (), {"operator": operator})), tmp_path / "fake.py.calls"


async def test_what_an_earlier_drill_left_is_discarded_first_and_what_this_leaves_at_once(
    command: tuple[CommandMover, Path],
) -> None:
    mover, calls = command
    assert not mover.is_there
    await mover.move("123", "west")
    assert calls.read_text("utf-8").splitlines() == [
        "move 123 --to west", "discard 123 --cell west", "move 123 --to west", "discard 123 --cell east",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("said", "code"),
    [({"code": "no_primary"}, "no_primary"), ({"code": "no such code"}, None), ("not a document", "process_failed")],
)
def test_a_problem_of_the_command_is_the_drills_problem(said: object, code: str | None) -> None:
    if code is None:
        assert moving._read(msgspec.json.encode(said), "x").code == "no such code"
        return
    with pytest.raises(Problem) as told:
        moving._read(msgspec.json.encode(said), "x")
    assert told.value.code == code
