"""The statements of a round trip, as a script for pgbench: what PostgreSQL alone does for it, and nothing else.

A chain carries lines through the same set functions, in sets of the same size, in the same order, with the same commits
as the exchanges do, and both halves of it: the inquirer's and the provider's, each about agencies of this cell. Two
cells run it at once, as they do the exchanges' work. Sizes of sealed values are those that the exchanges wrote.

It is a limit in the database's favour: ids and payloads are made on the server, results are counted there and not sent,
amendments that are only passed and not stored are left out, and so are hints (NOTIFY), leases, canaries and looks that
find nothing. Every statement divides by zero, and so ends pgbench, unless each of its lines did what it must.

Pure: nothing here connects to anything.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple, TypeVar

from chukan.ops.sandbox.person_values import RESIDENT
from chukan.tenants.rows import Grant
from chukan.tenants.states import InquiryState, LinkStatus, Outcome, ProvisionState
from chukan.tenants.widths import Widths

OWNER: Final = "bench limit"
SEQUENCE_MAX: Final = 1000
"""As many records as the exchanges' own sequencer takes at a time."""
SEQUENCE_PAUSE_MS: Final = 500

T = TypeVar("T")
_LATER: Final = "now() + interval '1 hour'"


class Asking(NamedTuple):
    """An inquirer's person: agency number, keyed digest."""

    agency: int
    person: bytes


class Asked(NamedTuple):
    """A provider's person: agency number, keyed digests of linkage code and person, version of the link."""

    agency: int
    code: bytes
    person: bytes
    version: int


class Terms(NamedTuple):
    """What all chains of a cell have in common."""

    size: int
    """Lines in a set."""
    sets: int
    """Sets in a chain: a list is accepted and collected whole, and goes through the steps between in so many sets."""
    single: bool
    """Each line its own list, looked at and collected alone; else the chain is one list."""
    widths: Widths

    @property
    def lines(self) -> int:
        """Lines in a chain."""
        return self.size * self.sets


def chain(terms: Terms, asking: Sequence[Asking], asked: Sequence[Asked], grants: Sequence[Sequence[Grant]]) -> str:
    """Return the script of some lines through a whole round trip.

    Args:
        terms: the size of a set and what it holds.
        asking: people that the cell's inquirers ask about; each chain takes a stretch of them, from a random one on.
        asked: people that the cell's providers are asked about, likewise.
        grants: the leases that a worker looks with, on the inquirer's and on the provider's side.
    """
    script = _Chain(terms, asking, asked, grants)
    return "\n".join(
        [
            f"\\set asking random(1, {len(asking)})",
            f"\\set asked random(1, {len(asked)})",
            script.ids(),
            *script.accepting(),
            *(statement for number in range(terms.sets) for statement in script.one_set(number)),
            *script.collecting(),
            "",
        ]
    )


def sequencer() -> str:
    """Return the script that gives the chains' records their places, in the sequencer's own rhythm."""
    return "\n".join(
        [
            f"SELECT r AS done FROM chukan.sequence('{OWNER}', {SEQUENCE_MAX}) r \\gset",
            f"\\if :done < {SEQUENCE_MAX}",
            f"\\sleep {SEQUENCE_PAUSE_MS} ms",
            "\\endif",
            "",
        ]
    )


class _Stretch:
    """A stretch of the chain's lines: its ids, its people on both sides, and columns of as many rows."""

    def __init__(self, asking: Sequence[Asking], asked: Sequence[Asked], at: int, count: int) -> None:
        self.at, self.count = at, count
        self.ids = _part(":ids::uuid[]", at, count)
        self.others = _part(":others::uuid[]", at, count)
        """The provider's own ids: the two sides share none, and an agency may be on both of them."""
        self.agencies = self._people([str(one.agency) for one in asking], "int", "asking")
        self.persons = self._people([_bytes(one.person) for one in asking], "bytea", "asking")
        self.providers = self._people([str(one.agency) for one in asked], "int", "asked")
        self.codes = self._people([_bytes(one.code) for one in asked], "bytea", "asked")
        self.provided = self._people([_bytes(one.person) for one in asked], "bytea", "asked")
        self.versions = self._people([str(one.version) for one in asked], "bigint", "asked")

    def _people(self, values: Sequence[str], kind: str, start: str) -> str:
        # Blanks keep the names apart from the colon of the slice.
        first = f":{start}::int + {self.at}"
        return f"({_array(values, kind)})[{first} : {first} + {self.count - 1}]"

    def fill(self, value: str) -> str:
        """Return a column of one value."""
        return f"array_fill({value}, ARRAY[{self.count}])"

    def sealed(self, width: int) -> str:
        """Return a column of values of so many octets."""
        return self.fill(f"decode(repeat('5a', {width}), 'hex')")

    def no_records(self) -> str:
        """Return the six columns of rows without a record."""
        return ", ".join(self.fill(f"NULL::{kind}") for kind in ("uuid", "bytea", "date", "bytea", "bytea", "uuid"))

    def records(self, ids: str, labels: str, width: int) -> str:
        """Return the six columns of final records."""
        month = self.fill("date_trunc('month', now())::date")
        return ", ".join((ids, labels, month, self.sealed(width), _digests(ids), self.fill("NULL::uuid")))


