"""The desk for provision records (情報提供等記録, 番号法23条): the agency's own view, checked against its log."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from chukan.platform.http.desks.door import Door, Keys
from chukan.platform.wire.agency import Record, Records
from chukan.platform.wire.incidents import Affected, AffectedKind, AffectedPerson, AffectedSearch
from chukan.platform.wire.statistics import ProcedureCount, ProcedureCounts, Statistics, StatisticsLine
from chukan.tenants import records
from chukan.tenants.affected import Scope, find_affected
from chukan.tenants.copies import person_digest
from chukan.tenants.record_counts import count_step
from chukan.tenants.states import Side
from chukan.tenants.statistics import count_records, fiscal_year_of

if TYPE_CHECKING:
    import datetime as dt

    from chukan.platform.http.params import RecordSearch
    from chukan.tenants.directory import AgencyRow


class PartitionRecords:
    """Implements ``ports.RecordDesk``."""

    def __init__(self, door: Door, keys: Keys) -> None:
        self._door = door
        self._keys = keys

    async def page(self, agency: AgencyRow, after: str | None, limit: int) -> Records:
        """Return a page in the order of the log."""
        async with self._door(agency) as partition:
            page = await records.list_records(partition, self._keys(agency.number), after=after, limit=limit)
        return Records(records=[_view(stored) for stored in page.records], next=page.next)

    async def search(self, agency: AgencyRow, body: RecordSearch) -> Records:
        """Return all records of one person."""
        keys = self._keys(agency.number)
        async with self._door(agency) as partition:
            person = person_digest(keys, body.addressee)
            found = await records.by_person(partition, keys, person, for_person=body.for_person)
        return Records(records=[_view(stored) for stored in found])

    async def affected(self, agency: AgencyRow, body: AffectedSearch) -> Affected:
        """Return whom the records of a period are about."""
        scope = Scope(body.since, body.until, frozenset(body.kinds), frozenset(body.counterparts))
        found = await find_affected(lambda: self._door(agency), self._keys(agency.number), scope)
        people = [
            AffectedPerson(each.addressee, each.label, each.records, sorted(each.kinds), each.first, each.last)
            for each in sorted(found.persons.values(), key=lambda each: (each.addressee or "", each.label))
        ]
        return Affected(
            agency=agency.code,
            since=body.since,
            until=body.until,
            looked_at=found.looked_at,
            records=found.records,
            persons=len(people),
            unnamed=sum(each.addressee is None for each in people),
            kinds=[AffectedKind(kind, sorted(items)) for kind, items in sorted(found.items.items())],
            counterparts=sorted(found.counterparts),
            people=people,
        )

    async def statistics(self, agency: AgencyRow, first: dt.date, last: dt.date) -> Statistics:
        """Count the records of a period."""
        async with self._door(agency) as partition:
            counts = await count_records(partition, first, last)
        return Statistics(
            first=f"{first:%Y-%m}",
            last=f"{last:%Y-%m}",
            records=sum(count.records for count in counts),
            amendments=sum(count.amendments for count in counts),
            lines=[
                StatisticsLine(
                    month=f"{count.month:%Y-%m}",
                    fiscal_year=fiscal_year_of(count.month),
                    side="inquirer" if count.side is Side.INQUIRER else "provider",
                    outcome=count.outcome.word,
                    records=count.records,
                    amendments=count.amendments,
                )
                for count in counts
            ],
        )

    async def procedures(
        self, agency: AgencyRow, first: dt.date, last: dt.date, after: int, limit: int
    ) -> ProcedureCounts:
        """Count the records among the next leaves of the log, opened one by one."""
        async with self._door(agency) as partition:
            step = await count_step(partition, self._keys(agency.number), first, last, after=after, limit=limit)
        found: dict[tuple[dt.date, Literal["inquirer", "provider"], str, str, str], list[int]] = {}
        for counted, count in step.counts.items():
            found.setdefault(counted[:5], [0, 0])[counted.amendment] += count
        return ProcedureCounts(
            first=f"{first:%Y-%m}",
            last=f"{last:%Y-%m}",
            lines=[
                ProcedureCount(
                    month=f"{month:%Y-%m}",
                    side=side,
                    procedure=procedure,
                    kind=kind,
                    outcome=outcome,
                    records=records_,
                    amendments=amendments,
                )
                for (month, side, procedure, kind, outcome), (records_, amendments) in sorted(found.items())
            ],
            next=step.next,
        )


def _view(stored: records.StoredRecord) -> Record:
    fields = stored.fields
    return Record(
        id=fields.id,
        side=fields.side,
        inquirer=fields.inquirer,
        provider=fields.provider,
        department=fields.department,
        affair=fields.affair,
        procedure=fields.procedure,
        kind=fields.kind,
        items=fields.items,
        outcome=fields.outcome,
        asked_at=fields.asked_at,
        closed_at=fields.closed_at,
        withheld=fields.withheld,
        provided_at=fields.provided_at,
        reference=fields.reference,
        reason=fields.reason,
        pia_refusal=fields.pia_refusal,
        amends=fields.amends,
        position=stored.position,
        consent=fields.consent is True,
        on_behalf_of=fields.on_behalf_of or None,
        provider_for=fields.provider_for or None,
    )
