"""Mending a damaged map of persons (記録の地図): made anew from its log, put in place only where it is the signed one.

A map follows from its log alone. So it is made from the leaves, whose tree must give the root of the last checkpoint;
its own root must be the one that this checkpoint signs. Then the pages at rest that are others are replaced, some at a
time, each lot in a commit that holds only while that checkpoint is the last one: where the log was signed on, the new
leaves are followed and the comparison begins again. Interrupted, a repeat finds what is right already.

Invariant: no page is written of a map that was not signed, and nothing of a log is changed. A log whose leaves are not
those that were signed is set aside, until a person has looked. No record is opened; no label leaves this module.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping, Sequence
from typing import Final, Literal, NamedTuple

from chukan import log
from chukan.errors import Problem
from chukan.replication.primary import Cells
from chukan.tenants import label_map
from chukan.tenants.checkpoint import Checkpoint, CheckpointError
from chukan.tenants.evidence import CentreKeys
from chukan.tenants.link_calls import fetch
from chukan.tenants.map_growth import MapUnfit, WholeMap
from chukan.tenants.sets import CellSets

NAMES_PAGE: Final = 5_000
LOT: Final = 200
"""Pages in one commit."""
TRIES_MAX: Final = 100
BUSY_S: Final = 0.2
"""Pause while a signer has the lock."""
ROUNDS_MAX: Final = 20
"""How often a log may be signed on while its map is mended."""
PAGES_MAX: Final = 10_000_000

_log = log.get("map_repair")


class Mended(NamedTuple):
    """What came of it: ``sound`` means that the map at rest is the signed one now."""

    outcome: Literal["sound", "no_map", "log_differs", "map_differs"]
    size: int
    """Leaves of the checkpoint that it was held against."""
    root: bytes
    persons: int
    pages: int
    put: int
    """Pages that were replaced or put in."""
    gone: int
    """Pages that belonged to no map."""

    @property
    def sound(self) -> bool:
        """Whether the map at rest is the signed one."""
        return self.outcome == "sound"


class _Moved(Exception):  # noqa: N818 - what happened, not what went wrong here
    """The log was signed on meanwhile."""


class MapRepair:
    """Mends the map of one agency."""

    def __init__(self, cells: Cells, cell: str, agency: int, code: str, keys: CentreKeys) -> None:
        """Prepare only. ``keys`` verify the agency's checkpoints; no private one is needed."""
        self._cells = cells
        self._cell = cell
        self._agency = agency
        self._code = code
        self._keys = keys
        self._sets = CellSets(cells.primary(cell).broker)
        self._put = 0
        self._gone = 0

    async def mend(self, who: str) -> Mended:
        """Mend it, and enter the operator's act.

        Args:
            who: name of the operator who acts.

        Raises:
            Problem: proof_pending without a checkpoint; busy where the log is signed on faster than it is followed;
                too_many_lines for a log of more persons than are held at once; as the cell does.
        """
        whole = WholeMap()
        for _ in range(ROUNDS_MAX):
            said = await self._last()
            found = await self._judge(whole, said)
            if found.outcome == "no_map":
                return found
            if not found.sound:
                await self._end(who, sound=False)
                return found
            try:
                await self._replace(whole.pages, said.size)
            except _Moved:
                continue
            await self._end(who, sound=True)
            return found._replace(put=self._put, gone=self._gone)
        raise Problem("busy", retry_after_s=60)

    async def _last(self) -> Checkpoint:
        last = await self._sets.evidence_last(self._agency)
        if last is None:
            raise Problem("proof_pending", retry_after_s=2)
        try:
            return self._keys.verify(last.note, self._code).checkpoint
        except CheckpointError:
            raise Problem("checkpoint_unsigned") from None

    async def _judge(self, whole: WholeMap, said: Checkpoint) -> Mended:
        """Follow the log up to a checkpoint, and hold tree and map against it."""
        none = Mended("no_map", said.size, b"", 0, 0, 0, 0)
        try:
            signed = label_map.root_in(said.extensions)
        except CheckpointError:
            return none._replace(outcome="map_differs")
        if signed is None:
            return none
        try:
            await whole.go_on(self._sets, self._agency, said.size)
        except MapUnfit:
            return none._replace(outcome="log_differs")
        if whole.is_too_large:
            raise Problem("too_many_lines", limit=whole.held.labels)
        root = whole.held.root_with({})
        found = Mended("sound", said.size, root, whole.held.labels, len(whole.pages), 0, 0)
        if (whole.frontier.size, whole.frontier.root()) != (said.size, said.root):
            return found._replace(outcome="log_differs")
        return found if root == signed else found._replace(outcome="map_differs")

    async def _replace(self, pages: Mapping[str, bytes], size: int) -> None:
        """Put right whatever page at rest is another one. Raises ``_Moved``."""
        rest = await self._names()
        wrong = sorted(path for path, body in pages.items() if rest.get(path) != hashlib.sha256(body).digest())
        strange = sorted(set(rest) - set(pages))
        # Without anything to put right the checkpoint is asked for once all the same.
        for begin in range(0, max(len(wrong), len(strange), 1), LOT):
            put, gone = wrong[begin : begin + LOT], strange[begin : begin + LOT]
            await self._lot(size, {path: pages[path] for path in put}, gone)
            self._put += len(put)
            self._gone += len(gone)

    async def _lot(self, size: int, put: Mapping[str, bytes], gone: Sequence[str]) -> None:
        """Put some pages right in one commit. Raises ``_Moved``; ``Problem`` busy where signers never let go."""
        sql = "SELECT chukan.map_mend($1, $2, $3, $4, $5)"
        for _ in range(TRIES_MAX):
            async with self._cells.steward(self._cell) as steward:
                ((word,),) = await fetch(steward, sql, self._agency, size, list(put), list(put.values()), gone)
            if word == "mended":
                return
            if word == "moved":
                raise _Moved
            await asyncio.sleep(BUSY_S)
        raise Problem("busy", retry_after_s=60)

    async def _names(self) -> dict[str, bytes]:
        """Return the digest of each page at rest, by name."""
        found: dict[str, bytes] = {}
        async with self._cells.steward(self._cell) as steward:
            after: str | None = None  # the root's own name is empty: nothing stands before it
            for _ in range(PAGES_MAX // NAMES_PAGE):
                sql = "SELECT * FROM chukan.map_names($1, $2, $3)"
                rows = await fetch(steward, sql, self._agency, after, NAMES_PAGE)
                found.update((row["path"], row["digest"]) for row in rows)
                if len(rows) < NAMES_PAGE:
                    break
                after = rows[-1]["path"]
        return found

    async def _end(self, who: str, *, sound: bool) -> None:
        async with self._cells.steward(self._cell) as steward:
            await fetch(steward, "SELECT chukan.map_mended($1, $2, $3)", self._agency, who, sound)
        if not sound:
            _log.critical("a log was set aside: it is not the one that was signed", agency=self._agency)
