"""What an agency is shown of its own lines: states in the stable words, content only when it is collected."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence

import msgspec

from chukan.errors import Problem
from chukan.platform.sealed import UnreadableAnswerError, open_with_kept
from chukan.platform.wire.agency import AnswerContent, Batch, ProblemBody, QueryLineView
from chukan.platform.wire.network import AnswerDelivery
from chukan.tenants.rows import Collected, InquiryView
from chukan.tenants.sealing import AgencyKeys, SealError
from chukan.tenants.states import Outcome

_DELIVERY = msgspec.json.Decoder(AnswerDelivery)
_CONTENT = msgspec.json.Decoder(AnswerContent)


def view_of(
    row: InquiryView | Collected, content: AnswerContent | None = None, *, withheld: bool = False
) -> QueryLineView:
    """A stored line as its agency sees it."""
    return QueryLineView(
        line=row.ordinal,
        id=row.id,
        state=row.state.name.lower(),
        outcome=None if row.outcome is Outcome.NONE else row.outcome.word,
        reason=row.reason,
        updated_at=row.updated_at,
        content=content,
        withheld=withheld,
    )


def refused_view(ordinal: int, problem: Problem) -> QueryLineView:
    """A line that was refused before acceptance (bad_request); it has no id and no record.

    Like every problem about a line, ``problem.line`` counts from 1, and the pointer starts at the request's body.
    """
    found = Problem(
        problem.code,
        pointer=f"/lines/{ordinal}{problem.pointer or ''}",
        line=ordinal + 1,
        limit=problem.limit,
        expected=problem.expected,
    )
    return QueryLineView(
        line=ordinal, state="refused_before_acceptance", outcome=Outcome.BAD_REQUEST.word, problem=problem_body(found)
    )


def problem_body(problem: Problem) -> ProblemBody:
    """The problem document of a line."""
    return msgspec.convert(problem.as_dict(), ProblemBody)


def batch_of(batch: uuid.UUID, views: Sequence[QueryLineView], refused: Mapping[int, Problem], count: int) -> Batch:
    """All lines of a list in its order: the stored ones, and a problem for each of the others."""
    lines = {view.line: view for view in views}
    return Batch(
        batch=batch,
        lines=[
            lines[n] if n in lines else refused_view(n, refused[n]) for n in range(count) if n in lines or n in refused
        ],
    )


def open_content(keys: AgencyKeys, row: Collected) -> AnswerContent | None:
    """Open a collected answer: our own seal first, then the provider's; None where the outcome carries no content."""
    if row.answer is None:
        return None
    delivery = _DELIVERY.decode(keys.open("answer", row.id.bytes, row.answer))
    if delivery.sealed is None:
        return None
    return read_content(keys, delivery, permit_id(delivery))


def permit_id(delivery: AnswerDelivery) -> uuid.UUID:
    """The permit id of a delivery, from its (already verified) permit's bytes."""
    return uuid.UUID(msgspec.json.decode(delivery.permit.body)["permit"])


def read_content(keys: AgencyKeys, delivery: AnswerDelivery, permit: uuid.UUID) -> AnswerContent | None:
    """Open the provider's seal; None for content that cannot be opened or is not what an answer must be."""
    if delivery.sealed is None:
        return None
    try:
        return _CONTENT.decode(open_with_kept(delivery.sealed, permit, keys))
    except (UnreadableAnswerError, SealError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
