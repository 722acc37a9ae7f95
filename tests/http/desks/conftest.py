"""The desks on a real cell: an agency of its own for each test, its keys, and an administrator's eyes."""

import hashlib
import itertools
import os
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from chukan.chance import SystemChance
from chukan.clock import SystemClock
from chukan.platform.http.desks.copies import PartitionCopies
from chukan.platform.http.desks.door import CellDoor
from chukan.platform.http.desks.loads import PartitionLoads
from chukan.platform.http.desks.records import PartitionRecords
from chukan.platform.http.ports import RequestKey
from chukan.platform.law import Law
from chukan.platform.metrics import Metrics
from chukan.tenants.births import birth
from chukan.tenants.directory import AgencyRow
from chukan.tenants.sealing import AgencyKeys, KeySet

KIND = "TM00000000000089"
LAYOUT = 202506
_numbers = itertools.count(1)


def keys_of(agency: int) -> AgencyKeys:
    secrets = [hashlib.sha256(f"{agency} {word}".encode()).digest() for word in ("data", "index", "answer")]
    return AgencyKeys(KeySet(agency, {1: secrets[0]}, secrets[1], {1: secrets[2]}), os.urandom)


@dataclass
class Office:
    """One agency and its three desks."""

    agency: AgencyRow
    copies: PartitionCopies
    loads: PartitionLoads
    records: PartitionRecords
    metrics: Metrics
    door: CellDoor
    admin: Any

    async def rows(self, table: str) -> list[Any]:
        rows: list[Any] = await self.admin.fetch(f"SELECT * FROM a{self.agency.number:05d}.{table}")
        return rows


@pytest.fixture(scope="session")
def cell(embedded_server: Any, make_cell: Callable[..., Any]) -> Any:
    return make_cell(embedded_server, [])


@pytest.fixture(scope="session")
def law() -> Law:
    return Law.load()


@pytest.fixture
async def office(cell: Any, law: Law, open_cell: Callable[..., Any]) -> Any:
    cells = await open_cell(cell)
    admin = await cell.admin()
    number = next(_numbers)
    await birth(admin, number)
    clock, metrics = SystemClock(), Metrics()
    chance = SystemChance(clock)
    row = AgencyRow(number=number, code=f"{number:016d}", body="131016", name="x", cell="here", generation=1)
    door = CellDoor(cells)
    yield Office(
        row,
        PartitionCopies(door, keys_of, law, clock, chance),
        PartitionLoads(door, keys_of, law, clock, chance, metrics),
        PartitionRecords(door, keys_of),
        metrics,
        door,
        admin,
    )
    await admin.close()


@pytest.fixture
def fresh() -> Callable[..., RequestKey]:
    """A key of its own for each request, or the same one for the same word."""

    def make(word: str | None = None, content: bytes = b"content") -> RequestKey:
        return RequestKey(word or str(uuid.uuid4()), content)

    return make


@pytest.fixture
def account() -> dict[str, Any]:
    """The items of a copy of KIND."""
    return {
        "TKX0890000000001": "0001",
        "TKX0890000000002": "みどり銀行",
        "TKX0890000000003": "101",
        "TKX0890000000004": "本店",
        "TKX0890000000005": "1",
        "TKX0890000000006": "7654321",
        "TKX0890000000007": "ヤマダ　ハナコ",
        "TKX0890000000008": "2026-04-01",
    }
