"""May this agency ask that one: yes, no, unknown, and the reason for it, by the list of the day."""

import time
from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chukan.platform.law import Decision, Law, Verdict
from chukan.tenants import bodies

TODAY = date(2026, 11, 23)
THEN = date(2015, 12, 15)

SAPPORO, SETAGAYA, HIROSHIMA = "9901011002000001", "9901131121000001", "9901341002000001"
YONAGUNI = "9901473821000001"
FUKUOKA_BOARD, FUKUOKA_GOVERNOR = "9902401307000001", "9901400009000001"
FUKUOKA_PREFECTURE_BOARD, FUKUOKA_UNION = "9902400009000001", "9903400009000001"
CARE_UNION = "9903400009000002"
DIGITAL, WELFARE_MINISTER = "1419900000002200", "9909000000000001"

RESIDENT, TAX, CARD, ACCOUNT = (f"TM{number:014d}" for number in (1, 2, 82, 89))
DISABILITY, ASSISTANCE = "TMX0000000000011", "TMX0000000000012"
BENEFIT, BENEFIT_TAX, BENEFIT_ACCOUNT = "JM01000000121000", "JT01010000000214", "JT01010000000001"


def affair(number: int) -> str:
    return f"JMX{number:013d}"


def procedure(number: int) -> str:
    return f"JTX{number:013d}"


def judge(law: Law, inquirer: str, provider: str, what: tuple[str, str, str], day: date = TODAY) -> Decision:
    return law.decide(inquirer=inquirer, provider=provider, affair=what[0], procedure=what[1], kind=what[2], day=day)


SCHOOL_TAX = (affair(3), procedure(4), TAX)
SCHOOL_ASSISTANCE = (affair(3), procedure(4), ASSISTANCE)
UNION_TAX = (affair(7), procedure(10), TAX)
LEVY_TAX = (affair(1), procedure(1), TAX)

What = tuple[str, str, str]

ALLOWED: list[tuple[str, str, str, What, str]] = [
    ("mayor asks mayor for tax", SETAGAYA, SAPPORO, LEVY_TAX, "四十八"),
    ("mayor asks a town for tax", SETAGAYA, YONAGUNI, LEVY_TAX, "四十八"),
    ("board asks mayor for tax", FUKUOKA_BOARD, SAPPORO, SCHOOL_TAX, "六十三"),
    ("board asks mayor for household", FUKUOKA_BOARD, SAPPORO, (affair(3), procedure(4), RESIDENT), "六十三"),
    ("board asks welfare office of a city", FUKUOKA_BOARD, SAPPORO, SCHOOL_ASSISTANCE, "六十三"),
    ("board asks governor for assistance", FUKUOKA_BOARD, FUKUOKA_GOVERNOR, SCHOOL_ASSISTANCE, "六十三"),
    ("prefecture's board asks mayor", FUKUOKA_PREFECTURE_BOARD, SAPPORO, (affair(4), procedure(5), TAX), "五十九"),
    ("union asks mayor for tax", FUKUOKA_UNION, SETAGAYA, UNION_TAX, "百十五"),
    ("governor asks mayor for tax", FUKUOKA_GOVERNOR, SAPPORO, (affair(11), procedure(16), TAX), "九十一"),
    ("mayor asks the Digital Agency", SETAGAYA, DIGITAL, (BENEFIT, BENEFIT_ACCOUNT, ACCOUNT), "百六十"),
    ("minister asks mayor", WELFARE_MINISTER, SAPPORO, (affair(17), procedure(22), TAX), "一"),
    ("real codes of 2024", SETAGAYA, SAPPORO, (BENEFIT, BENEFIT_TAX, TAX), "百六十"),
]


@pytest.mark.requirement("LAW-01", "LAW-02")
@pytest.mark.parametrize(
    ("inquirer", "provider", "what", "item"), [row[1:] for row in ALLOWED], ids=[r[0] for r in ALLOWED]
)
def test_the_list_allows_it_and_says_by_which_item(
    law: Law, inquirer: str, provider: str, what: tuple[str, str, str], item: str
) -> None:
    decision = judge(law, inquirer, provider, what)
    assert (decision.verdict, decision.reason, decision.item) == (Verdict.YES, "on_the_list", item)
    assert decision.list_number == 2
    assert "第9号" in decision.law
    assert all(step.verdict is Verdict.YES for step in decision.steps)


