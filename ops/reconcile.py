"""Reconciliation of provision records (記録の突合, REC-05): inquirer, provider and network must tell the same.

The three parties' records of an exchange are matched by the network's reference. A side may learn later that things
went otherwise; then it appends an amendment that names its record, and what counts is the last word. What is still on
its way is counted as pending and is no difference; a line that its own agency closed before it reached the network
stands in that agency's records alone, rightly.

``reconcile`` is pure. It never looks at content, for no record has any, and its report names references and agencies
only.
"""

import asyncio
import datetime as dt
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Final, Literal, NamedTuple

import msgspec
from cyclopts import App, Parameter

from chukan.clock import SystemClock
from chukan.errors import Problem
from chukan.ops.client_view import table, terminal
from chukan.ops.sandbox.admin import NetworkRecord
from chukan.ops.sandbox.clients import AgencyClient, ClientError
from chukan.ops.sandbox.connection_file import ConnectionFile, read_connection
from chukan.ops.sandbox.parties import read_counterparts, read_network
from chukan.platform.wire.agency import Record

app = App(name="reconcile", help="Compare the records of both sides and the network.")

GRACE: Final = dt.timedelta(seconds=90)
"""How long after a permit's expiry both sides may take to close their lines."""
SETTLE: Final = dt.timedelta(seconds=5)
"""How long a record may take to get its place in its agency's log, where it becomes visible."""
CONNECTION: Final = Path("var/demo/connection.json")
SHOWN_MAX: Final = 100

DifferenceKind = Literal[
    "missing_at_inquirer",
    "missing_at_provider",
    "missing_at_network",
    "outcome_differs",
    "items_differ",
    "withheld_differs",
    "recorded_twice",
    "amends_nothing",
]


class Difference(msgspec.Struct, frozen=True):
    """One disagreement about one exchange; ``agency`` is whose record is missing or differs."""

    kind: DifferenceKind
    agency: str
    reference: str | None
    side: str | None = None
    here: str | None = None
    """What the agency's record says (an outcome, or a flag)."""
    network: str | None = None
    """What the network's record says."""


class Report(msgspec.Struct, frozen=True):
    """What came of a reconciliation."""

    as_of: dt.datetime
    exchanges: int
    """Lines in the network's records that were compared."""
    agreed: int
    """Of these: all covered parties tell the same."""
    pending: int
    """Of these: still on their way at ``as_of``."""
    closed_before_network: int
    """Lines that their own agency closed before they reached the network."""
    amended: int
    """Records of agencies that have an amendment."""
    agencies: int
    """Agencies whose records were compared."""
    differences: list[Difference]

    @property
    def counts(self) -> dict[str, int]:
        """Differences by kind."""
        return dict(sorted(Counter(difference.kind for difference in self.differences).items()))


class _Told(NamedTuple):
    """A record with its amendments: the base says which line, the last word says what came of it."""

    base: Record
    last: Record


