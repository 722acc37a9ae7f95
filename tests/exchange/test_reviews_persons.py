"""A review's two officers are two persons, by card and by account; a proposal whose ground is gone is shown as such."""

import dataclasses

import msgspec
import pytest

from chukan.clock import to_jst
from chukan.errors import Problem
from chukan.platform.wire.agency import ReviewDecision, ReviewPrepare
from chukan.tenants import drafts
from chukan.tenants import officer_rows as rows
from chukan.tenants.officer_accounts import Account

ASKS, GIVES = "9901131121000001", "9901011002000001"


async def held(nation):
    addressee = await nation.person(ASKS, GIVES, review=True)
    batch = await nation.ask(ASKS, [nation.line(addressee, GIVES)])
    await nation.until(lambda: nation.state_of(ASKS, batch), "held")
    (review,) = (await nation.east.reviews.list(nation.agency(GIVES))).reviews
    return review.id


@pytest.mark.requirement("PRV-05", "AUT-05")
async def test_what_somebody_prepared_by_card_the_same_person_does_not_approve_by_account(nation):
    review = await held(nation)
    provider, reviews = nation.agency(GIVES), nation.east.reviews
    first = nation.officer(GIVES, "first")
    await reviews.prepare(provider, first, review, ReviewPrepare(decision="provide"))
    context = reviews._context
    keys, today = context.keys(provider.number), to_jst(context.clock.now()).date()
    async with reviews._door(provider) as partition:
        for officer, card in (("k-own", first.id), ("k-other", "another-card")):
            await rows.put_account(partition, keys, Account(officer=officer, name="x", first=today, card=card))
    # The card is known to be the account's own; from then on it is nobody else's.
    own = msgspec.structs.replace(first, id="k-own")
    with pytest.raises(Problem, match="second_officer_required"):
        await reviews.approve(provider, own, review, ReviewDecision())
    with pytest.raises(Problem, match="second_officer_required"):
        await reviews.refuse(provider, own, review, ReviewDecision())
    assert await nation.records(GIVES) == []
    done = await reviews.approve(provider, msgspec.structs.replace(first, id="k-other"), review, ReviewDecision())
    assert done.state == "decided"


@pytest.mark.requirement("PRV-05")
async def test_a_proposal_whose_ground_is_gone_is_not_shown_as_prepared(nation):
    review = await held(nation)
    provider, reviews = nation.agency(GIVES), nation.east.reviews
    first, second = nation.officer(GIVES, "first"), nation.officer(GIVES, "second")
    prepared = await reviews.prepare(provider, first, review, ReviewPrepare(decision="provide"))
    assert (prepared.state, prepared.stale) == ("prepared", False)
    keys = reviews._context.keys(provider.number)
    async with reviews._door(provider) as partition:
        draft = (await drafts.read(partition, keys, [review]))[review]
        before = msgspec.structs.replace(draft.seen, link_version=draft.seen.link_version + 1)
        await drafts.save(partition, keys, dataclasses.replace(draft, seen=before))
    (shown,) = (await reviews.list(provider)).reviews
    assert (shown.state, shown.stale, shown.prepared_by) == ("held", True, first.id)
    with pytest.raises(Problem, match="review_not_prepared"):
        await reviews.approve(provider, second, review, ReviewDecision())
    # To refuse it takes no ground; and who looks again prepares anew.
    refusing = await reviews.prepare(provider, first, review, ReviewPrepare(decision="refuse"))
    assert (refusing.state, refusing.stale) == ("prepared", False)
