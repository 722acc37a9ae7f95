"""Repair of links (付替・統合・疑義・確認): one officer proposes and links are suspended, another one confirms.

From the proposal on a link answers nothing: the provider's side holds what is asked by its code, and every commit
re-checks the link's version, so that what was judged before is judged again. Queries that the agency itself has under
way by a suspended link are taken back, for their answer might be another person's. A repeated key has no second effect.

Holds (自動応答不可) of a number that is given up by a merge are set on the number that stays before anything moves: a
merge never lets out what was withheld. Records keep their labels (``tenants.code_changes.labels_of``).
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Final

import msgspec

from chukan import log
from chukan.errors import Problem
from chukan.platform.exchange.cancelling import take_back
from chukan.platform.exchange.context import Context
from chukan.platform.exchange.facts import Persons, refuse_old_key
from chukan.platform.exchange.two_persons import are_one
from chukan.platform.exchange.views import problem_body
from chukan.platform.wire.code_changes import (
    CodeChange,
    CodeChangeLine,
    CodeChangeLines,
    CodeChanges,
    CodeConfirm,
    CodeMerge,
    CodeRelink,
)
from chukan.tenants import code_changes as history
from chukan.tenants import copies, own_flags
from chukan.tenants.directory import AgencyRow, ClientRow
from chukan.tenants.partition import Partition
from chukan.tenants.sets.code_changes import Decision, Proposal

_log = log.get("exchange.code_changes")
Door = Callable[[AgencyRow], AbstractAsyncContextManager[Partition]]
LINES_PER_ROUND: Final = 1000
ROUNDS_MAX: Final = 100
"""So many thousands of lines under way are taken back at most for one proposal."""
_PROBLEMS: Final = {
    "reused": "idempotency_key_reused",
    "no_link": "no_code",
    "pending": "link_change_pending",
    "conflict": "link_change_conflict",
    "late": "already_final",
    "same_officer": "second_officer_required",
    "not_found": "not_found",
    "changed": "link_changed",
}


class CodeChangeDesk:
    """Implements ``services.CodeChangeService``; ``changed`` is told whose query lines were closed."""

    def __init__(self, context: Context, persons: Persons, door: Door, changed: Callable[[AgencyRow], None]) -> None:
        self._context = context
        self._persons = persons
        self._door = door
        self._changed = changed

    # ------------------------------------------------------------ proposing

    async def relink(
        self, agency: AgencyRow, officer: ClientRow, body: CodeRelink, key: str, content: bytes
    ) -> CodeChangeLines:
        """Propose that codes belong to other addressee numbers; the links are suspended."""
        lines = []
        for line in body.lines:
            to = None if line.to == line.addressee else line.to
            act = "relink" if to is not None else "doubt" if line.to is None else "reinstate"
            lines.append((act, history.Detail(line.addressee, to, line.reason)))
        return await self._propose(agency, officer, lines, key, content)

    async def merge(
        self, agency: AgencyRow, officer: ClientRow, body: CodeMerge, key: str, content: bytes
    ) -> CodeChangeLines:
        """Propose that two addressee numbers each are one person; the links are suspended."""
        for number, line in enumerate(body.lines):
            if line.addressee == line.into:
                raise Problem("invalid_field", pointer=f"/lines/{number}/into", line=number + 1)
        lines = [("merge", history.Detail(line.addressee, line.into, line.reason)) for line in body.lines]
        return await self._propose(agency, officer, lines, key, content)

    async def _propose(
        self,
        agency: AgencyRow,
        officer: ClientRow,
        lines: Sequence[tuple[str, history.Detail]],
        key: str,
        content: bytes,
    ) -> CodeChangeLines:
        refuse_old_key(key, self._context.clock)
        rows = [self._proposal(agency, act, detail, f"{n} {key}", content) for n, (act, detail) in enumerate(lines)]
        cell = self._context.cell(agency)
        words = await cell.propose_changes(agency.number, agency.generation, officer.id, rows)
        decided = await self._decided(
            agency, [row.id for row, word in zip(rows, words, strict=True) if word == "repeat"]
        )
        views = []
        for n, (row, word) in enumerate(zip(rows, words, strict=True)):
            done = word in {"open", "repeat"}
            views.append(_view(n, row.id, decided.get(row.id, "open")) if done else _refused(n, None, word))
            _log.info("link change proposed", agency=agency.number, peer=officer.id, stage=row.act, outcome=word)
        # What was decided about since its first time suspends nothing any more: a repeat of it takes nothing back.
        suspended = [row for row, view in zip(rows, views, strict=True) if view.status == "open"]
        taken_back = await self._take_back(agency, _persons(suspended))
        return CodeChangeLines(lines=views, taken_back=taken_back)

    async def _decided(self, agency: AgencyRow, repeated: Sequence[uuid.UUID]) -> dict[uuid.UUID, str]:
        """How changes that were proposed before stand now."""
        if not repeated:
            return {}
        async with self._door(agency) as partition:
            found = await history.by_ids(partition, self._context.keys(agency.number), repeated)
        return {change.id: change.state for change in found.values()}

    def _proposal(self, agency: AgencyRow, act: str, detail: history.Detail, key: str, content: bytes) -> Proposal:
        keys = self._context.keys(agency.number)
        # The id follows from the key, so that a repeat finds what the first one did.
        change = uuid.UUID(bytes=keys.digest("key", b"link change " + key.encode())[:16])
        target = None if detail.to is None else self._persons.person(agency, detail.to)
        return Proposal(
            id=change,
            act=act,
            person=self._persons.person(agency, detail.addressee),
            target=target,
            body=keys.digest("body", act.encode() + msgspec.json.encode(detail) + content),
            detail=history.seal_detail(keys, change, detail),
            target_addressee=(
                None if target is None or detail.to is None else keys.seal("addressee", target, detail.to.encode())
            ),
        )

    # ------------------------------------------------------------ deciding

    async def confirm(self, agency: AgencyRow, officer: ClientRow, body: CodeConfirm) -> CodeChangeLines:
        """Carry changes out, or withdraw them, on another officer's word than the proposer's."""
        context = self._context
        keys = context.keys(agency.number)
        applied = {line.change for line in body.lines if line.decision == "apply"}
        async with self._door(agency) as partition:
            found = await history.by_ids(partition, keys, list(applied))
        own = await self._own(agency, officer, found.values())
        async with self._door(agency) as partition:
            for change in found.values():
                if change.act == "merge" and change.state == "open" and change.id not in own:
                    await self._carry_holds(partition, agency, change)
        # Whatever began between proposal and now asked by a link that is about to move.
        taken_back = await self._take_back(agency, _persons(each for each in found.values() if each.state == "open"))
        rows = [Decision(line.change, line.decision == "apply", context.chance.uuid7()) for line in body.lines]
        asked = [row for row in rows if row.id not in own]
        decided = await context.cell(agency).decide_changes(agency.number, agency.generation, officer.id, asked)
        found_words = iter(decided)
        words = ["same_officer" if row.id in own else next(found_words) for row in rows]
        views = []
        for n, (row, word) in enumerate(zip(rows, words, strict=True)):
            if word == "applied":
                views.append(_view(n, row.id, "applied"))
            elif word == "withdrawn":
                views.append(_view(n, row.id, "withdrawn"))
            else:
                views.append(_refused(n, row.id, word))
            _log.info("link change decided", agency=agency.number, peer=officer.id, outcome=word)
        return CodeChangeLines(lines=views, taken_back=taken_back)

    async def _own(
        self, agency: AgencyRow, officer: ClientRow, found: Iterable[history.Change]
    ) -> frozenset[uuid.UUID]:
        """Return the open changes that the officer proposed, or may have proposed by card."""
        waiting = [change for change in found if change.state == "open"]
        ones = {
            first: await are_one(self._context, self._door, agency, officer.id, first)
            for first in {change.proposed_by for change in waiting}
        }
        return frozenset(change.id for change in waiting if ones[change.proposed_by])

    async def _carry_holds(self, partition: Partition, agency: AgencyRow, change: history.Change) -> None:
        """Set the holds and flags of the number that is given up on the one that stays."""
        assert change.detail.to is not None  # noqa: S101 - a merge names both
        rows = await partition.fetch(f"SELECT kind FROM {partition.table('holds')} WHERE person = $1", change.person)
        holds = [(change.detail.to, row["kind"], True) for row in rows]
        keys = self._context.keys(agency.number)
        if holds:
            await copies.set_holds(partition, keys, holds)
        await own_flags.carry(partition, keys, change.person, change.detail.to)

    # ------------------------------------------------------------ lines under way

    async def _take_back(self, agency: AgencyRow, persons: list[bytes]) -> int:
        """Cancel the agency's own open queries for persons whose link is suspended; their answers would be dropped."""
        if not persons:
            return 0
        cell, taken = self._context.cell(agency), 0
        for _ in range(ROUNDS_MAX):
            lines = await cell.open_lines(agency.number, persons, limit=LINES_PER_ROUND)
            if not lines:
                break
            taken += await take_back(self._context, agency, lines, reason="link_suspended")
        if taken:
            _log.info("lines cancelled", agency=agency.number, count=taken, code="link_suspended")
            self._changed(agency)
        return taken

    # ------------------------------------------------------------ looking

    async def waiting(self, agency: AgencyRow) -> CodeChanges:
        """The changes that wait for another officer."""
        async with self._door(agency) as partition:
            found = await history.open_ones(partition, self._context.keys(agency.number))
        return CodeChanges(changes=[_shown(change) for change in found])

    async def history(self, agency: AgencyRow, addressee: str) -> CodeChanges:
        """Everything that was changed about one addressee number's link."""
        person = self._persons.person(agency, addressee)
        async with self._door(agency) as partition:
            found = await history.of_person(partition, self._context.keys(agency.number), person)
        return CodeChanges(changes=[_shown(change) for change in found])


def _persons(rows: Iterable[Proposal | history.Change]) -> list[bytes]:
    return sorted({person for row in rows for person in (row.person, row.target) if person is not None})


def _view(line: int, change: uuid.UUID, status: str) -> CodeChangeLine:
    return msgspec.convert({"line": line, "change": change, "status": status}, CodeChangeLine)


def _refused(line: int, change: uuid.UUID | None, word: str) -> CodeChangeLine:
    problem = problem_body(Problem(_PROBLEMS[word], pointer=f"/lines/{line}", line=line + 1))
    return CodeChangeLine(line=line, status="refused", change=change, problem=problem)


def _shown(change: history.Change) -> CodeChange:
    return msgspec.convert(
        {
            "id": change.id,
            "act": change.act,
            "state": change.state,
            "addressee": change.detail.addressee,
            "to": change.detail.to,
            "reason": change.detail.reason,
            "was": change.person_was.name.lower(),
            "to_was": None if change.target_was is None else change.target_was.name.lower(),
            "proposed_by": change.proposed_by,
            "proposed_at": change.proposed_at,
            "decided_by": change.decided_by,
            "decided_at": change.decided_at,
        },
        CodeChange,
    )
