"""Hints (呼び水): what one exchange tells the others that it has just committed, so that nobody has to look for it.

A hint goes by NOTIFY, alone, after the commit that it speaks of. It names shards, never an agency or a line, and is
worth nothing by itself: whoever hears it looks into the work tables, and looks once a second without one. It may be
lost, come late, come twice, or come from a release that said less; what cannot be read says "look everywhere".

What it must never do: carry anything that is decided on.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec

from chukan.tenants.states import SHARDS

EVERYWHERE: Final = frozenset(range(SHARDS))
_PARTS: Final = 3
_SEPARATOR: Final = ";"


class Hint(msgspec.Struct, frozen=True):
    """Shards to look at: for ``work`` that waits for a worker, and for lines ``done`` that somebody may await."""

    origin: str = ""
    """Who sent it, so that a process can tell its own; empty where that is not known."""
    work: frozenset[int] = EVERYWHERE
    done: frozenset[int] = EVERYWHERE

    def payload(self) -> str:
        """Return the text of the notification."""
        return _SEPARATOR.join((self.origin, _numbers(self.work), _numbers(self.done)))


def read(payload: str) -> Hint:
    """Return what a notification says; "look everywhere" for one that says nothing that is understood."""
    parts = payload.split(_SEPARATOR)
    if len(parts) != _PARTS:
        return Hint()
    try:
        work, done = (frozenset(int(number) for number in part.split(",") if number) for part in parts[1:])
    except ValueError:
        return Hint()
    if not work <= EVERYWHERE or not done <= EVERYWHERE:
        return Hint()
    return Hint(parts[0], work, done)


def _numbers(shards: Iterable[int]) -> str:
    return ",".join(str(shard) for shard in sorted(shards))
