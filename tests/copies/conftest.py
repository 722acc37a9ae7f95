"""An agency of its own for each test, on each supported server, and copies to give it."""

import contextlib
import dataclasses
import datetime as dt
import hashlib
import itertools
import os
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from chukan.tenants.births import birth
from chukan.tenants.copies import Copy
from chukan.tenants.partition import Partition, act_for
from chukan.tenants.sealing import AgencyKeys, KeySet

AT = dt.datetime(2026, 11, 23, 3, 0, tzinfo=dt.UTC)
KIND = "TM00000000000002"
_numbers = itertools.count(1)


def keys_of(agency: int) -> AgencyKeys:
    secrets = [hashlib.sha256(f"{agency} {word}".encode()).digest() for word in ("data", "index", "answer")]
    return AgencyKeys(KeySet(agency, {1: secrets[0]}, secrets[1], {1: secrets[2]}), os.urandom)


@dataclasses.dataclass
class Desk:
    """One agency's door, its keys, and an administrator's eyes."""

    agency: int
    keys: AgencyKeys
    cells: Any
    admin: Any
    cell: Any

    @property
    def schema(self) -> str:
        return f"a{self.agency:05d}"

    @contextlib.asynccontextmanager
    async def open(self, agency: int | None = None) -> AsyncIterator[Partition]:
        async with act_for(self.cells.primary("here").app, agency or self.agency) as partition:
            yield partition

    async def rows(self, table: str) -> list[Any]:
        return list(await self.admin.fetch(f"SELECT * FROM {self.schema}.{table}"))


def copy(addressee: str = "A1", **fields: Any) -> Copy:
    given: dict[str, Any] = {
        "addressee": addressee,
        "kind": KIND,
        "layout": 1,
        "effective_from": dt.date(2026, 4, 1),
        "period": "2026",
        "items": b'{"TM1":"1000","TM2":{"gap":"01"}}',
    }
    return Copy(**{**given, **fields})


@pytest.fixture(name="copy")
def copy_maker() -> Callable[..., Copy]:
    return copy


@pytest.fixture(scope="session")
def cell(either_server: Any, make_cell: Callable[..., Any]) -> Any:
    return make_cell(either_server, [])


@pytest.fixture
async def desk(cell: Any, open_cell: Callable[..., Any]) -> AsyncIterator[Desk]:
    cells = await open_cell(cell)
    admin = await cell.admin()
    agency = next(_numbers)
    await birth(admin, agency)
    yield Desk(agency, keys_of(agency), cells, admin, cell)
    await admin.close()


@pytest.fixture
async def neighbour(desk: Desk) -> Desk:
    """Another agency of the same cell."""
    agency = next(_numbers)
    await birth(desk.admin, agency)
    return dataclasses.replace(desk, agency=agency, keys=keys_of(agency))
