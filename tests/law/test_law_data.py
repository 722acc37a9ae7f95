"""The data files: complete, consistent, marked where illustrative; a set that contradicts itself is refused."""

import shutil
from collections.abc import Callable
from datetime import date
from importlib import resources
from pathlib import Path

import pytest

from chukan.platform.law import Law, Verdict
from chukan.tenants import bodies

TODAY = date(2026, 11, 23)

UNRESOLVED = 35
"""Wordings of both lists that name no class yet; fewer is progress, more is a mistake."""


@pytest.fixture
def files(tmp_path: Path) -> Path:
    for entry in resources.files("chukan.platform.law.data").iterdir():
        if entry.name.endswith((".csv", ".toml")):
            shutil.copyfile(str(entry), tmp_path / entry.name)
    return tmp_path


@pytest.mark.requirement("LAW-01")
def test_both_lists_are_complete(law: Law) -> None:
    first, second = law.lists
    assert (len(first.entries), len({entry.item for entry in first.entries})) == (350, 120)
    assert (len(second.entries), len({entry.item for entry in second.entries})) == (620, 180)
    assert {"五十六の二"} <= {entry.item for entry in first.entries}
    assert {"十二の二", "百七十三の二"} <= {entry.item for entry in second.entries}
    assert "百五十七" not in {entry.item for entry in second.entries}


@pytest.mark.requirement("LAW-02")
def test_wordings_are_resolved_or_known_to_be_open(law: Law) -> None:
    texts = {text for one in law.lists for entry in one.entries for text in (entry.inquirer, entry.provider)}
    unresolved = texts - law._classes.texts.keys()
    assert len(unresolved) == UNRESOLVED
    assert {text for text in unresolved if len(text) < 20} == set(), "short wordings are all resolved"
    assert law._classes.texts.keys() <= texts, "no mapping of words that stand nowhere"


@pytest.mark.requirement("LAW-03")
def test_codes_of_ours_are_marked_and_codes_seen_in_use_are_not(law: Law) -> None:
    for table in (law.kinds, law.affairs, law.procedures):
        for code, entry in table.items():
            assert len(code) == 16
            assert entry.illustrative == (code[2] == "X")
    for agency in bodies.agencies():
        assert agency.illustrative == agency.code.startswith("99")


def test_each_file_names_its_source_in_its_first_line(files: Path) -> None:
    for path in files.iterdir():
        assert path.read_text(encoding="utf-8").startswith("# "), path.name


@pytest.mark.requirement("LAW-03")
def test_allowed_items_stand_in_a_layout_and_every_procedure_has_some(law: Law) -> None:
    for procedure in law.procedures:
        kinds = [kind for kind in law.kinds if law.allowed_items(procedure, kind, TODAY)]
        assert kinds, procedure
        for kind in kinds:
            held = {code for layout in law.layouts_in_force(kind, TODAY) for code in layout.items}
            assert law.allowed_items(procedure, kind, TODAY) <= held
    assert len(law.procedures) >= 12


def test_allowed_items_follow_the_list_of_the_day(law: Law) -> None:
    tax = "TM00000000000002"
    assert len(law.allowed_items("JT01010000000214", tax, TODAY)) == 8
    assert law.allowed_items("JT01010000000214", tax, date(2015, 12, 15)) == frozenset()
    assert law.allowed_items("JT01010000000214", tax, date(2020, 1, 1)) == frozenset()
    everything = law.allowed_items("JTX0000000000001", tax, TODAY)
    assert {code for layout in law.layouts_in_force(tax, TODAY) for code in layout.items} == everything
    assert law.allowed_items("JTX0000000000001", tax, date(2026, 3, 1)) < everything


def test_the_number_follows_the_content(law: Law, files: Path) -> None:
    same = Law.load(files)
    assert (same.number, same.digest) == (law.number, law.digest)
    assert 0 < law.number < 2**48
    path = files / "gap_codes.csv"
    path.write_text(path.read_text(encoding="utf-8") + "98,試験,test\n", encoding="utf-8")
    assert Law.load(files).number != law.number


