"""Works out one judgement of a matching list, step by step, in terms of standings (pure).

NO is said only where the data settles it. A kind that the list names by a defined term (…関係情報) and that the entry
does not name is a NO: the law uses the term wherever it means it. A kind without such a term stays UNKNOWN next to free
wording that nobody has resolved.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from chukan.platform.law.classes import Classes
from chukan.platform.law.decision import Decision, Step, Verdict, all_of, any_of
from chukan.platform.law.tables import Affair, Entry, Kind, ListInForce, Procedure

_WORDS = {Verdict.YES: "に該当する", Verdict.NO: "に該当しない", Verdict.UNKNOWN: "に該当するか判断できない"}


@dataclass(frozen=True, slots=True)
class Question:
    """What is judged: who asks whom, seen as standings, for what."""

    inquirer: str
    provider: str
    affair: str
    procedure: str
    kind: str


@dataclass(slots=True)
class _Trail:
    """The steps taken so far under one list."""

    listed: ListInForce
    steps: list[Step] = field(default_factory=list)

    def note(self, check: str, verdict: Verdict, text_ja: str) -> None:
        self.steps.append(Step(check, verdict, text_ja))

    def close(self, verdict: Verdict, reason: str, items: Iterable[str] = ()) -> Decision:
        return Decision(
            verdict=verdict,
            reason=reason,
            list_number=self.listed.number,
            list_name=self.listed.name,
            item="、".join(dict.fromkeys(items)),
            law=self.listed.law,
            steps=tuple(self.steps),
        )

    def end(self, check: str, verdict: Verdict, reason: str, text_ja: str, items: Iterable[str] = ()) -> Decision:
        self.note(check, verdict, text_ja)
        return self.close(verdict, reason, items)


class Judge:
    """Judges questions by the lists, with everything that the data holds already indexed."""

    def __init__(
        self,
        *,
        lists: tuple[ListInForce, ...],
        classes: Classes,
        kinds: Mapping[str, Kind],
        affairs: Mapping[str, Affair],
        procedures: Mapping[str, Procedure],
        with_items: frozenset[tuple[str, str, int]],
    ) -> None:
        """``with_items`` names each (procedure, kind, list number) for which allowed items are held."""
        self._classes, self._kinds, self._affairs, self._procedures = classes, kinds, affairs, procedures
        self._with_items = with_items
        self._entries: dict[tuple[int, str], list[Entry]] = {}
        self._terms: dict[int, set[str]] = {}
        self._resolved = {text for kind in kinds.values() for text in kind.texts}
        for listed in lists:
            terms = self._terms.setdefault(listed.number, set())
            for entry in listed.entries:
                self._entries.setdefault((listed.number, entry.item), []).append(entry)
                if entry.defined_term:
                    terms.add(entry.kind_text)

    def judge(self, listed: ListInForce, question: Question) -> Decision:
        """Return the judgement of a question by one list."""
        trail = _Trail(listed)
        trail.note("list", Verdict.YES, f"施行中の照合リスト: {listed.name}")
        refused = self._check_codes(trail, question)
        if refused is not None:
            return refused
        affair = self._affairs[question.affair]
        items = affair.items_in(listed.number)
        if not items:
            text = f"事務「{affair.label_ja}」は、このリストの項に対応付けられていない"
            return trail.end("affair", Verdict.UNKNOWN, "affair_not_mapped", text)
        trail.note("affair", Verdict.YES, f"事務「{affair.label_ja}」は {'、'.join(items)} の項に当たる")
        entries = [entry for item in items for entry in self._entries[listed.number, item]]
        return self._judge_entries(trail, question, items, entries)

    def _check_codes(self, trail: _Trail, question: Question) -> Decision | None:
        if question.affair not in self._affairs:
            return trail.end("affair", Verdict.UNKNOWN, "unknown_affair", "事務コードが登録されていない")
        procedure = self._procedures.get(question.procedure)
        if procedure is None:
            return trail.end("procedure", Verdict.UNKNOWN, "unknown_procedure", "事務手続コードが登録されていない")
        if procedure.affair != question.affair:
            text = f"事務手続「{procedure.label_ja}」は、この事務のものではない"
            return trail.end("procedure", Verdict.NO, "procedure_not_of_affair", text)
        trail.note("procedure", Verdict.YES, f"事務手続「{procedure.label_ja}」")
        kind = self._kinds.get(question.kind)
        if kind is None:
            return trail.end("kind", Verdict.UNKNOWN, "unknown_kind", "特定個人情報の種類が登録されていない")
        if not kind.texts:
            text = f"「{kind.name_ja}」は、保有するリストの文言に対応付けられていない"
            return trail.end("kind", Verdict.UNKNOWN, "kind_not_mapped", text)
        return None

    def _judge_entries(
        self, trail: _Trail, question: Question, items: tuple[str, ...], entries: list[Entry]
    ) -> Decision:
        asks = {text: self._classes.holds(text, question.inquirer) for text in {one.inquirer for one in entries}}
        for text, verdict in sorted(asks.items()):
            trail.note("inquirer", verdict, f"照会者は「{text}」{_WORDS[verdict]}")
        if any_of(asks.values()) is Verdict.NO:
            return trail.close(Verdict.NO, "inquirer_not_in_class", items)
        kind = self._kinds[question.kind]
        named = [entry for entry in entries if entry.kind_text in kind.texts]
        if not named:
            return self._not_named(trail, kind, items, entries)
        trail.note("kind", Verdict.YES, f"「{kind.name_ja}」が項に掲げられている")
        return self._judge_named(trail, question, named, asks)

    def _not_named(self, trail: _Trail, kind: Kind, items: tuple[str, ...], entries: list[Entry]) -> Decision:
        is_term = any(text in self._terms[trail.listed.number] for text in kind.texts)
        if is_term or all(entry.defined_term or entry.kind_text in self._resolved for entry in entries):
            text = f"「{kind.name_ja}」は項に掲げられていない"
            return trail.end("kind", Verdict.NO, "kind_not_in_entry", text, items)
        text = f"項に未解決の文言があり、「{kind.name_ja}」を含むか判断できない"
        return trail.end("kind", Verdict.UNKNOWN, "kind_text_unresolved", text, items)

    def _judge_named(
        self, trail: _Trail, question: Question, named: list[Entry], asks: Mapping[str, Verdict]
    ) -> Decision:
        answers = {text: self._classes.holds(text, question.provider) for text in {one.provider for one in named}}
        for text, verdict in sorted(answers.items()):
            trail.note("provider", verdict, f"提供者は「{text}」{_WORDS[verdict]}")
        rows = {entry: all_of((asks[entry.inquirer], answers[entry.provider])) for entry in named}
        verdict = any_of(rows.values())
        hits = [entry.item for entry, found in rows.items() if found is verdict]
        if verdict is not Verdict.YES:
            inquirer, provider = any_of(asks[entry.inquirer] for entry in named), any_of(answers.values())
            provider_fails = inquirer is Verdict.YES or (inquirer is Verdict.UNKNOWN and provider is Verdict.NO)
            side = "provider" if provider_fails else "inquirer"
            return trail.close(verdict, f"{side}_{'not_in_class' if verdict is Verdict.NO else 'class_unknown'}", hits)
        if (question.procedure, question.kind, trail.listed.number) not in self._with_items:
            text = "この事務手続で提供できる項目が登録されていない"
            return trail.end("items", Verdict.UNKNOWN, "items_not_known", text, hits)
        trail.note("items", Verdict.YES, "この事務手続で提供できる項目が登録されている")
        return trail.close(Verdict.YES, "on_the_list", hits)
