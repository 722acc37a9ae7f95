"""What operators do to an installation in a drill, as ports: each has the same effect as a command of theirs.

``Steering``: planned switchover, and the word that a primary is dead (``chukan switchover``, ``fence``). ``Mover``:
agencies between cells. ``Keys``: data keys. ``Restorer``: backups.
"""

from collections.abc import Sequence
from typing import Protocol


class Steering(Protocol):
    """An operator's hand."""

    async def switchover(self, cell: str, leader: str, candidate: str) -> None:
        """Move a cell's primary as planned. Raises ``Problem``."""
        ...

    async def fence(self, cell: str) -> None:
        """Say that a cell's primary is dead: its lease is revoked. Raises ``Problem``."""
        ...


class Mover(Protocol):
    """Who moves agencies between cells."""

    async def move(self, agency: str, cell: str) -> None:
        """Move an agency into a cell; nothing is done where it lives there. Raises ``Problem``."""
        ...


class Keys(Protocol):
    """Who rotates the keys of agencies."""

    async def rotate(self, agency: str) -> int:
        """Give an agency a new data key; returns its version. Raises ``Problem``."""
        ...

    async def reencrypt(self, agency: str) -> tuple[int, int]:
        """Seal an agency's rows anew; returns how many were, and how many are left. Raises ``Problem``."""
        ...


class Restorer(Protocol):
    """Who makes backups of cells and restores them."""

    async def back_up(self, cell: str) -> Sequence[str]:
        """Make a full backup of a cell; returns its name. Raises ``Problem``."""
        ...

    async def restore(self, cell: str, moment: str) -> Sequence[str]:
        """Restore a cell to a moment (ISO 8601) and start it; returns its new epoch. Raises ``Problem``."""
        ...

    async def open_restored(self, cell: str) -> Sequence[str]:
        """Reconcile a restored cell and open it; returns the file of the differences and the instant of opening."""
        ...
