"""A cell (セル) whose commits wait must not take the places of callers of the other one.

Commits wait for seconds while a dead standby is dropped, and for as long as the operator chose where none is left. Each
request that waits holds a place; so while a cell's canary does not commit, only some requests to it are let to a place,
and the others get ``no_primary`` at once, with the time to come back. Those that are in already go on: when the wait
ends, they are answered.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from chukan.errors import Problem

MOST: Final = 64
"""Requests to a stalled cell that may hold a place at once: a quarter of the usual 256."""
RETRY_S: Final = 2


class Stalls:
    """Counts the requests that hold or wait for a place, by cell."""

    def __init__(self, commits: Callable[[str], bool] = lambda _: True, *, most: int = MOST) -> None:
        """``commits`` tells whether a cell commits promptly just now."""
        self._commits = commits
        self._most = most
        self._inside: Counter[str] = Counter()

    @contextmanager
    def enter(self, cell: str) -> Iterator[None]:
        """Count one request in. Raises ``Problem`` no_primary where the cell is stalled and has its share."""
        if self._inside[cell] >= self._most and not self._commits(cell):
            raise Problem("no_primary", retry_after_s=RETRY_S)
        self._inside[cell] += 1
        try:
            yield
        finally:
            self._inside[cell] -= 1
