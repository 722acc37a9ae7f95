"""The network's register of delegations (委任情報): one half from each of the two agencies; it holds with both.

Jobs for ``Store``. A half is known by its agency and the agency's own id of it; sent again it is the same half, with
other words it is refused, and what was ended stays ended. Deny by default: a request that rests on a delegation gets a
permit only where both halves stand, for this side, this affair and this day.
"""

import datetime as dt
import sqlite3
from collections.abc import Sequence
from typing import Literal

import msgspec

from chukan.ops.sandbox.register import Register
from chukan.platform.wire.registrations import Delegation, DelegationReply

_COLUMNS = "agency, role, side, counterpart, coalesce(affair, ''), valid_from, coalesce(valid_until, '')"
_STANDS = (
    "SELECT 1 FROM delegations WHERE agency = ? AND role = ? AND side = ? AND counterpart = ? AND NOT ended "
    "AND (affair IS NULL OR affair = ?) AND valid_from <= ? AND (valid_until IS NULL OR valid_until >= ?) LIMIT 1"
)


def register_halves(connection: sqlite3.Connection, route: str, halves: Sequence[Delegation]) -> list[bytes]:
    """Take halves of delegations; a ``DelegationReply``'s bytes for each, in their order."""
    register = Register(connection)
    return [msgspec.json.encode(_register(connection, register, route, half)) for half in halves]


def _register(connection: sqlite3.Connection, register: Register, route: str, half: Delegation) -> DelegationReply:
    def no(reason: str) -> DelegationReply:
        return DelegationReply(id=half.id, status="refused", reason=reason)

    if not register.is_at(half.agency, route):
        return no("not_your_agency")
    if register.agency(half.counterpart) is None or half.counterpart == half.agency:
        return no("unknown_agency")
    if half.valid_until is not None and half.valid_until < half.valid_from:
        return no("bad_days")
    until = None if half.valid_until is None else half.valid_until.isoformat()
    said = (half.agency, half.role, half.side, half.counterpart, half.affair, half.valid_from.isoformat(), until)
    row = connection.execute(
        "INSERT INTO delegations (id, agency, role, side, counterpart, affair, valid_from, valid_until, ended) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) "
        f"ON CONFLICT (agency, id) DO UPDATE SET ended = ended OR excluded.ended RETURNING {_COLUMNS}",
        (half.id.bytes, *said, half.ended),
    ).fetchall()[0]
    if tuple(row) != tuple("" if value is None else value for value in said):
        return no("id_reused")
    other = "taken" if half.role == "given" else "given"
    complete = connection.execute(
        "SELECT 1 FROM delegations WHERE agency = ? AND role = ? AND side = ? AND counterpart = ? AND NOT ended "
        "AND (affair IS NULL OR ? IS NULL OR affair = ?) LIMIT 1",
        (half.counterpart, other, half.side, half.agency, half.affair, half.affair),
    ).fetchone()
    return DelegationReply(id=half.id, status="accepted", complete=complete is not None and not half.ended)


def stands(
    connection: sqlite3.Connection,
    side: Literal["inquirer", "provider"],
    delegator: str,
    delegate: str,
    affair: str,
    day: dt.date,
) -> bool:
    """Tell whether both halves of a delegation stand for an affair on a day (JST)."""
    on = day.isoformat()
    return all(
        connection.execute(_STANDS, (agency, role, side, counterpart, affair, on, on)).fetchone() is not None
        for agency, role, counterpart in ((delegator, "given", delegate), (delegate, "taken", delegator))
    )
