"""The draft of a breach report (漏えい等報告書案) and its deadlines: pure, from what is known of an incident.

The nine fields are those of the Commission's rule on reports of leaked specific personal information
(平成27年特定個人情報保護委員会規則第5号 3条1項各号), in its order. The deadlines follow 番号法29条の4 and that rule:
a preliminary report (速報) without delay, by the Commission's guidelines within three to five days; a final report
(確報) within 30 days, 60 where it may have been done for a wrongful purpose. The day on which it became known counts
as the first; Saturdays, Sundays and holidays count too. A final deadline that falls on one of them, or on 29 December
to 3 January, moves to the next working day.

Invariant: what nobody has told yet is left open and marked so, never guessed; where holidays are not known the deadline
is the earlier one. No person is named.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Mapping, Sequence
from typing import Final, Literal

import msgspec

from chukan.clock import to_jst
from chukan.tenants.incidents import Facts, Incident

OPEN: Final = "（未記入）"
"""Stands where somebody still has to write."""
PRELIMINARY_DAYS: Final = (3, 5)
FINAL_DAYS: Final = 30
FINAL_DAYS_WRONGFUL: Final = 60
_SATURDAY: Final = 5
_CLOSED_FROM, _CLOSED_UNTIL = (12, 29), (1, 3)

FIELDS: Final = (
    ("summary", "概要"),
    ("items", "漏えい等が発生し、又は発生したおそれがある特定個人情報の項目"),
    ("count", "漏えい等が発生し、又は発生したおそれがある特定個人情報に係る本人の数"),
    ("cause", "原因"),
    ("secondary", "二次被害又はそのおそれの有無及びその内容"),
    ("to_persons", "本人への対応の実施状況"),
    ("publication", "公表の実施状況"),
    ("prevention", "再発防止のための措置"),
    ("other", "その他参考となる事項"),
)
"""The nine fields in the order of the rule: our name and the rule's words."""


class Deadlines(msgspec.Struct, frozen=True, kw_only=True):
    """Days in Japan, each the last on which a report is in time."""

    known_on: dt.date
    """The day that counts as the first."""
    preliminary_from: dt.date
    preliminary_until: dt.date
    final: dt.date
    final_days: int
    holidays_known: bool
    """Whether the holidays of the final deadline's year are known; else it may be later than said, never earlier."""


