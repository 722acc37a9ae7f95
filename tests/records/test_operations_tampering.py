"""The tampering matrix once more, over an operations log: the same bends, the same places, the same words."""

import dataclasses
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from chukan.tenants import evidence_check
from chukan.tenants.evidence_report import Report, Rules
from chukan.tenants.operations import make_operation
from chukan.tests.records import bending
from chukan.tests.records.acting import NAME, TABLES, ActingTown, act
from chukan.tests.records.bending import CHANCE, KEYS, SIZES, Town
from chukan.tests.records.test_tampering_matrix import EXACT, MATRIX, NOWHERE

_kept: dict[str, tuple[int, Any, dict[int, bytes]]] = {}
Bend = Callable[[Town], Awaitable[None]]


class Judged(ActingTown):
    """Judges with the operations log's own keys."""

    async def check(self, *known: int, records: bool = True) -> Report:
        rules = Rules(KEYS.known(NAME), [self.notes[size] for size in known])
        return evidence_check.check(iter(await self.export(records=records)), rules)


@pytest.fixture
async def town(shelf: Any) -> ActingTown:
    database = await shelf.admin.fetchval("SELECT current_setting('server_version') || current_database()")
    if database not in _kept:
        made = Judged(shelf)
        await made.fill()
        _kept[database] = (shelf.agency, shelf.keys, made.notes)
        await shelf.admin.execute("CREATE SCHEMA kept_operations")
        for table in TABLES:
            await made.shelf.admin.execute(f"CREATE TABLE kept_operations.{table} AS TABLE {shelf.schema}.{table}")
    agency, keys, notes = _kept[database]
    made = Judged(dataclasses.replace(shelf, agency=agency, keys=keys))
    made.notes = notes
    for table in TABLES:
        await shelf.admin.execute(f"DELETE FROM {made.shelf.schema}.{table}")
        await shelf.admin.execute(f"INSERT INTO {made.shelf.schema}.{table} SELECT * FROM kept_operations.{table}")
    return made


async def entry_edit(town: Town) -> None:
    """Another act under the same id, sealed with the agency's own keys."""
    (row,) = await town.rows("SELECT operation AS id FROM {s}.log WHERE seq = 23")
    made = make_operation(town.shelf.keys, CHANCE, act(town.shelf.agency, "officer-9"))
    body = town.shelf.keys.open("operation", made.id.bytes, made.body)
    sealed = town.shelf.keys.seal("operation", row["id"].bytes, body)
    await town.shelf.admin.execute(
        f"UPDATE {town.shelf.schema}.operations SET body = $2, commitment = $3 WHERE id = $1",
        row["id"], sealed, made.commitment,
    )  # fmt: skip


async def entry_fork(town: Town) -> None:
    """Another act, and a leaf that commits to it, all hashes made anew."""
    await entry_edit(town)
    (row,) = await town.rows(
        "SELECT r.commitment FROM {s}.log l JOIN {s}.records r ON r.id = l.record WHERE l.seq = 23"
    )
    leaves = await town.leaves()
    leaves[22] = leaves[22][:1] + row["commitment"] + leaves[22][33:]
    await town.rewrite(leaves)


async def entry_insert(town: Town) -> None:
    row = make_operation(town.shelf.keys, CHANCE, act(town.shelf.agency))
    await town.shelf.admin.execute(
        f"INSERT INTO {town.shelf.schema}.operations (id, label, body, commitment, at)"
        " VALUES ($1, $2, $3, $4, now() - interval '1 day')",
        *row[1:],
    )


OWN: dict[str, Bend] = {
    "record_edit": entry_edit,
    "record_fork": entry_fork,
    "record_insert": entry_insert,
}
# An operations log has no map of labels: what bends one is not of it.
ROWS = [
    (OWN.get(bend.__name__, bend), code, where) for bend, code, where in MATRIX if not bend.__name__.startswith("map_")
]


@pytest.mark.parametrize(("bend", "code", "where"), ROWS, ids=[row[0].__name__ for row in ROWS])
async def test_what_was_tampered_with_in_operations_is_found(
    town: ActingTown, bend: Bend, code: str, where: tuple[int, int] | None
) -> None:
    assert (await town.check(*SIZES)).findings == []
    await bend(town)
    report = await town.check(*SIZES)
    assert code in [finding.code for finding in report.findings]
    bad = report.first_bad
    assert (None if bad is None else (bad.first, bad.last)) == where


async def test_untouched_operations_are_never_found_fault_with(town: ActingTown) -> None:
    report = await town.check(*SIZES)
    assert (report.sound, report.leaves, report.records, report.cosigned_size) == (True, 50, 50, 50)
    report = await town.check(records=False)
    assert (report.sound, report.leaves, report.records) == (True, 50, 0)
    assert EXACT != NOWHERE
    await bending.leaf_edit(town)
    assert not (await town.check(records=False)).sound
