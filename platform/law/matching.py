"""The law at work: may this agency ask that one for this on that day, for which items, in which layout, by what?

A judgement depends on the day's list, on what the classes of the law see of both agencies (their standing), on affair,
procedure and kind; it is worked out once for each such combination and then looked up. Both sides judge for themselves.

Invariant: only ``Verdict.YES`` opens anything; a day without a list is UNKNOWN. An object of this class never changes
what it says: new data is a new object with another ``number``.
"""

from dataclasses import replace
from datetime import date
from pathlib import Path

from chukan.errors import Problem
from chukan.platform.law.classes import read_classes
from chukan.platform.law.decision import Decision, Step, Verdict
from chukan.platform.law.judgement import Judge, Question
from chukan.platform.law.layouts import Layout, read_layouts
from chukan.platform.law.own_information import read_own
from chukan.platform.law.similar import Similar, like, read_similar
from chukan.platform.law.tables import (
    Affair,
    ListInForce,
    Procedure,
    Source,
    read_affairs,
    read_allowed,
    read_conditions,
    read_kinds,
    read_lists,
    read_procedures,
)

_KEPT_MAX = 100_000
"""Judgements kept; past it all are dropped and worked out again."""
_YEAR_DIGITS = 4
_ALL_ITEMS = "*"


def _alone(verdict: Verdict, reason: str, check: str, text_ja: str) -> Decision:
    return Decision(verdict, reason, steps=(Step(check, verdict, text_ja),))


_NO_LIST = _alone(Verdict.UNKNOWN, "no_list_for_day", "list", "この日に施行されていた照合リストを保有していない")
_SAME = _alone(Verdict.NO, "same_agency", "agencies", "照会者と提供者が同じ機関である")
_NO_INQUIRER = _alone(Verdict.UNKNOWN, "unknown_inquirer", "inquirer", "照会者の機関コードが登録されていない")
_NO_PROVIDER = _alone(Verdict.UNKNOWN, "unknown_provider", "provider", "提供者の機関コードが登録されていない")


