"""The draft of a breach report and its deadlines, from what is known: nine fields, days counted as the rule says."""

import datetime as dt
import uuid
from typing import Any

import pytest

from chukan.clock import JST
from chukan.ops.incident_report import FIELDS, OPEN, Touch, deadlines_of, draft_of, markdown
from chukan.tenants.incidents import Entered, Facts, Incident

ID = uuid.UUID("01930000-0000-7000-8000-000000000001")
KINDS = {"TM00000000000002": "地方税関係情報"}


def at(text: str) -> dt.datetime:
    return dt.datetime.fromisoformat(text).replace(tzinfo=JST)


def incident(**facts: Any) -> Incident:
    given: dict[str, Any] = {"title": "外部からの不正な接続", "known_at": at("2026-11-24T10:00")}
    told = Facts(**given | facts)
    return Incident(ID, told, (Entered(1, "open", "operator-1", told, at("2026-11-24T10:05")),))


@pytest.mark.requirement("BRE-01")
@pytest.mark.parametrize(
    ("known", "wrongful", "final"),
    [
        # The day counts as the first: 30 days from a Tuesday end on a Wednesday.
        ("2026-11-24T10:00", False, "2026-12-23"),
        ("2026-11-24T10:00", True, "2027-01-22"),
        # Just before and after midnight in Japan, whatever the day in UTC.
        ("2026-11-23T23:59", False, "2026-12-22"),
        ("2026-11-24T00:00", False, "2026-12-23"),
        # A Saturday moves to the Monday, a Sunday too.
        ("2026-11-27T10:00", False, "2026-12-28"),
        ("2026-11-28T10:00", False, "2026-12-28"),
        # 29 December to 3 January: the next working day; here after a weekend of holidays.
        ("2026-11-30T10:00", False, "2027-01-04"),
        ("2026-12-04T10:00", False, "2027-01-04"),
    ],
)
def test_the_final_report_is_due_as_the_rule_counts(known: str, *, wrongful: bool, final: str) -> None:
    assert deadlines_of(at(known), wrongful=wrongful).final.isoformat() == final


@pytest.mark.requirement("BRE-01")
def test_the_preliminary_report_is_guided_to_the_third_to_fifth_day() -> None:
    times = deadlines_of(dt.datetime(2026, 11, 23, 15, 0, tzinfo=dt.UTC), wrongful=False)
    assert times.known_on == dt.date(2026, 11, 24)
    assert (times.preliminary_from, times.preliminary_until) == (dt.date(2026, 11, 26), dt.date(2026, 11, 28))


def test_a_holiday_that_is_known_moves_the_deadline_and_an_unknown_year_is_said() -> None:
    known = at("2026-12-13T10:00")
    plain = deadlines_of(known, wrongful=False)
    assert (plain.final, plain.holidays_known) == (dt.date(2027, 1, 11), False)
    moved = deadlines_of(known, wrongful=False, holidays=[dt.date(2027, 1, 11)])
    assert (moved.final, moved.holidays_known) == (dt.date(2027, 1, 12), True)
    assert "祝日が登録されていない" in markdown(draft_of(incident(), "final", [], kind_names={}))


@pytest.mark.requirement("BRE-01")
def test_the_draft_has_the_nine_fields_and_leaves_open_what_nobody_told() -> None:
    draft = draft_of(incident(), "preliminary", [], kind_names=KINDS)
    assert list(draft.fields) == [name for name, _ in FIELDS]
    assert len(FIELDS) == 9
    assert set(draft.missing) == set(draft.fields)
    text = markdown(draft)
    places = [text.index(f"## {number} {words}") for number, (_, words) in enumerate(FIELDS, 1)]
    assert places == sorted(places)
    assert text.count(OPEN) >= 9
    whole = incident(
        summary="夜間に接続があった。", kinds=["TM00000000000002"], cause="鍵の失効漏れ", secondary="確認されていない",
        to_persons="文書で通知する", publication="公表した", prevention="失効の自動化", other="なし",
        since=at("2026-11-23T21:00"), until=at("2026-11-24T06:00"),
    )  # fmt: skip
    own = Touch(
        agency="9901131016000001", name="千代田区長", records=12, persons=7, exact=True,
        kinds={"TM00000000000002": ["TM1", "TM2"]},
    )  # fmt: skip
    told = draft_of(whole, "final", [own], kind_names=KINDS, reporter="千代田区")
    assert told.missing == []
    assert "地方税関係情報（TM00000000000002）: 2項目（TM1、TM2）" in told.fields["items"]
    assert "7人（記録12件）" in told.fields["count"]
    assert "以下" not in told.fields["count"]


def test_an_upper_bound_is_told_as_one() -> None:
    bound = Touch(agency="9901131016000001", name="千代田区長", records=3_000, persons=1_234)
    text = draft_of(incident(), "preliminary", [bound], kind_names=KINDS).fields["count"]
    assert "1,234人以下（記録3,000件）" in text
    assert "上限" in text
    with pytest.raises(ValueError, match="since some instant"):
        draft_of(incident(known_at=None), "final", [], kind_names={})
