"""An agency of its own for each test, on each supported server, and records for it."""

import contextlib
import dataclasses
import datetime as dt
import hashlib
import itertools
import os
import uuid
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from chukan.chance import SystemChance
from chukan.clock import SystemClock
from chukan.tenants.births import birth
from chukan.tenants.partition import Partition, act_for
from chukan.tenants.records import RecordFields, make_record
from chukan.tenants.sealing import AgencyKeys, KeySet
from chukan.tenants.sets import CellSets

AT = dt.datetime(2026, 11, 23, 3, 0, tzinfo=dt.UTC)
CHANCE = SystemChance(SystemClock())
_numbers = itertools.count(1)


def keys_of(agency: int) -> AgencyKeys:
    secrets = [hashlib.sha256(f"{agency} {word}".encode()).digest() for word in ("data", "index", "answer")]
    return AgencyKeys(KeySet(agency, {1: secrets[0]}, secrets[1], {1: secrets[2]}), os.urandom)


@dataclasses.dataclass
class Shelf:
    """One agency's records: its door, its keys, the cell's set functions, and an administrator's hands."""

    agency: int
    keys: AgencyKeys
    sets: CellSets
    cells: Any
    admin: Any

    @property
    def schema(self) -> str:
        return f"a{self.agency:05d}"

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[Partition]:
        async with act_for(self.cells.primary("here").app, self.agency) as partition:
            yield partition

    def person(self, addressee: str) -> bytes:
        return self.keys.digest("addressee", addressee.encode())

    def fields(self, **changes: Any) -> RecordFields:
        given: dict[str, Any] = {
            "id": CHANCE.uuid7(),
            "side": "provider",
            "inquirer": "9901131016000001",
            "provider": "9901141003000001",
            "department": "保育課",
            "affair": "JM00000000000001",
            "procedure": "JT00000000000001",
            "kind": "TM00000000000002",
            "items": ["TM1"],
            "outcome": "provided",
            "asked_at": AT,
            "closed_at": AT,
        }
        return RecordFields(**{**given, **changes})

    async def record(self, addressee: str = "A1", **changes: Any) -> uuid.UUID:
        """Put a record where a final outcome's commit would."""
        row = make_record(self.keys, CHANCE, self.fields(**changes), person=self.person(addressee))
        await self.admin.execute(
            f"INSERT INTO {self.schema}.records (agency, id, label, month, sealed, commitment, amends)"
            " VALUES ($1, $2, $3, $4, $5, $6, $7)",
            self.agency, row.id, row.label, row.month, row.sealed, row.commitment, row.amends,
        )  # fmt: skip
        await self.admin.execute("INSERT INTO chukan.to_sequence (agency, record) VALUES ($1, $2)", self.agency, row.id)
        return row.id

    async def records(self, count: int) -> list[uuid.UUID]:
        """Put many records of few persons where final outcomes' commits would."""
        rows = [
            make_record(self.keys, CHANCE, self.fields(id=CHANCE.uuid7()), person=self.person(f"A{n % 5}"))
            for n in range(count)
        ]
        async with self.admin.transaction():
            await self.admin.executemany(
                f"INSERT INTO {self.schema}.records (agency, id, label, month, sealed, commitment)"
                " VALUES ($1, $2, $3, $4, $5, $6)",
                [(self.agency, row.id, row.label, row.month, row.sealed, row.commitment) for row in rows],
            )
            await self.admin.executemany(
                "INSERT INTO chukan.to_sequence (agency, record) VALUES ($1, $2)",
                [(self.agency, row.id) for row in rows],
            )
        return [row.id for row in rows]

    async def bend(self, sql: str, *values: Any) -> str:
        """Do to records what nothing lets anybody do: as a superuser without triggers."""
        async with self.admin.transaction():
            await self.admin.execute("SET LOCAL session_replication_role = replica")
            return await self.admin.execute(sql, *values)

    async def sequence(self) -> None:
        """Give everything that waits in the cell its place."""
        while await self.sets.sequence("tests", 1000):
            pass


@pytest.fixture(scope="session")
def cell(either_server: Any, make_cell: Callable[..., Any]) -> Any:
    return make_cell(either_server, [])


@pytest.fixture
async def shelf(cell: Any, open_cell: Callable[..., Any]) -> AsyncIterator[Shelf]:
    cells = await open_cell(cell)
    admin = await cell.admin()
    agency = next(_numbers)
    await birth(admin, agency)
    yield Shelf(agency, keys_of(agency), CellSets(cells.primary("here").broker), cells, admin)
    # What a test bent must not stand in the way of the next one's records: the sequencer serves the whole cell.
    await admin.execute("DELETE FROM chukan.to_sequence")
    # Nor its log, where it was left without a checkpoint: its age is the cell's.
    await admin.execute("DELETE FROM chukan.log_heads WHERE agency = $1", agency)
    await admin.close()


@pytest.fixture
async def neighbour(shelf: Shelf) -> Shelf:
    """Another agency of the same cell."""
    agency = next(_numbers)
    await birth(shelf.admin, agency)
    return dataclasses.replace(shelf, agency=agency, keys=keys_of(agency))
