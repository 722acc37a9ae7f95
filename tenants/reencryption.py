"""Re-encryption (再暗号化): an agency's rows are sealed anew with its newest data key, while everybody works with them.

After a rotation old rows keep their old key version; here they get the newest, table by table, a few blocks and one
small commit at a time. The database walks and compares (0072), keys are used here alone. An interrupted walk goes on
where it was; a row that somebody works with at the moment is passed over and found by the next pass.

``retire`` is the other half: once a floor in every table proves that no row needs the old versions, and that nobody can
write one any more, their keys are destroyed.

Invariant: the clear content of a row never changes, so nothing that is evidence does; a value that does not open is
left as it is and told of. No clear value is kept longer than its seal takes, logged or put into an error.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final, NamedTuple, TypeVar

import asyncpg

from chukan import log
from chukan.errors import Problem
from chukan.replication.primary import DRIVER_ERRORS, Cells, Connection, bounded, translate
from chukan.tenants.births import patiently
from chukan.tenants.directory import AgencyRow
from chukan.tenants.sealing import AgencyKeys, SealError

T = TypeVar("T")

BLOCKS: Final = 16
"""Blocks of 8 KB that one step looks at: a commit is short, and so are the locks that it holds."""
ROWS_MAX: Final = 1_000
PASSES_MAX: Final = 5
RATE_PER_S: Final = 2_000
"""Rows a second that are sealed anew unless told otherwise, so that the disks stay the customers'."""
STEP_TIMEOUT_S: Final = 30.0
SCAN_TIMEOUT_S: Final = 3_600.0
"""Counting and proving read every row of an agency once; they hold nobody up."""
COUNTED_MAX: Final = 100_000
OPEN_MAX: Final = 100_000
_HEAD_BYTES: Final = 17

_log = log.get("keystore")


class Place(NamedTuple):
    """Where values are sealed: a column, and what names its rows in their seals."""

    relation: str
    sealed: str
    word: str
    suffix: bytes

    @property
    def name(self) -> str:
        """Return how the progress names it."""
        return f"{self.relation}.{self.sealed}"


class OpenFloor(NamedTuple):
    """A floor of a table that stands and was not proven: nothing below is written, something may be there."""

    agency: int
    relation: str
    sealed: str
    version: int


class Progress(NamedTuple):
    """How far the last walk through an agency's rows is; ``ended_at`` None while it is not done."""

    agency: int
    version: int
    place: str
    block: int
    blocks: int
    sealed: int
    begun_at: dt.datetime
    at: dt.datetime
    ended_at: dt.datetime | None


@dataclass(slots=True)
class Done:
    """What a walk came to."""

    version: int
    sealed: int = 0
    unreadable: int = 0
    """Values that do not open with any key that is held."""
    left: int = 0
    """Rows of older versions that are left, counted by the database."""
    unknown: tuple[str, ...] = ()
    """Columns among them that no migration told of."""


async def progress(cells: Cells, cell: str) -> list[Progress]:
    """Return the walks of a cell, by agency. Raises ``Problem`` as the cell does."""
    async with cells.steward(cell) as steward:
        rows = await _step(steward, steward.fetch("SELECT * FROM chukan.reencryption_progress()"))
        return [Progress(**row) for row in rows]


async def reencrypt(
    cells: Cells,
    agency: AgencyRow,
    keys: AgencyKeys,
    *,
    rate_per_s: int = RATE_PER_S,
    report: Callable[[str, int, int], None] | None = None,
) -> Done:
    """Seal every row of an agency with its newest data key; ``report(place, block, blocks)`` hears of each step.

    Safe to repeat and to interrupt; a later call goes on. Rows written meanwhile by a process that has not heard of the
    newest key are found by another pass, at most ``PASSES_MAX``.

    Raises:
        Problem: agency_moved while the agency is on its way to another cell; as the cell does. What was done stays.
    """
    done = Done(keys.newest())
    async with cells.steward(agency.cell) as settling:
        # A floor that does not hold would refuse the rows that this is about to change.
        await settle_floors(settling, agency.number)
    async with _walk(cells, agency, done.version) as (steward, place, block):
        walker = _Walker(steward, agency.number, keys, rate_per_s, report or (lambda *_: None), done)
        places = await _places(steward)
        begun = next((n for n, each in enumerate(places) if each.name == place), 0)
        for each in places[begun:]:
            await walker.walk(each, block if each.name == place else 0)
        for _ in range(PASSES_MAX):
            again = await _left(steward, agency.number, places, done)
            if not again or done.unreadable >= done.left:
                break
            done.unreadable = 0
            for each in again:
                await walker.walk(each, 0)
        if not done.left:
            await _end(steward, agency.number, whole=True)
    _log.warning("rows re-encrypted", agency=agency.number, version=done.version, count=done.sealed)
    return done


