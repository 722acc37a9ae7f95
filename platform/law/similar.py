"""Affairs beside the list: 準法定事務, 条例事務 (独自利用事務), and agencies that limit what they provide (限定機関).

Such an affair is judged like one of the list's (``like``), by its entry and by its items, once what the law asks
beside that is given. An ordinance's affair is one that this very agency notified and the 個人情報保護委員会 published
(番号法19条9号, 平成28年個人情報保護委員会規則第5号 2条4項); local tax information (地方税関係情報) comes only with the
person's consent (3条); and a limited agency may keep its information to itself. A quasi-statutory affair (番号法9条1項)
needs none of these.

Invariant: what is said here only ever refuses; the yes is the list's own. This module must never make an affair of the
list harder or easier to ask for.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import date
from typing import Final

from chukan.platform.law.decision import Decision, Step, Verdict
from chukan.platform.law.tables import Kind, ListInForce, Procedure, Source

_ANY: Final = "*"
_QUASI, _ORDINANCE = "quasi", "ordinance"


@dataclass(frozen=True, slots=True)
class Similar:
    """One affair and procedure of one inquirer (or of all, ``*``), and the affair and procedure that it is like."""

    affair: str
    procedure: str
    ordinance: bool
    inquirer: str
    like_affair: str
    like_procedure: str
    kinds: frozenset[str]
    label_ja: str
    published_on: date | None
    valid_from: date
    valid_until: date | None
    illustrative: bool

    def covers(self, day: date) -> bool:
        """Tell whether the affair exists on a day."""
        return self.valid_from <= day and (self.valid_until is None or day <= self.valid_until)


@dataclass(frozen=True, slots=True)
class Limit:
    """What a limited agency (限定機関) does not provide to affairs of ordinances."""

    provider: str
    affair: str
    kind: str
    valid_from: date
    valid_until: date | None

    def refuses(self, provider: str, affair: str, kind: str, day: date) -> bool:
        """Tell whether it stands against this on a day."""
        named = self.provider == provider and self.affair in {_ANY, affair} and self.kind in {_ANY, kind}
        return named and self.valid_from <= day and (self.valid_until is None or day <= self.valid_until)


class SimilarAffairs:
    """All affairs beside the list, by code."""

    def __init__(self, rows: Collection[Similar], limits: Collection[Limit], consent_kinds: frozenset[str]) -> None:
        self.rows = tuple(rows)
        self.limits = tuple(limits)
        self._consent_kinds = consent_kinds
        self._by_affair: dict[str, list[Similar]] = {}
        self._like: dict[str, str] = {}
        for row in rows:
            self._by_affair.setdefault(row.affair, []).append(row)
            self._like[row.procedure] = row.like_procedure

    def __contains__(self, affair: str) -> bool:
        return affair in self._by_affair

    def like_procedure(self, procedure: str) -> str:
        """Return the procedure whose items are meant; the same one where it is the list's own."""
        return self._like.get(procedure, procedure)

    def find(
        self, listed: ListInForce, who: tuple[str, str], asked: tuple[str, str, str], day: date, *, consent: bool
    ) -> Similar | Decision:
        """Return the affair to judge by, or the refusal.

        Args:
            listed: the list in force on the day; the refusal names it.
            who: 16-digit codes of inquirer and provider.
            asked: affair, procedure, kind.
            day: JST.
            consent: whether the person's consent is held.
        """
        (inquirer, provider), (affair, procedure, kind) = who, asked
        rows = [row for row in self._by_affair[affair] if row.procedure == procedure]
        if not rows:
            return _no(listed, "procedure", "procedure_not_of_affair", "事務手続が、この事務のものではない")
        mine = [row for row in rows if row.inquirer in {_ANY, inquirer}]
        row = next((each for each in mine if each.covers(day)), None)
        if row is None:
            reason = "affair_not_in_force" if mine else "affair_not_notified"
            return _no(listed, "notification", reason, "この照会者による届出が、この日にはない")
        if row.ordinance and (row.published_on is None or day < row.published_on):
            return _no(listed, "notification", "affair_not_published", "個人情報保護委員会が公表していない")
        if row.kinds and kind not in row.kinds:
            return _no(listed, "kind", "kind_not_notified", "届出に、この種類は含まれない")
        return self._ordinance(listed, row, provider, kind, day, consent=consent) if row.ordinance else row

    def _ordinance(
        self, listed: ListInForce, row: Similar, provider: str, kind: str, day: date, *, consent: bool
    ) -> Similar | Decision:
        if kind in self._consent_kinds and not consent:
            return _no(listed, "consent", "consent_missing", "条例事務で地方税関係情報を求めるには、本人の同意を要する")
        if any(limit.refuses(provider, row.affair, kind, day) for limit in self.limits):
            return _no(listed, "limit", "provider_limited", "提供者は、条例事務への提供を限定している（限定機関）")
        return row


