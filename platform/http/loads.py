"""Load sessions (副本登録): open, send parts, look, commit; provision sees the old copies until the commit.

A part is a file of up to 50,000 lines, resent whole where a transfer broke: the same bytes under the same number change
nothing, other bytes are refused. Its digest may be announced (``Content-Digest``, RFC 9530); then a part that was
damaged on its way is refused before a line of it is read.
"""

import asyncio
import re
from typing import Final

from aiohttp import web

from chukan.errors import Problem
from chukan.platform.admission import Priority
from chukan.platform.http import bodies, forbidden, headers, parts
from chukan.platform.http.auth import Right
from chukan.platform.http.calls import Call, Example, Reply, Route, Work
from chukan.platform.wire.agency import Load, LoadCommit, LoadOpen
from chukan.platform.wire.compare import LoadCompare, LoadDifferences
from chukan.tenants.loads import PARTS_MAX

STAGE_DEADLINE_S: Final = 300.0
"""Reading, checking and staging a part that has come in whole."""
COMMIT_DEADLINE_S: Final = 1800.0
"""A commit merges up to five million rows; a caller that gave up asks again with the same key."""

_RIGHT: Final = Right(("copies",))
_ORDER: Final = Right(("order",))
_PART: Final = re.compile(r"0|[1-9][0-9]{0,5}")


async def begin(call: Call) -> Reply:
    """Open a session."""
    body = call.body_as(LoadOpen)
    forbidden.refuse([("period", body.period), ("source", body.source)])
    load = await call.services.desks.loads.open(call.agency, body, call.need_key())
    return Reply(load, 201, {"Location": f"{call.request.path}/{load.id}"})


async def get(call: Call) -> Reply:
    """Show a session: what is staged, which parts are there, what was refused and why."""
    return Reply(await call.services.desks.loads.get(call.agency, call.id("load")))


async def put_part(call: Call) -> Reply:
    """Take one part in, then check and stage it."""
    load, number = call.id("load"), _part_number(call.request)
    media_type, charset, _ = headers.media_type(call.request)
    received = parts.ReceivedPart(media_type, charset)
    announced = headers.content_digest(call.request)
    admission = call.services.admission
    size = bodies.announced_bytes(call.request, parts.BYTES_MAX)
    async with admission.reading(call.agency.number, call.priority, size):
        async for piece in bodies.stream(call.request, parts.BYTES_MAX):
            received.add(piece)
        if announced is not None and announced != received.digest:
            raise Problem("truncated_body", expected="the bytes that Content-Digest announces")
        async with call.place(reading=True), asyncio.timeout(STAGE_DEADLINE_S):
            return Reply(await call.services.desks.loads.part(call.agency, load, number, received))


async def commit(call: Call) -> Reply:
    """Put the session into force, unless an officer has to look at it first."""
    body = call.body_as(LoadCommit)
    async with call.place(), asyncio.timeout(COMMIT_DEADLINE_S):
        return Reply(await call.services.desks.loads.commit(call.agency, call.id("load"), body))


async def release(call: Call) -> Reply:
    """Put a held session into force, on an officer's word; the digest says which content was looked at."""
    body = call.body_as(LoadCommit)
    async with call.place(), asyncio.timeout(COMMIT_DEADLINE_S):
        return Reply(await call.services.desks.loads.release(call.agency, call.client, call.id("load"), body))


async def compare(call: Call) -> Reply:
    """Show what a session says otherwise than the copies in force; nothing is changed."""
    body = call.body_as(LoadCompare)
    async with call.place(), asyncio.timeout(STAGE_DEADLINE_S):
        return Reply(await call.services.desks.loads.compare(call.agency, call.id("load"), body))


async def abort(call: Call) -> Reply:
    """Drop what was staged."""
    return Reply(await call.services.desks.loads.abort(call.agency, call.id("load")))


def _part_number(request: web.Request) -> int:
    text = request.match_info["part"]
    if not _PART.fullmatch(text) or int(text) >= PARTS_MAX:
        raise Problem("not_found", limit=PARTS_MAX)
    return int(text)


_STATE: Final = ("not_found", "load_not_open")
_COMPLETE: Final = ("load_count_mismatch", "load_digest_mismatch", "bad_line")
_COMMIT: Final = LoadCommit(digest="0" * 64)

ROUTES: Final = (
    Route(
        "POST",
        "/loads",
        "openLoad",
        "副本登録を始める。Begin a load session.",
        _RIGHT,
        begin,
        Priority.REGISTRATION,
        body=LoadOpen,
        reply=Load,
        statuses=(201,),
        key=True,
        problems=("unknown_kind", "unknown_layout", "idempotency_key_reused"),
        examples=(
            Example(
                "All tax copies of a year.",
                LoadOpen(kind="TM00000000000002", layout=202506, mode="full", expected=37_500, period="2026"),
            ),
        ),
    ),
    Route(
        "GET",
        "/loads/{load}",
        "getLoad",
        "副本登録の状態。Show a load session.",
        _RIGHT,
        get,
        Priority.COUNTER,
        reply=Load,
        problems=("not_found",),
    ),
    Route(
        "PUT",
        "/loads/{load}/parts/{part}",
        "putLoadPart",
        "副本ファイルの送信(NDJSON または CSV)。Send one part; the same bytes again change nothing.",
        _RIGHT,
        put_part,
        Priority.REGISTRATION,
        reply=Load,
        work=Work.OWN,
        streams=(parts.NDJSON, parts.CSV),
        problems=(*_STATE, "part_conflict", "bad_line", "individual_number_present", "resident_code_present"),
    ),
    Route(
        "POST",
        "/loads/{load}/commit",
        "commitLoad",
        "副本登録の確定。Put a load session into force; one that drops many persons waits for an officer.",
        _RIGHT,
        commit,
        Priority.REGISTRATION,
        body=LoadCommit,
        reply=Load,
        key=True,
        work=Work.OWN,
        problems=(*_STATE, "load_held_for_officer", *_COMPLETE),
        examples=(Example("The digest of all parts.", _COMMIT),),
    ),
    Route(
        "POST",
        "/loads/{load}/release",
        "releaseLoad",
        "保留された副本登録の承認(職員)。Put a held load session into force, on an officer's word.",
        _ORDER,
        release,
        Priority.REGISTRATION,
        body=LoadCommit,
        reply=Load,
        key=True,
        work=Work.OWN,
        problems=(*_STATE, "officer_required", *_COMPLETE),
        examples=(Example("The digest of the held session.", _COMMIT),),
    ),
    Route(
        "POST",
        "/loads/{load}/compare",
        "compareLoad",
        "原本照合。Show how the copies in force differ from the original, which was sent as a load.",
        _RIGHT,
        compare,
        Priority.REGISTRATION,
        body=LoadCompare,
        reply=LoadDifferences,
        work=Work.OWN,
        problems=(*_STATE, "load_count_mismatch"),
        examples=(Example("The first page, with the counts.", LoadCompare()),),
    ),
    Route(
        "POST",
        "/loads/{load}/abort",
        "abortLoad",
        "副本登録の中止。Drop a load session.",
        _RIGHT,
        abort,
        Priority.REGISTRATION,
        reply=Load,
        key=True,
        problems=_STATE,
    ),
)
