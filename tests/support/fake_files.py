"""A service of files that lives in memory and remembers what it was asked; the served agency API stands on it."""

import datetime as dt
import uuid
from collections.abc import AsyncGenerator, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from chukan.errors import Problem
from chukan.platform.exchange.code_files import CodeFileLine, CodeFileResult
from chukan.platform.exchange.query_files import FileLine, FileResult, SentFile
from chukan.platform.wire import agency as wire
from chukan.platform.wire.files import CodeFile, QueryFile
from chukan.tenants.directory import AgencyRow, ClientRow

AT = dt.datetime(2026, 11, 23, 1, 2, 3, tzinfo=dt.UTC)


@dataclass
class Files:
    """QueryFileService in memory: one page of result for each part that was sent."""

    calls: list[Any] = field(default_factory=list)
    parts: list[list[FileLine]] = field(default_factory=list)
    fails_after: int | None = None

    def _file(self, file: uuid.UUID) -> QueryFile:
        lines = [line for part in self.parts for line in part]
        good = sum(line.line is not None for line in lines)
        return QueryFile(
            id=file,
            name="N1",
            charset="utf-8",
            state="accepted",
            received_at=AT,
            lines=good,
            refused=len(lines) - good,
            batches=[],
            states={"accepted": good},
            outcomes={},
        )

    async def put(
        self, agency: AgencyRow, caller: ClientRow, sent: SentFile, parts: Iterable[Sequence[FileLine]]
    ) -> QueryFile:
        self.calls.append(("put", agency.code, caller.id, sent))
        self.parts = [list(part) for part in parts]
        return self._file(uuid.uuid4())

    async def get(self, agency: AgencyRow, file: uuid.UUID) -> QueryFile:
        self.calls.append(("get file", agency.code))
        return self._file(file)

    async def result(self, agency: AgencyRow, file: uuid.UUID, after: int) -> FileResult:
        self.calls.append(("result", agency.code, after))
        return FileResult("cp932", ("TM00000000000002",), self._pages(after))

    async def _pages(self, after: int) -> AsyncGenerator[list[wire.QueryLineView], None]:
        for number, part in enumerate(self.parts):
            if number == self.fails_after:
                raise Problem("no_primary", retry_after_s=1)
            yield [wire.QueryLineView(line=each.number - 1, state="accepted") for each in part if each.number > after]


@dataclass
class CodeFiles:
    """CodeFileService in memory."""

    calls: list[Any] = field(default_factory=list)
    lines: Sequence[CodeFileLine] = ()

    def _file(self, file: uuid.UUID) -> CodeFile:
        good = sum(line.addressee is not None for line in self.lines)
        return CodeFile(
            id=file,
            name="N1",
            charset="utf-8",
            state="accepted",
            received_at=AT,
            lines=good,
            refused=len(self.lines) - good,
            statuses={"requested": good},
        )

    async def put(self, agency: AgencyRow, sent: SentFile, lines: Sequence[CodeFileLine]) -> CodeFile:
        self.calls.append(("put codes", agency.code, sent))
        self.lines = lines
        return self._file(uuid.uuid4())

    async def get(self, agency: AgencyRow, file: uuid.UUID) -> CodeFile:
        self.calls.append(("get codes", agency.code))
        return self._file(file)

    async def result(self, agency: AgencyRow, file: uuid.UUID, after: int) -> CodeFileResult:
        self.calls.append(("result codes", agency.code, after))
        return CodeFileResult("utf-8", self._pages(after))

    async def _pages(self, after: int) -> AsyncGenerator[list[wire.CodeStatus], None]:
        yield [
            wire.CodeStatus(line=line.number, status="requested", acquisition_number="N" * 25)
            for line in self.lines
            if line.number > after
        ]
