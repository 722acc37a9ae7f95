"""What the checkers look at: the world as it was left, what its clients know, and each row opened once."""

from __future__ import annotations

import uuid
from functools import cached_property
from typing import NamedTuple

import msgspec

from chukan.ops.simulation.clients import Journal
from chukan.ops.simulation.tables import InquiryLine, ProvisionLine
from chukan.ops.simulation.world import World
from chukan.platform.exchange.memos import NoticeMemo, open_notice
from chukan.platform.wire.network import InquirerPermit, PermitReply
from chukan.tenants.directory import AgencyRow
from chukan.tenants.records import RecordFields, open_record

LineKey = tuple[int, uuid.UUID]


class Exchanged(NamedTuple):
    """The network's row of a line."""

    inquirer: str
    request: uuid.UUID
    reference: uuid.UUID
    provider: str
    permit: InquirerPermit | None
    decided: str
    outcome: str | None


class Evidence:
    """A world at rest."""

    def __init__(self, world: World, journal: Journal) -> None:
        self.world = world
        self.journal = journal

    @cached_property
    def agencies(self) -> dict[str, AgencyRow]:
        """Agencies by code."""
        return {row.code: row for row in self.world.agencies()}

    @cached_property
    def inquiries(self) -> dict[LineKey, InquiryLine]:
        """Every query line of every cell."""
        return {key: row for cell in self.world.cells.values() for key, row in cell.tables.inquiries.items()}

    @cached_property
    def provisions(self) -> dict[LineKey, ProvisionLine]:
        """Every provision of every cell."""
        return {key: row for cell in self.world.cells.values() for key, row in cell.tables.provisions.items()}

    @cached_property
    def records(self) -> dict[int, list[RecordFields]]:
        """Every agency's records, opened, in the order in which they were written."""
        return {
            agency.number: [open_record(self.world.keys(agency), row) for row in table.records.values()]
            for agency, _, table in self.world.tables()
        }

    @cached_property
    def base_records(self) -> dict[LineKey, list[RecordFields]]:
        """The records of final outcomes, by line."""
        found: dict[LineKey, list[RecordFields]] = {}
        for agency, records in self.records.items():
            for record in records:
                if record.amends is None:
                    found.setdefault((agency, record.id), []).append(record)
        return found

    @cached_property
    def amendments(self) -> dict[LineKey, list[RecordFields]]:
        """The amendments, by the line that they amend."""
        found: dict[LineKey, list[RecordFields]] = {}
        for agency, records in self.records.items():
            for record in records:
                if record.amends is not None:
                    found.setdefault((agency, record.amends), []).append(record)
        return found

    @cached_property
    def notices(self) -> dict[LineKey, NoticeMemo]:
        """What each provider was asked, by its own line."""
        return {
            (agency.number, line): open_notice(self.world.keys(agency), line, row.notice)
            for agency, _, table in self.world.tables()
            for line, row in table.provisions.items()
        }

    @cached_property
    def by_permit(self) -> dict[uuid.UUID, list[LineKey]]:
        """The provisions that were stored for each permit."""
        found: dict[uuid.UUID, list[LineKey]] = {}
        for key, memo in self.notices.items():
            found.setdefault(memo.permit.permit, []).append(key)
        return found

    @cached_property
    def exchanged(self) -> list[Exchanged]:
        """The network's rows."""
        rows = self.world.network.store.connection.execute(
            "SELECT inquirer, request, reference, provider, reply, outcome FROM exchanges ORDER BY position"
        )
        found = []
        for inquirer, request, reference, provider, raw, outcome in rows:
            reply = msgspec.json.decode(raw, type=PermitReply)
            permit = None if reply.permit is None else msgspec.json.decode(reply.permit.body, type=InquirerPermit)
            ids = uuid.UUID(bytes=request), uuid.UUID(bytes=reference)
            found.append(Exchanged(inquirer, *ids, provider, permit, reply.outcome, outcome))
        return found

    def effective(self, key: LineKey) -> str | None:
        """What a side's records say in the end: the last amendment, or the record; None where it has none."""
        said = [*self.base_records.get(key, []), *self.amendments.get(key, [])]
        return said[-1].outcome if said else None