class Law:
    """Lists, classes, kinds, affairs, procedures, layouts, allowed items and conditions, loaded once.

    Attributes:
        lists: the matching lists, by date.
        kinds, affairs, procedures: by their codes, those beside the list among them.
        similar: affairs beside the list (準法定事務, 条例事務) and the agencies that limit what they provide.
        own: the person's own query by a portal (自己情報提供).
        gap_codes: the reason codes (未設定事由) with their Japanese names.
        digest: hexadecimal SHA-256 of all the data.
        number: the first 48 bits of the digest: the same data has the same number everywhere.
    """

    def __init__(self, source: Source) -> None:
        self.lists = read_lists(source)
        self.kinds = kinds = read_kinds(source)
        affairs = read_affairs(source, self.lists)
        procedures = read_procedures(source, affairs)
        self.affairs, self.procedures = dict(affairs), dict(procedures)
        self.gap_codes = {row["code"]: row["name_ja"] for row in source.rows("gap_codes.csv")}
        self._layouts = read_layouts(source, kinds, frozenset(self.gap_codes))
        self._conditions = read_conditions(source, kinds)
        self._allowed = read_allowed(source, kinds, procedures)
        self._refuse_unknown_items()
        agencies = {entry.code: entry for entry in source.agencies()}
        self._classes = read_classes(source, agencies)
        self._standings = {code: self._classes.standing(entry) for code, entry in agencies.items()}
        with_items = frozenset(self._allowed)
        self._judge = Judge(
            lists=self.lists,
            classes=self._classes,
            kinds=kinds,
            affairs=affairs,
            procedures=procedures,
            with_items=with_items,
        )
        self._kept: dict[tuple[int, str, str, str, str, str], Decision] = {}
        self.similar = read_similar(source, kinds=kinds, procedures=procedures, agencies=agencies)
        self._join_similar()
        self.own = read_own(source, kinds=kinds, procedures=self.procedures, agencies=agencies)
        self._join_own()
        self.digest = source.digest()
        self.number = int(self.digest[:12], 16)

    @classmethod
    def load(cls, directory: Path | None = None) -> "Law":
        """Load the shipped data, or that of a directory with the same files.

        Raises:
            ValueError: the files contradict one another.
            OSError: a file is missing.
        """
        return cls(Source(directory))

    def _join_similar(self) -> None:
        """Know the affairs beside the list by their codes; the judge of the list itself does not."""
        for row in self.similar.rows:
            self.affairs[row.affair] = Affair(row.affair, row.label_ja, row.illustrative, ())
            self.procedures[row.procedure] = Procedure(row.procedure, row.affair, row.label_ja, row.illustrative)

    def _join_own(self) -> None:
        """Know the affairs of own information by their codes; the judge of the list does not."""
        for row in self.own.rows:
            self.affairs[row.affair] = Affair(row.affair, row.label_ja, row.illustrative, ())
            self.procedures[row.procedure] = Procedure(row.procedure, row.affair, row.label_ja, row.illustrative)

    def own_refusal(self, affair: str, *, on_behalf_of: str | None, withheld: bool) -> str | None:
        """Return why a person's own query may not be asked like this, or None; other affairs are not judged."""
        return self.own.refusal(affair, on_behalf_of=on_behalf_of, withheld=withheld)

    def _refuse_unknown_items(self) -> None:
        held = {(layout.kind, code) for layout in self._layouts.values() for code in layout.items}
        for (procedure, kind, _), items in self._allowed.items():
            lost = {code for code in items if code != _ALL_ITEMS and (kind, code) not in held}
            if lost:
                raise ValueError(f"allowed_items.csv: {procedure} names items that no layout has: {sorted(lost)}")

    def on(self, day: date) -> ListInForce | None:
        """Return the list in force on a day (JST), or None where none is held."""
        for listed in self.lists:
            if listed.covers(day):
                return listed
        return None

    def decide(
        self,
        *,
        inquirer: str,
        provider: str,
        affair: str,
        procedure: str,
        kind: str,
        day: date,
        consent: bool = False,
    ) -> Decision:
        """Judge by the list in force on ``day`` (JST) whether one agency may ask another; codes have 16 characters.

        ``consent`` says that the person's consent is held, which an ordinance's affair needs for local tax information.

        Source: 番号法19条8号・9号 and the list of the day; 附則6条3項・4項 for a person's own query. Never raises: what
        is not known is judged ``UNKNOWN``.
        """
        listed = self.on(day)
        if listed is None:
            return _NO_LIST
        standings = self._standings_of(inquirer, provider)
        if isinstance(standings, Decision):
            return standings
        if self.own.concerns(inquirer, provider, affair):
            return self.own.judge(listed, (inquirer, provider), (affair, procedure, kind), day, self.kinds)
        question = Question(*standings, affair, procedure, kind)
        if affair not in self.similar:
            return self._listed(listed, question)
        found = self.similar.find(listed, (inquirer, provider), (affair, procedure, kind), day, consent=consent)
        return self._like(listed, question, found) if isinstance(found, Similar) else found

    def _standings_of(self, inquirer: str, provider: str) -> tuple[str, str] | Decision:
        """Return what the classes see of both, or why there is nothing to judge."""
        asks, answers = self._standings.get(inquirer), self._standings.get(provider)
        if asks is None:
            return _NO_INQUIRER
        if answers is None:
            return _NO_PROVIDER
        return _SAME if inquirer == provider else (asks, answers)

    def _like(self, listed: ListInForce, question: Question, found: Similar) -> Decision:
        """Judge as the affair that it is like."""
        asked = replace(question, affair=found.like_affair, procedure=found.like_procedure)
        return like(self._listed(listed, asked), found)

    def _listed(self, listed: ListInForce, question: Question) -> Decision:
        """Judge by the list alone, once for each combination."""
        combination = (
            listed.number,
            question.inquirer,
            question.provider,
            question.affair,
            question.procedure,
            question.kind,
        )
        kept = self._kept.get(combination)
        if kept is None:
            kept = self._judge.judge(listed, question)
            known = question.affair in self.affairs and question.procedure in self.procedures
            if known and question.kind in self.kinds:
                if len(self._kept) >= _KEPT_MAX:
                    self._kept.clear()
                self._kept[combination] = kept
        return kept

    def allowed_items(self, procedure: str, kind: str, day: date) -> frozenset[str]:
        """Return the items that a procedure may receive of a kind on a day; none where nothing is known."""
        if self.own.has_procedure(procedure):
            return self._items_in_force(kind, day)
        listed = self.on(day)
        meant = self.similar.like_procedure(procedure)
        items = self._allowed.get((meant, kind, listed.number)) if listed is not None else None
        if items is None:
            return frozenset()
        return self._items_in_force(kind, day) if _ALL_ITEMS in items else items

    def _items_in_force(self, kind: str, day: date) -> frozenset[str]:
        return frozenset(code for layout in self.layouts_in_force(kind, day) for code in layout.items)

    @property
    def layouts(self) -> tuple[tuple[str, int], ...]:
        """All layouts that are held, as (kind, version)."""
        return tuple(self._layouts)

    def layout(self, kind: str, version: int) -> Layout | None:
        """Return one version of a kind's layout, or None."""
        return self._layouts.get((kind, version))

    def layouts_in_force(self, kind: str, day: date) -> tuple[Layout, ...]:
        """Return the layouts of a kind that may be used on a day, oldest first."""
        found = [one for (of, _), one in self._layouts.items() if of == kind and one.covers(day)]
        return tuple(sorted(found, key=lambda one: one.version))

    def layout_for(self, kind: str, version: int, day: date) -> Layout:
        """Return a layout that may be used on a day.

        Raises:
            Problem: ``unknown_kind``, or ``unknown_layout`` (no such version, or not in force).
        """
        if kind not in self.kinds:
            raise Problem("unknown_kind", pointer="/kind")
        found = self.layout(kind, version)
        if found is None or not found.covers(day):
            raise Problem("unknown_layout", pointer="/layout")
        return found

    def known_agency(self, code: str) -> bool:
        """Tell whether the list of agencies (機関一覧) has this 16-digit code."""
        return code in self._standings

    def known_kind(self, code: str) -> bool:
        """Tell whether the kind's code is known."""
        return code in self.kinds

    def known_affair(self, code: str) -> bool:
        """Tell whether the affair's code is known."""
        return code in self.affairs

    def known_procedure(self, code: str) -> bool:
        """Tell whether the procedure's code is known."""
        return code in self.procedures

    def validate_condition(
        self, kind: str, condition: str, year: str | None, start: date | None, end: date | None
    ) -> None:
        """Check a query's condition (照会条件区分, 照会年度, 期間) against the table for the kind.

        Raises:
            Problem: ``unknown_kind``; ``bad_condition`` with a pointer under ``/condition``.
        """
        known = self.kinds.get(kind)
        if known is None:
            raise Problem("unknown_kind", pointer="/kind")
        needed = self._conditions.get((known.period, condition))
        if needed is None:
            raise Problem("bad_condition", pointer="/condition/period")
        for name, value in (("year", year), ("start", start), ("end", end)):
            if (value is not None) is not (name in needed):
                raise Problem("bad_condition", pointer=f"/condition/{name}")
        if year is not None and not _is_year(year):
            raise Problem("bad_condition", pointer="/condition/year", expected="YYYY")
        if start is not None and end is not None and end < start:
            raise Problem("bad_condition", pointer="/condition/end")

    def validate_period(self, kind: str, period: str) -> None:
        """Check a copy's period: a year (YYYY) for kinds that are asked by year, empty for all others.

        Raises:
            Problem: ``unknown_kind``; ``invalid_field`` with the pointer ``/period``.
        """
        known = self.kinds.get(kind)
        if known is None:
            raise Problem("unknown_kind", pointer="/kind")
        by_year = known.period == "year"
        if not (_is_year(period) if by_year else period == ""):
            raise Problem("invalid_field", pointer="/period", expected="YYYY" if by_year else "an empty text")


def _is_year(text: str) -> bool:
    return len(text) == _YEAR_DIGITS and text.isascii() and text.isdigit()
