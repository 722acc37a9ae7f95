"""The judgement of the two centres: tables of what is heard and where the route goes, and any sequence at all."""

import itertools
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chukan.vpn.device import health
from chukan.vpn.device.health import Echo, Move, Ready, Rules, State

CENTRES = ("east", "west")
RULES = Rules(home="east", icmp_misses=2, ready_misses=2, good_for=3, dwell_s=5.0, calm_s=60.0)

Event = Echo | Ready


def heard(state: State, *events: Event) -> State:
    for event in events:
        state = health.hear(state, event)
    return state


def good(centre: str, rounds: int = 1) -> list[Event]:
    return [Ready(centre, "ready"), *[Echo(centre, answered=True)] * rounds]


def both_good(active: str | None, rules: Rules = RULES) -> State:
    return heard(health.begin(rules, CENTRES, active), *good("east"), *good("west"))


LOST = Echo("east", answered=False)


@pytest.mark.parametrize(
    ("events", "stands"),
    [
        ([], "uncertain"),
        ([Echo("east", answered=True)], "uncertain"),
        ([Ready("east", "ready")], "uncertain"),
        (good("east"), "good"),
        ([*good("east"), LOST], "uncertain"),
        ([*good("east"), LOST, Echo("east", answered=True)], "good"),
        ([*good("east"), LOST, LOST], "down"),
        ([*good("east"), LOST, LOST, Echo("east", answered=True)], "good"),
        ([*good("east"), Ready("east", "drain")], "drain"),
        ([*good("east"), Ready("east", "drain"), Ready("east", "ready")], "good"),
        ([*good("east"), Ready("east", "missed")], "uncertain"),
        ([*good("east"), Ready("east", "missed"), Ready("east", "missed")], "down"),
        ([*good("east"), Ready("east", "drain"), LOST, LOST], "down"),
        ([*good("east"), Ready("east", "drain"), Ready("east", "missed")], "drain"),
    ],
)
def test_how_a_centre_stands(events: Sequence[Event], stands: str) -> None:
    assert health.condition(heard(health.begin(RULES, CENTRES), *events), "east") == stands


@pytest.mark.parametrize(
    ("active", "events", "move"),
    [
        # A centre that fails is left, if the other is good.
        ("east", [LOST], None),
        ("east", [LOST, LOST], Move("west", "down")),
        ("east", [Ready("east", "drain")], Move("west", "drain")),
        ("east", [Ready("east", "missed")] * 2, Move("west", "down")),
        ("east", [LOST, LOST, Echo("west", answered=False)], None),
        ("east", [LOST, LOST, Ready("west", "drain")], None),
        ("east", [Ready("east", "drain"), Ready("west", "drain")], None),
        # The route goes home after so many good rounds.
        ("west", good("east", 1), None),
        ("west", good("east", 2), Move("east", "home")),
        ("west", [*good("east", 2), LOST, Echo("east", answered=True)], None),
        # A route that leads nowhere begins at home, or elsewhere once home is known not to be good.
        (None, [], Move("east", "start")),
        (None, [LOST], None),
        (None, [LOST, LOST], Move("west", "start")),
        (None, [Ready("east", "drain")], Move("west", "start")),
    ],
)
def test_where_the_route_goes(active: str | None, events: Sequence[Event], move: Move | None) -> None:
    assert health.decide(heard(both_good(active), *events), 100.0) == move


def test_nothing_is_moved_within_the_dwell() -> None:
    state = health.moved(both_good("west"), Move("east", "home"), 100.0)
    failing = heard(state, LOST, LOST)
    assert health.decide(failing, 104.9) is None
    assert health.decide(failing, 105.0) == Move("west", "down")


def test_a_home_that_fails_soon_after_each_return_is_trusted_more_slowly() -> None:
    state, now, needed = both_good("east"), 0.0, []
    for _ in range(9):
        state = heard(state, LOST, LOST)
        now += 10.0
        state = health.moved(state, Move("west", "down"), now)
        now += 10.0
        rounds = 0
        while health.decide(state, now) is None:
            state = heard(state, Echo("east", answered=True))
            rounds += 1
        needed.append(rounds)
        state = health.moved(state, Move("east", "home"), now)
    assert needed == [3, 6, 12, 24, 48, 96, 96, 96, 96]
    now += RULES.calm_s + 1
    state = health.moved(heard(state, LOST, LOST), Move("west", "down"), now)
    assert state.strikes == 0


