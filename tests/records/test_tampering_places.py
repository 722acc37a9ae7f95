"""The tampering matrix, whole: what is bent, in which log, and where somebody got at it.

Rows are those of ``test_tampering_matrix`` (edit, delete, insert, reorder, truncate, fork of record, leaf, checkpoint
and cosignature). Both logs are bent by the same hands: the provision records' and the operations'. Columns are the
places: the *database* itself, which ``test_tampering_matrix`` and ``test_operations_tampering`` try; a *backup*, bent
while nobody looked and then restored over a log that was sound; and the *API*, a server that gives out what is bent. A
cell is empty only where ``UNSEEN`` says why. Nothing untouched is found fault with.
"""

import dataclasses
import io
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from chukan.errors import Problem
from chukan.ops.sandbox.checkpoint_book import CheckpointBook
from chukan.platform.http.desks.door import CellDoor
from chukan.platform.http.desks.evidence import PartitionEvidence
from chukan.platform.http.desks.operations import PartitionOperations
from chukan.tenants import evidence_check, evidence_file
from chukan.tenants.directory import AgencyRow
from chukan.tenants.evidence import EvidenceError
from chukan.tenants.evidence_report import Report, Rules
from chukan.tenants.records import RecordError
from chukan.tenants.sealing import SealError
from chukan.tests.records import acting
from chukan.tests.records.bending import CODE, KEYS, ORIGIN, SIZES, TABLES, Town
from chukan.tests.records.test_operations_tampering import OWN, Judged
from chukan.tests.records.test_tampering_matrix import MATRIX

pytestmark = pytest.mark.requirement("REC-02", "AUT-03")
Bend = Callable[[Town], Awaitable[None]]
Tables = dict[str, bytes]
LOGS = {"records": (Town, TABLES, CODE), "operations": (Judged, acting.TABLES, acting.NAME)}
ASKED = (0, 22, 23, 40, 46, 49)
"""Places of the records that are proved: those that the rows bend, and a few beside them."""
_kept: dict[tuple[str, str], tuple[int, Any, dict[int, bytes], Tables]] = {}

# What the records' calls never give out, so that bending it deceives nobody who asks there: a file of the log shows it.
UNSEEN = {
    "leaf_reorder_of_hashes": "hashes are computed from the leaves, the column is not given",
    "checkpoint_delete": "only the newest checkpoint is given",
    "checkpoint_insert": "as above",
    "checkpoint_insert_by_the_log": "as above",
    "checkpoint_reorder": "as above",
    "map_of_another_log": "the map is proved by a resident's answer, not by single proofs",
    "cosignature_reorder": "only the newest checkpoint's cosignatures are given",
}


async def named(shelf: Any) -> str:
    return str(await shelf.admin.fetchval("SELECT current_setting('server_version') || current_database()"))


async def take(town: Town, tables: tuple[str, ...]) -> Tables:
    """Take a log out, as a backup does."""
    found = {}
    for table in tables:
        buffer = io.BytesIO()
        await town.shelf.admin.copy_from_table(table, schema_name=town.shelf.schema, output=buffer, format="binary")
        found[table] = buffer.getvalue()
    return found


async def put(town: Town, backup: Tables) -> None:
    """Put a log back in place of the one that is there."""
    async with town.shelf.admin.transaction():
        await town.shelf.admin.execute("SET LOCAL session_replication_role = replica")
        for table, rows in backup.items():
            await town.shelf.admin.execute(f"DELETE FROM {town.shelf.schema}.{table}")
            await town.shelf.admin.copy_to_table(
                table, schema_name=town.shelf.schema, source=io.BytesIO(rows), format="binary"
            )


@pytest.fixture
async def town(shelf: Any, log: str) -> Town:
    kind, tables, _ = LOGS[log]
    database = await named(shelf)
    if (database, log) not in _kept:
        made = kind(shelf)
        await made.fill()
        _kept[database, log] = (shelf.agency, shelf.keys, made.notes, await take(made, tables))
    agency, keys, notes, whole = _kept[database, log]
    made = kind(dataclasses.replace(shelf, agency=agency, keys=keys))
    made.notes = dict(notes)
    await put(made, whole)
    return made


