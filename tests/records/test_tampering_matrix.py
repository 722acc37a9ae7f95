"""The tampering matrix on a real database: whatever is done to record, leaf, checkpoint or cosignature is found."""

import dataclasses
import io
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest

from chukan.tenants import evidence_check, evidence_file, merkle
from chukan.tenants.evidence_report import Report, Rules
from chukan.tests.records import bending
from chukan.tests.records.bending import CODE, KEYS, ORIGIN, SIZES, TABLES, Town, altered, judge

_kept: dict[str, tuple[int, Any, dict[int, bytes]]] = {}
"""By database: the one town that is bent again and again."""


@pytest.fixture
async def town(shelf: Any) -> Town:
    database = await shelf.admin.fetchval("SELECT current_setting('server_version') || current_database()")
    if database not in _kept:
        made = Town(shelf)
        await made.fill()
        _kept[database] = (shelf.agency, shelf.keys, made.notes)
        await made.run("CREATE SCHEMA kept")
        for table in TABLES:
            await made.run(f"CREATE TABLE kept.{table} AS SELECT * FROM {{s}}.{table}")
    agency, keys, notes = _kept[database]
    made = Town(dataclasses.replace(shelf, agency=agency, keys=keys))
    made.notes = dict(notes)
    for table in TABLES:
        await made.run(f"DELETE FROM {{s}}.{table}")
        await made.run(f"INSERT INTO {{s}}.{table} SELECT * FROM kept.{table}")
    return made


Bend = Callable[[Town], Awaitable[None]]
EXACT, NOWHERE = (23, 23), None
MATRIX: list[tuple[Bend, str, tuple[int, int] | None]] = [
    (bending.record_edit, "record", EXACT),
    (bending.record_edit_of_a_byte, "record", EXACT),
    (bending.record_delete, "record_missing", EXACT),
    (bending.record_insert, "record_without_leaf", NOWHERE),
    (bending.record_reorder, "record", EXACT),
    (bending.record_truncate, "record_missing", (46, 46)),
    (bending.record_fork, "leaf", (21, 37)),
    (bending.leaf_edit, "leaf", EXACT),
    (bending.leaf_edit_with_hash, "leaf", EXACT),
    (bending.leaf_edit_with_chain_and_tiles, "leaf", EXACT),
    (bending.leaf_delete, "position", EXACT),
    (bending.leaf_delete_and_move_up, "leaf", EXACT),
    (bending.leaf_delete_with_all_made_anew, "leaf", (21, 37)),
    (bending.leaf_insert, "leaf", EXACT),
    (bending.leaf_insert_with_all_made_anew, "leaf", EXACT),
    (bending.leaf_reorder, "leaf", EXACT),
    (bending.leaf_reorder_of_hashes, "leaf_hash", EXACT),
    (bending.leaf_truncate, "truncated", (38, 38)),
    (bending.leaf_truncate_inside, "truncated", (38, 46)),
    (bending.leaf_fork, "not_cosigned", (41, 41)),
    (bending.tile_edit, "tile", (19, 19)),
    (bending.tile_delete, "tile", (17, 17)),
    (bending.tile_reorder, "tile", (1, 1)),
    (bending.checkpoint_edit, "checkpoint", NOWHERE),
    (bending.checkpoint_delete, "checkpoint_missing", NOWHERE),
    (bending.checkpoint_insert, "checkpoint", NOWHERE),
    (bending.checkpoint_insert_by_the_log, "fork", NOWHERE),
    (bending.checkpoint_reorder, "checkpoint_order", NOWHERE),
    (bending.checkpoint_truncate, "rolled_back", (38, 50)),
    (bending.checkpoint_delete_all, "no_checkpoint", (1, 50)),
    (bending.checkpoint_fork, "fork", NOWHERE),
    (bending.map_of_another_log, "map", NOWHERE),
    (bending.map_twice, "checkpoint", NOWHERE),
    (bending.cosignature_edit, "cosignature", NOWHERE),
    (bending.cosignature_delete, "not_cosigned", NOWHERE),
    (bending.cosignature_insert, "cosignature", NOWHERE),
    (bending.cosignature_of_nobody, "not_cosigned", NOWHERE),
    (bending.cosignature_by_the_same_centre, "not_cosigned", NOWHERE),
    (bending.cosignature_reorder, "cosignature", NOWHERE),
    (bending.cosignature_truncate, "checkpoint", NOWHERE),
    (bending.cosignature_fork, "cosignature", NOWHERE),
]


@pytest.mark.parametrize(("bend", "code", "where"), MATRIX, ids=[row[0].__name__ for row in MATRIX])
async def test_what_was_tampered_with_is_found(
    town: Town, bend: Bend, code: str, where: tuple[int, int] | None
) -> None:
    assert (await town.check(*SIZES)).findings == []
    await bend(town)
    report = await town.check(*SIZES)
    assert code in [finding.code for finding in report.findings]
    bad = report.first_bad
    assert (None if bad is None else (bad.first, bad.last)) == where