class _Books:
    """All agencies' records, found by reference and by line."""

    def __init__(self, records_by_agency: Mapping[str, Sequence[Record]]) -> None:
        self.differences: list[Difference] = []
        self.amended = 0
        self.covered = frozenset(records_by_agency)
        self._by_reference: dict[tuple[str, str, str], _Told] = {}
        self._by_line: dict[tuple[str, str], _Told] = {}
        self._found: set[tuple[str, str]] = set()
        for agency, records in records_by_agency.items():
            self._read(agency, records)

    def _read(self, agency: str, records: Sequence[Record]) -> None:
        bases = {str(record.id): record for record in records if record.amends is None}
        amendments: dict[str, list[Record]] = defaultdict(list)
        for record in records:
            if record.amends is not None:
                amendments[str(record.amends)].append(record)
        for line, record in bases.items():
            later = sorted(amendments.pop(line, []), key=lambda one: one.closed_at)
            self.amended += bool(later)
            told = _Told(record, later[-1] if later else record)
            self._by_line[agency, line] = told
            reference = told.last.reference or record.reference
            if reference is not None:
                key = (agency, record.side, reference)
                if self._by_reference.setdefault(key, told) is not told:
                    self.differences.append(Difference("recorded_twice", agency, reference, record.side))
                    self._found.add((agency, line))
        for line in amendments:
            self.differences.append(Difference("amends_nothing", agency, None, here=line))

    def inquirers(self, record: NetworkRecord) -> _Told | None:
        """The inquirer's record of a line: by reference, or by the line's own id where it never learnt that."""
        told = self._by_reference.get((record.inquirer, "inquirer", str(record.reference)))
        return self._seen(record.inquirer, told or self._by_line.get((record.inquirer, str(record.request))))

    def providers(self, record: NetworkRecord) -> _Told | None:
        """The provider's record of a line."""
        return self._seen(record.provider, self._by_reference.get((record.provider, "provider", str(record.reference))))

    def _seen(self, agency: str, told: _Told | None) -> _Told | None:
        if told is not None:
            self._found.add((agency, str(told.base.id)))
        return told

    def unmatched(self) -> Iterator[tuple[str, _Told]]:
        """Records of which the network's records know nothing."""
        for (agency, line), told in self._by_line.items():
            if (agency, line) not in self._found:
                yield agency, told


def reconcile(
    records_by_agency: Mapping[str, Sequence[Record]], network_records: Iterable[NetworkRecord], *, as_of: dt.datetime
) -> Report:
    """Compare all records and list what differs.

    ``records_by_agency`` maps agency codes to all their records; agencies that are not in it are not compared. What
    happened after ``as_of`` counts as pending: read the agencies' records after that instant, and the network's last.
    """
    books = _Books(records_by_agency)
    differences: list[Difference] = []
    exchanges = agreed = pending = 0
    for record in network_records:
        exchanges += 1
        found, waiting = _compare(books, record, as_of)
        differences += found
        pending += waiting and not found
        agreed += not waiting and not found
    closed_before = 0
    for agency, told in books.unmatched():
        if told.last.reference is None:
            closed_before += 1
        else:
            differences.append(Difference("missing_at_network", agency, told.last.reference, told.base.side))
    return Report(
        as_of=as_of,
        exchanges=exchanges,
        agreed=agreed,
        pending=pending,
        closed_before_network=closed_before,
        amended=books.amended,
        agencies=len(books.covered),
        differences=[*books.differences, *differences],
    )


def _compare(books: _Books, record: NetworkRecord, as_of: dt.datetime) -> tuple[list[Difference], bool]:
    """Compare one line; returns its differences, and whether something about it is still on its way."""
    asks, gives = books.inquirers(record), books.providers(record)
    if record.outcome is None or record.closed_at is None or record.closed_at > as_of:
        return [], True
    differences: list[Difference] = []
    waiting = False
    if record.inquirer in books.covered:
        if asks is None:
            waiting = _inquirer_may_wait(record, as_of)
            if not waiting:
                differences.append(_missing("missing_at_inquirer", record.inquirer, record, "inquirer"))
        elif _closed_early(asks, record):
            waiting = True
        else:
            differences += _differing(asks, record, record.inquirer)
    if record.provider in books.covered and record.expires_at is not None:
        if gives is not None:
            differences += _differing(gives, record, record.provider)
        elif not _provider_was_never_told(record):
            late = record.outcome == "expired" and as_of < record.expires_at + GRACE
            waiting = waiting or late
            if not late:
                differences.append(_missing("missing_at_provider", record.provider, record, "provider"))
    return differences, waiting


def _missing(kind: DifferenceKind, agency: str, record: NetworkRecord, side: str) -> Difference:
    return Difference(kind, agency, str(record.reference), side, network=record.outcome)


def _inquirer_may_wait(record: NetworkRecord, as_of: dt.datetime) -> bool:
    """Whether the inquirer cannot know yet how the line ended."""
    if record.outcome == "expired":
        return record.expires_at is not None and as_of < record.expires_at + GRACE
    answered = record.expires_at is not None
    return answered and (record.delivered_at is None or record.delivered_at > as_of)


