"""Which of the centres (拠点) a device's service route leads to: judged from probes, pure, without a clock of its own.

Each centre is asked by ICMP echo and by ``/readyz``, both through its own tunnel. From the answers follows how it is:

- *good*: the newest echo and the newest ``/readyz`` were answered;
- *drain*: its ``/readyz`` said 503 or was refused: it goes out of service, and still serves meanwhile;
- *down*: ``icmp_misses`` echoes or ``ready_misses`` readiness probes in a row went unanswered;
- *uncertain*: anything else. Nobody is moved away from it, nor to it.

Invariants, whatever is heard in whatever order: a route is moved only to a centre that is good at that moment; at most
once within ``dwell_s``; and while one centre stays good and the other is down or draining, it ends at the good one.
A home that keeps failing soon after each return is trusted more slowly each time (``good_for`` doubles), so that a
loose cable does not become a pendulum.
"""

from collections.abc import Mapping
from typing import Annotated, Final, Literal

import msgspec

Condition = Literal["good", "drain", "down", "uncertain"]
Answer = Literal["ready", "drain", "missed"]
Reason = Literal["start", "drain", "down", "home", "renewal"]
"""Why a route is moved; ``renewal`` is the agent's own, for a tunnel whose keys change."""

STRIKES_MAX: Final = 5
"""How often ``good_for`` is doubled at most."""

_Count = Annotated[int, msgspec.Meta(ge=1, le=1000)]
_Seconds = Annotated[float, msgspec.Meta(ge=0, le=3600)]


class Rules(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When a route is moved; ``home`` is the centre that is preferred."""

    home: str
    icmp_misses: _Count = 3
    ready_misses: _Count = 2
    good_for: _Count = 5
    """So many good rounds of echoes in a row before the route goes home."""
    dwell_s: _Seconds = 5.0
    calm_s: _Seconds = 300.0
    """A home that fails again within this time after a return gets a strike."""
    fail_back: bool = True


class Echo(msgspec.Struct, frozen=True):
    """An ICMP echo was answered in time, or not."""

    centre: str
    answered: bool


class Ready(msgspec.Struct, frozen=True):
    """What ``/readyz`` said."""

    centre: str
    answer: Answer


class Move(msgspec.Struct, frozen=True):
    """The route is to lead to another centre."""

    to: str
    reason: Reason


class Heard(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of one centre."""

    echoed: bool = False
    echo_misses: int = 0
    ready: Literal["unknown", "ready", "drain"] = "unknown"
    ready_misses: int = 0
    rounds: int = 0
    """Echoes answered in a row while it was good."""


class State(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that a decision follows from; instants are monotonic seconds."""

    rules: Rules
    centres: Mapping[str, Heard]
    active: str | None = None
    """Where the route leads now; None while it leads nowhere."""
    moved_at: float | None = None
    home_since: float | None = None
    """When the route last went home by a move."""
    strikes: int = 0


def begin(rules: Rules, centres: tuple[str, ...], active: str | None = None) -> State:
    """Return the state in which nothing was heard; ``active`` is where the route is found to lead.

    Raises ``ValueError`` when the home is none of the centres.
    """
    if rules.home not in centres:
        raise ValueError("the home is one of the centres")
    return State(rules=rules, centres={centre: Heard() for centre in centres}, active=active)


def condition(state: State, centre: str) -> Condition:
    """Return how a centre stands."""
    return _judge(state.centres[centre], state.rules)


def hear(state: State, event: Echo | Ready) -> State:
    """Return what is known after an answer, or after its absence."""
    before = state.centres[event.centre]
    after = _echo(before, answered=event.answered) if isinstance(event, Echo) else _ready(before, event.answer)
    rounds = before.rounds + isinstance(event, Echo) if _judge(after, state.rules) == "good" else 0
    after = msgspec.structs.replace(after, rounds=rounds)
    return msgspec.structs.replace(state, centres={**state.centres, event.centre: after})


def decide(state: State, now: float) -> Move | None:
    """Return where the route should go now; None when it should stay."""
    if state.active is None or state.active not in state.centres:
        return _first(state)
    if state.moved_at is not None and now - state.moved_at < state.rules.dwell_s:
        return None
    stands = condition(state, state.active)
    if stands in {"down", "drain"}:
        good = _good(state)
        return Move(good[0], "drain" if stands == "drain" else "down") if good else None
    home = state.rules.home
    if state.rules.fail_back and state.active != home and condition(state, home) == "good":
        needed = state.rules.good_for << state.strikes
        return Move(home, "home") if state.centres[home].rounds >= needed else None
    return None


def moved(state: State, move: Move, now: float) -> State:
    """Return the state after the route was moved."""
    home, since = state.rules.home, state.home_since
    strikes = state.strikes
    if state.active == home and move.reason == "down":
        again = since is not None and now - since < state.rules.calm_s
        strikes = min(strikes + 1, STRIKES_MAX) if again else 0
    return msgspec.structs.replace(
        state, active=move.to, moved_at=now, home_since=now if move.to == home else since, strikes=strikes
    )


def _first(state: State) -> Move | None:
    """Choose for a route that leads nowhere: the home, or another once the home is known not to be good."""
    good = _good(state)
    if not good or (good[0] != state.rules.home and condition(state, state.rules.home) == "uncertain"):
        return None
    return Move(good[0], "start")


def _good(state: State) -> list[str]:
    """Return the good centres, the home first."""
    return sorted(
        (centre for centre in state.centres if centre != state.active and condition(state, centre) == "good"),
        key=lambda centre: (centre != state.rules.home, centre),
    )


def _echo(heard: Heard, *, answered: bool) -> Heard:
    if answered:
        return msgspec.structs.replace(heard, echoed=True, echo_misses=0)
    return msgspec.structs.replace(heard, echo_misses=heard.echo_misses + 1)


def _ready(heard: Heard, answer: Answer) -> Heard:
    if answer == "missed":
        return msgspec.structs.replace(heard, ready_misses=heard.ready_misses + 1)
    return msgspec.structs.replace(heard, ready=answer, ready_misses=0)


def _judge(heard: Heard, rules: Rules) -> Condition:
    if heard.echo_misses >= rules.icmp_misses or heard.ready_misses >= rules.ready_misses:
        return "down"
    if heard.ready == "drain":
        return "drain"
    known = heard.echoed and heard.ready == "ready"
    return "good" if known and heard.echo_misses == 0 and heard.ready_misses == 0 else "uncertain"
