"""Nothing leaves without permit, list and a look at the holds, and no item beyond the permit's (invariant 4).

Every answer that reached the network is opened with the inquirer's key. Holds and the kill switch are replayed from the
cells' journal: what stood at the instant of the commit counts, and not what the exchange believed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import msgspec

from chukan.ops.simulation.cell import Entry
from chukan.ops.simulation.checkers.evidence import Evidence, Exchanged, LineKey
from chukan.ops.simulation.loop import START
from chukan.ops.simulation.world import law
from chukan.platform.law import Verdict
from chukan.platform.sealed import UnreadableAnswerError, open_answer
from chukan.platform.wire.agency import AnswerContent
from chukan.platform.wire.network import Answer
from chukan.tenants.directory import Directory, Snapshot
from chukan.tenants.rows import DecideRow, ProvideRow
from chukan.tenants.states import Outcome

_CONTENT = frozenset({Outcome.PROVIDED, Outcome.PROVIDED_WITH_GAPS})


def check(evidence: Evidence) -> Iterator[str]:
    """Open every answer, and replay what stood when it was sealed."""
    permits = {row.reference: row for row in evidence.exchanged if row.permit is not None}
    seen: set[bytes] = set()
    for _, body in evidence.world.network.journal.answers:
        if body in seen:
            continue
        seen.add(body)
        answer = msgspec.json.decode(body, type=Answer)
        if answer.sealed is None:
            continue
        row = permits.get(answer.permit)
        if row is None or row.permit is None:
            yield "content left without a permit of the network"
            continue
        yield from _content(evidence, row, answer)
    yield from _Replay(evidence).run()


def _content(evidence: Evidence, row: Exchanged, answer: Answer) -> Iterator[str]:
    permit = row.permit
    assert permit is not None and answer.sealed is not None  # noqa: S101, PT018 - looked at before
    if answer.answered_at >= permit.expires_at:
        yield "content was sealed after the permit's end"
    decision = law().decide(
        inquirer=permit.inquirer,
        provider=permit.provider,
        affair=permit.affair,
        procedure=permit.procedure,
        kind=permit.kind,
        day=START.date(),
    )
    if decision.verdict is not Verdict.YES:
        yield "content left that the list does not allow"
    keys = evidence.world.keys(evidence.agencies[permit.inquirer])
    try:
        raw = open_answer(answer.sealed, answer.permit, keys.answer_private(answer.sealed.key))
    except UnreadableAnswerError:
        yield "an answer was not sealed to its inquirer"
        return
    may = set(permit.items) & law().allowed_items(permit.procedure, permit.kind, START.date())
    for copy in msgspec.json.decode(raw, type=AnswerContent).copies:
        if not copy.items.keys() <= may:
            yield "an item left that the permit does not name"


@dataclass
class _Replay:
    """Holds, links and stops as they stood at each commit of each cell."""

    evidence: Evidence
    holds: dict[int, set[tuple[bytes | None, str | None]]] = field(default_factory=dict)
    stopped: dict[str, Directory] = field(default_factory=dict)
    drafts: dict[LineKey, dict[str, Any]] = field(default_factory=dict)

    def run(self) -> Iterator[str]:
        """Walk through the journal."""
        for entry in self.evidence.world.journal.entries:
            if entry.function == "holds":
                agency, key = entry.given
                self.holds.setdefault(agency, set()).symmetric_difference_update({key})
            elif entry.function == "snapshot" and isinstance(entry.given, Snapshot):
                self.stopped[entry.cell] = Directory(entry.given)
            elif entry.function == "take_snapshots":
                # It wrote, so something that waited came into force here.
                self.stopped[entry.cell] = Directory(msgspec.json.decode(entry.result[0].body, type=Snapshot))
            elif entry.function == "draft" and entry.given is not None:
                agency, draft = entry.given
                self.drafts[agency, draft["provision"]] = draft
            elif entry.function == "provide":
                yield from self._provided(entry)
            elif entry.function == "decide_provisions":
                yield from self._decided(entry)

    def _provided(self, entry: Entry) -> Iterator[str]:
        rows: list[ProvideRow] = entry.given
        for row, word in zip(rows, entry.result, strict=True):
            if word != "stored" or row.outcome not in _CONTENT:
                continue
            permit = self.evidence.notices[row.agency, row.id].permit
            held = self.holds.get(row.agency, set())
            if any(who in {None, row.person} and kind in {None, permit.kind} for who, kind in held):
                yield "content left while a hold stood"
            yield from self._checked(entry.cell, row.agency, row.person, permit.kind, permit.procedure)
            copies = [] if row.person is None else self._table(row.agency).copies.get((row.person, permit.kind), [])
            if any(copy.review for copy in copies):
                yield "content left that an officer has to decide about"

    def _decided(self, entry: Entry) -> Iterator[str]:
        rows: list[DecideRow] = entry.given
        for row, word in zip(rows, entry.result, strict=True):
            if word != "applied" or row.outcome not in _CONTENT:
                continue
            draft = self.drafts.get((row.agency, row.id))
            if draft is None or draft["decision"] != "provide":
                yield "content left that no first officer proposed"
            permit = self.evidence.notices[row.agency, row.id].permit
            yield from self._checked(entry.cell, row.agency, row.person, permit.kind, permit.procedure)

    def _checked(self, cell: str, agency: int, person: bytes | None, kind: str, procedure: str) -> Iterator[str]:
        if cell in self.stopped and self.stopped[cell].is_stopped(kind, procedure):
            yield "content left while the kind was stopped"
        link = None if person is None else self._table(agency).codes.get(person)
        if link is None or link.status.name != "ACTIVE":
            yield "content left over a link that is not active"

    def _table(self, number: int) -> Any:  # noqa: ANN401 - the agency's tables
        return next(table for agency, _, table in self.evidence.world.tables() if agency.number == number)
