"""Acquisition by file (符号取得, 施行令27条2項, SYM-07): up to 10,000 addressee numbers in, status and numbers out.

A file does what the same numbers do online, a thousand at a time: one acquisition is open per person, so a file that
is sent again, or was cut short because the network was away, opens nothing twice. Its result is the status of then:
the acquisition number while one is open, never a linkage code.

Invariant: the addressee numbers of a file rest sealed with its row, for its result; nothing of them rests in the clear.
"""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Final

import msgspec

from chukan import log
from chukan.errors import Problem
from chukan.platform.exchange.codes import Codes
from chukan.platform.exchange.context import Context
from chukan.platform.exchange.query_files import SentFile
from chukan.platform.exchange.views import problem_body
from chukan.platform.wire.agency import CodeAsk, CodeLine, CodeStatus
from chukan.platform.wire.files import PART_LINES, PROBLEMS_SHOWN_MAX, CodeFile
from chukan.tenants import files
from chukan.tenants.directory import AgencyRow
from chukan.tenants.partition import Partition

_log = log.get("exchange.code_files")
PURPOSE: Final = "codes"

Door = Callable[[AgencyRow], AbstractAsyncContextManager[Partition]]


@dataclass(frozen=True, slots=True)
class CodeFileLine:
    """One line as it was read: an addressee number, or the problem why it is none. Numbers count from 1."""

    number: int
    addressee: str | None = None
    problem: Problem | None = None


@dataclass(frozen=True, slots=True)
class CodeFileResult:
    """What a result is made of; a status bears the number of its line, from 1."""

    charset: str
    pages: AsyncGenerator[list[CodeStatus], None]


class _Body(msgspec.Struct, frozen=True):
    """What rests sealed with a file's row: its lines by number."""

    name: str
    charset: str
    lines: tuple[tuple[int, str], ...]


class CodeFiles:
    """Implements ``services.CodeFileService``."""

    def __init__(self, context: Context, codes: Codes, door: Door) -> None:
        self._context = context
        self._codes = codes
        self._door = door

    async def put(self, agency: AgencyRow, sent: SentFile, lines: Sequence[CodeFileLine]) -> CodeFile:
        """Open an acquisition for every line, or find that they are.

        Raises:
            Problem: file_conflict, idempotency_key_reused, idempotency_key_too_old; network_unavailable, after which
                the same file is sent again.
        """
        context = self._context
        keys = context.keys(agency.number)
        wanted = tuple((line.number, line.addressee) for line in lines if line.addressee is not None)
        body = msgspec.json.encode(_Body(sent.name, sent.charset, wanted))
        claimed = files.Sent(PURPOSE, sent.name, sent.charset.encode() + sent.digest, sent.key, sent.request)
        async with self._door(agency) as partition:
            row = await files.claim(
                partition, keys, claimed, file=context.chance.uuid7(), body=body, now=context.clock.now()
            )
        if row.state == "open":
            for start in range(0, len(wanted), PART_LINES):
                ask = _ask(wanted[start : start + PART_LINES])
                await self._codes.ask(agency, ask, sent.key)
            refusals = [
                files.Refusal(line.number, line.problem.code, line.problem.pointer)
                for line in lines
                if line.problem is not None
            ]
            async with self._door(agency) as partition:
                row = await files.accept(partition, keys, row.id, lines=len(wanted), body=body, refusals=refusals)
            _log.info("file accepted", agency=agency.number, count=len(wanted))
        return await self._view(agency, row)

    async def get(self, agency: AgencyRow, file: uuid.UUID) -> CodeFile:
        """Return a file with the status of its lines. Raises ``Problem`` not_found."""
        return await self._view(agency, await self._row(agency, file))

    async def result(self, agency: AgencyRow, file: uuid.UUID, after: int) -> CodeFileResult:
        """Return the status of each line behind a line. Raises ``Problem`` not_found, file_incomplete."""
        row = await self._row(agency, file)
        if row.state != "accepted":
            raise Problem("file_incomplete")
        body = msgspec.json.decode(row.body, type=_Body)
        return CodeFileResult(body.charset, self._pages(agency, row, body, after))

    async def _row(self, agency: AgencyRow, file: uuid.UUID) -> files.FileRow:
        async with self._door(agency) as partition:
            return await files.get(partition, self._context.keys(agency.number), file, PURPOSE)

    async def _view(self, agency: AgencyRow, row: files.FileRow) -> CodeFile:
        body = msgspec.json.decode(row.body, type=_Body)
        statuses: Counter[str] = Counter()
        for start in range(0, len(body.lines), PART_LINES):
            found = await self._codes.search(agency, _ask(body.lines[start : start + PART_LINES]))
            statuses.update(line.status for line in found.lines)
        problems = [Problem(each.code, line=each.line, pointer=each.pointer) for each in row.refusals]
        return CodeFile(
            id=row.id,
            name=body.name,
            charset=body.charset,
            state=row.state,
            received_at=row.at,
            lines=len(body.lines),
            refused=len(row.refusals),
            statuses=dict(statuses),
            problems=tuple(problem_body(problem) for problem in problems[:PROBLEMS_SHOWN_MAX]),
        )

    async def _pages(
        self, agency: AgencyRow, row: files.FileRow, body: _Body, after: int
    ) -> AsyncGenerator[list[CodeStatus], None]:
        refused = {
            each.line: CodeStatus(
                line=each.line,
                status="refused",
                problem=problem_body(Problem(each.code, line=each.line, pointer=each.pointer)),
            )
            for each in row.refusals
        }
        known = dict(body.lines)
        numbers = sorted(number for number in known.keys() | refused.keys() if number > after)
        for start in range(0, len(numbers), PART_LINES):
            page = numbers[start : start + PART_LINES]
            asked = [(number, known[number]) for number in page if number in known]
            found = dict(refused)
            if asked:
                statuses = (await self._codes.search(agency, _ask(asked))).lines
                for (number, _), status in zip(asked, statuses, strict=True):
                    found[number] = msgspec.structs.replace(status, line=number)
            yield [found[number] for number in page]


def _ask(lines: Sequence[tuple[int, str]]) -> CodeAsk:
    return CodeAsk(lines=[CodeLine(addressee=addressee) for _, addressee in lines])
