"""Who leads: the pure judgement, on every mixture of what members may say."""

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chukan.replication.leader import Decision, Guard, Leader, decide
from chukan.replication.patroni import NodeState

SYSTEM = "7711293333273585705"
OTHER = "7711293356528748685"
NAMES = ("e1", "e2", "ew1", "ew2")


def node(
    *, leads: bool = False, timeline: int | None = 1, system: str = SYSTEM, role: str = "", streaming: bool = True
) -> NodeState:
    role = role or ("primary" if leads else "replica")
    return NodeState(leads, role, "running", timeline, system, streaming=streaming and role != "primary")


def leader(member: str, timeline: int = 1, system: str = SYSTEM) -> Leader:
    return Leader(member, timeline, system)


def judged(
    states: Mapping[str, NodeState | None],
    *,
    guard: Guard = Guard(1),  # noqa: B008 - frozen
    present: Leader | None = None,
    views: Mapping[str, str | None] | None = None,
) -> Decision:
    return decide("east", guard, present, states, views)


def test_the_one_that_holds_the_key_and_writes_leads() -> None:
    assert judged({"e1": node(leads=True), "e2": node()}) == Decision(leader("e1"), "found")
    starting = NodeState(leads=True, role="primary", state="starting", timeline=1, system=SYSTEM)
    promoting = NodeState(leads=True, role="replica", state="running", timeline=1, system=SYSTEM)
    nameless = NodeState(leads=True, role="primary", state="running", timeline=None, system=SYSTEM)
    for odd in (starting, promoting, nameless):
        assert judged({"e1": odd, "e2": node()}).leader is None


def test_a_zombie_on_a_timeline_left_behind_is_refused() -> None:
    zombie = {"e1": node(leads=True, timeline=4), "e2": None}
    assert judged(zombie, guard=Guard(1, SYSTEM, 5)) == Decision(None, "zombie")
    assert judged(zombie, guard=Guard(1, SYSTEM, 4)).leader == leader("e1", 4)
    # A guard of another epoch knows nothing of the timelines before the restore.
    assert judged(zombie, guard=Guard(2)).leader == leader("e1", 4)


def test_a_zombie_is_refused_also_by_who_has_never_seen_the_newer_timeline() -> None:
    """An exchange that just started: the others follow a later timeline, so there was a later primary."""
    assert judged({"e1": node(leads=True, timeline=4), "ew1": node(timeline=5)}).verdict == "zombie"
    dead = {"e1": node(leads=True, timeline=4), "ew1": node(timeline=5, streaming=False)}
    assert judged(dead).leader == leader("e1", 4), "one that follows nobody proves nothing"


def test_of_two_who_say_that_they_lead_the_later_timeline_wins() -> None:
    both = {"e1": node(leads=True, timeline=4), "ew1": node(leads=True, timeline=5)}
    assert judged(both, present=leader("e1", 4), guard=Guard(1, SYSTEM, 4)).leader == leader("ew1", 5)


def test_of_two_on_one_timeline_the_one_with_a_majority_behind_it_wins_or_none() -> None:
    both = {"e1": node(leads=True), "ew1": node(leads=True), "e2": node()}
    assert judged(both).verdict == "contested"
    assert judged(both, views={"e1": "e1", "ew1": "ew1"}).leader is None
    assert judged(both, views={"e1": "e1", "ew1": "ew1", "e2": "ew1"}).leader == leader("ew1")


def test_another_database_is_refused() -> None:
    foreign = {"e1": node(leads=True, timeline=9, system=OTHER)}
    assert judged(foreign, guard=Guard(1, SYSTEM, 3)) == Decision(None, "other_system")
    # One that leads another cluster, or answers under another's name, is not taken at its word.
    swapped = NodeState(leads=True, role="primary", state="running", timeline=1, system=SYSTEM, scope="west", name="e1")
    renamed = NodeState(leads=True, role="primary", state="running", timeline=1, system=SYSTEM, scope="east", name="w1")
    assert judged({"e1": swapped}).leader is None
    assert judged({"e1": renamed}).leader is None


def test_silence_is_no_answer_and_a_no_is_one() -> None:
    present = leader("e1", 3)
    assert judged({"e1": None, "e2": node()}, present=present) == Decision(present, "silent")
    assert judged({"e1": node(timeline=3), "e2": node()}, present=present) == Decision(None, "none")
    moved = {"e1": None, "ew1": node(leads=True, timeline=4)}
    assert judged(moved, present=present, guard=Guard(1, SYSTEM, 3)).leader == leader("ew1", 4)


states = st.none() | st.builds(
    NodeState,
    leads=st.booleans(),
    role=st.sampled_from(["primary", "replica", "demoted"]),
    state=st.sampled_from(["running", "starting", "stopped"]),
    timeline=st.none() | st.integers(1, 6),
    system=st.sampled_from([SYSTEM, OTHER, ""]),
    streaming=st.booleans(),
)
looks = st.lists(st.dictionaries(st.sampled_from(NAMES), states), min_size=1, max_size=12)


@pytest.mark.requirement("CON-01")
@given(looks)
def test_no_history_makes_it_go_back(history: list[dict[str, NodeState | None]]) -> None:
    """Whatever members say in whatever order: what is accepted claims it, and the timeline never falls."""
    guard, present, last = Guard(1), None, 0
    for said in history:
        decision = decide("east", guard, present, said)
        found = decision.leader
        if decision.verdict == "silent":
            assert found is present is not None
            assert said.get(found.member) is None
        elif found is not None:
            claim = said[found.member]
            assert claim is not None
            assert (claim.leads, claim.role, claim.state) == (True, "primary", "running")
            assert (claim.timeline, claim.system) == (found.timeline, found.system)
            assert found.timeline >= last
            assert guard.system in {"", found.system}
            others = [each for name, each in said.items() if each is not None and name != found.member]
            assert not any(each.leads and each.role == "primary" and each.state == "running"
                           and each.system == found.system and (each.timeline or 0) > found.timeline
                           for each in others)  # fmt: skip
            guard, last = guard.raised(found), found.timeline
        else:
            assert decision.verdict in {"none", "zombie", "other_system", "contested"}
        present = found
