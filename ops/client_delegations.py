"""``chukan client delegations|resend|correct``: what officers do about asking for others, failed lines, and records.

Nothing is decided here. What an officer types on the command line names agencies, affairs and our own ids only, never a
person.
"""

import datetime as dt
import uuid
from typing import Annotated, Final, Literal

import msgspec
from cyclopts import App, Parameter

from chukan.errors import Problem
from chukan.ops import client_view as view
from chukan.ops.client_run import Target, run
from chukan.platform.wire.corrections import RecordCorrection
from chukan.platform.wire.delegations import DelegationTerms

delegations = App(
    name="delegations", help="Give or take delegations, as officers: one proposes, another approves. (委任)"
)


@delegations.command(name="list")
def list_delegations(*, target: Target, ended: Annotated[bool, Parameter(negative="")] = False) -> None:
    """List the agency's halves of delegations, with those that ended where wanted."""
    run(target, lambda client: client.delegations(ended=ended), view.document)


@delegations.command
def propose(
    role: Literal["given", "taken"],
    side: Literal["inquirer", "provider"],
    counterpart: str,
    *,
    target: Target,
    valid_from: dt.date,
    valid_until: dt.date | None = None,
    affair: str | None = None,
) -> None:
    """Propose to give a delegation to another agency, or to take one from it.

    Parameters
    ----------
    role
        ``given``: this agency delegates (委任元); ``taken``: it acts for the other one (委任先).
    side
        Whether it is about asking (inquirer) or answering (provider).
    counterpart
        The other agency's code, 16 digits.
    valid_from
        First day (JST).
    valid_until
        Last day; until ended otherwise.
    affair
        Affair (JM code); all affairs otherwise.
    """
    words = {
        "role": role,
        "side": side,
        "counterpart": counterpart,
        "valid_from": valid_from,
        "valid_until": valid_until,
        "affair": affair,
    }
    try:
        terms = msgspec.convert(words, DelegationTerms)
    except msgspec.ValidationError:
        raise Problem("invalid_field", expected="fields as /openapi.json defines them") from None
    run(target, lambda client: client.propose_delegation(terms), view.document)


@delegations.command
def approve(delegation: uuid.UUID, *, target: Target) -> None:
    """Register another officer's proposal with the network and put it in force."""
    run(target, lambda client: client.approve_delegation(delegation), view.document)


@delegations.command
def end(delegation: uuid.UUID, *, target: Target) -> None:
    """End a delegation at once."""
    run(target, lambda client: client.end_delegation(delegation), view.document)


def resend(reference: uuid.UUID, *, target: Target) -> None:
    """Send lines that ended without an answer once more, as an officer (再送)."""
    run(target, lambda client: client.resend(reference), view.batch)


def correct(
    record: uuid.UUID,
    *,
    target: Target,
    department: str | None = None,
    affair: str | None = None,
    procedure: str | None = None,
    item: Annotated[tuple[str, ...], Parameter(negative="")] = (),
    withheld: bool | None = None,
) -> None:
    """Correct what a record says, as an officer (訂正); the network and the counterpart are told.

    Parameters
    ----------
    record
        Id of the record, or of an amendment of it.
    department
        Department that asked.
    affair
        Affair (JM code).
    procedure
        Procedure (JT code).
    item
        Item that was asked for; several times.
    withheld
        Whether the record is withheld from the person (不開示).
    """
    words = {"department": department, "affair": affair, "procedure": procedure, "withheld": withheld}
    given: dict[str, object] = {name: value for name, value in words.items() if value is not None}
    if item:
        given["items"] = list(item)
    try:
        body = msgspec.convert(given, RecordCorrection)
    except msgspec.ValidationError:
        raise Problem("invalid_field", expected="fields as /openapi.json defines them") from None
    run(target, lambda client: client.correct(record, body), view.document)


COMMANDS: Final = (delegations, resend, correct)
"""What hangs directly under ``chukan client``."""
