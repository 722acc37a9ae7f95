"""The person's own query (自己情報提供): a portal's alone, and nothing else is a portal's."""

import shutil
from collections.abc import Callable
from datetime import date
from importlib import resources
from pathlib import Path

import pytest

from chukan.platform.law import Decision, Law, Verdict

TODAY, BEFORE = date(2026, 11, 23), date(2026, 1, 31)
PORTAL = "9909000000000016"
SETAGAYA, SAPPORO = "9901131121000001", "9901011002000001"
OWN = ("JMX0000000009201", "JTX0000000009201")
LISTED = ("JM01000000121000", "JT01010000000214")
TAX = "TM00000000000002"


def judge(law: Law, *, inquirer: str = PORTAL, provider: str = SAPPORO, what: tuple[str, str] = OWN,
          kind: str = TAX, day: date = TODAY) -> Decision:  # fmt: skip
    return law.decide(inquirer=inquirer, provider=provider, affair=what[0], procedure=what[1], kind=kind, day=day)


@pytest.mark.requirement("REC-03")
def test_a_portal_may_ask_every_agency_about_the_person_and_gets_every_item(law: Law) -> None:
    decision = judge(law)
    assert (decision.verdict, decision.reason, decision.law) == (
        Verdict.YES,
        "own_information",
        "番号法附則6条3項・4項",
    )
    assert judge(law, provider=SETAGAYA, kind="TM00000000000001").verdict is Verdict.YES
    held = {code for layout in law.layouts_in_force(TAX, TODAY) for code in layout.items}
    assert law.allowed_items(OWN[1], TAX, TODAY) == held
    assert len(held) > len(law.allowed_items(LISTED[1], TAX, TODAY))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"inquirer": SETAGAYA}, "not_a_portal"),
        ({"what": LISTED}, "portal_asks_own_only"),
        ({"what": ("JMX0000000000018", "JTX0000000000023")}, "portal_asks_own_only"),
        ({"what": ("JMX0000000099999", "JTX0000000099999")}, "portal_asks_own_only"),
        ({"what": (OWN[0], LISTED[1])}, "procedure_not_of_affair"),
        ({"what": (LISTED[0], OWN[1])}, "portal_asks_own_only"),
        ({"inquirer": SETAGAYA, "provider": PORTAL, "what": LISTED}, "portal_is_not_asked"),
        ({"inquirer": SETAGAYA, "provider": PORTAL}, "portal_is_not_asked"),
        ({"provider": PORTAL}, "same_agency"),
    ],
)
def test_nobody_else_asks_like_this_and_a_portal_asks_nothing_else(
    law: Law, changes: dict[str, object], reason: str
) -> None:
    decision = judge(law, **changes)  # type: ignore[arg-type]
    assert (decision.verdict, decision.reason) == (Verdict.NO, reason)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [({"kind": "TMX0000000099999"}, "unknown_kind"), ({"day": BEFORE}, "no_list_for_day"),
     ({"provider": "9901999999000001"}, "unknown_provider")],
)  # fmt: skip
def test_what_is_not_known_is_unknown(law: Law, changes: dict[str, object], reason: str) -> None:
    decision = judge(law, **changes)  # type: ignore[arg-type]
    assert (decision.verdict, decision.reason) == (Verdict.UNKNOWN, reason)


def test_an_own_query_is_under_no_delegation_and_its_record_is_never_kept_from_the_person(law: Law) -> None:
    assert law.own_refusal(OWN[0], on_behalf_of=None, withheld=False) is None
    assert law.own_refusal(OWN[0], on_behalf_of=SETAGAYA, withheld=False) == "own_information_delegated"
    assert law.own_refusal(OWN[0], on_behalf_of=None, withheld=True) == "own_information_withheld"
    assert law.own_refusal(LISTED[0], on_behalf_of=SETAGAYA, withheld=True) is None


@pytest.fixture
def with_rows(tmp_path: Path) -> Callable[..., Law]:
    """The law with these rows in place of the shipped ones; without any, of a release that has no such file."""
    shutil.copytree(str(resources.files("chukan.platform.law.data")), tmp_path / "law")

    def make(*rows: str) -> Law:
        file = tmp_path / "law" / "own_information.csv"
        header = "affair,procedure,portal,kinds,label_ja,law,valid_from,valid_until,illustrative"
        if rows:
            file.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
        else:
            file.unlink()
        return Law.load(tmp_path / "law")

    return make


def test_a_row_says_which_kinds_and_until_when(with_rows: Callable[..., Law]) -> None:
    law = with_rows(f"{OWN[0]},{OWN[1]},{PORTAL},{TAX},名称,法,2026-02-01,2026-10-31,yes",
                    f"{OWN[0]},{OWN[1]},{PORTAL},TM00000000000001,名称,法,2026-11-01,,yes")  # fmt: skip
    assert judge(law, day=date(2026, 10, 31)).verdict is Verdict.YES
    assert judge(law).reason == "kind_not_in_entry"
    assert judge(law, kind="TM00000000000001").verdict is Verdict.YES
    ended = with_rows(f"{OWN[0]},{OWN[1]},{PORTAL},*,名称,法,2026-02-01,2026-10-31,yes")
    assert judge(ended).reason == "affair_not_in_force"


def test_without_the_file_there_is_no_portal(with_rows: Callable[..., Law]) -> None:
    law = with_rows()
    assert judge(law).verdict is not Verdict.YES
    assert judge(law, what=LISTED).verdict is not Verdict.YES
    assert law.own.portals == frozenset()


@pytest.mark.parametrize(
    "row",
    [
        f"{LISTED[0]},JTX0000000009201,{PORTAL},*,名称,法,2026-02-01,,yes",
        f"JMX0000000009101,JTX0000000009201,{PORTAL},*,名称,法,2026-02-01,,yes",
        f"{OWN[0]},{LISTED[1]},{PORTAL},*,名称,法,2026-02-01,,yes",
        f"{OWN[0]},{OWN[1]},9909000000000099,*,名称,法,2026-02-01,,yes",
        f"{OWN[0]},{OWN[1]},{PORTAL},TM99999999999999,名称,法,2026-02-01,,yes",
        f"{OWN[0]},{OWN[1]},{PORTAL},*,名称,法,2026-03-01,,yes",
    ],
)
def test_rows_that_contradict_the_list_or_one_another_are_refused(with_rows: Callable[..., Law], row: str) -> None:
    with pytest.raises(ValueError, match="own_information"):
        with_rows(row, f"{OWN[0]},{OWN[1]},{PORTAL},*,名称,法,2026-02-01,,yes")
