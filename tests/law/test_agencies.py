"""Bodies and agencies as data: complete, coded, at home in a centre; wards stand for their city."""

from collections import Counter

import pytest

from chukan.tenants import bodies
from chukan.tenants.bodies import STATE, AgencyKind, BodyKind
from chukan.tenants.numbers import is_body_code, is_corporate_number


def test_every_local_public_body_is_there() -> None:
    kinds = Counter(body.kind for body in bodies.bodies())
    assert kinds == {
        BodyKind.PREFECTURE: 47, BodyKind.DESIGNATED_CITY: 20, BodyKind.CITY: 772, BodyKind.SPECIAL_WARD: 23,
        BodyKind.TOWN: 743, BodyKind.VILLAGE: 183,
    }  # fmt: skip
    assert len({body.code for body in bodies.bodies()}) == 1788
    for body in bodies.bodies():
        assert is_body_code(body.code)
        assert is_corporate_number(body.corporate_number)
        assert body.corporate_number.endswith("000020" + body.code)
        assert body.population_2020 >= 0
        assert bodies.body(body.code) is body


def test_homes_are_balanced_as_the_shipped_rule_has_it() -> None:
    homes = Counter(body.home_centre for body in bodies.bodies())
    assert homes == {"east": 873, "west": 915}
    assert {body.home_centre for body in bodies.bodies() if body.code[:2] in {"01", "13", "15", "20"}} == {"east"}
    assert {body.home_centre for body in bodies.bodies() if body.code[:2] in {"16", "23", "27", "47"}} == {"west"}


def test_every_body_has_a_head_and_a_board_and_every_prefecture_a_union() -> None:
    for body in bodies.bodies():
        entries = {entry.kind: entry for entry in bodies.agencies_of(body.code) if entry.form != "other"}
        assert {AgencyKind.HEAD, AgencyKind.BOARD} <= entries.keys()
        assert (AgencyKind.JOINT in entries) == (body.kind is BodyKind.PREFECTURE)
        assert {entry.home_centre for entry in entries.values()} == {body.home_centre}
    assert sum(entry.form == "late_elderly_union" for entry in bodies.agencies()) == 47


def test_agency_codes_are_unique_and_say_which_are_ours() -> None:
    codes = [entry.code for entry in bodies.agencies()]
    assert len(set(codes)) == len(codes)
    for entry in bodies.agencies():
        assert len(entry.code) == 16
        assert entry.code.isdigit()
        if entry.illustrative:
            assert entry.code[:4] == "99" + entry.kind.digits
            assert entry.code[4:10] == entry.body
        assert bodies.agency(entry.code) is entry


def test_national_counterparts_stand_outside_the_platform() -> None:
    national = bodies.agencies_of(STATE)
    assert len(national) >= 2
    for entry in national:
        assert (entry.kind, entry.on_platform, entry.home_centre) == (AgencyKind.NATIONAL, False, None)
    assert [entry.code for entry in national if not entry.illustrative] == ["1419900000002200"]


@pytest.mark.parametrize(
    ("code", "name"),
    [("010006", "北海道知事"), ("131121", "世田谷区長"), ("011002", "札幌市長"), ("473821", "与那国町長")],
)
def test_heads_bear_their_titles(code: str, name: str) -> None:
    assert name in {entry.name for entry in bodies.agencies_of(code)}


@pytest.mark.parametrize(
    "named",
    ["13112", "131121", "131121          ", "           13112", "9901131121000001"],
    ids=["five digits", "six digits", "padded right", "padded left", "agency code"],
)
def test_a_query_may_name_a_municipality_for_its_head(named: str) -> None:
    entry = bodies.resolve_agency(named)
    assert entry is not None
    assert entry.code == "9901131121000001"


@pytest.mark.parametrize("named", ["14101", "141011", "9901141011000001"])
def test_a_ward_of_a_designated_city_stands_for_the_city(named: str) -> None:
    entry = bodies.resolve_agency(named)
    assert entry is not None
    assert entry.name == "横浜市長"
    assert bodies.resolve_ward("141011") == "141003"
    assert bodies.body("141011") is None


def test_all_wards_lead_to_designated_cities_and_bodies_to_themselves() -> None:
    wards = bodies._wards()
    assert len(wards) == 171
    for ward, city in wards.items():
        body = bodies.body(city)
        assert body is not None
        assert body.kind is BodyKind.DESIGNATED_CITY
        assert bodies.resolve_ward(ward) == city
    assert all(bodies.resolve_ward(body.code) == body.code for body in bodies.bodies())


@pytest.mark.parametrize(
    "named",
    ["", "   ", "99999", "131122", "9901131121000002", "9901999999000001", "x", "１３１１２", "131 12", "9" * 40],
)
def test_what_names_no_agency_resolves_to_none(named: str) -> None:
    assert bodies.resolve_agency(named) is None