async def raise_floor(cells: Cells, agency: AgencyRow, version: int) -> None:
    """Have every table refuse values of versions below, and prove that none is there; nobody waits for it.

    Raises:
        Problem: key_versions_needed when a row is there, and no floor stands then; busy; as the cell does.
    """
    async with cells.steward(agency.cell) as steward:
        places = await _places(steward)
        try:
            for each in places:
                await _floor(steward, "key_floor", agency.number, each, version)
            for each in places:
                await _floor(steward, "key_floor_prove", agency.number, each, version)
        except asyncpg.CheckViolationError:
            for each in places:
                await _floor(steward, "key_floor_drop", agency.number, each, version)
            raise Problem("key_versions_needed") from None
        except DRIVER_ERRORS as error:
            raise translate(error) from None


class Begun(NamedTuple):
    """A retirement whose order was begun in a cell and not carried out."""

    id: uuid.UUID
    """The order's."""
    agency: int
    version: int
    """Data keys of versions below are to be destroyed."""
    at: dt.datetime


async def name_version(steward: Connection, order: uuid.UUID, agency: int, version: int) -> int:
    """Return below which version an order that was begun retires: the given one, or what it was begun with before.

    So an interrupted retirement destroys what its officers ordered, whatever was rotated meanwhile. ``Problem`` as the
    cell does.
    """
    sql = "SELECT chukan.retirement_name($1, $2, $3)"
    return int(await _step(steward, patiently(lambda: steward.fetchval(sql, order, agency, version))))


async def retirements_begun(cells: Cells, cell: str) -> list[Begun]:
    """Return the retirements of a cell that were begun and not carried out, oldest first. ``Problem`` as the cell."""
    async with cells.steward(cell) as steward:
        rows = await _step(steward, steward.fetch("SELECT * FROM chukan.retirements_begun($1)", OPEN_MAX))
        return [Begun(**row) for row in rows]


async def open_floors(cells: Cells, cell: str) -> list[OpenFloor]:
    """Return the floors of a cell that nobody proved: a retirement was cut off there. ``Problem`` as the cell does."""
    async with cells.steward(cell) as steward:
        return await _open_floors(steward)


async def settle_floors(steward: Connection, agency: int) -> int:
    """Prove each floor of an agency that an interrupted retirement left, or take it away; return how many there were.

    It takes no order: a floor that holds only says so, and one that does not would stop rows from being changed.
    """
    found = [each for each in await _open_floors(steward) if each.agency == agency]
    for each in found:
        place = Place(each.relation, each.sealed, "", b"")
        try:
            await _floor(steward, "key_floor_prove", agency, place, each.version)
        except asyncpg.CheckViolationError:
            await _floor(steward, "key_floor_drop", agency, place, each.version)
        except DRIVER_ERRORS as error:
            raise translate(error) from None
    return len(found)


async def _open_floors(steward: Connection) -> list[OpenFloor]:
    rows = await _step(steward, steward.fetch("SELECT * FROM chukan.key_floors_open($1)", OPEN_MAX))
    return [OpenFloor(**row) for row in rows]


async def _floor(steward: Connection, function: str, agency: int, place: Place, version: int) -> None:
    sql = f"SELECT chukan.{function}($1, $2, $3, $4)"
    await patiently(
        lambda: bounded(steward, steward.fetchval(sql, agency, place.relation, place.sealed, version), SCAN_TIMEOUT_S)
    )


