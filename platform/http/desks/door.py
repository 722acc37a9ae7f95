"""Door 1 for the desks: one transaction in one agency's partition, with a deadline that fits the work."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Protocol

from chukan.errors import Problem
from chukan.tenants.partition import act_for

if TYPE_CHECKING:
    from chukan.replication.primary import Cells
    from chukan.tenants.directory import AgencyRow
    from chukan.tenants.partition import Partition
    from chukan.tenants.sealing import AgencyKeys

Keys = Callable[[int], "AgencyKeys"]
"""The keys of an agency by its number. Raises Problem keys_unconfirmed."""


class Door(Protocol):
    """Opens an agency's own partition for one transaction; ``timeout_s`` bounds each statement."""

    def __call__(self, agency: AgencyRow, *, timeout_s: float = 30.0) -> AbstractAsyncContextManager[Partition]:
        """Open it."""
        ...


class CellDoor:
    """Finds the cell that the agency lives in, and acts there for that agency only (invariant 1)."""

    def __init__(self, cells: Cells) -> None:
        self._cells = cells

    def __call__(self, agency: AgencyRow, *, timeout_s: float = 30.0) -> AbstractAsyncContextManager[Partition]:
        """Open the agency's partition. Raises ``Problem`` no_primary where this exchange does not know its cell."""
        try:
            pool = self._cells.primary(agency.cell).app
        except KeyError:
            raise Problem("no_primary", retry_after_s=5) from None
        return act_for(pool, agency.number, timeout_s=timeout_s)
