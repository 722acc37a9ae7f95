"""The table of every transition of a line, on each side: from, event, to, and what goes with it.

The table is the law of the machine: ``step`` refuses a (state, event) pair that is not in it, so that no driver can
invent a move. Each final outcome writes exactly one provision record (invariant 3); an event that finds the line
already final is *late*: it never changes the outcome, it appends an amendment where the side learned something.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final

from chukan.tenants.states import InquiryState as I
from chukan.tenants.states import Outcome, Side
from chukan.tenants.states import ProvisionState as P


class Event(enum.StrEnum):
    """What can happen to a line."""

    ACCEPT = "accept"
    CLOSE_LOCALLY = "close_locally"
    SEND_FAILED = "send_failed"
    PERMIT = "permit"
    NETWORK_REFUSED = "network_refused"
    ANSWER = "answer"
    REVIEW = "review"
    DEADLINE = "deadline"
    CANCEL = "cancel"
    UNREADABLE = "unreadable"
    COLLECT = "collect"
    PURGE = "purge"
    NOTICE = "notice"
    NOTICE_HELD = "notice_held"
    NOTICE_LAPSED = "notice_lapsed"
    INTERIM_SENT = "interim_sent"
    DECIDE = "decide"
    RECEIPT = "receipt"
    RECEIPT_LAPSED = "receipt_lapsed"


class Writes(enum.StrEnum):
    """What the commit of a transition writes beside the state."""

    NOTHING = "-"
    RECORD = "record"
    AMENDMENT = "amendment"


@dataclass(frozen=True, slots=True)
class Transition:
    """One row: who owns the step, until when it may stay in the state it leads to, and what it writes."""

    side: Side
    source: I | P | None
    event: Event
    targets: tuple[I | P, ...]
    owner: str
    deadline: str
    outcomes: tuple[Outcome, ...]
    writes: Writes


_FINAL_ANSWERS: Final = (Outcome.PROVIDED, Outcome.PROVIDED_WITH_GAPS, Outcome.NO_RECORD)
_OTHER_ANSWERS: Final = (Outcome.NO_CODE, Outcome.REFUSED, Outcome.STOPPED, Outcome.NOT_PERMITTED, Outcome.FAILED)
_ANSWERED: Final = (I.ANSWERED, I.NO_CODE, I.REFUSED, I.STOPPED, I.NOT_PERMITTED, I.FAILED)
_REFUSALS: Final = (I.NO_CODE, I.NOT_PERMITTED, I.STOPPED, I.FAILED)
_REFUSED: Final = (Outcome.NO_CODE, Outcome.NOT_PERMITTED, Outcome.STOPPED, Outcome.FAILED)


_OPEN: Final = (I.ACCEPTED, I.PERMIT_REQUESTED, I.PERMITTED, I.HELD)
_CLOSED: Final = (
    I.ANSWERED,
    I.COLLECTED,
    I.PURGED,
    I.REFUSED,
    I.NO_CODE,
    I.NOT_PERMITTED,
    I.STOPPED,
    I.EXPIRED,
    I.CANCELLED,
    I.FAILED,
)
_API, _PUSH, _WORKER, _PURGE = "agency API", "network push", "worker", "purge"
_LINE, _PERMIT, _NONE = "line deadline", "permit expiry", "-"


def _row(
    side: Side,
    source: I | P | None,
    event: Event,
    targets: tuple[I | P, ...] | I | P,
    owner: str,
    deadline: str = _NONE,
    outcomes: tuple[Outcome, ...] = (),
    writes: Writes | None = None,
) -> Transition:
    """A row; unless told otherwise, an outcome other than the interim one writes the record."""
    final = any(outcome is not Outcome.UNDER_REVIEW for outcome in outcomes)
    into = targets if isinstance(targets, tuple) else (targets,)
    written = writes or (Writes.RECORD if final else Writes.NOTHING)
    return Transition(side, source, event, into, owner, deadline, outcomes, written)


def _inquirer() -> list[Transition]:
    q = Side.INQUIRER
    local = (Outcome.NOT_PERMITTED, Outcome.NO_CODE, Outcome.STOPPED)
    rows = [
        _row(q, None, Event.ACCEPT, I.ACCEPTED, _API, _LINE),
        _row(q, None, Event.CLOSE_LOCALLY, (I.NOT_PERMITTED, I.NO_CODE, I.STOPPED), _API, outcomes=local),
    ]
    for source in (I.ACCEPTED, I.PERMIT_REQUESTED):
        rows += [
            _row(q, source, Event.SEND_FAILED, I.PERMIT_REQUESTED, _WORKER, _LINE),
            _row(q, source, Event.PERMIT, I.PERMITTED, _WORKER, f"{_PERMIT} + grace"),
            _row(q, source, Event.NETWORK_REFUSED, _REFUSALS, _WORKER, outcomes=_REFUSED),
        ]
    for source in _OPEN:
        rows += [
            _row(q, source, Event.ANSWER, _ANSWERED, _PUSH, outcomes=_FINAL_ANSWERS + _OTHER_ANSWERS),
            _row(q, source, Event.UNREADABLE, I.FAILED, _PUSH, outcomes=(Outcome.FAILED,)),
            _row(q, source, Event.REVIEW, I.HELD, _PUSH, f"{_PERMIT} + grace", (Outcome.UNDER_REVIEW,)),
            _row(q, source, Event.DEADLINE, I.EXPIRED, _WORKER, outcomes=(Outcome.EXPIRED,)),
            _row(q, source, Event.CANCEL, I.CANCELLED, _API, outcomes=(Outcome.CANCELLED,)),
        ]
    for source in (I.ANSWERED, I.COLLECTED):
        rows += [
            _row(q, source, Event.COLLECT, I.COLLECTED, _API, "keep period"),
            _row(q, source, Event.PURGE, I.PURGED, _PURGE),
        ]
    rows += [
        _row(q, source, event, source, _PUSH, writes=Writes.AMENDMENT)
        for source in _CLOSED
        for event in (Event.ANSWER, Event.UNREADABLE)
    ]
    return rows


def _provider() -> list[Transition]:
    p = Side.PROVIDER
    answers = _FINAL_ANSWERS + _OTHER_ANSWERS
    expired = (Outcome.EXPIRED,)
    return [
        _row(p, None, Event.NOTICE, P.ANSWERED, _PUSH, "until a receipt", answers),
        _row(p, None, Event.NOTICE_HELD, P.HELD, _PUSH, _PERMIT, (Outcome.UNDER_REVIEW,)),
        _row(p, None, Event.NOTICE_LAPSED, P.LAPSED, _PUSH, outcomes=expired),
        _row(p, P.HELD, Event.INTERIM_SENT, P.HELD, _WORKER, _PERMIT),
        _row(p, P.HELD, Event.SEND_FAILED, P.HELD, _WORKER, _PERMIT),
        _row(p, P.HELD, Event.DECIDE, P.ANSWERED, "officers", "until a receipt", answers),
        _row(p, P.HELD, Event.DEADLINE, P.LAPSED, _WORKER, outcomes=expired),
        _row(p, P.ANSWERED, Event.SEND_FAILED, P.ANSWERED, _WORKER, "until a receipt"),
        _row(p, P.ANSWERED, Event.RECEIPT, P.RECEIPTED, _WORKER),
        _row(p, P.ANSWERED, Event.RECEIPT_LAPSED, P.LAPSED, _WORKER, outcomes=expired, writes=Writes.AMENDMENT),
    ]


TABLE: Final[tuple[Transition, ...]] = tuple(_inquirer() + _provider())
_INDEX: Final = {(row.side, row.source, row.event): row for row in TABLE}


def find(side: Side, source: I | P | None, event: Event) -> Transition | None:
    """The table's row for an event in a state, or None where the event may not happen."""
    return _INDEX.get((side, source, event))


def allowed(side: Side, source: I | P | None, event: Event, target: I | P) -> Transition:
    """The row that leads to ``target``.

    Raises:
        ValueError: the move is not in the table; a driver that asks for it has a fault of its own.
    """
    row = find(side, source, event)
    if row is None or target not in row.targets:
        raise ValueError(f"no transition {side.name} {source and source.name} --{event}--> {target.name}")
    return row
