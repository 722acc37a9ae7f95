"""The scenario files: each can be read, says what it breaks and mends it; a wrong one is refused where it is wrong."""

import pytest

from chukan.errors import Problem
from chukan.ops.drills.scenario import find, parse, read_all
from chukan.ops.drills.vocabulary import GIVEN, THEN, WHEN

FILE = """
title_ja = "試験"
title_en = "A trial"
breaks_ja = "何か"
breaks_en = "Something"
given = ["the site is settled", "clients have worked for 2 s"]
when = ["kill network", "let clients work for 3 s", "start again what was killed"]
then = ["no request fails"]
[within]
drill_s = 60
outage_home_east_s = 5
"""
WANTED = {
    "switchover", "postgres-crash", "node-loss", "centre-loss", "centre-loss-fenced", "interconnect-cut",
    "centre-isolated", "witness-loss", "etcd-quorum-loss", "frozen-primary", "frozen-patroni", "network-outage",
    "disk-full", "sequencer-frozen", "restore-to-time", "gateway-loss", "key-rotation", "exchange-drain",
    "rolling-restart", "agency-move",
}  # fmt: skip


@pytest.mark.requirement("PLT-04")
def test_every_drill_that_is_promised_is_there_in_both_languages() -> None:
    found = read_all()
    assert set(found) == WANTED
    for scenario in found.values():
        assert all((scenario.title_ja, scenario.title_en, scenario.breaks_ja, scenario.breaks_en))
        assert not scenario.title_ja.isascii()
        assert all(step.ja and "{" not in step.ja for step in (*scenario.given, *scenario.when, *scenario.then))


def test_the_bounds_are_those_that_are_judged() -> None:
    found = read_all()
    assert found["switchover"].within.outage_s("home-east-near") == 5
    assert found["postgres-crash"].within.outage_s("home-east-far") == 5
    assert found["centre-loss"].within.outage_s("home-east-near") == 25
    assert found["centre-loss-fenced"].within.after_word_s == 5
    assert found["exchange-drain"].claims("no_failures")
    assert not found["switchover"].claims("no_failures")
    assert found["centre-isolated"].needs == ("namespaces",)
    assert found["restore-to-time"].needs == ("backup",)


def test_a_scenario_is_understood() -> None:
    scenario = parse("trial", FILE)
    assert [step.verb for step in scenario.when] == ["kill", "work", "start_all"]
    assert scenario.when[0].words == {"process": "network"}
    assert scenario.when[1].limit_s == 3
    assert scenario.when[1].ja == "利用者に 3 秒間利用させる"


@pytest.mark.parametrize(
    ("old", "new", "code", "pointer", "expected"),
    [
        (
            "kill network", "mend links between east and west", "setting_unknown", "/trial/when/0",
            "mend the link between {centre} and {other}",
        ),
        ("kill network", "kill patroni", "setting_unknown", "/trial/when/0", "kill {process}"),
        ('"start again what was killed"', "", "setting_missing", "/trial/when/0", "start again what was killed"),
        ("no request fails", "no request ever fails", "setting_unknown", "/trial/then/0", "no request fails"),
        ("drill_s = 60", "drill_s = 4", "setting_invalid", "/trial/within/drill_s", "at least 5 s"),
        ("drill_s = 60", "drill_s = 0", "setting_invalid", "/trial", None),
        ("drill_s = 60", "drill_s = 60\nafter_word_s = 5", "setting_invalid", "/trial/within/after_word_s", None),
        ("drill_s = 60", "outage_s = 60", "setting_invalid", "/trial", None),
        ("title_ja", "title_jp", "setting_invalid", "/trial", None),
        ("when = [", "when = ", "settings_unreadable", "/trial", "TOML"),
        (
            "kill network", "cut the link between east and east", "setting_missing", "/trial/when/0",
            "mend the link between {centre} and {other}",
        ),
    ],
)  # fmt: skip
def test_a_wrong_file_is_refused_where_it_is_wrong(
    old: str, new: str, code: str, pointer: str, expected: str | None
) -> None:
    with pytest.raises(Problem) as told:
        parse("trial", FILE.replace(old, new))
    assert (told.value.code, told.value.pointer) == (code, pointer)
    assert expected is None or told.value.expected == expected


def test_an_unknown_drill_is_refused_with_the_nearest_one() -> None:
    with pytest.raises(Problem) as told:
        find("center-loss")
    assert (told.value.code, told.value.expected) == ("drill_unknown", "centre-loss")


def test_no_sentence_can_be_taken_for_another() -> None:
    for sentences in (GIVEN, WHEN, THEN):
        assert len({sentence.en for sentence in sentences}) == len(sentences)
        assert len({sentence.verb for sentence in sentences}) == len(sentences)
