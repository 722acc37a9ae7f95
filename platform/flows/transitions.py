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


def _inquirer() -> list[Transition]:
    q = Side.INQUIRER
    rows = [
        Transition(q, None, Event.ACCEPT, (I.ACCEPTED,), "agency API", "line deadline", (), Writes.NOTHING),
        Transition(
            q,
            None,
            Event.CLOSE_LOCALLY,
            (I.NOT_PERMITTED, I.NO_CODE, I.STOPPED),
            "agency API",
            "-",
            (Outcome.NOT_PERMITTED, Outcome.NO_CODE, Outcome.STOPPED),
            Writes.RECORD,
        ),
    ]
    for source in (I.ACCEPTED, I.PERMIT_REQUESTED):
        rows += [
            Transition(
                q,
                source,
                Event.SEND_FAILED,
                (I.PERMIT_REQUESTED,),
                "inquiry worker",
                "line deadline",
                (),
                Writes.NOTHING,
            ),
            Transition(
                q, source, Event.PERMIT, (I.PERMITTED,), "inquiry worker", "permit expiry + grace", (), Writes.NOTHING
            ),
            Transition(q, source, Event.NETWORK_REFUSED, _REFUSALS, "inquiry worker", "-", _REFUSED, Writes.RECORD),
        ]
    for source in (I.ACCEPTED, I.PERMIT_REQUESTED, I.PERMITTED, I.HELD):
        rows += [
            Transition(
                q, source, Event.ANSWER, _ANSWERED, "network push", "-", _FINAL_ANSWERS + _OTHER_ANSWERS, Writes.RECORD
            ),
            Transition(q, source, Event.UNREADABLE, (I.FAILED,), "network push", "-", (Outcome.FAILED,), Writes.RECORD),
            Transition(
                q,
                source,
                Event.REVIEW,
                (I.HELD,),
                "network push",
                "permit expiry + grace",
                (Outcome.UNDER_REVIEW,),
                Writes.NOTHING,
            ),
            Transition(
                q, source, Event.DEADLINE, (I.EXPIRED,), "inquiry worker", "-", (Outcome.EXPIRED,), Writes.RECORD
            ),
            Transition(q, source, Event.CANCEL, (I.CANCELLED,), "agency API", "-", (Outcome.CANCELLED,), Writes.RECORD),
        ]
    rows += [
        Transition(q, I.ANSWERED, Event.COLLECT, (I.COLLECTED,), "agency API", "keep period", (), Writes.NOTHING),
        Transition(q, I.COLLECTED, Event.COLLECT, (I.COLLECTED,), "agency API", "keep period", (), Writes.NOTHING),
        Transition(q, I.ANSWERED, Event.PURGE, (I.PURGED,), "purge", "-", (), Writes.NOTHING),
        Transition(q, I.COLLECTED, Event.PURGE, (I.PURGED,), "purge", "-", (), Writes.NOTHING),
    ]
    final = (
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
    rows += [
        Transition(q, source, event, (source,), "network push", "-", (), Writes.AMENDMENT)
        for source in final
        for event in (Event.ANSWER, Event.UNREADABLE)
    ]
    return rows


def _provider() -> list[Transition]:
    p = Side.PROVIDER
    answers = _FINAL_ANSWERS + _OTHER_ANSWERS
    return [
        Transition(p, None, Event.NOTICE, (P.ANSWERED,), "network push", "permit expiry", answers, Writes.RECORD),
        Transition(
            p,
            None,
            Event.NOTICE_HELD,
            (P.HELD,),
            "network push",
            "permit expiry",
            (Outcome.UNDER_REVIEW,),
            Writes.NOTHING,
        ),
        Transition(p, None, Event.NOTICE_LAPSED, (P.LAPSED,), "network push", "-", (Outcome.EXPIRED,), Writes.RECORD),
        Transition(p, P.HELD, Event.INTERIM_SENT, (P.HELD,), "provision worker", "permit expiry", (), Writes.NOTHING),
        Transition(p, P.HELD, Event.SEND_FAILED, (P.HELD,), "provision worker", "permit expiry", (), Writes.NOTHING),
        Transition(p, P.HELD, Event.DECIDE, (P.ANSWERED,), "officers", "permit expiry", answers, Writes.RECORD),
        Transition(p, P.HELD, Event.DEADLINE, (P.LAPSED,), "provision worker", "-", (Outcome.EXPIRED,), Writes.RECORD),
        Transition(
            p, P.ANSWERED, Event.SEND_FAILED, (P.ANSWERED,), "provision worker", "until a receipt", (), Writes.NOTHING
        ),
        Transition(p, P.ANSWERED, Event.RECEIPT, (P.RECEIPTED,), "provision worker", "-", (), Writes.NOTHING),
        Transition(
            p,
            P.ANSWERED,
            Event.RECEIPT_LAPSED,
            (P.LAPSED,),
            "provision worker",
            "-",
            (Outcome.EXPIRED,),
            Writes.AMENDMENT,
        ),
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
