"""``chukan law``: the same judgement for people and for programs."""

import json
from datetime import date

import pytest

from chukan.errors import Problem
from chukan.ops import law as command
from chukan.platform.law import Law
from chukan.tenants.bodies import resolve_agency

BOARD, SAPPORO, TOWN = "9902401307000001", "9901011002000001", "9901473821000001"
TAX = "TM00000000000002"


def explain(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    command.app(["explain", *words], result_action="return_value")
    return capsys.readouterr().out


def as_json(capsys: pytest.CaptureFixture[str], inquirer: str, provider: str, *words: str) -> dict[str, object]:
    out = explain(capsys, "--inquirer", inquirer, "--provider", provider, "--kind", TAX, "--json", *words)
    assert out.count("\n") == 1
    document: dict[str, object] = json.loads(out)
    return document


@pytest.mark.requirement("LAW-01")
def test_it_finds_the_affairs_under_which_a_query_is_allowed(capsys: pytest.CaptureFixture[str]) -> None:
    document = as_json(capsys, "13112", "14101", "--on", "2026-03-01")
    assert document["verdict"] == "yes"
    assert document["provider"] == {"code": "9901141003000001", "name": "横浜市長", "illustrative": True}
    decisions = document["decisions"]
    assert isinstance(decisions, list)
    best = decisions[0]
    assert (best["item"], best["procedure"], best["illustrative"]) == ("百六十", "JT01010000000214", False)
    assert {one["verdict"] for one in decisions} == {"yes", "unknown", "no"}


@pytest.mark.requirement("LAW-01")
@pytest.mark.parametrize(
    ("day", "verdict", "item"),
    [("2026-03-01", "yes", "六十三"), ("2015-12-01", "no", "三十八"), ("2020-01-01", "unknown", "")],
)
def test_it_judges_by_the_list_of_the_day(
    capsys: pytest.CaptureFixture[str], day: str, verdict: str, item: str
) -> None:
    words = ("--affair", "JMX0000000000003", "--procedure", "JTX0000000000004", "--on", day)
    document = as_json(capsys, BOARD, SAPPORO, *words)
    decisions = document["decisions"]
    assert isinstance(decisions, list)
    assert (document["verdict"], [one["item"] for one in decisions]) == (verdict, [item])


def test_it_explains_the_steps_to_people(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--inquirer", BOARD, "--provider", TOWN, "--kind", "TMX0000000000012", "--affair", "JMX0000000000003"]
    out = explain(capsys, *words, "--procedure", "JTX0000000000004", "--on", "2026-03-01")
    for part in ("判断できない (unknown)", "provider_class_unknown", "六十三", "都道府県知事等", "例示"):
        assert part in out


def test_it_says_how_many_procedures_fail_and_why(capsys: pytest.CaptureFixture[str]) -> None:
    out = explain(capsys, "--inquirer", "13112", "--provider", "01100", "--kind", TAX, "--on", "2026-03-01")
    assert "JM01000000121000" in out
    assert "inquirer_not_in_class" in out


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("--affair", "JM" + "9" * 14), "unknown_affair"),
        (("--procedure", "JT" + "9" * 14), "unknown_procedure"),
        (("--affair", "JMX0000000000001", "--procedure", "JTX0000000000004"), "procedure_not_of_affair"),
    ],
)
def test_codes_that_do_not_fit_are_answered_not_raised(
    capsys: pytest.CaptureFixture[str], words: tuple[str, ...], reason: str
) -> None:
    decisions = as_json(capsys, "13112", "01100", "--on", "2026-03-01", *words)["decisions"]
    assert isinstance(decisions, list)
    assert [one["reason"] for one in decisions] == [reason]


def test_an_agency_that_is_not_known_is_answered_too(capsys: pytest.CaptureFixture[str]) -> None:
    document = as_json(capsys, "00000", "01100", "--on", "2026-03-01")
    assert (document["verdict"], document["inquirer"]) == ("unknown", None)
    assert "登録なし" in explain(
        capsys, "--inquirer", "00000", "--provider", "01100", "--kind", "TM", "--on", "2026-03-01"
    )


def test_a_day_that_is_none_is_refused() -> None:
    with pytest.raises(Problem) as caught:
        command.app(
            ["explain", "--inquirer", "13112", "--provider", "01100", "--kind", TAX, "--on", "2026-02-30"],
            result_action="return_value",
        )
    assert caught.value.code == "invalid_field"


def test_the_codes_are_listed_with_what_is_ours_marked(capsys: pytest.CaptureFixture[str]) -> None:
    command.app(["codes"], result_action="return_value")
    out = capsys.readouterr().out
    for code in Law.load().procedures:
        assert code in out
    lines = out.splitlines()
    assert "例示" in next(line for line in lines if "TMX0000000000011" in line)
    assert "例示" not in next(line for line in lines if "TM00000000000002" in line)


def test_every_reason_can_happen_and_has_its_words() -> None:
    law = Law.load()
    agencies = ["13112", "01100", "47382", "400009", "1419900000002200", BOARD, "9903400009000001", "9903400009000002"]
    found = [entry.code if (entry := resolve_agency(named)) else named for named in agencies]
    codes = [(one.affair, one.code) for one in law.procedures.values()]
    codes += [("JM", "JTX0000000000001"), ("JMX0000000000001", "JT"), ("JMX0000000000001", "JTX0000000000004")]
    decisions = [
        law.decide(inquirer=asks, provider=answers, affair=affair, procedure=procedure, kind=kind, day=day)
        for day in (date(2026, 3, 1), date(2015, 12, 1), date(2020, 1, 1))
        for asks in [*found, "x"]
        for answers in [*found, "x"]
        for affair, procedure in codes
        for kind in [*law.kinds, "TM"]
    ]
    beside = [one.procedure for one in law.similar.rows]
    decisions += [
        law.decide(
            inquirer=asks, provider=answers, affair=affair, procedure=procedure, kind=kind, day=day, consent=consent
        )
        for day in (date(2026, 3, 1), date(2026, 11, 23))
        for asks in ("9901131121000001", "9901341002000001")
        for answers in ("9901011002000001", "9901473821000001")
        for affair, procedure in codes
        if procedure in beside
        for kind in law.kinds
        for consent in (False, True)
    ]
    own, today = law.own.rows[0], date(2026, 11, 23)
    decisions += [
        law.decide(inquirer=asks, provider=answers, affair=affair, procedure=procedure, kind=TAX, day=today)
        for asks, answers in ((own.portal, "9901011002000001"), ("9901011002000001", own.portal))
        for affair, procedure in ((own.affair, own.procedure), ("JMX0000000000001", "JTX0000000000001"))
    ]
    assert {decision.reason for decision in decisions} == command._REASONS.keys()
    assert {step.check for decision in decisions for step in decision.steps} == command._CHECKS.keys()