def _replace(name: str, old: str, new: str) -> Callable[[Path], None]:
    def change(directory: Path) -> None:
        path = directory / name
        text = path.read_text(encoding="utf-8")
        assert old in text
        path.write_text(text.replace(old, new, 1), encoding="utf-8")

    return change


def _append(name: str, line: str) -> Callable[[Path], None]:
    def change(directory: Path) -> None:
        path = directory / name
        path.write_text(path.read_text(encoding="utf-8") + line + "\n", encoding="utf-8")

    return change


@pytest.mark.requirement("LAW-02")
@pytest.mark.parametrize(
    ("wording", "reason"),
    [
        ("都道府県教育委員会又は市町村教育委員会", "inquirer_class_unknown"),
        ("市町村長", "provider_class_unknown"),
    ],
)
def test_wording_that_nobody_resolved_is_unknown_never_no(files: Path, wording: str, reason: str) -> None:
    path = files / "class_texts.csv"
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    path.write_text("".join(line for line in lines if not line.startswith(wording + ",")), encoding="utf-8")
    for inquirer, provider in (("9902401307000001", "9901011002000001"), ("9902011002000001", "9902401307000001")):
        decision = Law.load(files).decide(
            inquirer=inquirer,
            provider=provider,
            affair="JMX0000000000003",
            procedure="JTX0000000000004",
            kind="TM00000000000002",
            day=TODAY,
        )
        resolved_side_fails = wording != "市町村長" and provider.startswith("9902")
        assert decision.verdict is (Verdict.NO if resolved_side_fails else Verdict.UNKNOWN)
        assert decision.reason == ("provider_not_in_class" if resolved_side_fails else reason)


CONTRADICTIONS = {
    "lists overlap": (_replace("lists.toml", "2026-02-01", "2015-12-31"), "in force on one day"),
    "numbers repeat": (_replace("lists.toml", "number = 2", "number = 1"), "one number"),
    "item of no list": (_replace("affairs.csv", ",2,百六十,", ",2,百六十一の九,"), "does not have"),
    "procedure of no affair": (
        _append("procedures.csv", "JTX0000000000900,JMX0000000000900,誤り,yes"),
        "procedures of no affair",
    ),
    "class of no name": (_append("class_texts.csv", "何か,存在しない分類"), "classes that do not exist"),
    "agency of no name": (
        _append("classes.csv", "市町村長,agency:9999999999999999,yes,"),
        "agencies that do not exist",
    ),
    "item of no layout": (
        _append("allowed_items.csv", "JTX0000000000001,TM00000000000001,2,TKX0010000009999"),
        "items that no layout has",
    ),
    "allowed for no procedure": (
        _append("allowed_items.csv", "JTX0000000000900,TM00000000000001,2,*"),
        "no such procedure",
    ),
    "item twice": (
        _append("layouts.csv", "TM00000000000001,202506,2025-06-01,,TKX0010000000001,氏名,text,100,yes,yes"),
        "stands twice",
    ),
    "version twice": (
        _append("layouts.csv", "TM00000000000001,202506,2025-06-02,,TKX0010000000099,余分,text,100,yes,yes"),
        "two periods of validity",
    ),
    "own reason code gone": (_replace("gap_codes.csv", "\n90,", "\n91,"), "own reason codes"),
    "period of no table": (_replace("kinds.csv", ",yes,date,", ",yes,month,"), "does not know the periods"),
}


@pytest.mark.requirement("LAW-01")
@pytest.mark.parametrize(("change", "says"), CONTRADICTIONS.values(), ids=CONTRADICTIONS.keys())
def test_data_that_contradicts_itself_is_refused(files: Path, change: Callable[[Path], None], says: str) -> None:
    change(files)
    with pytest.raises(ValueError, match=says):
        Law.load(files)
