"""The operations logs as trees: what gives entries their places, and what lets signer and cosigner work on them.

``OperationTrees`` shows a cell's operations logs in the form in which ``evidence.Signer`` and ``cosigning.Cosigner``
see the provision records' logs, so that there is one code for what is signed. ``OperationSequencer`` gives entries
their places: acts of people are few, so it looks once a second and needs no hint.

Invariant: the two kinds of logs never share an origin: an agency's operations log is ``…/<code>/operations``, the
operators' of a cell ``…/operators/<cell>``. Nothing here reads what an entry says.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Protocol

from chukan import log
from chukan.tenants.merkle import Need, TileName
from chukan.tenants.operations import OPERATORS
from chukan.tenants.repeating import Repeating
from chukan.tenants.sets.evidence import Growth, LastCheckpoint

BATCH: Final = 500

_log = log.get("operations")


def log_name(agency: int, cell: str, code_of: Callable[[int], str | None]) -> str | None:
    """Return what stands for the code in the origin of a log; None for an agency that is not in the directory."""
    if agency == OPERATORS:
        return operators_log(cell)
    code = code_of(agency)
    return None if code is None else agency_log(code)


def agency_log(code: str) -> str:
    """Return the name of an agency's operations log; ``code`` is its 16-digit code (機関コード)."""
    return f"{code}/operations"


def operators_log(cell: str) -> str:
    """Return the name of the operators' log of a cell."""
    return f"operators/{cell}"


class TreeSets(Protocol):
    """What the trees need of a cell's set functions (``sets.operations``)."""

    async def operations_grown(self, limit: int) -> dict[int, int]:
        """Return logs that have grown."""
        ...

    async def operations_signed(self, after: int, limit: int) -> dict[int, int]:
        """Return the sizes of the last checkpoints."""
        ...

    async def operations_last(self, agency: int) -> LastCheckpoint | None:
        """Return a log's last checkpoint."""
        ...

    async def operations_leaves(self, agency: int, after: int, limit: int) -> list[tuple[int, bytes]]:
        """Return the next leaves."""
        ...

    async def operations_read(self, agency: int, need: Need) -> tuple[dict[TileName, bytes], dict[int, bytes]]:
        """Return tiles and leaf hashes."""
        ...

    async def operations_sign(self, grown: Sequence[Growth]) -> list[str]:
        """Keep checkpoints."""
        ...

    async def operations_cosign(self, agency: int, size: int, signer: str, line: bytes) -> bool:
        """Keep a cosignature."""
        ...

    async def operations_restored(self, agency: int) -> list[tuple[int, bytes]]:
        """Return the leaves of restores."""
        ...

    async def operations_age(self) -> tuple[float, int]:
        """Return the oldest entry's age, and how many are lost."""
        ...

    async def confirm(self) -> None:
        """Return once what was read is durable."""
        ...


class OperationTrees:
    """A cell's operations logs under the names that signer and cosigner use."""

    def __init__(self, sets: TreeSets) -> None:
        self._sets = sets
        self._lost = 0

    async def evidence_due(self, limit: int) -> dict[int, int]:
        """Return logs that have grown since their last checkpoint, and how long they are."""
        return await self._sets.operations_grown(limit)

    async def evidence_signed(self, after: int, limit: int) -> dict[int, int]:
        """Return the sizes of the last checkpoints of the next logs."""
        return await self._sets.operations_signed(after, limit)

    async def evidence_last(self, agency: int) -> LastCheckpoint | None:
        """Return a log's last checkpoint."""
        return await self._sets.operations_last(agency)

    async def evidence_leaves(self, agency: int, after: int, limit: int) -> list[tuple[int, bytes]]:
        """Return the next leaves after a position."""
        return await self._sets.operations_leaves(agency, after, limit)

    async def evidence_read(self, agency: int, need: Need) -> tuple[dict[TileName, bytes], dict[int, bytes]]:
        """Return tiles and leaf hashes."""
        return await self._sets.operations_read(agency, need)

    async def evidence_sign(self, grown: Sequence[Growth]) -> list[str]:
        """Keep checkpoints."""
        return await self._sets.operations_sign(grown)

    async def evidence_cosign(self, agency: int, size: int, signer: str, line: bytes) -> bool:
        """Keep a cosignature."""
        return await self._sets.operations_cosign(agency, size, signer, line)

    async def evidence_age(self) -> float:
        """Return the age in seconds of the oldest entry without a checkpoint; say it loudly when one is gone."""
        age_s, lost = await self._sets.operations_age()
        if lost > self._lost:
            _log.critical("entries of an operations log are gone before they had their place", count=lost)
        self._lost = lost
        return age_s

    async def evidence_restored(self, agency: int) -> list[tuple[int, bytes]]:
        """Return the leaves by which a log says that it was restored, with their positions."""
        return await self._sets.operations_restored(agency)

    async def confirm(self) -> None:
        """Return once everything that was read so far is durable."""
        await self._sets.confirm()


class SequenceSets(Protocol):
    """What the sequencer needs of a cell's set functions."""

    async def operations_sequence(self, limit: int) -> int:
        """Give waiting entries their places; -1 where another one is at it."""
        ...


class OperationSequencer(Repeating):
    """Gives the entries of one cell's operations logs their places."""

    def __init__(self, sets: SequenceSets) -> None:
        self._sets = sets
        super().__init__()

    async def _turn(self) -> bool:
        return await self._sets.operations_sequence(BATCH) >= BATCH

    def _failed(self, error: Exception) -> None:
        _log.warning("operations were not given their places", exc_info=error)
