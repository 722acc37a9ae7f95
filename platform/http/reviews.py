"""Manual review (自動応答不可の審査): two officers, each with a credential of their own, never a system's (PRV-05)."""

from typing import Final

from chukan.platform.admission import Priority
from chukan.platform.http import forbidden
from chukan.platform.http.auth import Right
from chukan.platform.http.calls import Call, Example, Reply, Route
from chukan.platform.http.sessions import affairs_of
from chukan.platform.wire.agency import Review, ReviewDecision, ReviewPrepare, Reviews

_PREPARE: Final = Right(("reviews.prepare",))
_APPROVE: Final = Right(("reviews.approve",))
_EITHER: Final = Right(("reviews.prepare", "reviews.approve"))


async def listing(call: Call) -> Reply:
    """List what waits for a decision."""
    return Reply(await call.services.exchange.reviews.list(call.agency, affairs_of(call)))


async def prepare(call: Call) -> Reply:
    """Take a first officer's proposal."""
    body = call.body_as(ReviewPrepare)
    forbidden.refuse([("note", body.note)])
    reviews, review = call.services.exchange.reviews, call.id("review")
    return Reply(await reviews.prepare(call.agency, call.client, review, body, affairs_of(call)))


async def approve(call: Call) -> Reply:
    """Carry out the proposal, on a second officer's word."""
    body = _decision(call)
    reviews, review = call.services.exchange.reviews, call.id("review")
    return Reply(await reviews.approve(call.agency, call.client, review, body, affairs_of(call)))


async def refuse(call: Call) -> Reply:
    """Refuse the provision, on a second officer's word (提供不可)."""
    body = _decision(call)
    reviews, review = call.services.exchange.reviews, call.id("review")
    return Reply(await reviews.refuse(call.agency, call.client, review, body, affairs_of(call)))


def _decision(call: Call) -> ReviewDecision:
    body = call.body_as(ReviewDecision)
    forbidden.refuse([("note", body.note)])
    return body


_PROBLEMS: Final = (
    "not_found",
    "already_final",
    "officer_required",
    "affair_not_granted",
    "individual_number_present",
    "resident_code_present",
)

ROUTES: Final = (
    Route(
        "GET",
        "/reviews",
        "listReviews",
        "審査待ちの一覧。List provisions that wait for an officer.",
        _EITHER,
        listing,
        Priority.COUNTER,
        reply=Reviews,
        by_affair=True,
        problems=("officer_required",),
    ),
    Route(
        "POST",
        "/reviews/{review}/prepare",
        "prepareReview",
        "起案(一人目の職員)。Propose a decision.",
        _PREPARE,
        prepare,
        Priority.COUNTER,
        body=ReviewPrepare,
        reply=Review,
        key=True,
        by_affair=True,
        problems=_PROBLEMS,
        examples=(Example("Propose to provide.", ReviewPrepare(decision="provide")),),
    ),
    Route(
        "POST",
        "/reviews/{review}/approve",
        "approveReview",
        "承認(二人目の職員)。Carry out another officer's proposal.",
        _APPROVE,
        approve,
        Priority.COUNTER,
        body=ReviewDecision,
        reply=Review,
        key=True,
        by_affair=True,
        problems=(*_PROBLEMS, "review_not_prepared", "review_changed", "second_officer_required", "permit_expired"),
        examples=(Example("Without a note.", ReviewDecision()),),
    ),
    Route(
        "POST",
        "/reviews/{review}/refuse",
        "refuseReview",
        "提供不可(二人目の職員)。Refuse the provision, whatever was proposed.",
        _APPROVE,
        refuse,
        Priority.COUNTER,
        body=ReviewDecision,
        reply=Review,
        key=True,
        by_affair=True,
        problems=(*_PROBLEMS, "review_not_prepared", "second_officer_required"),
        examples=(Example("With a note.", ReviewDecision(note="本人からの申出による")),),
    ),
)
