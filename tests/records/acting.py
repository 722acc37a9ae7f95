"""An agency's operations log for tests: acts entered, placed and signed, and the tampering matrix's hands on it."""

import re
from typing import Any

from chukan.tenants import checkpoint as forms
from chukan.tenants import merkle
from chukan.tenants.evidence import Signer
from chukan.tenants.operations import Operation, make_operation
from chukan.tenants.operations_export import AgencyLog, export_operations
from chukan.tenants.operations_tree import OperationTrees, agency_log
from chukan.tests.records.bending import AT, CHANCE, CODE, KEYS, PRIVATE, SIZES, WEST, Town
from chukan.tests.records.conftest import AT as NOW

NAME = agency_log(CODE)
ORIGIN = KEYS.origin(NAME)
TABLES = ("operations", "operation_log", "operation_tiles", "operation_checkpoints", "operation_cosignatures")
_RENAMED = {
    "records": TABLES[0],
    "log": TABLES[1],
    "tiles": TABLES[2],
    "checkpoints": TABLES[3],
    "cosignatures": TABLES[4],
}


def act(agency: int | None, actor: str = "officer-1", **changes: Any) -> Operation:
    given: dict[str, Any] = {
        "agency": agency,
        "actor": actor,
        "kind": "review.approve",
        "subject_class": "provision",
        "outcome": "done",
        "at": NOW,
    }
    return Operation(**given | changes)


class ActingTown(Town):
    """The same bends as of the provision records' log, in words that are translated to the operations log's tables."""

    @staticmethod
    def translated(sql: str) -> str:
        for old, new in _RENAMED.items():
            sql = re.sub(rf"\{{s\}}\.{old}\b", f"{{s}}.{new}", sql)
        sql = re.sub(r"\b([lab])\.record\b", r"\1.operation", sql).replace("SET record =", "SET operation =")
        return sql.replace("sealed", "body").replace("array_agg(record ", "array_agg(operation ")

    async def run(self, sql: str, *values: Any) -> None:
        if sql.startswith("INSERT INTO {s}.log (agency,"):
            sql = sql.replace("(agency, seq, record,", "(seq, operation,").replace("SELECT $1, n,", "SELECT n,")
            sql, values = sql.replace("$2", "$1").replace("$3", "$2"), values[1:]
        await super().run(self.translated(sql), *values)

    async def rows(self, sql: str) -> list[Any]:
        return await super().rows(self.translated(sql))

    async def fill(self) -> None:
        signer = Signer(OperationTrees(self.shelf.sets), KEYS, {self.shelf.agency: NAME}.get, lambda _: None)
        before = 0
        for size in SIZES:
            for n in range(before, size):
                await self.enter(f"officer-{n % 5}")
            await place(self.shelf)
            assert await signer.sign_due() == 1
            await self.cosign(size)
            before = size
        await self.run("UPDATE {s}.records SET at = at - interval '1 day'")

    async def enter(self, actor: str) -> None:
        row = make_operation(self.shelf.keys, CHANCE, act(self.shelf.agency, actor))
        assert await self.shelf.sets.operations_append([row]) == 1

    async def cosign(self, size: int) -> None:
        (row,) = await self.rows(f"SELECT note FROM {{s}}.checkpoints WHERE size = {size}")
        note = forms.parse_note(row["note"])
        line = forms.cosign(note.text, WEST, PRIVATE["w"], AT)
        assert await self.shelf.sets.operations_cosign(self.shelf.agency, size, WEST, line.line().encode())
        self.notes[size] = note.signed_too([line]).encode()

    async def export(self, *, records: bool = True) -> list[Any]:
        keys = self.shelf.keys if records else None
        return [line async for line in export_operations(AgencyLog(self.door), ORIGIN, keys, clear=False)]

    async def sign(self, size: int, root: bytes, key: str = "e") -> None:
        note = forms.sign(forms.Checkpoint(ORIGIN, size, root), PRIVATE[key]).encode()
        await self.run("DELETE FROM {s}.checkpoints WHERE size = $1", size)
        await self.run("INSERT INTO {s}.checkpoints (size, root, note) VALUES ($1, $2, $3)", size, root, note)


async def place(shelf: Any) -> None:
    """Give every entry that waits in the cell its place."""
    while await shelf.sets.operations_sequence(200) > 0:
        pass


def roots_of(leaves: list[bytes]) -> bytes:
    return merkle.root_of([merkle.leaf_hash(leaf) for leaf in leaves])
