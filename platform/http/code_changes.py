"""Repair of links (付替・統合・確認): an officer proposes, another one confirms; each by their own credential.

Whom a line is about stands in the body alone. A proposal suspends at once, so it is never a system's to make.
"""

import uuid
from typing import Final

from chukan.platform.admission import Priority
from chukan.platform.http import forbidden
from chukan.platform.http.auth import Right
from chukan.platform.http.calls import Call, Example, Reply, Route
from chukan.platform.wire.code_changes import (
    CodeChangeLines,
    CodeChanges,
    CodeConfirm,
    CodeHistoryAsk,
    CodeMerge,
    CodeRelink,
    ConfirmLine,
    MergeLine,
    RelinkLine,
)

_PROPOSE: Final = Right(("reviews.prepare",))
_CONFIRM: Final = Right(("reviews.approve",))
_EITHER: Final = Right(("reviews.prepare", "reviews.approve"))


async def relink(call: Call) -> Reply:
    """Take a proposal that codes belong to other addressee numbers."""
    body, key = call.body_as(CodeRelink), call.need_key()
    for number, line in enumerate(body.lines):
        values = [("addressee", line.addressee), ("to", line.to or ""), ("reason", line.reason)]
        forbidden.refuse(values, f"/lines/{number}", number + 1)
    desk = call.services.exchange.code_changes
    return Reply(await desk.relink(call.agency, call.client, body, key.key, key.content))


async def merge(call: Call) -> Reply:
    """Take a proposal that addressee numbers are one person."""
    body, key = call.body_as(CodeMerge), call.need_key()
    for number, line in enumerate(body.lines):
        values = [("addressee", line.addressee), ("into", line.into), ("reason", line.reason)]
        forbidden.refuse(values, f"/lines/{number}", number + 1)
    desk = call.services.exchange.code_changes
    return Reply(await desk.merge(call.agency, call.client, body, key.key, key.content))


async def confirm(call: Call) -> Reply:
    """Carry changes out or withdraw them, on another officer's word."""
    body = call.body_as(CodeConfirm)
    return Reply(await call.services.exchange.code_changes.confirm(call.agency, call.client, body))


async def waiting(call: Call) -> Reply:
    """List the changes that wait for another officer."""
    return Reply(await call.services.exchange.code_changes.waiting(call.agency))


async def history(call: Call) -> Reply:
    """Tell everything that was changed about one link."""
    body = call.body_as(CodeHistoryAsk)
    forbidden.refuse([("addressee", body.addressee)])
    return Reply(await call.services.exchange.code_changes.history(call.agency, body.addressee))


_NUMBERS: Final = ("individual_number_present", "resident_code_present")
_PROPOSAL_PROBLEMS: Final = (*_NUMBERS, "officer_required", "no_code", "link_change_pending", "link_change_conflict")
_CHANGE: Final = uuid.UUID("0199d8d4-0000-7000-8000-000000000001")

ROUTES: Final = (
    Route(
        "POST",
        "/codes/relink",
        "relinkCode",
        "符号の紐付け変更の起案。Propose that codes belong to other addressee numbers; the links are suspended.",
        _PROPOSE,
        relink,
        Priority.COUNTER,
        body=CodeRelink,
        reply=CodeChangeLines,
        key=True,
        problems=_PROPOSAL_PROBLEMS,
        examples=(
            Example(
                "A code stands under the wrong number.",
                CodeRelink(lines=[RelinkLine(addressee="A1", to="A2", reason="同姓同名の別人")]),
            ),
        ),
    ),
    Route(
        "POST",
        "/codes/merge",
        "mergeCodes",
        "宛名番号の統合の起案。Propose that two addressee numbers are one person; the links are suspended.",
        _PROPOSE,
        merge,
        Priority.COUNTER,
        body=CodeMerge,
        reply=CodeChangeLines,
        key=True,
        problems=_PROPOSAL_PROBLEMS,
        examples=(
            Example("One person has two.", CodeMerge(lines=[MergeLine(addressee="A1", into="A2", reason="二重登録")])),
        ),
    ),
    Route(
        "POST",
        "/codes/confirm",
        "confirmLink",
        "紐付け変更の確認(別の職員)。Carry out or withdraw changes that another officer proposed.",
        _CONFIRM,
        confirm,
        Priority.COUNTER,
        body=CodeConfirm,
        reply=CodeChangeLines,
        key=True,
        problems=("officer_required", "second_officer_required", "already_final", "link_changed", "not_found"),
        examples=(
            Example(
                "Carry one out.",
                CodeConfirm(lines=[ConfirmLine(change=_CHANGE, decision="apply")]),
            ),
        ),
    ),
    Route(
        "GET",
        "/codes/changes",
        "listCodeChanges",
        "確認待ちの紐付け変更。List changes of links that wait for another officer.",
        _EITHER,
        waiting,
        Priority.COUNTER,
        reply=CodeChanges,
        problems=("officer_required",),
    ),
    Route(
        "POST",
        "/codes/history",
        "codeHistory",
        "紐付けの履歴。Tell everything that was changed about one addressee number's link.",
        _EITHER,
        history,
        Priority.COUNTER,
        body=CodeHistoryAsk,
        reply=CodeChanges,
        problems=(*_NUMBERS, "officer_required"),
        examples=(Example("One number.", CodeHistoryAsk(addressee="A1")),),
    ),
)
