"""What the demo's run came to, counted from what clients, the platform and the network say; and whether they agree.

Records are read from every agency through the agency API, from the national counterparts and from the network, and
compared line by line (``chukan reconcile`` does the same on request). Nothing here knows what the run meant to show.
"""

import asyncio
import datetime as dt
from typing import Final

import msgspec

from chukan.clock import Clock
from chukan.ops.demo import cast
from chukan.ops.demo.asking import Answers
from chukan.ops.demo.questions import Planned
from chukan.ops.demo.systems import Systems, for_each
from chukan.ops.reconcile import Report, reconcile
from chukan.ops.sandbox.admin import NetworkRecord
from chukan.ops.sandbox.parties import read_counterparts, read_network
from chukan.platform.wire.agency import QueryLineView, Record

SETTLE_TIMEOUT_S: Final = 30.0
"""How long the last records may take to get their place in their logs, where they become visible."""
_LOOK_S: Final = 0.5


class Tally(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The result as ``--json`` prints it; queries, outcomes and records are those of this run."""

    agencies: int
    copies: int
    codes: int
    queries: int
    cross_cell: int
    outcomes: dict[str, int]
    """Lines by final outcome, and the interim ``under_review``."""
    reviews: dict[str, int]
    """What officers decided: released, refused."""
    withheld: int
    """Answered lines flagged 不開示: their agency sees the record, the person's own view leaves it out."""
    records_inquirer: int
    records_provider: int
    records_network: int
    amendments: int
    records_reconciled: int
    """Lines of the network's records about which all parties tell the same."""
    differences: dict[str, int]
    seconds: float
    logs_cosigned: int = 0
    """Agencies whose log is signed by one centre and cosigned by the other, and continues what the agency kept."""
    links: "LinksTally | None" = None
    """Where every municipality stands behind its device; left out elsewhere."""


class LinksTally(msgspec.Struct, frozen=True, kw_only=True):
    """What went through the tunnels, as the exchanges saw it by the addresses of their callers."""

    up: int
    """Links that are up at every gateway."""
    queries_through_tunnels: int
    """Lines that came through a body's link; none can come another way, for the address is checked."""


class Recorded(msgspec.Struct, frozen=True):
    """All records of the run, and how they compare."""

    inquirer: int
    provider: int
    network: int
    amendments: int
    report: Report


async def read_records(
    systems: Systems, network_url: str, counterparts_url: str, since: dt.datetime, clock: Clock
) -> Recorded:
    """Read and compare the records of everything asked since an instant, once they are all in their logs.

    What is still on its way at the deadline is reported as it stands.
    """
    deadline = clock.monotonic() + SETTLE_TIMEOUT_S
    while True:
        recorded = await _read(systems, network_url, counterparts_url, since, clock.now())
        settled = not recorded.report.pending and not recorded.report.differences
        if settled or clock.monotonic() >= deadline:
            return recorded
        await asyncio.sleep(_LOOK_S)


async def _read(
    systems: Systems, network_url: str, counterparts_url: str, since: dt.datetime, as_of: dt.datetime
) -> Recorded:
    records: dict[str, list[Record]] = {}

    async def one(agency: str) -> None:
        records[agency] = await systems.agencies[agency].all_records()

    await for_each([agency.code for agency in cast.agencies()], one)
    records.update(await read_counterparts(counterparts_url))
    ours = {agency: [record for record in all_ if record.asked_at >= since] for agency, all_ in records.items()}
    network: list[NetworkRecord] = [one for one in await read_network(network_url) if one.asked_at >= since]
    every = [record for of in ours.values() for record in of]
    return Recorded(
        inquirer=sum(record.side == "inquirer" and record.amends is None for record in every),
        provider=sum(record.side == "provider" and record.amends is None for record in every),
        network=len(network),
        amendments=sum(record.amends is not None for record in every),
        report=reconcile(ours, network, as_of=as_of),
    )


async def count_withheld(systems: Systems, answers: Answers) -> int:
    """Return how many answered lines have a record that their agency sees and the person does not (番号法23条2項)."""
    found: list[bool] = []

    async def one(told: tuple[Planned, QueryLineView]) -> None:
        query, view = told
        client = systems.agencies[query.inquirer]
        all_records = (await client.records_of(query.line.addressee)).records
        disclosed = (await client.records_of(query.line.addressee, for_person=True)).records
        flagged = any(record.id == view.id and record.withheld for record in all_records)
        found.append(flagged and all(record.id != view.id for record in disclosed))

    await for_each([told for told in answers.lines if told[0].aim == "withheld"], one)
    return sum(found)


def tally(answers: Answers, recorded: Recorded, *, copies: int, codes: int, seconds: float, withheld: int = 0) -> Tally:
    """Put the counts together."""
    outcomes = answers.outcomes()
    return Tally(
        agencies=len(cast.agencies()),
        copies=copies,
        codes=codes,
        queries=sum(outcomes.values()),
        cross_cell=answers.crossing(),
        outcomes={**outcomes, "under_review": answers.reviews.total()},
        reviews=dict(answers.reviews),
        withheld=withheld,
        records_inquirer=recorded.inquirer,
        records_provider=recorded.provider,
        records_network=recorded.network,
        amendments=recorded.amendments,
        records_reconciled=recorded.report.agreed,
        differences=recorded.report.counts,
        seconds=round(seconds, 1),
    )