class _Chain:
    """The statements of one chain, by their stages."""

    def __init__(
        self, terms: Terms, asking: Sequence[Asking], asked: Sequence[Asked], grants: Sequence[Sequence[Grant]]
    ) -> None:
        self._terms = terms
        self._asking, self._asked = _wrapped(asking, terms.lines), _wrapped(asked, terms.lines)
        self._whole = self._stretch(0, terms.lines)
        self._inquirer, self._provider = (
            f"{_array([str(grant.shard) for grant in some], 'smallint')}, "
            f"{_array([str(grant.epoch) for grant in some], 'bigint')}"
            for some in grants
        )

    def _stretch(self, at: int, count: int) -> _Stretch:
        return _Stretch(self._asking, self._asked, at, count)

    def ids(self) -> str:
        """Ids of both sides in the order of time, as the exchanges make them: in another order indexes grow slower."""
        fresh = (
            "array_agg((lpad(to_hex(t.ms), 12, '0') || '7' || substr(md5('{side}' || t.ms || n || random()), 1, 3)"
            " || '8' || substr(md5(random()::text || n), 1, 15))::uuid) AS {side}"
        )
        both = ", ".join(fresh.format(side=side) for side in ("ids", "others"))
        return (
            f"SELECT {both} FROM (SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint AS ms) t,"
            f" generate_series(1, {self._terms.lines}) n \\gset"
        )

    def accepting(self) -> list[str]:
        """Find the codes, make the lines durable, look once."""
        here, widths = self._whole, self._terms.widths
        found = _all(here, f"r.status = {LinkStatus.ACTIVE:d}", f"find_codes({here.agencies}, {here.persons})")
        lists = here if self._terms.single else self._stretch(0, 1)
        digests = _digests(lists.ids)
        batches = (lists.agencies, lists.fill("1"), digests, digests, lists.ids)
        lines = (
            here.agencies,
            here.ids if self._terms.single else here.fill("(:ids::uuid[])[1]"),
            here.ids,
            here.fill("0") if self._terms.single else f"ARRAY(SELECT generate_series(0, {here.count - 1}))",
            here.fill(f"{InquiryState.ACCEPTED:d}::smallint"),
            here.fill(f"{Outcome.NONE:d}::smallint"),
            here.fill("NULL::text"),
            here.fill("now()"),
            here.fill(_LATER),
            here.persons,
            here.sealed(widths.request),
            here.sealed(widths.permit_request),
        )
        accept = f"accept({', '.join(batches)}, {', '.join(lines)}, {here.no_records()})"
        return [found, _all(lists, "r.fresh", accept), *self._views()]

    def _views(self) -> list[str]:
        """Whoever asked looks at the state of a list."""
        return [
            _demand(
                f"count(*) = {lines}", f"inquiry_views(({one.agencies})[1], ({one.ids})[1], NULL, NULL, NULL, 1000)"
            )
            for one, lines in self._lists()
        ]

    def _lists(self) -> list[tuple[_Stretch, int]]:
        """Return each list by its first line, and how many lines it has."""
        if self._terms.single:
            return [(self._stretch(at, 1), 1) for at in range(self._terms.lines)]
        return [(self._stretch(0, 1), self._terms.lines)]

    def one_set(self, number: int) -> list[str]:
        """What workers and inbox do with a set: the permit, the provider's half, the answer."""
        here = self._stretch(number * self._terms.size, self._terms.size)
        return [*self._permitted(here), *self._providing(here), *self._answered(here)]

    def _permitted(self, here: _Stretch) -> list[str]:
        """The worker takes the set, and settles it once the network has answered."""
        take = _demand(f"count(*) >= {here.count}", f"take_inquiries({self._inquirer}, {here.count})")
        step = (
            here.agencies,
            here.ids,
            here.fill(f"{InquiryState.PERMITTED:d}::smallint"),
            here.fill(f"{Outcome.NONE:d}::smallint"),
            here.fill("NULL::text"),
            here.fill(_LATER),
            here.fill(_LATER),
            here.sealed(self._terms.widths.permit),
            here.fill("true"),
        )
        settle = f"settle_inquiries({self._inquirer}, {', '.join(step)}, {here.no_records()})"
        return [take, _all(here, "r = 'applied'", settle)]

    def _providing(self, here: _Stretch) -> list[str]:
        """The provider's half: look up, provide in one commit, send, settle by the receipt."""
        widths = self._terms.widths
        dates = (here.fill("now()::date"), here.fill("NULL::date"), here.fill("NULL::date"))
        wanted = (here.fill(f"'{RESIDENT}'::text"), here.fill("'0'::text"), here.fill("NULL::text"), *dates)
        lookup = (
            f"SELECT min(r.hold_version) AS hold, min(r.snapshot) AS snapshot, 1 / (count(r.copy) = {here.count})::int"
            f" AS good FROM chukan.lookup({here.providers}, {here.codes}, {', '.join(wanted)}) r \\gset"
        )
        given = (
            here.providers,
            here.fill("1"),
            here.others,
            here.others,
            _digests(here.others),
            here.fill(_LATER),
            here.sealed(widths.notice),
            here.fill(f"{ProvisionState.ANSWERED:d}::smallint"),
            here.fill(f"{Outcome.PROVIDED:d}::smallint"),
            here.fill("NULL::text"),
            here.provided,
            here.versions,
            here.fill(":hold::bigint"),
            here.fill(":snapshot::bigint"),
            here.fill(_LATER),
            here.sealed(widths.sent_answer),
            here.fill("now()"),
        )
        provide = f"provide_notices({', '.join(given)}, {here.records(here.others, here.provided, widths.record)})"
        take = _demand(f"count(*) >= {here.count}", f"take_provisions({self._provider}, {here.count})")
        step = (
            here.providers,
            here.others,
            here.fill(f"{ProvisionState.RECEIPTED:d}::smallint"),
            here.fill(f"{Outcome.PROVIDED:d}::smallint"),
            here.fill(_LATER),
            here.fill("true"),
        )
        settle = f"settle_provisions({self._provider}, {', '.join(step)}, {here.no_records()})"
        return [lookup, _all(here, "r = 'stored'", provide), take, _all(here, "r = 'applied'", settle)]

    def _answered(self, here: _Stretch) -> list[str]:
        """The answer comes in."""
        widths = self._terms.widths
        given = (
            here.agencies,
            here.fill("1"),
            here.ids,
            here.ids,
            here.fill(f"{InquiryState.ANSWERED:d}::smallint"),
            here.fill(f"{Outcome.PROVIDED:d}::smallint"),
            here.fill("NULL::text"),
            here.sealed(widths.answer),
        )
        records = here.records(here.ids, here.persons, widths.record)
        return [
            _demand(f"count(*) = {here.count}", f"read_requests({here.agencies}, {here.ids})"),
            _all(here, "r = 'applied'", f"deliver_answers({', '.join(given)}, {records}, {here.no_records()})"),
        ]

    def collecting(self) -> list[str]:
        """Whoever asked looks again, and collects."""
        taken = f"r.state = {InquiryState.COLLECTED:d} AND r.answer IS NOT NULL"
        collect = [
            _demand(
                f"count(*) FILTER (WHERE {taken}) = {lines}",
                f"collect(({one.agencies})[1], 1, {one.ids if self._terms.single else self._whole.ids})",
            )
            for one, lines in self._lists()
        ]
        return [*self._views(), *self._views(), *collect]


def _all(rows: _Stretch, condition: str, call: str) -> str:
    return _demand(f"count(*) FILTER (WHERE {condition}) = {rows.count}", call)


def _demand(condition: str, call: str) -> str:
    return f"SELECT 1 / ({condition})::int FROM chukan.{call} r;"


def _part(array: str, at: int, count: int) -> str:
    return f"({array})[{at + 1} : {at + count}]"


def _digests(ids: str) -> str:
    """Return digests that are new with every chain, one for each id."""
    return f"ARRAY(SELECT sha256(uuid_send(u)) FROM unnest({ids}) WITH ORDINALITY w(u, n) ORDER BY n)"


def _array(elements: Sequence[str], kind: str) -> str:
    return f"'{{{','.join(elements)}}}'::{kind}[]"


def _bytes(value: bytes) -> str:
    # An array's text halves backslashes once more than a string's.
    return f'"\\\\x{value.hex()}"'


def _wrapped(rows: Sequence[T], more: int) -> list[T]:
    return [rows[n % len(rows)] for n in range(len(rows) + more)]
