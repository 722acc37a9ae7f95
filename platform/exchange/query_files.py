"""Query files (照会ファイル): up to 10,000 lines made durable part by part, their progress, their result line by line.

The file's row is claimed by its name, each part of 1,000 lines is a batch of query lines whose id follows from the
file's, and the row is closed when every line is durable or refused. Whatever happens in between, the same file sent
again finishes the same file: parts that are there are found, the others are made. From then on its lines are query
lines like any others.

Invariant: a refused line is kept by its number, code and field, never by a value. Only one part of a file is in work
at a time, and only a few files are (``FILES_AT_ONCE``), so that files never fill the memory or the cell.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Final

import msgspec

from chukan import log
from chukan.errors import Problem
from chukan.platform.exchange.context import Context
from chukan.platform.exchange.inquiries import Inquiries
from chukan.platform.exchange.views import open_content, problem_body, refused_view, view_of
from chukan.platform.wire.agency import QueryLine, QueryLineView
from chukan.platform.wire.files import FIELD_OF, FILE_LINES_MAX, PART_LINES, PROBLEMS_SHOWN_MAX, QueryFile
from chukan.tenants import files
from chukan.tenants.directory import AgencyRow, ClientRow
from chukan.tenants.partition import Partition
from chukan.tenants.states import Outcome

_log = log.get("exchange.files")
FILES_AT_ONCE: Final = 4
TURN_WAIT_S: Final = 20.0
RESULT_PAGE: Final = 200
"""Lines whose answers are opened at once: an answer may have some hundred items."""

Door = Callable[[AgencyRow], AbstractAsyncContextManager[Partition]]


@dataclass(frozen=True, slots=True)
class FileLine:
    """One line as it was read: a query line, or the problem why it is none. Numbers count from 1."""

    number: int
    line: QueryLine | None = None
    problem: Problem | None = None


@dataclass(frozen=True, slots=True)
class SentFile:
    """A file that has come in whole; ``digest`` is SHA-256 of its bytes, ``request`` what goes with the key."""

    name: str
    charset: str
    digest: bytes
    key: str
    request: bytes


@dataclass(frozen=True, slots=True)
class FileResult:
    """What a result is made of: ``pages`` yields lines in their order, each page once its answers are opened."""

    charset: str
    kinds: tuple[str, ...]
    pages: AsyncGenerator[list[QueryLineView], None]


class _Body(msgspec.Struct, frozen=True, omit_defaults=True):
    """What rests sealed with a file's row."""

    name: str
    charset: str
    kinds: tuple[str, ...] = ()
    parts: tuple[int, ...] = ()
    """Parts that have lines; the others were refused as a whole."""


