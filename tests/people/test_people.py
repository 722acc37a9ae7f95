"""Synthetic residents: valid and reserved numbers, paired names with rare kanji, reproducible, plausible copies."""

import time
import unicodedata
from collections import Counter
from datetime import date
from itertools import islice

import pytest

from chukan.ops.sandbox.people import PEOPLE_PER_BODY_MAX, Person, addressee_number, copy_values, generate
from chukan.platform.law import Gap, Law, validate_copy
from chukan.tenants import bodies
from chukan.tenants.numbers import find_forbidden, is_individual_number, is_resident_code

SETAGAYA, FUKUOKA, HOKKAIDO = "131121", "401307", "010006"
TODAY = date(2026, 11, 23)
KINDS = [f"TM{number:014d}" for number in (1, 2, 89)] + [f"TMX{number:013d}" for number in range(11, 16)]


@pytest.fixture(scope="module")
def people() -> list[Person]:
    return list(generate(SETAGAYA, 2_000, 7))


@pytest.mark.requirement("TST-04")
def test_numbers_are_valid_reserved_and_each_persons_own(people: list[Person]) -> None:
    others = [*generate(FUKUOKA, 2_000, 7), *generate(HOKKAIDO, 500, 7)]
    for person in people:
        assert is_individual_number(person.individual_number)
        assert person.individual_number.startswith("999")
        assert is_resident_code(person.resident_code)
        assert person.resident_code.startswith("99")
    everyone = [*people, *others]
    assert len({person.individual_number for person in everyone}) == len(everyone)
    assert len({person.resident_code for person in everyone}) == len(everyone)


@pytest.mark.requirement("TST-04")
def test_a_bodys_whole_share_of_the_range_is_its_own() -> None:
    last, first = bodies.bodies()[-1], bodies.bodies()[0]
    serials = [person.serial for person in islice(generate(last.code, PEOPLE_PER_BODY_MAX, 1), 0, None, 500)]
    assert len(set(serials)) == len(serials)
    assert max(serials) < 10**8
    assert max(person.serial for person in generate(first.code, 1000, 1)) < PEOPLE_PER_BODY_MAX


def test_the_same_seed_gives_the_same_people_and_another_seed_others(people: list[Person]) -> None:
    assert list(generate(SETAGAYA, 2_000, 7)) == people
    assert list(generate(SETAGAYA, 100, 7)) == people[:100]
    other = list(generate(SETAGAYA, 100, 8))
    assert [person.name for person in other] != [person.name for person in people[:100]]
    assert [person.serial for person in other] != [person.serial for person in people[:100]]


def test_people_are_those_of_the_body(people: list[Person]) -> None:
    assert len(people) == 2_000
    assert {person.body_code for person in people} == {SETAGAYA}
    assert all(person.address.startswith("東京都世田谷区") for person in people)
    towns = {body.name for body in bodies.bodies() if body.prefecture == "北海道" and body.code != HOKKAIDO}
    for person in generate(HOKKAIDO, 50, 7):
        assert any(person.address.startswith("北海道" + town) for town in towns)


@pytest.mark.parametrize(
    ("body", "count"), [("141011", 1), ("999999", 1), (SETAGAYA, -1), (SETAGAYA, PEOPLE_PER_BODY_MAX + 1)]
)
def test_who_cannot_exist_is_refused(body: str, count: int) -> None:
    with pytest.raises(ValueError, match="expected the code of a body"):
        list(generate(body, count, 7))


def test_names_are_paired_and_hold_rare_kanji_that_normalisation_would_rewrite(people: list[Person]) -> None:
    for person in people:
        assert all("KATAKANA" in unicodedata.name(letter) for letter in person.family_kana + person.given_kana)
    written = "".join(person.name for person in people)
    for rare in ("\u9ad9", "\ufa11", "\ufa19", "\U00020bb7", "\U000e0100"):
        assert rare in written
    assert unicodedata.normalize("NFC", written) != written
    readings: dict[str, set[str]] = {}
    for person in people:
        readings.setdefault(person.family, set()).add(person.family_kana)
    assert all(len(found) == 1 for found in readings.values())


