"""What runs is searched: cells table by table and their servers' files, pages, what the API answers, processes.

The API is asked with the values themselves, in every place of a request where a caller could put one, always malformed:
nothing that is asked has an effect, each reply is searched, and so are afterwards the logs that it may have left.
Invariant: nothing is changed but by a server's checkpoint; every wait has a deadline, every reply a bound.
"""

import asyncio
import os
import ssl
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final
from urllib.parse import quote

import aiohttp

from chukan.ops.leaks.needles import PIECE, Stream
from chukan.ops.leaks.search import Search, Unread
from chukan.replication.driver import Connection
from chukan.tenants import whole_cell

PAGE_BYTES_MAX: Final = 64 << 20
PAGE_TIMEOUT_S: Final = 30.0
SENT_MAX: Final = 100
"""Values that are sent to the API, in the order of their lines: replies differ by the place, not by the value."""
SHORT_MAX: Final = 1 << 20
_PROC: Final = Path("/proc")
_CORE_PATTERN: Final = _PROC / "sys/kernel/core_pattern"


async def cell(search: Search, name: str, admin: Connection) -> None:
    """Search every row of a cell, and its server's files where they are on this host."""
    for relation in await whole_cell.relations(admin):
        place = f"{name} {relation.name}"
        if relation.temporary:
            search.leave_out("table", place, "a temporary table of another session")
            continue
        stream = search.needles.stream()
        if await whole_cell.read_relation(admin, relation.name, _taker(stream)):
            search.enter("table", place, stream.found, stream.read)
        else:
            search.leave_out("table", place, "the server refused it")
    files = await whole_cell.server_files(admin)
    data = Path(files.data_directory)
    log = data / files.log_directory
    folders = [data, *map(Path, files.tablespaces), *([] if log.is_relative_to(data) else [log])]
    for folder in folders:
        if await asyncio.to_thread(folder.exists) or folder == data:
            await asyncio.to_thread(search.folder, "data directory and WAL", folder)


def _taker(stream: Stream) -> "_Taker":
    return _Taker(stream)


class _Taker:
    """What the driver hands the rows to."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    async def __call__(self, piece: bytes) -> None:
        self._stream.feed(piece)


# ---------------------------------------------------------------- pages and replies


async def page(search: Search, url: str, context: ssl.SSLContext | None) -> None:
    """Search what a page shows: metrics, health, the description of the API."""
    async with _session(context) as session:
        await _look(search, "page", url, session, "GET", url, {})


async def replies(
    search: Search, url: str, agency: str, values: Mapping[int, str | bytes], context: ssl.SSLContext
) -> None:
    """Ask an exchange's API wrongly, with values in every place of the request, and search what it answers."""
    base = f"{url.rstrip('/')}/v1/agencies"
    async with _session(context) as session:
        for line, value in list(values.items())[:SENT_MAX]:
            text = value if isinstance(value, str) else value.hex()
            for how, method, target, headers, body in _wrong(base, agency, text):
                place = f"reply to a {how} with the value of line {line}"
                await _look(search, "API reply", place, session, method, target, headers, body)


def _wrong(base: str, agency: str, text: str) -> Iterable[tuple[str, str, str, dict[str, str], bytes | None]]:
    """Yield requests that must be refused, each with a value in another place."""
    there, value = f"{base}/{agency}", quote(text, safe="")
    ascii_ = text if text.isascii() and text.isprintable() else value
    json_ = {"Content-Type": "application/json"}
    yield "path", "GET", f"{there}/queries/{value}", {}, None
    yield "path of an agency", "GET", f"{base}/{value}/records", {}, None
    yield "query string", "GET", f"{there}/records?after={value}&{value}={value}", {}, None
    yield "header", "GET", f"{there}/records", {"Chukan-Session": ascii_, "If-Match": ascii_}, None
    yield "key", "POST", f"{there}/queries", {**json_, "Idempotency-Key": ascii_}, b"{}"
    broken = b'{"lines": [{"addressee": "' + text.encode() + b'"'
    yield "broken body", "POST", f"{there}/queries", {**json_, "Idempotency-Key": "scan"}, broken
    unknown = b'{"lines": [{"unknown": "x"}], "' + text.encode().replace(b'"', b"") + b'": 1}'
    yield "body", "POST", f"{there}/queries", {**json_, "Idempotency-Key": "scan"}, unknown
    yield "media type", "POST", f"{there}/queries", {"Content-Type": f"text/{quote(text, safe='')}"}, b"{}"
    yield "method", "GET", f"{there}/nowhere/{value}", {}, None


def _session(context: ssl.SSLContext | None) -> aiohttp.ClientSession:
    connector = aiohttp.TCPConnector(limit=4, ssl=context if context is not None else True)
    return aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=PAGE_TIMEOUT_S))


async def _look(
    search: Search,
    sort: str,
    place: str,
    session: aiohttp.ClientSession,
    method: str,
    url: str,
    headers: dict[str, str],
    body: bytes | None = None,
) -> None:
    stream = search.needles.stream()
    try:
        async with session.request(method, url, headers=headers, data=body, allow_redirects=False) as reply:
            lines = (name + b": " + value + b"\n" for name, value in reply.raw_headers)
            stream.feed((reply.reason or "").encode() + b"\n" + b"".join(lines))
            async for piece in reply.content.iter_chunked(PIECE):
                stream.feed(piece)
                if stream.read > PAGE_BYTES_MAX:
                    search.leave_out(sort, place, "longer than is searched")
                    break
    except (aiohttp.ClientError, TimeoutError, ValueError):
        search.leave_out(sort, place, "no answer")
        return
    search.enter(sort, place, stream.found, stream.read)


# ---------------------------------------------------------------- processes


def processes_of(config: Path) -> list[int]:
    """Return the processes of this host that name a settings file in their arguments or environment."""
    name, mine = os.fsencode(config.resolve()), os.getpid()
    numbers = [int(entry.name) for entry in _PROC.iterdir() if entry.name.isdigit()]
    return [
        number
        for number in sorted(numbers)
        if number != mine and any(name in _short(_PROC / str(number) / part) for part in ("cmdline", "environ"))
    ]


def process(search: Search, number: int) -> None:
    """Search a process' arguments and environment, and tell whether a crash would write what is in its memory."""
    folder = _PROC / str(number)
    place = f"process {number}"
    limits = _short(folder / "limits")
    if not limits:
        search.leave_out("process", place, "is not there, or not allowed to read")
        return
    for part in ("cmdline", "environ", "comm"):
        search.bytes_in("process", f"{place} {part}", _short(folder / part))
    soft = next((line.split()[4] for line in limits.splitlines() if line.startswith(b"Max core file size")), b"?")
    filtered = _short(folder / "coredump_filter").strip()
    piped = _short(_CORE_PATTERN).startswith(b"|")
    if (soft != b"0" or piped) and filtered.strip(b"0"):
        search.findings.append(Unread("process", place, "a crash would write its memory into a core dump"))


def _short(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(SHORT_MAX)
    except OSError:
        return b""


def all_processes(search: Search, numbers: Sequence[int]) -> None:
    """Search processes one by one."""
    for number in numbers:
        process(search, number)
