"""Delegations (委任): an agency's officers give and take them, two for each half; any of them may end one (INQ-08)."""

from __future__ import annotations

import datetime as dt
from typing import Final

from chukan.platform.admission import Priority
from chukan.platform.http.auth import Right
from chukan.platform.http.calls import Call, Example, Reply, Route
from chukan.platform.wire.delegations import DelegationListParams, DelegationTerms, DelegationView, DelegationViews

_OFFICER: Final = Right(("order",))
_EITHER: Final = Right(("order", "queries"))


async def listing(call: Call) -> Reply:
    """List the agency's halves of delegations."""
    ended = call.params_as(DelegationListParams).ended
    return Reply(await call.services.exchange.delegations.list(call.agency, ended=ended))


async def propose(call: Call) -> Reply:
    """Take a first officer's proposal."""
    key = call.need_key()
    body = call.body_as(DelegationTerms)
    service = call.services.exchange.delegations
    return Reply(await service.propose(call.agency, call.client, body, key=key.key, content=key.content))


async def approve(call: Call) -> Reply:
    """Register it with the network, on a second officer's word."""
    return Reply(await call.services.exchange.delegations.approve(call.agency, call.client, call.id("delegation")))


async def end(call: Call) -> Reply:
    """End it at once."""
    return Reply(await call.services.exchange.delegations.end(call.agency, call.client, call.id("delegation")))


_PROBLEMS: Final = ("not_found", "officer_required", "delegation_refused", "network_unavailable", "cell_restored")

ROUTES: Final = (
    Route(
        "GET",
        "/delegations",
        "listDelegations",
        "委任の一覧。List this agency's halves of delegations, newest first.",
        _EITHER,
        listing,
        Priority.COUNTER,
        params=DelegationListParams,
        reply=DelegationViews,
        problems=("officer_required",),
    ),
    Route(
        "POST",
        "/delegations",
        "postDelegation",
        "委任の起案(一人目の職員)。Propose to give a delegation, or to take one.",
        _OFFICER,
        propose,
        Priority.COUNTER,
        body=DelegationTerms,
        reply=DelegationView,
        key=True,
        problems=(
            "officer_required",
            "unknown_agency",
            "unknown_affair",
            "delegation_of_itself",
            "delegations_full",
            "idempotency_key_reused",
            "cell_restored",
        ),
        examples=(
            Example(
                "A mayor lets another agency ask for one affair.",
                DelegationTerms(
                    role="given",
                    side="inquirer",
                    counterpart="9902401307000001",
                    affair="JMX0000000000003",
                    valid_from=dt.date(2026, 12, 1),
                ),
            ),
        ),
    ),
    Route(
        "POST",
        "/delegations/{delegation}/approve",
        "approveDelegation",
        "委任の登録(二人目の職員)。Register it with the network and put it in force.",
        _OFFICER,
        approve,
        Priority.COUNTER,
        reply=DelegationView,
        key=True,
        problems=(*_PROBLEMS, "delegation_state", "second_officer_required"),
    ),
    Route(
        "POST",
        "/delegations/{delegation}/end",
        "endDelegation",
        "委任の終了。End it at once; one officer's word is enough.",
        _OFFICER,
        end,
        Priority.COUNTER,
        reply=DelegationView,
        key=True,
        problems=_PROBLEMS,
    ),
)