REFUSED: list[tuple[str, str, str, What, str, str]] = [
    ("kind not in the item", FUKUOKA_BOARD, DIGITAL, (affair(3), procedure(4), ACCOUNT), "no", "kind_not_in_entry"),
    ("town is no union", YONAGUNI, SAPPORO, UNION_TAX, "no", "inquirer_not_in_class"),
    ("mayor is no board", SETAGAYA, SAPPORO, SCHOOL_TAX, "no", "inquirer_not_in_class"),
    (
        "mayor is no board, whatever the kind",
        SETAGAYA,
        DIGITAL,
        (affair(3), procedure(4), ACCOUNT),
        "no",
        "inquirer_not_in_class",
    ),
    ("board provides no tax", FUKUOKA_BOARD, "9902011002000001", SCHOOL_TAX, "no", "provider_not_in_class"),
    ("governor provides no municipal tax", SETAGAYA, FUKUOKA_GOVERNOR, LEVY_TAX, "no", "provider_not_in_class"),
    ("asks itself", SAPPORO, SAPPORO, LEVY_TAX, "no", "same_agency"),
    ("procedure of another affair", SETAGAYA, SAPPORO, (affair(1), procedure(4), TAX), "no", "procedure_not_of_affair"),
    ("affair not known", SETAGAYA, SAPPORO, ("JM" + "9" * 14, BENEFIT_TAX, TAX), "unknown", "unknown_affair"),
    ("procedure not known", SETAGAYA, SAPPORO, (BENEFIT, "JT" + "9" * 14, TAX), "unknown", "unknown_procedure"),
    ("kind not known", SETAGAYA, SAPPORO, (BENEFIT, BENEFIT_TAX, "TM" + "9" * 14), "unknown", "unknown_kind"),
    ("kind in no list", SETAGAYA, SAPPORO, (BENEFIT, BENEFIT_TAX, CARD), "unknown", "kind_not_mapped"),
    ("items of the kind not known", SETAGAYA, SAPPORO, (BENEFIT, BENEFIT_TAX, RESIDENT), "unknown", "items_not_known"),
    ("inquirer not known", "9" * 16, SAPPORO, LEVY_TAX, "unknown", "unknown_inquirer"),
    ("provider not known", SAPPORO, "9" * 16, LEVY_TAX, "unknown", "unknown_provider"),
    ("joint body may act for mayors", CARE_UNION, SAPPORO, LEVY_TAX, "unknown", "inquirer_class_unknown"),
    ("town may run a welfare office", FUKUOKA_BOARD, YONAGUNI, SCHOOL_ASSISTANCE, "unknown", "provider_class_unknown"),
    (
        "city may stand for the governor",
        HIROSHIMA,
        SAPPORO,
        (affair(11), procedure(16), TAX),
        "unknown",
        "inquirer_class_unknown",
    ),
]


@pytest.mark.requirement("LAW-01", "LAW-02")
@pytest.mark.parametrize(
    ("inquirer", "provider", "what", "told"), [(*row[1:4], row[4:]) for row in REFUSED], ids=[row[0] for row in REFUSED]
)
def test_everything_else_stays_closed_and_no_is_told_from_unknown(
    law: Law, inquirer: str, provider: str, what: tuple[str, str, str], told: tuple[str, str]
) -> None:
    decision = judge(law, inquirer, provider, what)
    assert (decision.verdict.value, decision.reason) == told
    assert decision.steps


@pytest.mark.requirement("LAW-01")
@pytest.mark.parametrize(
    ("day", "number"),
    [
        (date(2015, 11, 30), None),
        (date(2015, 12, 1), 1),
        (date(2015, 12, 31), 1),
        (date(2016, 1, 1), None),
        (date(2024, 5, 27), None),
        (date(2026, 1, 31), None),
        (date(2026, 2, 1), 2),
        (date(2026, 11, 23), 2),
    ],
)
def test_a_list_is_in_force_on_its_days_and_no_list_means_unknown(law: Law, day: date, number: int | None) -> None:
    listed = law.on(day)
    assert (listed.number if listed else None) == number
    decision = judge(law, SETAGAYA, SAPPORO, LEVY_TAX, day)
    expected = (Verdict.YES, "on_the_list") if number else (Verdict.UNKNOWN, "no_list_for_day")
    assert (decision.verdict, decision.reason) == expected