class Server:
    """An agency's API over its log, and the agency's client with a checkpoint that it kept."""

    def __init__(self, town: Town, log: str, folder: Path) -> None:
        self.town = town
        self.log = log
        self.row = AgencyRow(number=town.shelf.agency, code=CODE, body="131016", name="x", cell="here", generation=1)
        self.name = LOGS[log][2]
        door = CellDoor(town.shelf.cells)
        self.evidence = PartitionEvidence(door, lambda _: town.shelf.keys, self.confirm)
        self.operations = PartitionOperations(door, lambda _: town.shelf.keys, self.confirm, KEYS.origin)
        self.book = CheckpointBook(folder / "kept", KEYS.known(self.name))
        self.ids: list[Any] = []
        self.book.path.write_bytes(town.notes[SIZES[-1]])

    async def begin(self) -> None:
        """Remember what the agency knows before anything is bent: the ids of its records."""
        if self.log == "records":
            self.ids = [row["record"] for row in await self.town.rows("SELECT record FROM {s}.log ORDER BY seq")]

    async def confirm(self, _cell: str) -> None:
        """Everything is durable here."""

    async def checkpoint(self) -> Any:
        return await (self.evidence if self.log == "records" else self.operations).checkpoint(self.row)

    async def consistency(self, first: int) -> Any:
        return await (self.evidence if self.log == "records" else self.operations).consistency(self.row, first)

    async def judged(self) -> Report | None:
        """What the client finds; None where the server itself has no answer any more."""
        rules = Rules(KEYS.known(self.name), [self.town.notes[size] for size in SIZES])
        if self.log == "operations":
            pieces = [piece async for piece in self.operations.export(self.row)]
            return evidence_check.check(evidence_file.decode(io.BytesIO(b"".join(pieces))), rules)
        try:
            await self.book.look(self)
            lines = await self.proofs()
        except (Problem, EvidenceError, RecordError, SealError):
            return None
        return evidence_check.check(iter(lines), rules._replace(known=rules.known[-1:]))

    async def proofs(self) -> list[Any]:
        """Records that the agency knows of (it kept their ids), each with its proof."""
        (count,) = await self.town.rows("SELECT count(*) FROM {s}.records")
        given = [await self.evidence.proof(self.row, self.ids[place]) for place in ASKED]
        note = (await self.checkpoint()).note
        lines: list[Any] = [
            evidence_file.Header(origin=ORIGIN, of="proofs", records=True),
            evidence_file.CheckpointLine(note),
        ]
        lines += [
            evidence_file.ProofLine(
                position=each.position, data=each.data, path=each.path, salt=each.salt, record=each.record
            )
            for each in given
        ]
        # The agency knows how many records it made.
        return lines if count[0] == SIZES[-1] else []


def _rows(log: str) -> list[Any]:
    rows = [(OWN.get(bend.__name__, bend) if log == "operations" else bend, code) for bend, code, _ in MATRIX]
    # An operations log has no map of labels.
    return [row for row in rows if log == "records" or not row[0].__name__.startswith("map_")]


CELLS = [pytest.param(log, bend, code, id=f"{log}-{bend.__name__}") for log in LOGS for bend, code in _rows(log)]


@pytest.mark.full
@pytest.mark.parametrize(("log", "bend", "code"), CELLS)
async def test_a_bent_backup_is_found_when_it_is_restored(town: Town, log: str, bend: Bend, code: str) -> None:
    tables = LOGS[log][1]
    await bend(town)
    bent = await take(town, tables)
    _, _, _, sound = _kept[await named(town.shelf), log]
    await put(town, sound)
    await put(town, bent)
    assert code in [finding.code for finding in (await town.check(*SIZES)).findings]


@pytest.mark.parametrize(("log", "bend", "code"), CELLS)
async def test_a_bent_log_is_found_by_who_asks_the_api(
    town: Town, log: str, bend: Bend, code: str, tmp_path: Path
) -> None:
    server = Server(town, log, tmp_path)
    await server.begin()
    await bend(town)
    found = await server.judged()
    if log == "operations":
        assert found is not None
        assert code in [finding.code for finding in found.findings]
    else:
        seen = found is None or not found.sound
        assert seen is (bend.__name__ not in UNSEEN)


@pytest.mark.parametrize("log", LOGS)
async def test_what_is_untouched_is_found_sound_everywhere(town: Town, log: str, tmp_path: Path) -> None:
    await put(town, await take(town, LOGS[log][1]))
    assert (await town.check(*SIZES)).sound
    server = Server(town, log, tmp_path)
    await server.begin()
    report = await server.judged()
    assert report is not None
    assert report.findings == []
    assert report.records == (SIZES[-1] if log == "operations" else len(ASKED))
