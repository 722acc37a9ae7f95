"""Copies (副本): small changes by list, the agency's own view, export for reconciliation, and holds (自動応答不可)."""

import datetime as dt
from typing import Final

from chukan.platform.admission import Priority
from chukan.platform.http import forbidden
from chukan.platform.http.auth import Right
from chukan.platform.http.calls import Call, Example, Reply, Route
from chukan.platform.wire.agency import (
    Copies,
    CopyDelete,
    CopyExport,
    CopyKey,
    CopyLine,
    CopyPage,
    CopySearch,
    Gap,
    HoldLine,
    Holds,
    LineResults,
)

_COPIES: Final = Right(("copies",))
_HOLDS: Final = Right(("holds",))


async def register(call: Call) -> Reply:
    """Register a difference; each line is taken or refused by itself."""
    body = call.body_as(Copies)
    forbidden.refuse([("source", body.source)])
    return Reply(await call.services.desks.copies.register(call.agency, body, call.need_key()))


async def search(call: Call) -> Reply:
    """Return the copies of the persons asked for (REP-06)."""
    body = call.body_as(CopySearch)
    _refuse_keys(body.keys)
    return Reply(await call.services.desks.copies.search(call.agency, body))


async def export(call: Call) -> Reply:
    """Return a page of all copies of a kind (REP-04)."""
    return Reply(await call.services.desks.copies.export(call.agency, call.body_as(CopyExport)))


async def delete(call: Call) -> Reply:
    """Delete copies; nobody but the agency can (REP-08)."""
    body = call.body_as(CopyDelete)
    _refuse_keys(body.keys)
    return Reply(await call.services.desks.copies.delete(call.agency, body, call.need_key()))


async def hold(call: Call) -> Reply:
    """Set or lift holds on persons and kinds."""
    body = call.body_as(Holds)
    for number, line in enumerate(body.lines):
        forbidden.refuse(forbidden.of_hold(line), f"/lines/{number}", number + 1)
    return Reply(await call.services.desks.copies.hold(call.agency, body, call.need_key()))


def _refuse_keys(keys: list[CopyKey]) -> None:
    for number, key in enumerate(keys):
        forbidden.refuse([("addressee", key.addressee)], f"/keys/{number}", number + 1)


_COPY: Final = CopyLine(
    addressee="A1",
    kind="TMX0000000000011",
    layout=202506,
    effective_from=dt.date(2026, 6, 1),
    items={
        "TKX0110000000001": "1",
        "TKX0110000000002": "2",
        "TKX0110000000005": Gap(gap="04"),
        "TKX0110000000006": "2026-04-01",
    },
)
_PROBLEMS: Final = ("individual_number_present", "resident_code_present")

ROUTES: Final = (
    Route(
        "POST",
        "/copies",
        "postCopies",
        "副本の異動登録。Register changed copies, 1 to 1,000 lines; the answer says what became of each line.",
        _COPIES,
        register,
        Priority.REGISTRATION,
        body=Copies,
        reply=LineResults,
        key=True,
        problems=(*_PROBLEMS, "idempotency_key_reused"),
        examples=(Example("One copy about a disability, with a reason code for a gap.", Copies(lines=[_COPY])),),
    ),
    Route(
        "POST",
        "/copies/search",
        "searchCopies",
        "副本の確認。Show the copies of persons.",
        _COPIES,
        search,
        Priority.COUNTER,
        body=CopySearch,
        reply=CopyPage,
        bulk=True,
        problems=_PROBLEMS,
        examples=(Example("All copies of one person.", CopySearch(keys=[CopyKey(addressee="A1")])),),
    ),
    Route(
        "POST",
        "/copies/export",
        "exportCopies",
        "原本照合のための出力。Export all copies of a kind, page by page.",
        _COPIES,
        export,
        Priority.REGISTRATION,
        body=CopyExport,
        reply=CopyPage,
        problems=("unknown_kind",),
        examples=(Example("The first page.", CopyExport(kind="TM00000000000002")),),
    ),
    Route(
        "POST",
        "/copies/delete",
        "deleteCopies",
        "副本の削除。Delete copies of persons.",
        _COPIES,
        delete,
        Priority.REGISTRATION,
        body=CopyDelete,
        reply=LineResults,
        key=True,
        problems=(*_PROBLEMS, "idempotency_key_reused"),
        examples=(
            Example("One kind of one person.", CopyDelete(keys=[CopyKey(addressee="A1", kind="TM00000000000002")])),
        ),
    ),
    Route(
        "POST",
        "/holds",
        "postHolds",
        "自動応答不可の設定・解除。Set or lift holds on a person, a kind, or both.",
        _HOLDS,
        hold,
        Priority.REGISTRATION,
        body=Holds,
        reply=LineResults,
        key=True,
        problems=(*_PROBLEMS, "idempotency_key_reused", "unknown_kind"),
        examples=(Example("Hold everything about one person.", Holds(lines=[HoldLine(addressee="A1")])),),
    ),
)
