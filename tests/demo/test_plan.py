"""Who plays in the demo, who lives there, and what is asked."""

import collections
import datetime as dt
import json
import stat
from pathlib import Path

import pytest

from chukan.ops.certificates import Issued
from chukan.ops.demo import cast, connection
from chukan.ops.demo.population import Population
from chukan.ops.demo.questions import QUESTIONS, SHORT_LIVED, STOPPED, plan
from chukan.ops.sandbox.connection_file import read_connection
from chukan.ops.sandbox.people import addressee_number
from chukan.platform.law import Law, Verdict, validate_copy
from chukan.tenants import directory
from chukan.tenants.numbers import find_forbidden

DAY = dt.date(2026, 11, 23)


@pytest.fixture(scope="module")
def law() -> Law:
    return Law.load()


@pytest.fixture(scope="module")
def population() -> Population:
    return Population(900, 7, DAY)


def test_the_cast_is_twelve_agencies_of_eight_bodies_in_both_halves() -> None:
    agencies = cast.agencies()
    assert len(agencies) >= 12
    assert len({agency.body for agency in agencies}) >= 8
    homes = collections.Counter(agency.home_centre for agency in agencies)
    assert min(homes["east"], homes["west"]) >= 5
    assert {agency.kind.value for agency in agencies} == {"head", "board", "joint"}
    for code in (cast.NATIONAL_PROVIDER, cast.NATIONAL_INQUIRER):
        assert not cast.entry(code).on_platform


def test_the_cast_makes_a_valid_directory_where_each_agency_has_a_system_and_two_officers() -> None:
    at = dt.datetime(2026, 11, 23, tzinfo=dt.UTC)
    snapshot = directory.first(at, 1)
    for agency in cast.agencies():
        snapshot = directory.add_agency(
            snapshot, at, code=agency.code, body=agency.body, name=agency.name, cell=agency.home_centre or ""
        )
    for client in cast.clients():
        snapshot = directory.add_client(snapshot, at, client)
    known = directory.Directory(snapshot)
    for agency in cast.agencies():
        known.allow(cast.system_of(agency.code), agency.code, "queries")
        first, second = cast.officers_of(agency.code)
        known.allow(first.id, agency.code, "reviews.prepare")
        known.allow(second.id, agency.code, "reviews.approve")
        with pytest.raises(Exception, match="officer_required"):
            known.allow(cast.system_of(agency.code), agency.code, "reviews.prepare")


def test_a_third_of_the_residents_moved_and_two_agencies_know_them_under_different_numbers(
    population: Population,
) -> None:
    moved = [resident for resident in population.residents if resident.before is not None]
    assert 0.3 < len(moved) / len(population.residents) < 0.36
    for resident in moved:
        assert resident.before is not None
        assert resident.now.body_code != resident.before.body_code
        assert resident.now.resident_code == resident.before.resident_code
        here, there = cast.head(resident.now.body_code), cast.head(resident.before.body_code)
        assert addressee_number(resident.now, here) != addressee_number(resident.before, there)


def test_numbers_within_an_agency_are_unique_and_are_nobodys_personal_number(population: Population) -> None:
    for agency in cast.agencies():
        numbers = [addressee_number(person, agency.code) for _, person in population.roll(agency.code)]
        assert len(set(numbers)) == len(numbers) > 0
        assert not [number for number in numbers if find_forbidden(number)]


def test_every_copy_fits_its_layout_and_every_kind_is_lodged_somewhere(population: Population, law: Law) -> None:
    lodged = collections.Counter[str]()
    protected = 0
    for agency in cast.agencies():
        for kind in population.kinds_lodged(agency.code):
            for copy in population.copies(agency.code, kind, law):
                law.validate_period(kind, copy.period)
                validate_copy(law.layout_for(kind, copy.layout, DAY), copy.items)
                lodged[kind] += 1
                protected += copy.review
    asked = {question.kind for question in QUESTIONS if question.about.__name__ != "_account_holders"}
    assert asked <= set(lodged)
    assert protected > 0


