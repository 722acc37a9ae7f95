"""Affairs beside the list (準法定事務, 条例事務): judged like one of the list's, where the law lets them be."""

import shutil
from collections.abc import Callable
from datetime import date
from importlib import resources
from pathlib import Path

import pytest

from chukan.platform.law import Decision, Law, Verdict

TODAY = date(2026, 11, 23)
BEFORE = date(2026, 3, 31)
SETAGAYA, SAPPORO, HIROSHIMA = "9901131121000001", "9901011002000001", "9901341002000001"
YONAGUNI = "9901473821000001"
RESIDENT, TAX, DISABILITY = "TM00000000000001", "TM00000000000002", "TMX0000000000011"
ORDINANCE, QUASI = ("JMX0000000009101", "JTX0000000009101"), ("JMX0000000009001", "JTX0000000009001")


def judge(
    law: Law,
    kind: str,
    *,
    what: tuple[str, str] = ORDINANCE,
    inquirer: str = SETAGAYA,
    provider: str = SAPPORO,
    day: date = TODAY,
    consent: bool = False,
) -> Decision:
    return law.decide(
        inquirer=inquirer, provider=provider, affair=what[0], procedure=what[1], kind=kind, day=day, consent=consent
    )


@pytest.mark.requirement("LAW-05")
def test_a_published_affair_of_an_ordinance_is_judged_like_the_lists(law: Law) -> None:
    decision = judge(law, RESIDENT)
    assert decision.verdict is Verdict.YES
    assert decision.steps[0].check == "similar"
    like = law.decide(
        inquirer=SETAGAYA,
        provider=SAPPORO,
        affair="JMX0000000000005",
        procedure="JTX0000000000006",
        kind=RESIDENT,
        day=TODAY,
    )
    assert decision.steps[1:] == like.steps
    assert law.allowed_items(ORDINANCE[1], RESIDENT, TODAY) == law.allowed_items("JTX0000000000006", RESIDENT, TODAY)


@pytest.mark.requirement("INQ-11")
@pytest.mark.parametrize(("consent", "reason"), [(False, "consent_missing"), (True, "on_the_list")])
def test_local_tax_information_needs_the_persons_consent(law: Law, *, consent: bool, reason: str) -> None:
    decision = judge(law, TAX, consent=consent)
    assert decision.reason == reason
    assert decision.verdict is (Verdict.YES if consent else Verdict.NO)


@pytest.mark.requirement("INQ-11")
def test_consent_opens_nothing_else(law: Law) -> None:
    assert judge(law, TAX, inquirer=HIROSHIMA, consent=True).verdict is Verdict.NO
    statutory = {"affair": "JMX0000000000002", "procedure": "JTX0000000000003", "kind": RESIDENT}
    for consent in (False, True):
        decision = law.decide(inquirer=SETAGAYA, provider=SAPPORO, day=TODAY, consent=consent, **statutory)
        assert decision.reason == "kind_not_in_entry"


@pytest.mark.requirement("INQ-11")
@pytest.mark.parametrize(
    ("inquirer", "day", "kind", "reason"),
    [
        (HIROSHIMA, TODAY, RESIDENT, "affair_not_published"),
        (SAPPORO, TODAY, RESIDENT, "affair_not_notified"),
        (SETAGAYA, BEFORE, RESIDENT, "affair_not_in_force"),
        (SETAGAYA, TODAY, DISABILITY, "kind_not_notified"),
    ],
)
def test_what_was_not_notified_and_published_is_refused(
    law: Law, inquirer: str, day: date, kind: str, reason: str
) -> None:
    provider = SETAGAYA if inquirer == SAPPORO else SAPPORO
    decision = judge(law, kind, inquirer=inquirer, provider=provider, day=day)
    assert (decision.verdict, decision.reason) == (Verdict.NO, reason)