def test_households_hang_together(people: list[Person]) -> None:
    households: dict[str, list[Person]] = {}
    for person in people[:1900]:
        households.setdefault(person.household, []).append(person)
    whole = list(households.values())[:-1]
    assert Counter(len(members) for members in whole).keys() == {1, 2, 3, 4, 5}
    for members in whole:
        assert {person.household_size for person in members} == {len(members)}
        assert len({(person.family, person.address, person.head_name) for person in members}) == 1
        assert [person.relation for person in members].count("世帯主") == 1
        assert members[0].name == members[0].head_name
        children = [person for person in members if person.relation == "子"]
        assert all(child.birth_date.year - members[0].birth_date.year >= 18 for child in children)
        assert all(person.resident_since >= person.birth_date for person in members)


def test_addressee_numbers_are_an_agencys_own_and_cannot_be_taken_for_individual_numbers(people: list[Person]) -> None:
    mayor, board = (entry.code for entry in bodies.agencies_of(SETAGAYA))
    at_mayor = [addressee_number(person, mayor) for person in people]
    at_board = [addressee_number(person, board) for person in people]
    assert len(set(at_mayor)) == len(people)
    assert not any(first == second for first, second in zip(at_mayor, at_board, strict=True))
    for number in at_mayor:
        assert len(number) == 15
        assert number.isdigit()
        assert find_forbidden(number) is None


@pytest.mark.requirement("PRV-10", "REP-01")
@pytest.mark.parametrize("kind", KINDS)
def test_copies_of_the_synthetic_nation_fit_their_layouts(law: Law, people: list[Person], kind: str) -> None:
    layouts = law.layouts_in_force(kind, TODAY)
    assert layouts
    for layout in layouts:
        for person in people[:500]:
            values = copy_values(person, kind, layout, 2026, 7)
            assert values.keys() == layout.items.keys()
            validate_copy(layout, values)
            assert values == copy_values(person, kind, layout, 2026, 7)


@pytest.mark.requirement("PRV-10")
def test_some_did_not_declare_and_their_amounts_are_gaps_not_zeros(law: Law, people: list[Person]) -> None:
    layout = law.layouts_in_force("TM00000000000002", TODAY)[-1]
    by_name = {item.name_ja: code for code, item in layout.items.items()}
    copies = [copy_values(person, layout.kind, layout, 2026, 7) for person in people]
    undeclared = [values for values in copies if values[by_name["未申告区分"]] == "1"]
    assert 20 < len(undeclared) < 200
    for values in undeclared:
        assert values[by_name["市町村民税所得割額"]] == Gap(gap="01")
        assert values[by_name["総所得金額等"]] == Gap(gap="01")
    levied = [values for values in copies if values[by_name["市町村民税所得割額"]] not in {Gap(gap="01"), "0"}]
    assert len(levied) > 500


def test_typical_answers_are_mostly_without_gaps(law: Law, people: list[Person]) -> None:
    layout = law.layouts_in_force("TM00000000000002", TODAY)[-1]
    allowed = law.allowed_items("JT01010000000214", layout.kind, TODAY) & layout.items.keys()
    gaps = sum(
        any(isinstance(values[code], Gap) for code in allowed)
        for values in (copy_values(person, layout.kind, layout, 2026, 7) for person in people)
    )
    assert 0 < gaps < len(people) // 5


def test_a_layout_of_another_kind_is_refused(law: Law, people: list[Person]) -> None:
    layout = law.layouts_in_force(KINDS[0], TODAY)[0]
    with pytest.raises(ValueError, match="another kind"):
        copy_values(people[0], KINDS[1], layout, 2026, 7)


def test_thousands_are_made_in_a_second() -> None:
    begun = time.perf_counter()
    made = sum(1 for _ in generate(FUKUOKA, 5_000, 3))
    assert made == 5_000
    assert time.perf_counter() - begun < 1
