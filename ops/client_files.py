"""``chukan client``, files and streams: query files, reconciliation with the original, events, holders.

Its commands hang under ``chukan client`` (``ops.client``), which says whom to be and where to call.
"""

import asyncio
import sys
import uuid
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Final

import msgspec
from cyclopts import App

from chukan.errors import Problem
from chukan.ops import client_view as view
from chukan.ops.client_run import Target, lines_of, run
from chukan.ops.sandbox.clients import AgencyClient
from chukan.platform.wire.agency import LoadOpen
from chukan.platform.wire.compare import LoadDifferences
from chukan.platform.wire.holders import HolderLine

query_files = App(name="query-files", help="Send files of query lines, fetch their results. (照会ファイル)")


@query_files.command(name="send")
def send_query_file(file: Path, *, target: Target, name: str | None = None, charset: str = "utf-8") -> None:
    """Send a file of at most 10,000 lines of 18 fields; the same file again has no second effect.

    Parameters
    ----------
    file
        The file.
    name
        What the file is known by; its own name otherwise.
    charset
        utf-8 or cp932.
    """
    if not file.is_file():
        raise Problem("settings_unreadable", expected="a readable file")
    run(target, lambda client: client.send_query_file(name or file.name, file, charset=charset), view.query_file)


@query_files.command(name="show")
def show_query_file(file: uuid.UUID, *, target: Target) -> None:
    """Show how far a file's lines are, and the first refused ones."""
    run(target, lambda client: client.query_file(file), view.query_file)


@query_files.command(name="result")
def fetch_result(file: uuid.UUID, into: Path, *, target: Target, after: int = 0) -> None:
    """Fetch a file's result into a new file (CSV); answered lines become collected.

    Parameters
    ----------
    file
        Id of the file.
    into
        Where to write it; nothing may stand there.
    after
        Line after which to go on, when a result was cut off.
    """
    run(target, lambda client: _write(into, client.query_file_result(file, after=after)), view.document)


code_files = App(name="code-files", help="Acquire linkage codes by file, fetch the results. (符号取得ファイル)")


@code_files.command(name="send")
def send_code_file(file: Path, *, target: Target, name: str | None = None) -> None:
    """Send a file of at most 10,000 addressee numbers, 15 digits a line.

    Parameters
    ----------
    file
        The file.
    name
        What the file is known by; its own name otherwise.
    """
    if not file.is_file():
        raise Problem("settings_unreadable", expected="a readable file")
    run(target, lambda client: client.send_code_file(name or file.name, file), view.document)


@code_files.command(name="show")
def show_code_file(file: uuid.UUID, *, target: Target) -> None:
    """Show how many of a file's persons stand where."""
    run(target, lambda client: client.code_file(file), view.document)


@code_files.command(name="result")
def fetch_code_result(file: uuid.UUID, into: Path, *, target: Target, after: int = 0) -> None:
    """Fetch status and acquisition number of each line into a new file (CSV).

    Parameters
    ----------
    file
        Id of the file.
    into
        Where to write it; nothing may stand there.
    after
        Line after which to go on, when a result was cut off.
    """
    run(target, lambda client: _write(into, client.code_file_result(file, after=after)), view.document)


async def _write(into: Path, pieces: AsyncIterator[bytes]) -> dict[str, int]:
    """Write pieces to a new file; what came before a break stays. Raises ``Problem`` file_exists, file_unwritable."""
    size = 0
    try:
        with into.open("xb") as file:
            async for piece in pieces:
                size += file.write(piece)
    except FileExistsError:
        raise Problem("file_exists", expected=str(into)) from None
    except OSError:
        raise Problem("file_unwritable", expected=str(into)) from None
    return {"bytes": size}


def events(*, target: Target, last_id: str | None = None, seconds: float = 60.0) -> None:
    """Follow what happens to the agency's own lines, as server-sent events.

    Parameters
    ----------
    last_id
        Id behind which to go on; from now on otherwise.
    seconds
        How long to follow.
    """

    async def follow(client: AgencyClient) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                async for piece in client.events(last_id=last_id):
                    sys.stdout.write(piece.decode())
                    sys.stdout.flush()

    run(replace(target, as_json=False), follow, lambda _console, _none: None)


def holders(addressee: str, *, target: Target, affair: str, procedure: str, kind: str) -> None:
    """Show which agencies that may be asked hold a linkage code of a person (通知先の通知)."""
    words = {"addressee": addressee, "affair": affair, "procedure": procedure, "kind": kind}
    try:
        line = msgspec.convert(words, HolderLine)
    except msgspec.ValidationError:
        raise Problem("invalid_field", expected="fields as /openapi.json defines them") from None
    run(target, lambda client: client.ask_holders([line]), view.document)


def compare(
    *parts: Path, target: Target, kind: str, layout: int, period: str = "", media_type: str = "application/x-ndjson"
) -> None:
    """Reconcile copies with the original (原本照合): send the original as files, list all differences, change nothing.

    Parameters
    ----------
    parts
        Files of the original, as for load.
    kind
        Kind of the copies.
    layout
        Version of the layout.
    period
        Year or period that the copies are about.
    media_type
        Media type of the files, e.g. text/csv; charset=cp932.
    """
    body = LoadOpen(
        kind=kind,
        layout=layout,
        mode="full",
        expected=lines_of(parts, media_type),
        period=period,
        on_error="reject_line",
        source="original",
    )

    async def work(client: AgencyClient) -> LoadDifferences:
        session = await client.open_load(body)
        try:
            for number, part in enumerate(parts):
                await client.put_part(session.id, number, part, media_type=media_type)
            return await client.all_differences(session.id)
        finally:
            await client.abort_load(session.id)

    run(target, work, view.document)


COMMANDS: Final = (query_files, code_files, events, holders, compare)
"""What hangs directly under ``chukan client``."""