@pytest.mark.requirement("LAW-05")
def test_a_limited_agency_keeps_back_what_it_said_and_from_ordinances_only(law: Law) -> None:
    assert judge(law, TAX, provider=YONAGUNI, consent=True).reason == "provider_limited"
    assert judge(law, RESIDENT, provider=YONAGUNI).verdict is Verdict.YES
    assert judge(law, TAX, what=QUASI, provider=YONAGUNI).verdict is Verdict.YES
    assert judge(law, TAX, provider=YONAGUNI, day=BEFORE, consent=True).reason == "affair_not_in_force"


@pytest.mark.requirement("LAW-05")
def test_a_quasi_statutory_affair_is_everybodys_whom_the_list_names(law: Law) -> None:
    assert judge(law, TAX, what=QUASI).verdict is Verdict.YES
    assert judge(law, RESIDENT, what=QUASI).reason == "kind_not_in_entry"
    wrong_procedure = judge(law, TAX, what=(QUASI[0], ORDINANCE[1]))
    assert (wrong_procedure.verdict, wrong_procedure.reason) == (Verdict.NO, "procedure_not_of_affair")


@pytest.fixture
def files(tmp_path: Path) -> Path:
    with resources.as_file(resources.files("chukan.platform.law.data")) as shipped:
        return Path(shutil.copytree(shipped, tmp_path / "law"))


def _append(name: str, line: str) -> Callable[[Path], None]:
    def change(directory: Path) -> None:
        with (directory / name).open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    return change


_ROW = "{affair},{procedure},{basis},{inquirer},{like},{like_procedure},{kinds},誤り,2026-03-02,2026-04-01,,yes"


def _row(**changes: str) -> Callable[[Path], None]:
    right = {
        "affair": "JMX0000000009102",
        "procedure": "JTX0000000009102",
        "basis": "ordinance",
        "inquirer": SETAGAYA,
        "like": "JMX0000000000005",
        "like_procedure": "JTX0000000000006",
        "kinds": "*",
    }
    return _append("similar_affairs.csv", _ROW.format(**(right | changes)))


CONTRADICTIONS = {
    "the list's own affair": (_row(affair="JMX0000000000005"), "list's own"),
    "like nothing": (_row(like_procedure="JTX0000000000004"), "like a procedure that does not exist"),
    "kind of no name": (_row(kinds="TM00000000000099"), "kinds that do not exist"),
    "agency of no name": (_row(inquirer="9999999999999999"), "an agency that does not exist"),
    "no such basis": (_row(basis="custom"), "no such basis"),
    "quasi of one agency": (_row(basis="quasi"), "everybody's"),
    "twice on one day": (_row(affair=ORDINANCE[0], procedure=ORDINANCE[1]), "stands twice"),
    "like two procedures": (
        _row(affair=ORDINANCE[0], procedure=ORDINANCE[1], inquirer=SAPPORO, like_procedure="JTX0000000000007"),
        "like two procedures",
    ),
    "limit of nobody": (_append("provider_limits.csv", "9999999999999999,*,*,2026-04-01,,yes"), "limits name agencies"),
    "consent of no kind": (_append("consent_kinds.csv", "TM00000000000099"), "kinds that do not exist"),
}


@pytest.mark.requirement("LAW-05")
@pytest.mark.parametrize(("change", "says"), CONTRADICTIONS.values(), ids=CONTRADICTIONS.keys())
def test_rows_that_contradict_themselves_are_refused(files: Path, change: Callable[[Path], None], says: str) -> None:
    change(files)
    with pytest.raises(ValueError, match=says):
        Law.load(files)


def test_data_of_an_earlier_release_have_no_such_affairs(files: Path) -> None:
    for name in ("similar_affairs.csv", "provider_limits.csv", "consent_kinds.csv"):
        (files / name).unlink()
    earlier = Law.load(files)
    assert judge(earlier, RESIDENT).reason == "unknown_affair"
    assert earlier.number != Law.load().number
