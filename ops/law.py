"""``chukan law``: may this agency ask that one, and why (照会許可用照合リスト).

``explain`` judges by the list of a day and shows the steps; without an affair it looks through all procedures that are
known. ``codes`` shows the kinds, affairs and procedures with their codes. Nothing here touches an installation's data,
and what is ours rather than official is marked 例示.
"""

import datetime as dt
import functools
import json
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import msgspec
from cyclopts import App, Parameter
from rich.console import Console
from rich.panel import Panel
from rich.table import Table

from chukan.clock import SystemClock, today_jst
from chukan.errors import Problem
from chukan.platform.law import Decision, Law, Procedure, Verdict
from chukan.tenants import bodies

app = App(name="law", help="Explain what the matching list of a day allows.")

_WORDS = {Verdict.YES: "可 (yes)", Verdict.NO: "不可 (no)", Verdict.UNKNOWN: "判断できない (unknown)"}
_COLOURS = {Verdict.YES: "green", Verdict.NO: "red", Verdict.UNKNOWN: "yellow"}
_ORDER = (Verdict.YES, Verdict.UNKNOWN, Verdict.NO)
_CHECKS = {
    "list": "照合リスト",
    "agencies": "機関",
    "affair": "事務",
    "procedure": "事務手続",
    "kind": "種類",
    "inquirer": "照会者",
    "provider": "提供者",
    "items": "項目",
    "similar": "準じる事務",
    "notification": "届出・公表",
    "consent": "本人の同意",
    "limit": "限定機関",
    "own_information": "自己情報",
}
_REASONS = {
    "on_the_list": "照合リストに掲げられている",
    "same_agency": "照会者と提供者が同じ機関である",
    "procedure_not_of_affair": "事務手続がこの事務のものではない",
    "kind_not_in_entry": "この種類は項に掲げられていない",
    "inquirer_not_in_class": "照会者が項の照会者に該当しない",
    "provider_not_in_class": "提供者が項の提供者に該当しない",
    "no_list_for_day": "その日の照合リストを保有していない",
    "unknown_inquirer": "照会者の機関コードが登録されていない",
    "unknown_provider": "提供者の機関コードが登録されていない",
    "unknown_affair": "事務コードが登録されていない",
    "unknown_procedure": "事務手続コードが登録されていない",
    "unknown_kind": "種類コードが登録されていない",
    "affair_not_mapped": "事務がこのリストの項に対応付けられていない",
    "kind_not_mapped": "種類がリストの文言に対応付けられていない",
    "kind_text_unresolved": "項に未解決の文言がある",
    "inquirer_class_unknown": "照会者が項の照会者に該当するか判断できない",
    "provider_class_unknown": "提供者が項の提供者に該当するか判断できない",
    "items_not_known": "この事務手続で提供できる項目が登録されていない",
    "affair_not_notified": "照会者がこの条例事務を届け出ていない",
    "affair_not_in_force": "その日には届出の期間にない",
    "affair_not_published": "個人情報保護委員会が公表していない",
    "kind_not_notified": "届出にこの種類が含まれない",
    "consent_missing": "条例事務で地方税関係情報を求めるための本人の同意がない",
    "provider_limited": "提供者が条例事務への提供を限定している",
    "own_information": "本人への自己情報の提供である",
    "not_a_portal": "照会者が登録された情報提供等記録開示システムではない",
    "portal_asks_own_only": "情報提供等記録開示システムは自己情報のほかを照会できない",
    "portal_is_not_asked": "情報提供等記録開示システムは情報提供者にならない",
}

Judged = tuple[Procedure | None, Decision]