def like(decision: Decision, row: Similar) -> Decision:
    """Return the like affair's judgement with the step that led to it in front."""
    name = "条例事務" if row.ordinance else "準法定事務"
    step = Step("similar", Verdict.YES, f"{name}「{row.label_ja}」は、{row.like_affair} の事務に準じて判断する")
    return Decision(
        verdict=decision.verdict,
        reason=decision.reason,
        list_number=decision.list_number,
        list_name=decision.list_name,
        item=decision.item,
        law=decision.law,
        steps=(step, *decision.steps),
    )


def _no(listed: ListInForce, check: str, reason: str, text_ja: str) -> Decision:
    step = Step(check, Verdict.NO, text_ja)
    return Decision(Verdict.NO, reason, list_number=listed.number, list_name=listed.name, law=listed.law, steps=(step,))


# ---------------------------------------------------------------- reading


def read_similar(
    source: Source, *, kinds: Mapping[str, Kind], procedures: Mapping[str, Procedure], agencies: Collection[str]
) -> SimilarAffairs:
    """Return the affairs beside the list; none where the directory is of a release that had no such files.

    Raises:
        ValueError: the rows contradict the list's own codes or one another.
    """
    listed = {one.affair for one in procedures.values()}
    rows = [_similar(row) for row in source.rows("similar_affairs.csv", missing_ok=True)]
    limits = [
        Limit(row["provider"], row["affair"], row["kind"], date.fromisoformat(row["valid_from"]), _day(row))
        for row in source.rows("provider_limits.csv", missing_ok=True)
    ]
    consent = frozenset(row["kind"] for row in source.rows("consent_kinds.csv", missing_ok=True))
    for row in rows:
        _check(row, listed, kinds, procedures, agencies)
    _refuse_overlaps(rows)
    named = {limit.kind for limit in limits} - {_ANY} | consent
    if named - kinds.keys():
        raise ValueError(f"limits or consents name kinds that do not exist: {sorted(named - kinds.keys())}")
    lost = {limit.provider for limit in limits} - set(agencies)
    if lost:
        raise ValueError(f"limits name agencies that do not exist: {sorted(lost)}")
    return SimilarAffairs(rows, limits, consent)


def _similar(row: Mapping[str, str]) -> Similar:
    if row["basis"] not in {_QUASI, _ORDINANCE}:
        raise ValueError(f"similar_affairs.csv: no such basis: {row['basis']}")
    published = row["published_on"]
    return Similar(
        affair=row["affair"],
        procedure=row["procedure"],
        ordinance=row["basis"] == _ORDINANCE,
        inquirer=row["inquirer"],
        like_affair=row["like_affair"],
        like_procedure=row["like_procedure"],
        kinds=frozenset() if row["kinds"] == _ANY else frozenset(row["kinds"].split()),
        label_ja=row["label_ja"],
        published_on=date.fromisoformat(published) if published else None,
        valid_from=date.fromisoformat(row["valid_from"]),
        valid_until=_day(row),
        illustrative=row["illustrative"] == "yes",
    )


def _day(row: Mapping[str, str]) -> date | None:
    return date.fromisoformat(row["valid_until"]) if row["valid_until"] else None


def _check(
    row: Similar,
    listed: Collection[str],
    kinds: Mapping[str, Kind],
    procedures: Mapping[str, Procedure],
    agencies: Collection[str],
) -> None:
    where = f"similar_affairs.csv: {row.affair}"
    if row.affair in listed or row.procedure in procedures:
        raise ValueError(f"{where} is the list's own affair or procedure")
    found = procedures.get(row.like_procedure)
    if found is None or found.affair != row.like_affair:
        raise ValueError(f"{where} is like a procedure that does not exist")
    if row.kinds - kinds.keys():
        raise ValueError(f"{where} names kinds that do not exist")
    if row.ordinance and row.inquirer not in agencies:
        raise ValueError(f"{where} names an agency that does not exist")
    if not row.ordinance and row.inquirer != _ANY:
        raise ValueError(f"{where}: a quasi-statutory affair is everybody's whom the list names")


def _refuse_overlaps(rows: Collection[Similar]) -> None:
    """One agency has one notification of a procedure at a time, and a procedure is like one other everywhere."""
    seen: dict[str, tuple[str, str, bool]] = {}
    for row in rows:
        if seen.setdefault(row.procedure, (row.affair, row.like_procedure, row.ordinance)) != (
            row.affair,
            row.like_procedure,
            row.ordinance,
        ):
            raise ValueError(f"similar_affairs.csv: {row.procedure} is like two procedures")
        for other in rows:
            same = other is not row and (other.procedure, other.inquirer) == (row.procedure, row.inquirer)
            if same and (other.covers(row.valid_from) or row.covers(other.valid_from)):
                raise ValueError(f"similar_affairs.csv: {row.procedure} stands twice on one day")