@pytest.mark.requirement("LAW-01")
def test_a_past_act_is_judged_by_the_list_of_its_day(law: Law) -> None:
    assert judge(law, FUKUOKA_BOARD, SAPPORO, SCHOOL_TAX, TODAY).verdict is Verdict.YES
    then = judge(law, FUKUOKA_BOARD, SAPPORO, SCHOOL_TAX, THEN)
    assert (then.verdict, then.reason, then.item) == (Verdict.NO, "kind_not_in_entry", "三十八")


@pytest.mark.requirement("LAW-03")
def test_a_code_is_stable_while_the_number_of_its_item_changes(law: Law) -> None:
    then, now = (judge(law, SETAGAYA, SAPPORO, LEVY_TAX, day) for day in (THEN, TODAY))
    assert (then.item, now.item) == ("二十七", "四十八")
    assert then.verdict is now.verdict is Verdict.YES
    known = law.affairs[BENEFIT]
    assert known.items_in(2) == ("百六十",)  # the code still carries 121, the number of the item before
    assert known.items_in(1) == ()
    assert judge(law, SETAGAYA, SAPPORO, (BENEFIT, BENEFIT_TAX, TAX), THEN).reason == "affair_not_mapped"


@pytest.mark.requirement("LAW-02")
def test_every_city_and_ward_is_a_welfare_office_and_no_town_is_taken_for_none(law: Law) -> None:
    by_kind: dict[str, set[Verdict]] = {}
    for entry in bodies.agencies():
        if entry.kind is bodies.AgencyKind.HEAD and entry.code != SAPPORO:
            decision = judge(law, FUKUOKA_BOARD, entry.code, SCHOOL_ASSISTANCE)
            by_kind.setdefault(entry.form, set()).add(decision.verdict)
    yes, unknown = {Verdict.YES}, {Verdict.UNKNOWN}
    assert by_kind == {
        "prefecture": yes, "designated_city": yes, "city": yes, "special_ward": yes, "town": unknown, "village": unknown
    }  # fmt: skip


@pytest.mark.requirement("LAW-02")
def test_an_agency_named_singly_is_also_what_its_kind_is(law: Law) -> None:
    """Hiroshima is named in a class of its own, and is a mayor like any other all the same."""
    assert judge(law, HIROSHIMA, SAPPORO, LEVY_TAX).verdict is Verdict.YES


def test_a_verdict_cannot_be_taken_for_a_truth_value(law: Law) -> None:
    with pytest.raises(TypeError):
        bool(judge(law, SETAGAYA, SAPPORO, LEVY_TAX).verdict)


@given(
    words=st.tuples(st.text(max_size=20), st.text(max_size=20), st.text(max_size=20)), at=st.sampled_from((TODAY, THEN))
)
def test_words_from_outside_never_open_anything(words: tuple[str, str, str], at: date) -> None:
    law = _LAW
    kept = len(law._kept)
    decision = judge(law, SETAGAYA, SAPPORO, words, at)
    assert decision.verdict is Verdict.UNKNOWN
    assert len(law._kept) == kept, "codes that do not exist must not fill the memory"


_LAW = Law.load()


def test_a_judgement_is_the_same_when_it_is_looked_up_again() -> None:
    fresh = Law.load()
    questions = [row[1:4] for row in ALLOWED] + [row[1:4] for row in REFUSED]
    first = [judge(fresh, *question) for question in questions]
    assert [judge(fresh, *question) for question in questions] == first


def test_judging_a_line_takes_microseconds(law: Law) -> None:
    judge(law, SETAGAYA, SAPPORO, LEVY_TAX)
    best_us = min(_timed_us(law) for _ in range(5))
    assert best_us < 5, f"{best_us:.2f} µs"


def _timed_us(law: Law) -> float:
    begun = time.perf_counter()
    for _ in range(2_000):
        judge(law, SETAGAYA, SAPPORO, LEVY_TAX)
    return (time.perf_counter() - begun) * 1e6 / 2_000