@app.command
def explain(
    *,
    inquirer: str,
    provider: str,
    kind: str,
    affair: str | None = None,
    procedure: str | None = None,
    on: str | None = None,
    consent: Annotated[bool, Parameter(negative="")] = False,
    as_json: Annotated[bool, Parameter(name="--json", negative="")] = False,
) -> None:
    """Say whether one agency may ask another for a kind: yes, no or unknown, by which item, and why.

    Args:
        inquirer: Agency that asks: 16 digits, or a municipality's code of 5 or 6 digits.
        provider: Agency that is asked, in the same forms; a ward of a designated city stands for the city.
        kind: Code of the kind (TM…).
        affair: Code of the affair (JM…); all affairs are looked through unless given.
        procedure: Code of the procedure (JT…); all procedures are looked through unless given.
        on: Day (JST) whose list is asked, as 2026-02-01; today unless given.
        consent: The person's consent is held (an affair of an ordinance needs it for local tax information).
        as_json: Print JSON instead.
    """
    day = _day(on)
    law = Law.load()
    asks, answers = (bodies.resolve_agency(code) for code in (inquirer, provider))
    decide = functools.partial(
        law.decide,
        inquirer=asks.code if asks else inquirer,
        provider=answers.code if answers else provider,
        kind=kind,
        day=day,
        consent=consent,
    )
    judged = _judge_all(law, affair, procedure, decide)
    found = law.kinds.get(kind)
    head = {
        "on": day.isoformat(),
        "inquirer": _agency(asks),
        "provider": _agency(answers),
        "kind": {"code": found.code, "name_ja": found.name_ja, "illustrative": found.illustrative} if found else None,
    }
    if as_json:
        best = judged[0][1].verdict.value
        decisions = [_as_dict(law, one, decision) for one, decision in judged]
        sys.stdout.write(json.dumps({**head, "verdict": best, "decisions": decisions}, ensure_ascii=False) + "\n")
        return
    _show(law, head, judged)


@app.command
def layout(kind: str, version: int | None = None) -> None:
    """Show the items of a kind's layout: code, name, form, and which must be present or carry a reason code.

    Args:
        kind: Code of the kind (TM…).
        version: Version of the layout; the newest in force today unless given.
    """
    law = Law.load()
    found = law.layouts_in_force(kind, _day(None))
    chosen = law.layout(kind, version) if version is not None else (found[-1] if found else None)
    if chosen is None:
        raise Problem("unknown_layout" if law.known_kind(kind) else "unknown_kind")
    console = Console()
    table = _table("項目コード", "項目", "型・桁", "必須")
    for item in chosen.items.values():
        form = f"{item.type.value} ≤ {item.length_max}"
        table.add_row(item.code, item.name_ja, form, "○" if item.required else "")
    console.print(f"{kind} {chosen.version}")
    console.print(table)
    gaps = "、".join(f"{code} {law.gap_codes[code]}" for code in sorted(chosen.gap_codes))
    console.print(f"未設定事由: {gaps}")


@app.command
def codes() -> None:
    """Show the kinds, and the affairs with their procedures, with the codes that queries use."""
    law = Law.load()
    console = Console()
    kinds = _table("種類コード", "特定個人情報の種類", "レイアウト", "")
    for one in law.kinds.values():
        versions = [str(version) for of, version in law.layouts if of == one.code]
        kinds.add_row(one.code, one.name_ja, " ".join(versions) or "-", _mark(illustrative=one.illustrative))
    procedures = _table("事務コード", "事務", "事務手続コード", "事務手続", "")
    for procedure in law.procedures.values():
        procedures.add_row(
            procedure.affair,
            law.affairs[procedure.affair].label_ja,
            procedure.code,
            procedure.label_ja,
            _mark(illustrative=procedure.illustrative),
        )
    console.print(kinds, "", procedures)


def _day(on: str | None) -> dt.date:
    if on is None:
        return today_jst(SystemClock())
    try:
        return dt.date.fromisoformat(on)
    except ValueError:
        raise Problem("invalid_field", pointer="--on", expected="YYYY-MM-DD") from None


