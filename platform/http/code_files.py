"""Acquisition by file (符号取得ファイル): up to 10,000 addressee numbers a file, the same result as online (SYM-07).

A line is one 団体内統合宛名番号 of 15 digits. What goes for query files goes here: the name is the file's identity, the
same file again has no second effect, a bad line is refused by its number and the others go on.
"""

import csv
import io
from collections.abc import Iterable, Iterator
from typing import Final

from chukan.errors import Problem
from chukan.platform.admission import Priority
from chukan.platform.exchange.code_files import CodeFileLine
from chukan.platform.exchange.query_files import SentFile
from chukan.platform.http.auth import Right
from chukan.platform.http.calls import Call, Reply, Route, Work
from chukan.platform.http.line_files import CSV, TEXT, find, give, take
from chukan.platform.http.query_lines import records
from chukan.platform.wire.agency import CodeStatus
from chukan.platform.wire.files import FILE_BYTES_MAX, FILE_LINES_MAX, CodeFile, FileParams, ResultParams

_DIGITS: Final = 15
_RIGHT: Final = Right(("codes",))
_COLUMNS: Final = ("line", "status", "acquisition_number", "problem")


async def post(call: Call) -> Reply:
    """Take a file in whole, then open its acquisitions."""

    async def put(sent: SentFile, content: bytes) -> CodeFile:
        return await call.services.exchange.code_files.put(call.agency, sent, list(read_lines(content)))

    return await take(call, put)


async def get(call: Call) -> Reply:
    """Show a file and how many of its persons stand where."""
    return Reply(await call.services.exchange.code_files.get(call.agency, call.id("file")))


async def result(call: Call) -> Reply:
    """Write the status of each line behind a line."""
    found = await find(call, call.services.exchange.code_files.result)
    return give(call, found.charset, _text([_COLUMNS]), found.pages, lambda page: _text(_row(each) for each in page))


def read_lines(content: bytes) -> Iterator[CodeFileLine]:
    """Yield the lines of a file, an empty one passed over; digits are the same in both charsets."""
    for number, record in records(content):
        if not record:
            continue
        if len(record) == _DIGITS and record.isdigit():
            yield CodeFileLine(number, addressee=record.decode("ascii"))
        else:
            yield CodeFileLine(number, problem=Problem("bad_line", line=number, expected="15 digits"))


def _row(status: CodeStatus) -> tuple[str, ...]:
    problem = "" if status.problem is None else status.problem.code
    return (str(status.line), status.status, status.acquisition_number or "", problem)


def _text(rows: Iterable[Iterable[str]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\r\n").writerows(rows)
    return text.getvalue().encode("ascii")


_FORM: Final = (
    f"At most {FILE_LINES_MAX} lines and {FILE_BYTES_MAX} bytes; UTF-8 or CP932 as charset declares; a line is one "
    "団体内統合宛名番号 of 15 digits, with CR LF after it."
)
_RESULT: Final = (
    "CSV with a header, CR LF: line, status, acquisition_number, problem; the status of now, and the number while an "
    "acquisition is open. A reply that is cut off is continued with `?after=` the last whole line."
)

ROUTES: Final = (
    Route(
        "POST",
        "/code-files",
        "postCodeFile",
        "符号取得ファイルの送信。Acquire codes by a file of addressee numbers; sent again it opens nothing twice.",
        _RIGHT,
        post,
        Priority.BATCH,
        params=FileParams,
        reply=CodeFile,
        statuses=(202,),
        key=True,
        work=Work.OWN,
        streams=(TEXT,),
        stream_form=_FORM,
        problems=(
            "file_conflict",
            "idempotency_key_reused",
            "individual_number_present",
            "resident_code_present",
            "network_unavailable",
            "keys_unconfirmed",
        ),
    ),
    Route(
        "GET",
        "/code-files/{file}",
        "getCodeFile",
        "符号取得ファイルの状態。Show a file of addressee numbers: how many stand where.",
        _RIGHT,
        get,
        Priority.COUNTER,
        reply=CodeFile,
        problems=("not_found",),
    ),
    Route(
        "GET",
        "/code-files/{file}/result",
        "getCodeFileResult",
        "符号取得結果ファイル。Fetch status and acquisition number line by line; never a linkage code.",
        _RIGHT,
        result,
        Priority.BATCH,
        params=ResultParams,
        work=Work.OWN,
        produces=(CSV, _RESULT),
        problems=("not_found", "file_incomplete"),
    ),
)
