"""What may be read of a copy at an instant, from the clients' journals alone: a register with one writer.

A registration is in force from somewhere between its sending and its acknowledgement. It is over once a later one was
acknowledged that was sent after it had been acknowledged. One in doubt may be in force at any time after its sending.
"""

import math
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from chukan.ops.drills.journal import Account
from chukan.ops.drills.restored import Restored


class Write(NamedTuple):
    """One registration: when it was sent, when it was acknowledged (infinity: never), and its items' marks."""

    version: int
    sent: float
    acknowledged: float
    marks: Mapping[str, str]
    restored: Restored | None = None
    """The restore of its cell, where that was restored; and what became of the registration by it:"""
    stays: bool = True
    """whether it is certainly in the restored cell."""
    goes: bool = False
    """whether it is certainly not."""


def writes(accounts: Iterable[Account], restored: Restored | None = None) -> dict[str, list[Write]]:
    """Return the registrations of each subject that may have had an effect, as they were sent."""
    found: dict[str, list[Write]] = {}
    for account in accounts:
        ends = {entry.n: entry for entry in account.of("told", "refused", "in_doubt")}
        for n, entry in account.sent().items():
            end = ends.get(n)
            if entry.act != "register" or (end is not None and end.event == "refused"):
                continue
            at = end.at if end is not None and end.event == "told" else math.inf
            write = Write(entry.version, entry.at, at, entry.marks)
            if restored is not None and account.client.cell == restored.cell:
                stays = at <= restored.kept_until or entry.at >= restored.led_at
                goes = restored.gone_from <= entry.at < restored.begun_at
                write = write._replace(restored=restored, stays=stays, goes=goes)
            found.setdefault(entry.subject, []).append(write)
    return found


def kept(of: Iterable[Write]) -> list[Write]:
    """Return the registrations as a restored cell has them: without those taken back, in doubt which may have been."""
    return [write if write.stays else write._replace(acknowledged=math.inf) for write in of if not write.goes]


def readable(of: Iterable[Write], begun: float, ended: float) -> list[Write]:
    """Return the registrations that a read between two instants may find; around a restore, of before or after it."""
    of = list(of)
    restored = next((write.restored for write in of if write.restored is not None), None)
    if restored is None or ended <= restored.begun_at:
        return _in_force(of, begun, ended)
    after = _in_force(kept(of), begun, ended)
    return after if begun >= restored.led_at else [*after, *_in_force(of, begun, ended)]


def _in_force(of: list[Write], begun: float, ended: float) -> list[Write]:
    return [
        write
        for write in of
        if write.sent <= ended
        and not any(write.acknowledged < other.sent and other.acknowledged < begun for other in of)
    ]


def fits(write: Write, marks: Mapping[str, str], gaps: frozenset[str]) -> bool:
    """Tell whether what was read is what was registered; an item that was not may only be a gap (未設定事由)."""
    return all(mark == write.marks[code] if code in write.marks else mark in gaps for code, mark in marks.items())
