"""Query files (照会ファイル): send a file of up to 10,000 lines, look how far it is, fetch the result line by line.

A file is sent as it is, with its name and its charset declared; it is durable when the reply leaves. Sent again it is
the same file: what was taken is found, what was cut short is finished (CON-03). A file of more lines is refused with
the limit before a line of it is looked at (CON-04). A line that cannot be taken is refused by its number, field and
code, and the others go on (INQ-06).

The result is a CSV that can be fetched at any time and from any line on. Whoever fetches a line's answer has collected
it; it can be fetched again until it is purged.
"""

import asyncio
import hashlib
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Final

from aiohttp import hdrs

from chukan.errors import Problem
from chukan.platform.admission import Priority
from chukan.platform.exchange.query_files import FileResult, SentFile
from chukan.platform.http import bodies, forbidden, headers
from chukan.platform.http.auth import Right
from chukan.platform.http.calls import Call, Pieces, Reply, Route, Work
from chukan.platform.http.parts import CHARSETS
from chukan.platform.http.query_lines import LINE_BYTES_MAX, ResultWriter, count_lines, read_parts
from chukan.platform.wire.files import FILE_BYTES_MAX, FILE_LINES_MAX, QUERY_FIELDS, FileParams, QueryFile, ResultParams

ACCEPT_DEADLINE_S: Final = 180.0
PAGE_DEADLINE_S: Final = 30.0
TEXT: Final = "text/plain"
CSV: Final = "text/csv"
MIME: Final = {"utf-8": "utf-8", "cp932": "shift_jis"}
_RIGHT: Final = Right(("queries",))


async def post(call: Call) -> Reply:
    """Take a file in whole, then make its lines durable."""
    name = call.params_as(FileParams).name
    forbidden.refuse([("name", name)])
    charset = declared_charset(call)
    size = bodies.announced_bytes(call.request, FILE_BYTES_MAX)
    async with call.services.admission.reading(call.agency.number, call.priority, size):
        content = await read_file(call)
        digest = hashlib.sha256(content).digest()
        key = call.need_key()
        sent = SentFile(name, charset, digest, key.key, key.content + name.encode() + b"\n" + digest)
        parts = read_parts(content, charset, call.agency.code)
        async with call.place(reading=True), asyncio.timeout(ACCEPT_DEADLINE_S):
            file = await call.services.exchange.files.put(call.agency, call.client, sent, parts)
    return Reply(file, 202, {hdrs.LOCATION: f"{call.request.path}/{file.id}"})


async def get(call: Call) -> Reply:
    """Show a file and the progress of its lines (INQ-12)."""
    return Reply(await call.services.exchange.files.get(call.agency, call.id("file")))


async def result(call: Call) -> Reply:
    """Write the result behind a line, page by page."""
    after = call.params_as(ResultParams).after
    async with call.place(), asyncio.timeout(PAGE_DEADLINE_S):
        found = await call.services.exchange.files.result(call.agency, call.id("file"), after)
    return Reply(Pieces(f"{CSV}; charset={MIME[found.charset]}; header=present", _pages(call, found)))


async def _pages(call: Call, found: FileResult) -> AsyncGenerator[bytes, None]:
    """Yield header and pages; each page takes a place of its own, so that a long result keeps nobody waiting."""
    writer = ResultWriter(call.services.law, found.charset, found.kinds)
    yield writer.header()
    async with aclosing(found.pages) as pages:
        while True:
            async with call.place(), asyncio.timeout(PAGE_DEADLINE_S):
                page = await anext(pages, None)
            if page is None:
                return
            yield writer.page(page)


def declared_charset(call: Call) -> str:
    """Return the charset that the file declares. Raises ``Problem`` unsupported_media_type, unsupported_encoding."""
    media_type, charset, _ = headers.media_type(call.request)
    if media_type != TEXT:
        raise Problem("unsupported_media_type", expected=TEXT)
    if charset is None or charset not in CHARSETS:
        raise Problem("unsupported_encoding", expected="charset=utf-8 or charset=cp932, declared")
    return CHARSETS[charset]


async def read_file(call: Call) -> bytes:
    """Return a file's bytes. Raises ``Problem`` too_many_lines, too_large, truncated_body."""
    announced = headers.content_digest(call.request)
    content = bytearray()
    ends = 0
    async for piece in bodies.stream(call.request, FILE_BYTES_MAX):
        content += piece
        ends += piece.count(b"\n")
        if ends > FILE_LINES_MAX:
            raise Problem("too_many_lines", limit=FILE_LINES_MAX)
    whole = bytes(content)
    if count_lines(whole) > FILE_LINES_MAX:
        raise Problem("too_many_lines", limit=FILE_LINES_MAX)
    if announced is not None and announced != hashlib.sha256(whole).digest():
        raise Problem("truncated_body", expected="the bytes that Content-Digest announces")
    return whole


_FORM: Final = (
    f"At most {FILE_LINES_MAX} lines and {FILE_BYTES_MAX} bytes, {LINE_BYTES_MAX} bytes a line; UTF-8 or CP932 as "
    "charset declares; CR LF after each line. A line has 18 fields of a fixed width (bytes in CP932, characters in "
    "UTF-8) with a comma between them: "
    + "; ".join(f"{field.number} {field.name} {field.width}{' or empty' * field.blank}" for field in QUERY_FIELDS)
    + "."
)
_RESULT: Final = (
    "CSV with a header, CR LF: line, copy, state, outcome, reason, problem, field, layout, effective_from, period, and "
    "for each item of the file's kinds its code and `<item code>.gap`. A row a line, or a row a copy. Lines stand in "
    "their order; a reply that is cut off is continued with `?after=` the last whole line."
)

ROUTES: Final = (
    Route(
        "POST",
        "/query-files",
        "postQueryFile",
        "照会ファイルの送信。Send a query file; the same file again has no second effect.",
        _RIGHT,
        post,
        Priority.BATCH,
        params=FileParams,
        reply=QueryFile,
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
            "keys_unconfirmed",
        ),
    ),
    Route(
        "GET",
        "/query-files/{file}",
        "getQueryFile",
        "照会ファイルの進捗。Show a query file: its lines by state and outcome, and the first refused ones.",
        _RIGHT,
        get,
        Priority.COUNTER,
        reply=QueryFile,
        problems=("not_found",),
    ),
    Route(
        "GET",
        "/query-files/{file}/result",
        "getQueryFileResult",
        "照会結果ファイル。Fetch the result line by line; answered lines become collected.",
        _RIGHT,
        result,
        Priority.BATCH,
        params=ResultParams,
        work=Work.OWN,
        produces=(CSV, _RESULT),
        problems=("not_found", "file_incomplete"),
    ),
)