def test_a_planned_drain_is_no_failing() -> None:
    state = both_good("east")
    for at in (10.0, 20.0, 30.0):
        state = health.moved(heard(state, Ready("east", "drain")), Move("west", "drain"), at)
        state = health.moved(heard(state, *good("east", 3)), Move("east", "home"), at + 8)
    assert state.strikes == 0


def test_without_fail_back_the_route_stays_where_it_is_good() -> None:
    rules = Rules(home="east", good_for=1, fail_back=False)
    assert health.decide(heard(both_good("west", rules), *good("east", 50)), 100.0) is None


def test_a_home_that_is_no_centre_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="home"):
        health.begin(Rules(home="north"), CENTRES)


# ---------------------------------------------------------------- any sequence

events = st.one_of(
    st.builds(Echo, st.sampled_from(CENTRES), st.booleans()),
    st.builds(Ready, st.sampled_from(CENTRES), st.sampled_from(["ready", "drain", "missed"])),
)
steps = st.lists(st.tuples(events, st.floats(0.0, 3.0)), max_size=120)
ends = st.sampled_from(["drains", "dies"])
rules_of_any_kind = st.builds(
    Rules,
    home=st.sampled_from(CENTRES),
    icmp_misses=st.integers(1, 4),
    ready_misses=st.integers(1, 3),
    good_for=st.integers(1, 6),
    dwell_s=st.floats(0.0, 10.0),
    calm_s=st.floats(0.0, 100.0),
    fail_back=st.booleans(),
)


def drive(state: State, sequence: Sequence[tuple[Event, float]], now: float) -> tuple[State, float, list[float]]:
    """Run a sequence as the agent would; return the end, and when the route was moved."""
    moves: list[float] = []
    for event, passed in sequence:
        now += passed
        state = health.hear(state, event)
        move = health.decide(state, now)
        if move is not None:
            assert health.condition(state, move.to) == "good", "never to a centre that is not good"
            assert move.to != state.active
            state = health.moved(state, move, now)
            moves.append(now)
    return state, now, moves


@settings(max_examples=300, deadline=None)
@given(rules_of_any_kind, st.sampled_from([None, "east", "west"]), steps)
def test_it_never_moves_to_a_bad_centre_and_at_most_once_a_dwell(
    rules: Rules, active: str | None, sequence: Sequence[tuple[Event, float]]
) -> None:
    _, _, moves = drive(health.begin(rules, CENTRES, active), sequence, 0.0)
    assert all(after - before >= rules.dwell_s for before, after in itertools.pairwise(moves))


@settings(max_examples=300, deadline=None)
@given(
    rules_of_any_kind,
    st.sampled_from([None, "east", "west"]),
    steps,
    st.sampled_from(CENTRES),
    st.sampled_from(["drains", "dies"]),
)
def test_it_ends_at_the_centre_that_stays_good(
    rules: Rules, active: str | None, sequence: Sequence[tuple[Event, float]], stays: str, other: str
) -> None:
    state, now, _ = drive(health.begin(rules, CENTRES, active), sequence, 0.0)
    fails = "west" if stays == "east" else "east"
    ending: list[tuple[Event, float]] = []
    for _ in range(40):
        failing: Event = Ready(fails, "drain") if other == "drains" else Echo(fails, answered=False)
        ending += [(failing, 0.5), (Ready(stays, "ready"), 0.25), (Echo(stays, answered=True), 0.25)]
    state, _, _ = drive(state, ending, now)
    assert state.active == stays


@settings(max_examples=100, deadline=None)
@given(rules_of_any_kind, steps)
def test_two_good_centres_end_at_home_and_stay_there(rules: Rules, sequence: Sequence[tuple[Event, float]]) -> None:
    state, now, _ = drive(health.begin(rules, CENTRES), sequence, 0.0)
    calm = [(event, 0.5) for _ in range(250) for centre in CENTRES for event in good(centre)]
    state, now, _ = drive(state, calm, now)
    state, _, moves = drive(state, calm[:200], now)
    assert moves == []
    assert state.active == rules.home or not rules.fail_back
