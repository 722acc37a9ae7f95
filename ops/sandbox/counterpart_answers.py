"""What a simulated national agency answers a notice: its books, its own judgement, and the sealed content.

Pure but for the randomness of the seal: permits go in, rows for the store come out. The order of the judgement is the
platform's: time, law, person, copies.
"""

import datetime as dt
import uuid
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import msgspec

from chukan.chance import Chance
from chukan.clock import Clock, today_jst
from chukan.ops.sandbox.counterpart_store import Given
from chukan.ops.sandbox.people import Person, copy_values
from chukan.platform.law import Law, Verdict
from chukan.platform.sealed import seal_batch
from chukan.platform.wire.agency import AnswerContent, AnsweredCopy, Gap, Record
from chukan.platform.wire.network import Answer, AnswerOutcome, ProviderPermit, SealedAnswer

_SKEW: Final = dt.timedelta(seconds=2)
NOT_IN_LAYOUT: Final = "07"
_YEAR_STARTS_IN: Final = 6
"""Month in which the copies of a new year are there (June)."""


class Books(NamedTuple):
    """The agency's data: its people by its own numbers, and the kinds that it holds about each of them."""

    people: Mapping[str, Person]
    kinds: frozenset[str]
    law: Law
    seed: int

    def copies(self, key: str, permit: ProviderPermit, today: dt.date) -> list[AnsweredCopy]:
        """The copies that answer a permit; made up, and the same each time."""
        layouts = self.law.layouts_in_force(permit.kind, today)
        if permit.kind not in self.kinds or key not in self.people or not layouts:
            return []
        year = int(permit.condition.year or today.year - (0 if today.month >= _YEAR_STARTS_IN else 1))
        layout = layouts[-1]
        by_year = self.law.kinds[permit.kind].period == "year"
        return [
            AnsweredCopy(
                layout=layout.version,
                effective_from=dt.date(year, 1, 1),
                period=str(year) if by_year else "",
                items=copy_values(self.people[key], permit.kind, layout, year, self.seed),
            )
        ]


class _Judged(NamedTuple):
    """One permit judged: outcome, reason, and the content to seal where there is any."""

    notice: uuid.UUID
    permit: ProviderPermit
    outcome: AnswerOutcome | None
    """None for a permit that had lapsed on arrival: no answer leaves."""
    reason: str | None
    clear: bytes | None = None


class Answering:
    """Makes answers and records of one agency."""

    def __init__(self, agency: str, books: Books, clock: Clock, chance: Chance) -> None:
        self._agency = agency
        self._books = books
        self._clock = clock
        self._chance = chance

    def answer(self, permits: Sequence[tuple[uuid.UUID, ProviderPermit]], known: Mapping[bytes, str]) -> list[Given]:
        """Judge (notice id, permit) pairs; ``known`` maps codes to the agency's own numbers."""
        judged = [self._judge(notice, permit, known.get(permit.code)) for notice, permit in permits]
        sealed = self._seal(judged)
        return [self._given(one, sealed.get(one.permit.permit)) for one in judged]

    def _judge(self, notice: uuid.UUID, permit: ProviderPermit, key: str | None) -> _Judged:
        today = today_jst(self._clock)
        if self._clock.now() >= permit.expires_at - _SKEW:
            return _Judged(notice, permit, None, "permit_expired")
        decision = self._books.law.decide(
            inquirer=permit.inquirer,
            provider=permit.provider,
            affair=permit.affair,
            procedure=permit.procedure,
            kind=permit.kind,
            day=today,
        )
        if decision.verdict is not Verdict.YES:
            return _Judged(notice, permit, "not_permitted", "not_on_list")
        if key is None:
            return _Judged(notice, permit, "no_code", "provider_has_no_code")
        copies = self._books.copies(key, permit, today)
        if not copies:
            return _Judged(notice, permit, "no_record", "no_copy")
        allowed = self._books.law.allowed_items(permit.procedure, permit.kind, today)
        items = [item for item in permit.items if item in allowed]
        answered = [_only(copy, items) for copy in copies]
        gaps = any(isinstance(value, Gap) for copy in answered for value in copy.items.values())
        clear = msgspec.json.encode(AnswerContent(kind=permit.kind, copies=answered))
        return _Judged(notice, permit, "provided_with_gaps" if gaps else "provided", None, clear)

    def _seal(self, judged: Sequence[_Judged]) -> dict[uuid.UUID, SealedAnswer]:
        """Seal all content, one encapsulation for each inquirer's answer key."""
        lines: dict[tuple[str, bytes], list[tuple[uuid.UUID, bytes]]] = defaultdict(list)
        for one in judged:
            if one.clear is not None:
                lines[one.permit.answer_key, one.permit.answer_key_public].append((one.permit.permit, one.clear))
        sealed: dict[uuid.UUID, SealedAnswer] = {}
        for (key, public), batch in lines.items():
            answers = seal_batch(public, key, batch, self._chance)
            sealed.update(zip((permit for permit, _ in batch), answers, strict=True))
        return sealed

    def _given(self, one: _Judged, sealed: SealedAnswer | None) -> Given:
        now = self._clock.now()
        permit = one.permit
        record = Record(
            id=self._chance.uuid7(),
            side="provider",
            inquirer=permit.inquirer,
            provider=permit.provider,
            department=permit.department,
            affair=permit.affair,
            procedure=permit.procedure,
            kind=permit.kind,
            items=permit.items,
            outcome=one.outcome or "expired",
            asked_at=permit.asked_at,
            closed_at=now,
            withheld=permit.withheld,
            provided_at=now if sealed is not None else None,
            reference=str(permit.permit),
            reason=one.reason,
        )
        if one.outcome is None:
            return Given(one.notice, permit.permit, None, None, record)
        answer = Answer(
            id=self._chance.uuid7(),
            permit=permit.permit,
            route=permit.route,
            provider=self._agency,
            outcome=one.outcome,
            answered_at=now,
            withheld=permit.withheld,
            reason=one.reason,
            sealed=sealed,
        )
        return Given(one.notice, permit.permit, answer.id, msgspec.json.encode(answer), record)


def _only(copy: AnsweredCopy, items: Sequence[str]) -> AnsweredCopy:
    """Reduce a copy to the items that may leave; what it does not hold carries a reason and is never a zero."""
    chosen = {item: copy.items.get(item, Gap(gap=NOT_IN_LAYOUT)) for item in items}
    return msgspec.structs.replace(copy, items=chosen)