async def test_what_is_untouched_is_never_found_fault_with(town: Town) -> None:
    report = await town.check(*SIZES)
    assert (report.sound, report.leaves, report.records, report.size, report.cosigned_size) == (True, 50, 50, 50, 50)
    assert (report.map_size, report.shows) == (50, "complete")
    # An operator's file has no records; a checker without an earlier checkpoint has less to hold it against.
    report = await town.check(records=False)
    assert (report.sound, report.leaves, report.records) == (True, 50, 0)
    # Records that wait for their place, and a log that goes on, change nothing of what was signed.
    await town.shelf.record("A1")
    await town.shelf.sequence()
    await town.shelf.record("A2")
    assert (await town.check(37)).sound


async def test_every_change_of_a_line_of_the_file_is_found(town: Town) -> None:
    lines = await town.export()
    raw = list(evidence_file.encode(lines))
    known = [town.notes[size] for size in SIZES]

    def check(changed: list[bytes]) -> Report:
        return evidence_check.check(evidence_file.decode(io.BytesIO(b"".join(changed))), Rules(KEYS.known(CODE), known))

    assert check(raw).sound
    for place in range(1, len(raw)):
        before, line, after = raw[:place], raw[place], raw[place + 1 :]
        assert not check([*before, *after]).sound
        assert not check([*before, line, line, *after]).sound
        if after and place > 3:
            assert not check([*before, after[0], line, *after[1:]]).sound
        for at in range(20, len(line) - 2, max(1, len(line) // 9)):
            changed = line[:at] + bytes([line[at] ^ 1]) + line[at + 1 :]
            try:
                same = list(evidence_file.decode(io.BytesIO(b"".join([*before, changed, *after])))) == lines
            except evidence_file.EvidenceFileError:
                same = False
            # Another writing of the same bytes, as base64 knows them, is no change.
            assert check([*before, changed, *after]).sound is same
        assert not check([*before, line[: len(line) // 2]]).sound


async def test_a_lying_server_is_shown_by_two_files(town: Town) -> None:
    """Each file is whole in itself and signed by the log; the other centre can have cosigned one of them only."""
    mine = await town.export(records=False)
    await bending.leaf_fork(town)
    theirs = await town.export(records=False)
    rules = Rules(KEYS.known(CODE), need_cosigned=False)
    assert evidence_check.check(iter(theirs), rules).sound
    noted = [line.note.encode() for line in mine if isinstance(line, evidence_file.CheckpointLine)]
    found = evidence_check.check(iter(theirs), rules._replace(known=noted))
    assert "fork" in [finding.code for finding in found.findings]
    assert [each.code for each in evidence_check.check(iter(theirs), Rules(KEYS.known(CODE))).findings] == [
        "not_cosigned"
    ]


async def test_single_proofs_are_checked_alone(town: Town) -> None:
    lines = await town.export()
    checkpoint = [line for line in lines if isinstance(line, evidence_file.CheckpointLine)][-1]
    leaves = [line for line in lines if isinstance(line, evidence_file.LeafLine)]
    hashes = [line.hash for line in leaves]

    def proof(place: int) -> evidence_file.ProofLine:
        ranges = merkle.inclusion_ranges(place, 50)
        path = [merkle.root_of(hashes[begin:end]) for begin, end in ranges]
        leaf = leaves[place]
        return evidence_file.ProofLine(
            position=place + 1, data=leaf.data, path=path, salt=leaf.salt, record=leaf.record
        )

    head = [evidence_file.Header(origin=ORIGIN, of="proofs", records=True), checkpoint]
    assert judge([*head, proof(3), proof(49)]).records == 2
    for changes, code in (
        ({"position": 5}, "proof"),
        ({"data": altered(leaves[3].data)}, "proof"),
        ({"record": leaves[4].record}, "record"),
        ({"salt": None}, "record"),
        ({"record": None}, "record_missing"),
    ):
        bad = msgspec.structs.replace(proof(3), **changes)
        assert [each.code for each in judge([*head, proof(7), bad]).findings] == [code]
    assert not judge([head[0], proof(3)]).sound


def test_what_is_no_evidence_file_is_one_finding() -> None:
    for raw in (b"", b"\n", b"{}\n", b"null\n", b'{"kind":"leaf"}\n', b"\xff\n", b"[" * 100_000):
        report = evidence_check.check(evidence_file.decode(io.BytesIO(raw)), Rules(KEYS.known(CODE)))
        assert [finding.code for finding in report.findings] == ["file"]
