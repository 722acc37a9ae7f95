"""The clients of a drill: which way in they choose, what they take for an acknowledgement, how their journals end."""

from pathlib import Path

import pytest

from chukan.clock import SystemClock, today_jst
from chukan.ops.demo.population import Population
from chukan.ops.drills.calls import Reply
from chukan.ops.drills.cases import make_cases, marks_of, share_out
from chukan.ops.drills.journal import Client, Entry, Journal, read
from chukan.ops.drills.ports import Exchange, Node, View
from chukan.ops.drills.route import Routes
from chukan.ops.drills.watch import Watch
from chukan.platform.law import Law
from chukan.platform.wire.agency import Gap

EXCHANGES = {name: Exchange(name, name, "", "") for name in ("near", "far")}


def test_a_client_leaves_an_exchange_that_says_no_at_once_and_one_that_is_silent_twice() -> None:
    routes = Routes(EXCHANGES, ["east", "west"])
    assert routes.choose("near", "east") == "near"
    routes.note("near", "east", None)
    assert routes.choose("near", "east") == "near"
    routes.note("near", "east", None)
    assert routes.choose("near", "east") == "far"
    assert routes.choose("near", "west") == "near"
    routes.note("near", "east", 200)
    assert routes.choose("near", "east") == "near"
    routes.note("near", "east", 503)
    assert routes.choose("near", "east") == "far"
    routes.note("far", "east", 503)
    assert routes.choose("near", "east") == "near"


@pytest.mark.parametrize(
    ("status", "good", "refused"),
    [
        (200, True, False),
        (202, True, False),
        (404, False, True),
        (429, False, True),
        (503, False, False),
        (0, False, False),
    ],
)
def test_only_a_2xx_is_an_acknowledgement_and_only_a_4xx_a_refusal(status: int, *, good: bool, refused: bool) -> None:
    reply = Reply(status)
    assert (reply.good, reply.refused) == (good, refused)


async def test_a_journal_is_read_back_and_a_line_cut_off_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "j.jsonl"
    client = Client("east-near-1", "1" * 16, "east", "home-east-near")
    journal = Journal(path, client)
    entry = Entry("sending", 1.0, 1, "query", key="k")
    await journal.write(entry)
    journal.close()
    with path.open("ab") as file:
        file.write(b'{"event":"told"')
    found = read(path)
    assert found.client == client
    assert found.entries == (entry,)
    with pytest.raises(FileExistsError):
        Journal(path, client)


def test_marks_tell_equal_values_and_nothing_else() -> None:
    one = marks_of({"a": "100", "b": "100", "c": Gap(gap="01"), "d": "gap 01"}, b"salt")
    assert one["a"] == one["b"] != one["c"] != one["d"]
    assert marks_of({"a": "100"}, b"pepper")["a"] != one["a"]
    assert "100" not in one["a"]


@pytest.fixture(scope="module")
def law() -> Law:
    return Law.load()


def test_cases_ask_what_the_law_allows_about_copies_that_are_lodged(law: Law) -> None:
    day = today_jst(SystemClock())
    population = Population(200, 7, day)
    cases = list(make_cases(population, law))
    assert len(cases) > 40
    assert len({case.subject for case in cases}) == len(cases)
    for case in cases:
        assert case.mark in law.allowed_items(case.question.procedure, case.copy.kind, day)
        copies = list(population.copies(case.provider, case.copy.kind, law))
        assert case.copy in copies
        first, second = case.registration(1), case.registration(2)
        assert {code for code in first.items if first.items[code] != second.items[code]} == {case.mark}
    agencies = sorted({case.inquirer for case in cases} & {case.provider for case in cases})
    shared = share_out(cases, agencies, 4)
    assert all(0 < len(of) <= 4 for of in shared.values())
    assert all(len({case.provider for case in of}) > 1 for of in shared.values())


def test_the_watch_keeps_changes_only() -> None:
    ticks = iter(range(10))
    watch = Watch(None, lambda: float(next(ticks)))  # type: ignore[arg-type] - nobody is asked here
    view = View((Node("e1", "east", "east", "primary", 1), Node("e2", "east", "east", "sync", 1)), {"etcd-east": True})
    watch.note(view)
    watch.note(view)
    assert [change.name for change in watch.changes] == ["e1", "e2", "etcd-east"]
    watch.note(
        View((Node("e1", "east", "east", "gone"), Node("e2", "east", "east", "primary", 2)), {"etcd-east": False})
    )
    assert watch.leaders() == {"east": ["e1", "e2"]}
    assert watch.changes[-1].state == "gone"


def test_of_two_that_say_that_they_lead_the_higher_timeline_is_the_leader() -> None:
    view = View((Node("e1", "east", "east", "primary", 1), Node("ew1", "east", "west", "primary", 2)))
    leader = view.leader("east")
    assert leader is not None
    assert leader.name == "ew1"
    assert view.leader("west") is None
