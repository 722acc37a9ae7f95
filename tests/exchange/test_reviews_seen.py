"""A second officer decides about what was looked at: a proposal that was put in its place meanwhile does not leave."""

import pytest

from chukan.errors import Problem
from chukan.platform.wire.agency import ReviewDecision, ReviewPrepare

ASKS, GIVES = "9901131121000001", "9901011002000001"


@pytest.mark.requirement("PRV-05", "AUT-05")
async def test_a_proposal_that_was_exchanged_is_not_carried_out(nation):
    addressee = await nation.person(ASKS, GIVES, review=True)
    batch = await nation.ask(ASKS, [nation.line(addressee, GIVES)])
    await nation.until(lambda: nation.state_of(ASKS, batch), "held")
    provider, reviews = nation.agency(GIVES), nation.east.reviews
    first, second = nation.officer(GIVES, "first"), nation.officer(GIVES, "second")
    (review,) = (await reviews.list(provider)).reviews
    assert (review.proposed, review.prepared_at) == (None, None)
    await reviews.prepare(
        provider, first, review.id, ReviewPrepare(decision="refuse", withheld=True, note="本人の申出")
    )
    (seen,) = (await reviews.list(provider)).reviews
    assert (seen.proposed, seen.withheld, seen.note) == ("refuse", True, "本人の申出")
    # The first officer alone turns a refusal into a provision, after the second one has read it.
    await reviews.prepare(provider, first, review.id, ReviewPrepare(decision="provide"))
    with pytest.raises(Problem, match="review_changed"):
        await reviews.approve(provider, second, review.id, ReviewDecision(prepared_at=seen.prepared_at))
    assert await nation.records(GIVES) == []
    (seen,) = (await reviews.list(provider)).reviews
    await reviews.approve(provider, second, review.id, ReviewDecision(prepared_at=seen.prepared_at))
    (done,) = (await nation.answered(ASKS, batch)).lines
    assert done.outcome == "provided"