def _judge_all(law: Law, affair: str | None, procedure: str | None, decide: Callable[..., Decision]) -> list[Judged]:
    """Judge the named procedure, or each that fits what is named; the best verdicts come first."""
    if affair is not None and procedure is not None:
        return [(law.procedures.get(procedure), decide(affair=affair, procedure=procedure))]
    fitting = [one for one in law.procedures.values() if affair in {None, one.affair} and procedure in {None, one.code}]
    if not fitting:
        # What was named is not known; a known code stands in for the other one, so that the reason is the right one.
        named = {"affair": affair or next(iter(law.affairs)), "procedure": procedure or next(iter(law.procedures))}
        return [(None, decide(**named))]
    judged: list[Judged] = [(one, decide(affair=one.affair, procedure=one.code)) for one in fitting]
    return sorted(judged, key=lambda pair: _ORDER.index(pair[1].verdict))


def _agency(entry: bodies.AgencyEntry | None) -> dict[str, Any] | None:
    return {"code": entry.code, "name": entry.name, "illustrative": entry.illustrative} if entry else None


def _as_dict(law: Law, procedure: Procedure | None, decision: Decision) -> dict[str, Any]:
    return {
        "affair": procedure.affair if procedure else None,
        "affair_label": law.affairs[procedure.affair].label_ja if procedure else None,
        "procedure": procedure.code if procedure else None,
        "procedure_label": procedure.label_ja if procedure else None,
        "illustrative": procedure.illustrative if procedure else None,
        **msgspec.to_builtins(decision),
    }


def _show(law: Law, head: dict[str, Any], judged: Sequence[Judged]) -> None:
    console = Console()
    best = judged[0][1]
    lines = [f"{_CHECKS[side]}: {_name(head[side])}" for side in ("inquirer", "provider")]
    lines += [f"種類: {head['kind']['name_ja'] if head['kind'] else '登録なし'}", f"基準日: {head['on']}", ""]
    lines += [f"{_WORDS[best.verdict]}  {_REASONS[best.reason]} ({best.reason})"]
    if best.list_name:
        lines += [best.law]
    if best.item:
        lines += [f"{best.item} の項"]
    colour = _COLOURS[best.verdict]
    console.print(Panel("\n".join(lines), title="照会の可否", title_align="left", border_style=colour), markup=False)
    if len(judged) == 1:
        console.print(_steps(best))
        return
    hits = [pair for pair in judged if pair[1].verdict is best.verdict]
    if best.verdict is not Verdict.NO:
        console.print(_procedures(law, hits))
    others = Counter(decision.reason for _, decision in judged if decision.verdict is not Verdict.YES)
    for reason, times in others.most_common():
        console.print(f"事務手続 {times} 件: {_REASONS[reason]} ({reason})", markup=False, highlight=False)


def _name(agency: dict[str, Any] | None) -> str:
    return f"{agency['name']} [{agency['code']}]{_mark(illustrative=agency['illustrative'])}" if agency else "登録なし"


def _mark(*, illustrative: bool) -> str:
    return " 例示" if illustrative else ""


def _table(*columns: str) -> Table:
    """Return an empty table whose cells wrap: a name of the law that is cut off explains nothing."""
    table = Table(box=None)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _steps(decision: Decision) -> Table:
    table = _table("確認したこと", "結果", "理由")
    for step in decision.steps:
        colour = _COLOURS[step.verdict]
        table.add_row(_CHECKS[step.check], f"[{colour}]{_WORDS[step.verdict]}[/{colour}]", step.text_ja)
    return table


def _procedures(law: Law, judged: Sequence[Judged]) -> Table:
    table = _table("項", "事務", "事務手続", "コード", "")
    for procedure, decision in judged:
        if procedure is not None:
            label = law.affairs[procedure.affair].label_ja
            mark = _mark(illustrative=procedure.illustrative)
            table.add_row(decision.item, label, procedure.label_ja, f"{procedure.affair}\n{procedure.code}", mark)
    return table