@pytest.mark.parametrize("count", [100, 1000])
@pytest.mark.parametrize("run", [0, 1, 7])
def test_the_plan_aims_at_every_outcome_and_a_third_of_it_crosses_cells(
    population: Population, law: Law, count: int, run: int
) -> None:
    queries = plan(population, law, count, run)
    assert {query.aim for query in queries} == {question.aim for question in QUESTIONS}
    crossing = [query for query in queries if cast.home(query.line.provider) not in {None, cast.home(query.inquirer)}]
    assert len(crossing) / len(queries) > 1 / 3
    assert abs(len(queries) - count) <= len(QUESTIONS)


def test_the_law_says_of_each_query_what_the_plan_aims_at(population: Population, law: Law) -> None:
    for query in plan(population, law, 500, run=0):
        line = query.line
        decision = law.decide(
            inquirer=query.inquirer,
            provider=line.provider,
            affair=line.affair,
            procedure=line.procedure,
            kind=line.kind,
            day=DAY,
        )
        assert (decision.verdict is Verdict.YES) == (query.aim != "not_permitted")
        assert ((line.kind, line.procedure) == STOPPED) == (query.aim == "stopped")
        assert (line.procedure in SHORT_LIVED) == (query.aim in {"expired", "cancelled"})
        assert line.withheld == (query.aim == "withheld")


def test_a_later_run_asks_about_other_people(population: Population, law: Law) -> None:
    def people(run: int) -> set[tuple[str, str]]:
        return {(query.inquirer, query.line.addressee) for query in plan(population, law, 50, run)}

    first, second = people(0), people(1)
    assert len(first & second) < len(first) / 2
    assert people(0) == first


def test_the_smallest_demo_still_has_everybody_it_asks_about(law: Law) -> None:
    smallest = Population(400, 7, DAY)
    assert {query.aim for query in plan(smallest, law, 1, run=3)} == {question.aim for question in QUESTIONS}


def test_before_june_the_newest_tax_year_is_last_years(law: Law) -> None:
    assert Population(400, 7, dt.date(2026, 5, 31)).tax_year == 2025
    assert Population(400, 7, dt.date(2026, 6, 1)).tax_year == 2026


def test_the_connection_file_names_keys_and_holds_none(population: Population, law: Law, tmp_path: Path) -> None:
    issued = {
        client.id: Issued(Path(f"/pki/{client.id}/certificate.pem"), Path(f"/pki/{client.id}/key.pem"))
        for client in cast.clients()
    }
    described = connection.describe(
        trusted=Path("/pki/ca.pem"),
        exchanges=[connection.ExchangeAddress("exchange-east", "https://127.0.0.1:1", "http://127.0.0.1:2")],
        network_admin_url="http://127.0.0.1:3",
        counterparts_admin_url="http://127.0.0.1:4",
        certificates=issued,
        population=population,
        planned=plan(population, law, 100, run=0),
    )
    path = tmp_path / "connection.json"
    path.write_text("old")
    connection.write(described, path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    read = json.loads(path.read_text())
    urls = {"network_admin_url", "counterparts_admin_url"}
    assert set(read) == {"ca", "exchanges", "agencies", "affairs"} | urls
    assert set(read["agencies"]) == {agency.code for agency in cast.agencies()}
    sapporo = read["agencies"][cast.head("011002")]
    assert set(sapporo) == {"name", "cell", "certificate", "key", "officers", "examples"}
    assert (sapporo["cell"], len(sapporo["officers"]), len(sapporo["examples"])) == ("east", 2, 10)
    for_clients = read_connection(path).connect(cast.head("011002"), cast.officers_of(cast.head("011002"))[0].id)
    assert for_clients.urls == ["https://127.0.0.1:1"]
    assert for_clients.key == issued[cast.officers_of(cast.head("011002"))[0].id].key
    for affair in read["affairs"]:
        assert affair["inquirer"] in read["agencies"]
        assert affair["examples"]
        provider = affair["provider"]
        assert bool(affair["provider_examples"]) is (provider in read["agencies"])
        if provider in read["agencies"]:
            lodged = {copy.addressee for copy in population.copies(provider, affair["kind"], law)}
            assert set(affair["provider_examples"]) <= lodged