class Touch(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of one agency: the operator's upper bound, or what the agency itself found."""

    agency: str
    name: str
    records: int
    persons: int
    exact: bool = False
    kinds: Mapping[str, Sequence[str]] = {}
    """Item codes by kind, as the agency found them."""


class Draft(msgspec.Struct, frozen=True, kw_only=True):
    """The draft as data; ``fields`` in the order of the rule."""

    incident: str
    report: Literal["preliminary", "final"]
    deadlines: Deadlines
    reporter: str | None
    fields: Mapping[str, str]
    missing: Sequence[str]
    """Names of the fields in which something is still open."""


def deadlines_of(known_at: dt.datetime, *, wrongful: bool, holidays: Collection[dt.date] = ()) -> Deadlines:
    """Return the deadlines of an incident that became known at an instant.

    Args:
        known_at: aware.
        wrongful: whether it may have been done for a wrongful purpose (不正の目的).
        holidays: national holidays (国民の祝日) that are known.
    """
    first = to_jst(known_at).date()
    days = FINAL_DAYS_WRONGFUL if wrongful else FINAL_DAYS
    final = first + dt.timedelta(days=days - 1)
    while _closed(final, holidays):
        final += dt.timedelta(days=1)
    early, late = PRELIMINARY_DAYS
    return Deadlines(
        known_on=first,
        preliminary_from=first + dt.timedelta(days=early - 1),
        preliminary_until=first + dt.timedelta(days=late - 1),
        final=final,
        final_days=days,
        holidays_known=any(day.year == final.year for day in holidays),
    )


def _closed(day: dt.date, holidays: Collection[dt.date]) -> bool:
    """Tell whether public offices are closed (行政機関の休日に関する法律1条)."""
    month_day = (day.month, day.day)
    return day.weekday() >= _SATURDAY or day in holidays or month_day >= _CLOSED_FROM or month_day <= _CLOSED_UNTIL


def draft_of(
    incident: Incident,
    report: Literal["preliminary", "final"],
    touched: Sequence[Touch],
    *,
    kind_names: Mapping[str, str],
    holidays: Collection[dt.date] = (),
    reporter: str | None = None,
) -> Draft:
    """Return the draft of a report; ``ValueError`` for an incident of which nobody said when it became known."""
    facts = incident.facts
    if facts.known_at is None:
        raise ValueError("an incident is known since some instant")
    texts = {name: getattr(facts, name, None) or OPEN for name, _ in FIELDS}
    texts |= {
        "summary": _summary(facts),
        "items": _items(facts, touched, kind_names),
        "count": _count(touched),
    }
    return Draft(
        incident=str(incident.id),
        report=report,
        deadlines=deadlines_of(facts.known_at, wrongful=bool(facts.wrongful), holidays=holidays),
        reporter=reporter,
        fields=texts,
        missing=[name for name, _ in FIELDS if OPEN in texts[name]],
    )


def _summary(facts: Facts) -> str:
    lines = [facts.title or OPEN]
    if facts.known_at is not None:
        lines.append(f"事態を知った日時: {_moment(facts.known_at)}")
    if facts.since is not None and facts.until is not None:
        lines.append(f"対象期間: {_moment(facts.since)} から {_moment(facts.until)} まで")
    lines.append(f"不正の目的によるおそれ: {'有' if facts.wrongful else '無（判明時点）'}")
    return "\n".join([*lines, facts.summary or OPEN])


def _items(facts: Facts, touched: Sequence[Touch], kind_names: Mapping[str, str]) -> str:
    found: dict[str, set[str]] = {}
    for each in touched:
        for kind, items in each.kinds.items():
            found.setdefault(kind, set()).update(items)
    if found:
        return "\n".join(
            f"{kind_names.get(kind, kind)}（{kind}）: {len(items)}項目（{'、'.join(sorted(items))}）"
            for kind, items in sorted(found.items())
        )
    if facts.kinds:
        named = "\n".join(f"{kind_names.get(kind, kind)}（{kind}）" for kind in facts.kinds)
        return f"{named}\n項目: {OPEN}"
    return f"特定個人情報の種類と項目は各機関の情報提供等記録により各機関が特定する。{OPEN}"


def _count(touched: Sequence[Touch]) -> str:
    if not touched:
        return OPEN
    lines = [
        f"{each.name}（{each.agency}）: {each.persons:,}人{'' if each.exact else '以下'}（記録{each.records:,}件）"
        for each in touched
    ]
    whole = all(each.exact for each in touched)
    total = sum(each.persons for each in touched)
    lines.append(f"計 {total:,}人{'' if whole else '以下'}（機関ごとの延べ人数）")
    if not whole:
        lines.append("「以下」は対象期間の全記録による上限。正確な人数は各機関が自らの鍵で記録を開いて確定する。")
    return "\n".join(lines)


def markdown(draft: Draft) -> str:
    """Return the draft as a document in Japanese."""
    times = draft.deadlines
    kind = "速報" if draft.report == "preliminary" else "確報"
    head = [
        f"# 特定個人情報の漏えい等に関する報告書（案・{kind}）",
        "",
        "- 宛先: 個人情報保護委員会",
        f"- 報告者: {draft.reporter or OPEN}",
        f"- 事案番号: {draft.incident}",
        f"- 事態を知った日（1日目）: {_day(times.known_on)}",
        f"- 速報の目安: {_day(times.preliminary_from)}〜{_day(times.preliminary_until)}（速やかに。概ね3〜5日以内）",
        f"- 確報の期限: {_day(times.final)}（{times.final_days}日以内）",
    ]
    if not times.holidays_known:
        head.append("- 注意: この年の祝日が登録されていないため、確報の期限は祝日による延長を含まない（早い側の日）。")
    body = [
        part
        for number, (name, words) in enumerate(FIELDS, 1)
        for part in ("", f"## {number} {words}", "", draft.fields[name])
    ]
    return "\n".join([*head, *body, ""])


def _day(day: dt.date) -> str:
    return f"{day:%Y-%m-%d}（{'月火水木金土日'[day.weekday()]}）"


def _moment(at: dt.datetime) -> str:
    return f"{to_jst(at):%Y-%m-%d %H:%M}"
