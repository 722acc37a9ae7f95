"""Files of lines (照会ファイル, 符号取得ファイル): taken in whole, their results given out page by page.

A file is sent as it is, with its name and its charset declared. A file of more lines is refused with the limit before a
line of it is looked at (CON-04). A result can be fetched at any time and from any line on, in a place of its own for
each page, so that a long result keeps nobody waiting.

Invariant: what a line means is the business of whoever takes the file.
"""

import asyncio
import hashlib
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Final, TypeVar

from aiohttp import hdrs

from chukan.errors import Problem
from chukan.platform.exchange.query_files import SentFile
from chukan.platform.http import bodies, forbidden, headers
from chukan.platform.http.calls import Call, Pieces, Reply
from chukan.platform.http.parts import CHARSETS
from chukan.platform.http.query_lines import count_lines
from chukan.platform.wire.files import FILE_BYTES_MAX, FILE_LINES_MAX, CodeFile, FileParams, QueryFile, ResultParams
from chukan.tenants.directory import AgencyRow

ACCEPT_DEADLINE_S: Final = 180.0
PAGE_DEADLINE_S: Final = 30.0
TEXT: Final = "text/plain"
CSV: Final = "text/csv"
MIME: Final = {"utf-8": "utf-8", "cp932": "shift_jis"}

Page = TypeVar("Page")
Found = TypeVar("Found")
Filed = TypeVar("Filed", QueryFile, CodeFile)


async def take(call: Call, put: Callable[[SentFile, bytes], Awaitable[Filed]]) -> Reply:
    """Take a file in whole and hand it on; answered when that is durable.

    Raises ``Problem`` individual_number_present, resident_code_present, those of reading it, and those of ``put``.
    """
    name = call.params_as(FileParams).name
    forbidden.refuse([("name", name)])
    charset = declared_charset(call)
    size = bodies.announced_bytes(call.request, FILE_BYTES_MAX)
    async with call.services.admission.reading(call.agency.number, call.priority, size):
        content = await read_file(call)
        digest = hashlib.sha256(content).digest()
        key = call.need_key()
        sent = SentFile(name, charset, digest, key.key, key.content + name.encode() + b"\n" + digest)
        async with call.place(reading=True), asyncio.timeout(ACCEPT_DEADLINE_S):
            file = await put(sent, content)
    return Reply(file, 202, {hdrs.LOCATION: f"{call.request.path}/{file.id}"})


async def find(call: Call, result: Callable[[AgencyRow, uuid.UUID, int], Awaitable[Found]]) -> Found:
    """Return a file's result behind the line that was asked for, its pages still unread."""
    after = call.params_as(ResultParams).after
    async with call.place(), asyncio.timeout(PAGE_DEADLINE_S):
        return await result(call.agency, call.id("file"), after)


def give(
    call: Call, charset: str, head: bytes, pages: AsyncGenerator[Page, None], write: Callable[[Page], bytes]
) -> Reply:
    """Return a reply of a header and pages, each read when its turn comes."""
    return Reply(Pieces(f"{CSV}; charset={MIME[charset]}; header=present", _poured(call, head, pages, write)))


async def _poured(
    call: Call, head: bytes, pages: AsyncGenerator[Page, None], write: Callable[[Page], bytes]
) -> AsyncGenerator[bytes, None]:
    yield head
    async with aclosing(pages) as coming:
        while True:
            async with call.place(), asyncio.timeout(PAGE_DEADLINE_S):
                page = await anext(coming, None)
            if page is None:
                return
            yield write(page)


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
