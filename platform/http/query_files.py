"""Query files (照会ファイル): send a file of up to 10,000 lines, look how far it is, fetch the result line by line.

A file is sent as it is, with its name and its charset declared; it is durable when the reply leaves. Sent again it is
the same file: what was taken is found, what was cut short is finished (CON-03). A file of more lines is refused with
the limit before a line of it is looked at (CON-04). A line that cannot be taken is refused by its number, field and
code, and the others go on (INQ-06).

The result is a CSV that can be fetched at any time and from any line on. Whoever fetches a line's answer has collected
it; it can be fetched again until it is purged.
"""

from typing import Final

from chukan.platform.admission import Priority
from chukan.platform.exchange.query_files import SentFile
from chukan.platform.http.auth import Right
from chukan.platform.http.calls import Call, Reply, Route, Work
from chukan.platform.http.line_files import CSV, TEXT, find, give, take
from chukan.platform.http.query_lines import LINE_BYTES_MAX, ResultWriter, read_parts
from chukan.platform.wire.files import (
    CONSENT_FIELD,
    FILE_BYTES_MAX,
    FILE_LINES_MAX,
    QUERY_FIELDS,
    FileParams,
    QueryFile,
    ResultParams,
)

_RIGHT: Final = Right(("queries",))


async def post(call: Call) -> Reply:
    """Take a file in whole, then make its lines durable."""

    async def put(sent: SentFile, content: bytes) -> QueryFile:
        parts = read_parts(content, sent.charset, call.agency.code)
        return await call.services.exchange.files.put(call.agency, call.client, sent, parts)

    return await take(call, put)


async def get(call: Call) -> Reply:
    """Show a file and the progress of its lines (INQ-12)."""
    return Reply(await call.services.exchange.files.get(call.agency, call.id("file")))


async def result(call: Call) -> Reply:
    """Write the result behind a line, page by page."""
    found = await find(call, call.services.exchange.files.result)
    writer = ResultWriter(call.services.law, found.charset, found.kinds)
    return give(call, found.charset, writer.header(), found.pages, writer.page)


_FORM: Final = (
    f"At most {FILE_LINES_MAX} lines and {FILE_BYTES_MAX} bytes, {LINE_BYTES_MAX} bytes a line; UTF-8 or CP932 as "
    "charset declares; CR LF after each line. A line has 18 fields of a fixed width (bytes in CP932, characters in "
    "UTF-8) with a comma between them: "
    + "; ".join(f"{field.number} {field.name} {field.width}{' or empty' * field.blank}" for field in QUERY_FIELDS)
    + f". A line may have one more, {CONSENT_FIELD.number} {CONSENT_FIELD.name} {CONSENT_FIELD.width} or empty: `1` "
    "the person's consent is held, `0` or empty it is not."
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