class QueryFiles:
    """Implements ``services.QueryFileService``."""

    def __init__(self, context: Context, inquiries: Inquiries, door: Door) -> None:
        self._context = context
        self._inquiries = inquiries
        self._door = door
        self._turns = asyncio.Semaphore(FILES_AT_ONCE)

    async def put(
        self, agency: AgencyRow, caller: ClientRow, sent: SentFile, parts: Iterable[Sequence[FileLine]]
    ) -> QueryFile:
        """Make a file durable, or find that it is; ``parts`` yields what stands in each thousand of line numbers.

        Raises:
            Problem: file_conflict, idempotency_key_reused, idempotency_key_too_old, busy; and what a cell says.
        """
        context = self._context
        keys = context.keys(agency.number)
        body = _Body(sent.name, sent.charset)
        claimed = files.Sent("queries", sent.name, sent.charset.encode() + sent.digest, sent.key, sent.request)
        async with self._turn():
            async with self._door(agency) as partition:
                row = await files.claim(
                    partition,
                    keys,
                    claimed,
                    file=context.chance.uuid7(),
                    body=msgspec.json.encode(body),
                    now=context.clock.now(),
                )
            if row.state == "open":
                row = await self._accept(agency, caller, row.id, body, sent.digest, parts)
        return await self._view(agency, row)

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(TURN_WAIT_S):
                await self._turns.acquire()
        except TimeoutError:
            raise Problem("busy", retry_after_s=5) from None
        try:
            yield
        finally:
            self._turns.release()

    async def _accept(
        self,
        agency: AgencyRow,
        caller: ClientRow,
        file: uuid.UUID,
        body: _Body,
        digest: bytes,
        parts: Iterable[Sequence[FileLine]],
    ) -> files.FileRow:
        refusals: list[files.Refusal] = []
        kinds: dict[str, None] = {}
        used: list[int] = []
        count = 0
        for index, lines in enumerate(parts):
            refusals += [_refusal(line.number, line.problem) for line in lines if line.problem is not None]
            numbered = [(line.number - 1, line.line) for line in lines if line.line is not None]
            if not numbered:
                continue
            refused = await self._inquiries.accept_part(agency, caller, batch_of_part(file, index), numbered, digest)
            refusals += [_refusal(ordinal + 1, problem) for ordinal, problem in refused.items()]
            kinds.update((line.kind, None) for ordinal, line in numbered if ordinal not in refused)
            used.append(index)
            count += len(numbered) - len(refused)
        body = msgspec.structs.replace(body, kinds=tuple(kinds), parts=tuple(used))
        async with self._door(agency) as partition:
            row = await files.accept(
                partition,
                self._context.keys(agency.number),
                file,
                lines=count,
                body=msgspec.json.encode(body),
                refusals=sorted(refusals, key=lambda refusal: refusal.line),
            )
        _log.info("file accepted", agency=agency.number, count=count, peer=caller.id)
        return row

    async def get(self, agency: AgencyRow, file: uuid.UUID) -> QueryFile:
        """Return a file with the progress of its lines. Raises ``Problem`` not_found."""
        return await self._view(agency, await self._row(agency, file))

    async def _row(self, agency: AgencyRow, file: uuid.UUID) -> files.FileRow:
        async with self._door(agency) as partition:
            return await files.get(partition, self._context.keys(agency.number), file, "queries")

    async def _view(self, agency: AgencyRow, row: files.FileRow) -> QueryFile:
        body = msgspec.json.decode(row.body, type=_Body)
        parts = body.parts if row.state == "accepted" else range(FILE_LINES_MAX // PART_LINES)
        batches = [batch_of_part(row.id, index) for index in parts]
        states: dict[str, int] = {}
        outcomes: dict[str, int] = {}
        for step in await self._context.cell(agency).batch_progress(agency.number, batches):
            word = step.state.name.lower()
            states[word] = states.get(word, 0) + step.count
            if step.outcome is not Outcome.NONE:
                outcomes[step.outcome.word] = outcomes.get(step.outcome.word, 0) + step.count
        return QueryFile(
            id=row.id,
            name=body.name,
            charset=body.charset,
            state=row.state,
            received_at=row.at,
            lines=row.lines if row.state == "accepted" else sum(states.values()),
            refused=len(row.refusals),
            batches=batches if row.state == "accepted" else [],
            states=states,
            outcomes=outcomes,
            problems=tuple(problem_body(_problem(refusal)) for refusal in row.refusals[:PROBLEMS_SHOWN_MAX]),
        )

    async def result(self, agency: AgencyRow, file: uuid.UUID, after: int) -> FileResult:
        """Return the result behind a line; reading a page marks its answered lines as collected.

        Raises:
            Problem: not_found; file_incomplete while the file was cut short.
        """
        row = await self._row(agency, file)
        if row.state != "accepted":
            raise Problem("file_incomplete")
        body = msgspec.json.decode(row.body, type=_Body)
        return FileResult(body.charset, body.kinds, self._pages(agency, row, frozenset(body.parts), after))

    async def _pages(
        self, agency: AgencyRow, row: files.FileRow, parts: frozenset[int], after: int
    ) -> AsyncGenerator[list[QueryLineView], None]:
        keys = self._context.keys(agency.number)
        cell = self._context.cell(agency)
        refused = [refused_view(refusal.line - 1, _problem(refusal)) for refusal in row.refusals]
        for index in range(after // PART_LINES, FILE_LINES_MAX // PART_LINES):
            mine = [view for view in refused if view.line // PART_LINES == index and view.line >= after]
            found = []
            if index in parts:
                found = await cell.inquiry_views(agency.number, batch=batch_of_part(row.id, index), limit=PART_LINES)
            ids = [(line.ordinal, line.id) for line in found if line.ordinal >= after]
            for start in range(0, len(ids), RESULT_PAGE):
                page = ids[start : start + RESULT_PAGE]
                rows = await cell.collect(agency.number, agency.generation, [line for _, line in page])
                views = [view_of(line, open_content(keys, line)) for line in rows]
                # What was refused stands among the others, in the order of the lines.
                last = page[-1][0]
                views += [view for view in mine if view.line <= last]
                mine = [view for view in mine if view.line > last]
                yield sorted(views, key=lambda view: view.line)
            if mine:
                yield mine


def batch_of_part(file: uuid.UUID, index: int) -> uuid.UUID:
    """Return the id of the batch that holds a file's lines ``index``·1,000 + 1 … ``index``·1,000 + 1,000."""
    return uuid.uuid5(file, str(index))


def _refusal(number: int, problem: Problem) -> files.Refusal:
    pointer = problem.pointer
    return files.Refusal(number, problem.code, None if pointer is None else FIELD_OF.get(pointer, pointer))


def _problem(refusal: files.Refusal) -> Problem:
    return Problem(refusal.code, line=refusal.line, pointer=refusal.pointer)