@asynccontextmanager
async def _walk(cells: Cells, agency: AgencyRow, version: int) -> AsyncIterator[tuple[Connection, str, int]]:
    """Lend the steward with the rights of a walk; they are given back however it ends, or by the next walk's end."""
    async with cells.steward(agency.cell) as steward:
        sql = "SELECT * FROM chukan.reencrypt_begin($1, $2)"
        row = await _step(steward, patiently(lambda: steward.fetchrow(sql, agency.number, version)))
        if row is None:
            raise Problem("internal")
        try:
            yield steward, row["place"], row["block"]
        finally:
            if not steward.is_closed():
                await _end(steward, agency.number, whole=False)


async def _end(steward: Connection, agency: int, *, whole: bool) -> None:
    sql = "SELECT chukan.reencrypt_end($1, $2)"
    await _step(steward, patiently(lambda: steward.fetchval(sql, agency, whole)))


async def _places(steward: Connection) -> list[Place]:
    rows = await _step(steward, steward.fetch("SELECT * FROM chukan.list_sealed_places()"))
    return [Place(row["relation"], row["sealed"], row["word"], row["suffix"].encode()) for row in rows]


async def _left(steward: Connection, agency: int, places: Sequence[Place], done: Done) -> list[Place]:
    """Count what older versions sealed; return the places that another pass can help."""
    sql = "SELECT * FROM chukan.sealed_before($1, $2, $3)"
    rows = await _step(steward, steward.fetch(sql, agency, done.version, COUNTED_MAX), SCAN_TIMEOUT_S)
    found = {f"{row['relation']}.{row['sealed']}": row["count"] for row in rows}
    known = {each.name for each in places}
    done.left, done.unknown = sum(found.values()), tuple(sorted(set(found) - known))
    return [each for each in places if each.name in found]


class _Walker:
    """Goes through one agency's tables, column by column."""

    def __init__(
        self,
        steward: Connection,
        agency: int,
        keys: AgencyKeys,
        rate_per_s: int,
        report: Callable[[str, int, int], None],
        done: Done,
    ) -> None:
        self._steward, self._agency, self._keys = steward, agency, keys
        self._rate_per_s, self._report, self._done = max(1, rate_per_s), report, done

    async def walk(self, place: Place, block: int) -> None:
        """Look at the blocks that the table has now; what is appended meanwhile is the newest version's."""
        sql = "SELECT chukan.reencrypt_blocks($1, $2)"
        blocks = int(await _step(self._steward, self._steward.fetchval(sql, self._agency, place.relation)))
        while block < blocks:
            begun = asyncio.get_running_loop().time()
            count, full = await self._take(place, block, blocks)
            # A step that was cut off at its rows is repeated: what it took is not found again. One that could take
            # nothing is left for the next pass, so this ends.
            block += 0 if full and count else BLOCKS
            self._report(place.name, min(block, blocks), blocks)
            used = asyncio.get_running_loop().time() - begun
            await asyncio.sleep(max(0.0, count / self._rate_per_s - used))

    async def _take(self, place: Place, block: int, blocks: int) -> tuple[int, bool]:
        sql = "SELECT * FROM chukan.reencrypt_read($1, $2, $3, $4, $5, $6)"
        read = self._steward.fetch(sql, self._agency, place.relation, place.sealed, block, BLOCKS, ROWS_MAX)
        rows = await _step(self._steward, read)
        where, heads, values = [], [], []
        for row in rows:
            named = bytes(row["named"]) + place.suffix
            try:
                clear = self._keys.open(place.word, named, row["sealed"])
            except SealError:
                self._done.unreadable += 1
                continue
            where.append(row["place"])
            heads.append(row["sealed"][:_HEAD_BYTES])
            values.append(self._keys.seal(place.word, named, clear))
        if not rows:
            return 0, False
        sql = "SELECT chukan.reencrypt_write($1, $2, $3, $4, $5, $6, $7, $8)"
        columns = (self._agency, place.relation, place.sealed, where, heads, values, block, blocks)
        write = patiently(lambda: self._steward.fetchval(sql, *columns))
        count = int(await _step(self._steward, write))
        self._done.sealed += count
        return count, len(rows) == ROWS_MAX


async def _step(steward: Connection, work: Awaitable[T], timeout_s: float = STEP_TIMEOUT_S) -> T:
    try:
        return await bounded(steward, work, timeout_s)
    except DRIVER_ERRORS as error:
        raise translate(error) from None
