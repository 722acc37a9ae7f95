"""A cell with six agencies, and rows to put into it. Tests of a session share it: each takes new ids and persons."""

import contextlib
import dataclasses
import datetime as dt
import hashlib
import os
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from chukan.tenants.rows import (
    AcceptBatch,
    AcceptLine,
    AnswerRow,
    Grant,
    InquirySettle,
    ProvideRow,
    ProvisionSettle,
    RecordRow,
)
from chukan.tenants.sets import CellSets
from chukan.tenants.states import InquiryState, Outcome, ProvisionState, Side

AGENCIES = [1, 2, 3, 42, 1788, 99999]
MONTH = dt.date(2026, 11, 1)


class Maker:
    """Makes rows with ids of their own; every field can be given."""

    def __init__(self) -> None:
        self.now = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
        """Long past for the server, so that what is due now is due."""
        self.far = dt.datetime(2099, 1, 1, tzinfo=dt.UTC)

    def id(self) -> uuid.UUID:
        return uuid.UUID(bytes=os.urandom(16), version=4)

    def digest(self, word: object = None) -> bytes:
        return hashlib.sha256(str(self.id() if word is None else word).encode()).digest()

    def record(self, line: uuid.UUID, label: bytes | None = None, *, amends: bool = False) -> RecordRow:
        return RecordRow(
            id=self.id() if amends else line,
            label=label or self.digest(),
            month=MONTH,
            sealed=b"sealed record",
            commitment=self.digest(),
            amends=line if amends else None,
        )

    def batch(self, agency: int = 1, **fields: Any) -> AcceptBatch:
        given = {"agency": agency, "generation": 1, "key": self.digest(), "body": self.digest(), "batch": self.id()}
        return AcceptBatch(**{**given, **fields})

    def line(self, batch: AcceptBatch, ordinal: int = 0, **fields: Any) -> AcceptLine:
        given: dict[str, Any] = {
            "agency": batch.agency,
            "batch": batch.batch,
            "id": self.id(),
            "ordinal": ordinal,
            "state": InquiryState.ACCEPTED,
            "outcome": Outcome.NONE,
            "reason": None,
            "due": self.now,
            "deadline": self.far,
            "person": self.digest(),
            "request": b"sealed request",
            "outbox": b"sealed permit request",
        }
        return AcceptLine(**{**given, **fields})

    def settle(self, line: AcceptLine, state: InquiryState, outcome: Outcome, **fields: Any) -> InquirySettle:
        given: dict[str, Any] = {
            "agency": line.agency,
            "id": line.id,
            "state": state,
            "outcome": outcome,
            "reason": None,
            "due": self.far,
            "deadline": self.far,
            "record": self.record(line.id) if state >= InquiryState.ANSWERED else None,
        }
        return InquirySettle(**{**given, **fields})

    def answer(self, line: AcceptLine, outcome: Outcome = Outcome.PROVIDED, **fields: Any) -> AnswerRow:
        held = outcome is Outcome.UNDER_REVIEW
        given: dict[str, Any] = {
            "agency": line.agency,
            "generation": 1,
            "inbox": self.id(),
            "id": line.id,
            "state": InquiryState.HELD if held else InquiryState.ANSWERED,
            "outcome": outcome,
            "reason": None,
            "answer": None if held else b"sealed answer",
            "record": None if held else self.record(line.id),
            "amendment": None if held else self.record(line.id, amends=True),
        }
        return AnswerRow(**{**given, **fields})

    def provide(self, agency: int = 1, *, held: bool = False, **fields: Any) -> ProvideRow:
        line = fields.pop("id", None) or self.id()
        given: dict[str, Any] = {
            "agency": agency,
            "generation": 1,
            "inbox": self.id(),
            "id": line,
            "permit": self.digest(),
            "permit_until": self.far,
            "permit_issued": self.now,
            "notice": b"sealed notice",
            "state": ProvisionState.HELD if held else ProvisionState.ANSWERED,
            "outcome": Outcome.UNDER_REVIEW if held else Outcome.PROVIDED,
            "reason": None,
            "person": None,
            "link_version": 0,
            "hold_version": 0,
            "snapshot": 0,
            "deadline": self.far,
            "outbox": b"sealed answer",
            "record": None if held else self.record(line),
        }
        return ProvideRow(**{**given, **fields})

    def receipt(self, row: ProvideRow, state: ProvisionState, outcome: Outcome, **fields: Any) -> ProvisionSettle:
        given: dict[str, Any] = {
            "agency": row.agency,
            "id": row.id,
            "state": state,
            "outcome": outcome,
            "due": self.far,
        }
        return ProvisionSettle(**{**given, **fields})


@dataclasses.dataclass
class Bench:
    """The set functions of the cell, an administrator's eyes, and leases on all shards."""

    sets: CellSets
    admin: Any
    cells: Any
    owner: str
    admin_too: Callable[[], Awaitable[Any]]
    """Opens another administrator's connection; closed with the test."""

    async def all_grants(self, side: Side) -> list[Grant]:
        """Take every shard of a side from whoever had it."""
        await self.admin.execute("UPDATE chukan.leases SET until = '-infinity' WHERE owner <> $1", self.owner)
        return await self.sets.lease(self.owner, side, 64, 60)

    async def rows(self, agency: int, table: str, *ids: uuid.UUID, by: str = "id") -> list[Any]:
        """The rows of an agency's leaf with these ids."""
        return await self.admin.fetch(f"SELECT * FROM a{agency:05d}.{table} WHERE {by} = ANY($1)", list(ids))

    async def fenced(self, call: Awaitable[Any]) -> Any:
        """Await a call that finds its work done before, and see that it wrote a fence, so that its commit waits."""
        await self.admin.execute("CREATE EXTENSION IF NOT EXISTS pg_walinspect")
        before = await self.admin.fetchval("SELECT pg_current_wal_flush_lsn()")
        result = await call
        fences = await self.admin.fetchval(
            "SELECT count(*) FROM pg_get_wal_records_info($1, pg_current_wal_flush_lsn())"
            " WHERE resource_manager = 'LogicalMessage'",
            before,
        )
        assert fences >= 1, "nothing made this commit wait"
        return result

    async def work(self, table: str, line: uuid.UUID) -> Any:
        """A line's work row."""
        return await self.admin.fetchrow(f"SELECT * FROM chukan.{table} WHERE id = $1", line)

    async def steps(self, agency: int, line: uuid.UUID) -> list[tuple[int | None, int]]:
        """A line's events, in order."""
        rows = await self.admin.fetch(
            f"SELECT from_state, to_state FROM a{agency:05d}.events WHERE id = $1 ORDER BY n", line
        )
        return [tuple(row) for row in rows]


@pytest.fixture
def make() -> Maker:
    return Maker()


@pytest.fixture(scope="session")
def cell(any_server: Any, make_cell: Callable[..., Any]) -> Any:
    return make_cell(any_server, AGENCIES)


@pytest.fixture
async def bench(cell: Any, open_cell: Callable[..., Any], make: Maker) -> Any:
    cells = await open_cell(cell)
    admin = await cell.admin()
    async with contextlib.AsyncExitStack() as stack:

        async def admin_too() -> Any:
            found = await cell.admin()
            stack.push_async_callback(found.close)
            return found

        yield Bench(CellSets(cells.primary("here").broker), admin, cells, f"worker {make.id()}", admin_too)
    await admin.close()
