"""Calls of the agency API about files and streams: query files, comparison with the original, events, holders.

A part of ``AgencyClient``. What comes piece by piece is not asked again by itself when it breaks off: its reader knows
from where to go on.
"""

import base64
import hashlib
import uuid
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from chukan.ops.sandbox.transport import Request, Transport
from chukan.platform.wire.compare import LoadCompare, LoadDifferences
from chukan.platform.wire.files import CodeFile, QueryFile
from chukan.platform.wire.holders import HolderAsk, HolderLine, HolderViews

FILE_WAIT_S: Final = 180.0
"""How much longer than other calls a file may take to become durable."""
T = TypeVar("T")


class FileCalls:
    """These calls, on the transport of the client that they belong to."""

    _transport: Transport

    async def send_query_file(
        self, name: str, content: bytes | Path, *, charset: str = "utf-8", key: str | None = None
    ) -> QueryFile:
        """Send a file of at most 10,000 lines; the same file may be sent again."""
        return await self._transport.call(_file("/query-files", name, content, charset, key), QueryFile)

    async def query_file(self, file: uuid.UUID) -> QueryFile:
        """A file and the progress of its lines."""
        return await self._transport.call(Request("GET", f"/query-files/{file}"), QueryFile)

    def query_file_result(self, file: uuid.UUID, *, after: int = 0) -> AsyncIterator[bytes]:
        """The result (CSV) behind a line, piece by piece; answered lines become collected."""
        request = Request("GET", f"/query-files/{file}/result", params={"after": str(after)})
        return self._transport.stream(request)

    async def ask_holders(self, lines: Sequence[HolderLine]) -> HolderViews:
        """Which agencies that may be asked hold a code of each person, at most 1,000."""
        return await self._asked("/holders", HolderAsk(lines=list(lines)), HolderViews)

    async def send_code_file(
        self, name: str, content: bytes | Path, *, charset: str = "utf-8", key: str | None = None
    ) -> CodeFile:
        """Acquire codes by a file of at most 10,000 addressee numbers; the same file may be sent again."""
        return await self._transport.call(_file("/code-files", name, content, charset, key), CodeFile)

    async def code_file(self, file: uuid.UUID) -> CodeFile:
        """A file of addressee numbers and how many stand where."""
        return await self._transport.call(Request("GET", f"/code-files/{file}"), CodeFile)

    def code_file_result(self, file: uuid.UUID, *, after: int = 0) -> AsyncIterator[bytes]:
        """Status and acquisition number (CSV) behind a line, piece by piece."""
        request = Request("GET", f"/code-files/{file}/result", params={"after": str(after)})
        return self._transport.stream(request)

    def events(self, *, last_id: str | None = None) -> AsyncIterator[bytes]:
        """What happens to the agency's own lines (server-sent events), from now on or behind an id, as it comes."""
        headers = {} if last_id is None else {"Last-Event-ID": last_id}
        return self._transport.stream(Request("GET", "/events", headers=headers))

    def export_records(self) -> AsyncIterator[bytes]:
        """The log of provision records with records and messages, an evidence file, piece by piece."""
        return self._transport.stream(Request("GET", "/records/export"))

    async def compare_load(self, load: uuid.UUID, *, after: str | None = None) -> LoadDifferences:
        """A page of what an open load says otherwise than the copies in force (原本照合); the first has the counts."""
        return await self._asked(f"/loads/{load}/compare", LoadCompare(after=after), LoadDifferences)

    async def all_differences(self, load: uuid.UUID, *, pages_max: int = 5_000) -> LoadDifferences:
        """All differences of an open load, page by page, with their counts."""
        first = page = await self.compare_load(load)
        found = list(page.differences)
        for _ in range(pages_max):
            if page.next is None:
                break
            page = await self.compare_load(load, after=page.next)
            found += page.differences
        return msgspec.structs.replace(first, differences=found, next=page.next)

    async def _asked(self, path: str, body: msgspec.Struct, kind: type[T]) -> T:
        return await self._transport.call(Request("POST", path, msgspec.json.encode(body)), kind)


def _file(path: str, name: str, content: bytes | Path, charset: str, key: str | None) -> Request:
    headers = {"Content-Type": f"text/plain; charset={charset}", "Content-Digest": content_digest(digest_of(content))}
    if key is not None:
        headers["Idempotency-Key"] = key
    return Request("POST", path, content, headers, {"name": name}, wait_s=FILE_WAIT_S)


def digest_of(content: bytes | Path) -> bytes:
    """Return the SHA-256 of a load part."""
    if isinstance(content, bytes):
        return hashlib.sha256(content).digest()
    with content.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def content_digest(digest: bytes) -> str:
    """Return the header ``Content-Digest`` (RFC 9530) for a SHA-256."""
    return f"sha-256=:{base64.b64encode(digest).decode('ascii')}:"