def _closed_early(told: _Told, record: NetworkRecord) -> bool:
    """Whether the inquirer closed its line before the answer has reached it: an amendment will follow."""
    on_its_way = record.expires_at is not None and record.outcome != "expired" and record.delivered_at is None
    return on_its_way and told.last.outcome in {"cancelled", "expired"}


def _provider_was_never_told(record: NetworkRecord) -> bool:
    return record.notified_at is None and record.outcome == "expired"


_SAME_OUTCOME: Final = {("failed", "bad_request"), ("cancelled", "expired")}
"""(agency's word, network's word) pairs that agree: the network does not know of a cancellation."""


def _differing(told: _Told, record: NetworkRecord, agency: str) -> Iterator[Difference]:
    here = told.last
    reference = str(record.reference)
    side = told.base.side
    if here.outcome != record.outcome and (here.outcome, record.outcome) not in _SAME_OUTCOME:
        yield Difference("outcome_differs", agency, reference, side, here.outcome, record.outcome)
    if set(here.items) != set(record.items):
        yield Difference("items_differ", agency, reference, side, str(len(here.items)), str(len(record.items)))
    if here.withheld != record.withheld:
        yield Difference("withheld_differs", agency, reference, side, str(here.withheld), str(record.withheld))


# ---------------------------------------------------------------- the command


async def gather(file: ConnectionFile, agencies: Sequence[str]) -> Report:
    """Read all parties' records and reconcile them; an empty ``agencies`` means all of the file.

    Raises:
        Problem: network_unavailable, or what an exchange said; setting_missing without the network's address.
    """
    if file.network_admin_url is None:
        raise Problem("setting_missing", pointer="/network_admin_url")
    as_of = SystemClock().now() - SETTLE
    records: dict[str, list[Record]] = {}
    for agency in agencies or file.agencies:
        async with AgencyClient(file.connect(agency, retry_s=30)) as client:
            try:
                records[agency] = await client.all_records()
            except ClientError as error:
                raise error.as_problem() from None
    if file.counterparts_admin_url is not None and not agencies:
        records.update(await read_counterparts(file.counterparts_admin_url))
    return reconcile(records, await read_network(file.network_admin_url), as_of=as_of)


@app.default
def command(
    *,
    connection: Path = CONNECTION,
    agency: Annotated[list[str] | None, Parameter(negative="")] = None,
    as_json: Annotated[bool, Parameter(name="--json", negative="")] = False,
) -> int:
    """Compare the records of the agencies, of the simulated national agencies, and of the sandbox network.

    Ends with status 1 when anything differs.

    Parameters
    ----------
    connection
        connection.json, as the demo writes it.
    agency
        Compare these agencies only (16-digit code; may be given several times).
    as_json
        Print the report as JSON.
    """
    report = asyncio.run(gather(read_connection(connection), agency or []))
    if as_json:
        document = {**msgspec.to_builtins(report), "counts": report.counts}
        sys.stdout.write(msgspec.json.encode(document).decode() + "\n")
    else:
        _show(report)
    return 1 if report.differences else 0


def _show(report: Report) -> None:
    console = terminal()
    totals = table("", "")
    for name, count in (
        ("Exchanges compared", report.exchanges),
        ("agreed", report.agreed),
        ("still on their way", report.pending),
        ("closed before they reached the network", report.closed_before_network),
        ("amended records", report.amended),
        ("agencies", report.agencies),
        ("differences", len(report.differences)),
    ):
        totals.add_row(name, f"{count:,}")
    console.print(totals)
    if report.differences:
        listed = table("difference", "agency", "side", "reference", "here", "network")
        for one in report.differences[:SHOWN_MAX]:
            listed.add_row(one.kind, one.agency, one.side or "", one.reference or "", one.here or "", one.network or "")
        console.print(listed)
