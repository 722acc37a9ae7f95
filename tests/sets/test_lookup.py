"""Look-ups: what an agency's own data say about a code, a condition and the holds."""

import datetime as dt

import pytest

from chukan.errors import Problem
from chukan.tenants.rows import LookupRow
from chukan.tenants.states import LinkStatus

DAY = dt.date(2026, 11, 23)
KIND = "TM00000000000002"


class Provider:
    """One person with copies at one agency."""

    def __init__(self, bench, make, agency=42):
        self.bench, self.make, self.agency = bench, make, agency
        self.schema = f"a{agency:05d}"
        self.person, self.code = make.digest(), make.digest()

    async def link(self, status=LinkStatus.ACTIVE, version=1):
        await self.bench.admin.execute(
            f"INSERT INTO {self.schema}.codes (person, status, version, addressee, code_digest, code)"
            " VALUES ($1, $2, $3, 'x', $4, 'sealed code')",
            self.person,
            status,
            version,
            self.code,
        )
        return self

    async def copy(self, effective_from, *, period="", layout=1, kind=KIND, review=False, person=None):
        row = self.make.id()
        await self.bench.admin.execute(
            f"INSERT INTO {self.schema}.copies"
            " (id, person, kind, period, effective_from, layout, body, content, review)"
            " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
            row,
            person or self.person,
            kind,
            period,
            dt.date.fromisoformat(effective_from),
            layout,
            row.bytes,
            self.make.digest(),
            review,
        )
        return row

    def ask(self, period="0", year=None, on=DAY, start=None, end=None, kind=KIND):
        days = [None if day is None else dt.date.fromisoformat(day) for day in (start, end)]
        return LookupRow(self.agency, self.code, kind, period, year, on, *days)

    async def hit(self, **condition):
        (hit,) = await self.bench.sets.lookup([self.ask(**condition)])
        return hit

    async def hold(self, person=None, kind=None):
        await self.bench.admin.execute(f"INSERT INTO {self.schema}.holds (person, kind) VALUES ($1, $2)", person, kind)


@pytest.fixture
async def provider(bench, make):
    return await Provider(bench, make).link()


async def test_an_unknown_code_finds_nothing(bench, make):
    hit = await Provider(bench, make).hit()
    assert (hit.link, hit.person, hit.link_version, hit.held, hit.copies) == (None, None, 0, False, [])


@pytest.mark.parametrize("status", list(LinkStatus)[1:])
async def test_the_link_is_shown_in_every_state(bench, make, status):
    provider = await Provider(bench, make).link(status, version=7)
    hit = await provider.hit()
    assert (hit.link, hit.person, hit.link_version) == (status, provider.person, 7)


async def test_the_latest_in_force_of_the_day(provider):
    await provider.copy("2025-06-01", period="2025")
    old = await provider.copy("2026-06-01", period="2026")
    new = await provider.copy("2026-06-01", period="2026", layout=3)
    await provider.copy("2026-06-01", period="2026", layout=2)
    await provider.copy("2026-12-01", period="2026")
    await provider.copy("2026-11-01", kind="TM00000000000003")
    await provider.copy("2026-11-01", person=provider.make.digest())
    (copy,) = (await provider.hit()).copies
    assert (copy.id, copy.layout, copy.effective_from, copy.period) == (new, 3, dt.date(2026, 6, 1), "2026")
    assert copy.body == new.bytes != old.bytes
    (later,) = (await provider.hit(on=dt.date(2026, 12, 1))).copies
    assert later.effective_from == dt.date(2026, 12, 1)
    assert (await provider.hit(on=dt.date(2025, 5, 31))).copies == []


async def test_one_year_is_the_newest_of_that_year(provider):
    await provider.copy("2025-06-01", period="2025")
    wanted = await provider.copy("2025-09-01", period="2025")
    await provider.copy("2025-09-01", period="2025", layout=0)
    await provider.copy("2027-01-01", period="2025")
    await provider.copy("2026-06-01", period="2026")
    (copy,) = (await provider.hit(period="1", year="2025")).copies
    assert copy.id == wanted
    assert (await provider.hit(period="1", year="2024")).copies == []


async def test_a_span_is_all_that_was_in_force_in_it(provider):
    days = ["2023-04-01", "2024-04-01", "2025-04-01", "2026-04-01"]
    for day in days:
        await provider.copy(day)
    second_layout = await provider.copy("2025-04-01", layout=2)
    hit = await provider.hit(period="2", start="2024-06-01", end="2025-12-31")
    assert [copy.effective_from.isoformat() for copy in hit.copies] == ["2024-04-01", "2025-04-01"]
    assert hit.copies[1].id == second_layout
    boundary = await provider.hit(period="2", start="2025-04-01", end="2025-04-01")
    assert [copy.effective_from.isoformat() for copy in boundary.copies] == ["2025-04-01"]
    assert (await provider.hit(period="2", start="2020-01-01", end="2023-03-31")).copies == []


async def test_a_span_brings_at_most_a_hundred_the_newest(provider):
    first = dt.date(2024, 1, 1)
    for n in range(105):
        await provider.copy((first + dt.timedelta(days=n)).isoformat())
    hit = await provider.hit(period="2", start="2024-01-01", end="2026-01-01")
    assert len(hit.copies) == 100
    assert hit.copies[0].effective_from == first + dt.timedelta(days=5)


@pytest.mark.parametrize(
    ("person", "kind", "held"),
    [(True, None, True), (True, KIND, True), (True, "TM9", False), (False, KIND, False), (False, None, False)],
)
async def test_holds_on_the_person(bench, make, provider, person, kind, held):
    await provider.hold(provider.person if person else make.digest(), kind)
    assert (await provider.hit()).held is held


async def test_holds_on_a_kind(bench, make):
    kind = f"TM{make.digest().hex()[:14].upper()}"
    provider = await Provider(bench, make, 1788).link()
    assert (await provider.hit(kind=kind)).held is False
    await provider.hold(None, kind)
    assert (await provider.hit(kind=kind)).held is True
    assert (await provider.hit()).held is False


async def test_a_copy_for_review_holds_and_only_when_it_is_selected(provider):
    await provider.copy("2025-01-01", period="2025", review=True)
    await provider.copy("2026-01-01", period="2026")
    assert (await provider.hit()).held is False
    assert (await provider.hit(period="1", year="2025")).held is True


async def test_rows_of_many_agencies_come_back_in_order(bench, make):
    providers = [await Provider(bench, make, agency).link() for agency in (42, 1, 42, 99999, 1)]
    unknown = Provider(bench, make, 1)
    asked = [*providers[:2], unknown, *providers[2:]]
    hits = await bench.sets.lookup([provider.ask() for provider in asked])
    assert [hit.person for hit in hits] == [None if each is unknown else each.person for each in asked]


async def test_a_code_means_nothing_at_another_agency(bench, make, provider):
    stranger = Provider(bench, make, 1)
    stranger.code = provider.code
    assert (await stranger.hit()).link is None


async def test_an_agency_that_is_not_here_refuses(bench, make):
    with pytest.raises(Problem, match="agency_moved"):
        await Provider(bench, make, 77).hit()
