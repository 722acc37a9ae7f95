"""The agency's own operations log by its API: read, proved, kept, taken along, also over a restore."""

import uuid
from pathlib import Path
from typing import Any

import pytest

from chukan.errors import Problem
from chukan.ops.sandbox.checkpoint_book import CheckpointBook
from chukan.platform.http.desks.door import CellDoor
from chukan.platform.http.desks.operations import PartitionOperations
from chukan.platform.wire.evidence import CheckpointView, ConsistencyProof
from chukan.tenants import merkle
from chukan.tenants.directory import AgencyRow
from chukan.tenants.evidence_check import is_committed
from chukan.tests.records.acting import NAME, place
from chukan.tests.records.bending import CODE, KEYS
from chukan.tests.records.test_restored_operations import BACK, NOW, SEEN, Restored

pytestmark = pytest.mark.requirement("AUT-03")


class Asked:
    """The agency's client at the desk."""

    def __init__(self, shelf: Any) -> None:
        number = shelf.agency
        self.row = AgencyRow(number=number, code=CODE, body="131016", name="x", cell="here", generation=1)
        self.confirmed = 0
        self.desk = PartitionOperations(CellDoor(shelf.cells), lambda _: shelf.keys, self.confirm, KEYS.origin)

    async def confirm(self, _cell: str) -> None:
        self.confirmed += 1

    async def checkpoint(self) -> CheckpointView:
        return await self.desk.checkpoint(self.row)

    async def consistency(self, first: int) -> ConsistencyProof:
        return await self.desk.consistency(self.row, first)


async def test_before_anything_is_signed_proofs_are_pending(shelf: Any) -> None:
    town, asked = Restored(shelf), Asked(shelf)
    await town.enter("officer-1")
    await place(shelf)
    ((operation,),) = await town.rows("SELECT operation FROM {s}.log")
    for call in (asked.checkpoint(), asked.consistency(1), asked.desk.proof(asked.row, operation)):
        with pytest.raises(Problem, match="proof_pending"):
            await call


async def test_entries_are_read_and_proved_and_the_kept_checkpoint_survives_a_restore_by_its_leaf_alone(
    shelf: Any, tmp_path: Path
) -> None:
    town, asked = Restored(shelf), Asked(shelf)
    await town.fill_seen()
    first = await asked.desk.page(asked.row, 0, 30)
    rest = await asked.desk.page(asked.row, first.next or 0, 30)
    assert [each.position for each in [*first.entries, *rest.entries]] == list(range(1, SEEN + 1))
    assert (first.next, rest.next) == (30, None)
    proof = await asked.desk.proof(asked.row, first.entries[22].id)
    said = KEYS.verify(proof.checkpoint.note.encode(), NAME).checkpoint
    leaf = merkle.leaf_hash(proof.data)
    assert merkle.verify_inclusion(leaf, proof.position - 1, said.size, proof.path, said.root)
    assert is_committed(proof.data, proof.salt, proof.record)
    assert str(first.entries[22].id).encode() in proof.record
    with pytest.raises(Problem, match="not_found"):
        await asked.desk.proof(asked.row, uuid.uuid4())
    book = CheckpointBook(tmp_path / "kept", KEYS.known(NAME))
    book.path.write_bytes(town.notes[37])
    assert (await book.look(asked)).before == 37
    assert asked.confirmed >= 3
    # Set back without a word, it contradicts what was kept, whatever is asked; with the leaf only when asked.
    await town.set_back()
    with pytest.raises(Problem, match="log_contradicted"):
        await book.look(asked)
    with pytest.raises(Problem, match="invalid_field"):
        await book.look(asked, replace=True)
    await town.mark()
    await town.go_on(NOW - BACK - 1)
    with pytest.raises(Problem, match="log_contradicted"):
        await book.look(asked)
    assert (await book.look(asked, replace=True)).size == NOW
