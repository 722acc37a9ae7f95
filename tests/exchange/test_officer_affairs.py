"""An officer's affairs (事務) bind reviews, and what queries were asked for can be told."""

import uuid

import pytest

from chukan.errors import Problem
from chukan.platform.exchange.query_affairs import QueryAffairs
from chukan.platform.wire.agency import ReviewDecision, ReviewPrepare
from chukan.tenants.officer_accounts import Affairs

ASKS, GIVES = "9901131121000001", "9901011002000001"


@pytest.mark.requirement("AUT-02")
async def test_a_review_of_another_affair_is_not_shown_and_not_decided(nation):
    addressee = await nation.person(ASKS, GIVES, review=True)
    line = nation.line(addressee, GIVES)
    batch = await nation.ask(ASKS, [line])
    await nation.until(lambda: nation.state_of(ASKS, batch), "held")
    provider, reviews = nation.agency(GIVES), nation.east.reviews
    first, second = nation.officer(GIVES, "first"), nation.officer(GIVES, "second")
    his, other = Affairs(frozenset({line.affair})), Affairs(frozenset({"JM99999999999999"}))
    assert (await reviews.list(provider, other)).reviews == []
    (review,) = (await reviews.list(provider, his)).reviews
    with pytest.raises(Problem, match="affair_not_granted"):
        await reviews.prepare(provider, first, review.id, ReviewPrepare(decision="provide"), other)
    await reviews.prepare(provider, first, review.id, ReviewPrepare(decision="provide"), his)
    for decide in (reviews.approve, reviews.refuse):
        with pytest.raises(Problem, match="affair_not_granted"):
            await decide(provider, second, review.id, ReviewDecision(), other)
    assert await nation.records(GIVES) == []
    await reviews.approve(provider, second, review.id, ReviewDecision(), his)
    await nation.answered(ASKS, batch)

    affairs = QueryAffairs(nation.east.context)
    asks = nation.agency(ASKS)
    assert await affairs(asks, batch.batch) == {line.affair}
    assert await affairs(asks, batch.lines[0].id) == {line.affair}
    with pytest.raises(Problem, match="not_found"):
        await affairs(asks, uuid.uuid4())
    with pytest.raises(Problem, match="not_found"):
        await affairs(provider, batch.batch)
