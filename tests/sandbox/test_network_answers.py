"""Answers: passed on unread, once per permit, until the very microsecond at which the permit ends, and not after it."""

import msgspec
import pytest

from chukan.clock import ManualClock
from chukan.ops.sandbox.admin import NetworkRecord
from chukan.ops.sandbox.redelivery import PUSHED_KEEP, Redelivery
from chukan.platform.wire.network import Receipt

from .conftest import ASKS, NATION, VALID_S, Pair


async def _record(pair: Pair) -> NetworkRecord:
    (record,) = (await pair.world.network.records(0, 10)).records
    return record


@pytest.mark.requirement("REC-01", "TXR-01")
async def test_an_answer_reaches_the_inquirer_with_its_permit_and_closes_the_record(pair: Pair) -> None:
    permit = await pair.notice()
    pair.world.clock.advance(5)
    (receipt,) = await pair.send(answer := pair.world.answer(permit, withheld=True, outcome="provided_with_gaps"))
    await pair.east.inbox.until(lambda: bool(pair.east.inbox.answers_))
    (delivery,) = pair.east.inbox.answers_
    face = pair.east.verifier.verify_inquirer(delivery.permit)
    record = await _record(pair)

    assert receipt.status == "accepted"
    assert (delivery.request, delivery.inquirer) == (face.request, ASKS)
    assert (delivery.outcome, delivery.withheld, delivery.sealed) == ("provided_with_gaps", True, answer.sealed)
    assert (delivery.answered_at, delivery.received_at) == (answer.answered_at, receipt.at)
    assert delivery.id != answer.id
    assert (record.outcome, record.withheld) == ("provided_with_gaps", True)
    assert record.provided_at == answer.answered_at
    assert record.closed_at == receipt.at
    assert record.asked_at == permit.asked_at


@pytest.mark.requirement("PRV-03")
async def test_an_answer_at_the_last_instant_counts_and_one_just_after_lapses(pair: Pair, clock: ManualClock) -> None:
    in_time, too_late = await pair.notice(), await pair.notice()
    clock.advance(VALID_S)
    assert clock.now() == in_time.expires_at
    (accepted,) = await pair.send(pair.world.answer(in_time))
    clock.advance(0.000001)
    (lapsed,) = await pair.send(pair.world.answer(too_late))
    first, second = (await pair.world.network.records(0, 10)).records

    assert (accepted.status, lapsed.status) == ("accepted", "lapsed")
    assert lapsed.reason == "permit_expired"
    assert (first.outcome, second.outcome) == ("provided", "expired")
    assert second.closed_at == too_late.expires_at
    await pair.east.inbox.until(lambda: bool(pair.east.inbox.answers_))
    assert [pair.east.verifier.verify_inquirer(one.permit).permit for one in pair.east.inbox.answers_] == [
        in_time.permit
    ]


@pytest.mark.requirement("PRV-03")
async def test_a_permit_that_nobody_answers_lapses_by_itself(pair: Pair, clock: ManualClock) -> None:
    permit = await pair.notice()
    answers = pair.world.network._answers
    clock.advance(VALID_S)
    assert await pair.world.network.store.write(answers.sweep) == 0
    assert (await _record(pair)).outcome is None
    clock.advance(0.000001)
    # The network's own sweep may have come first.
    await pair.world.network.store.write(answers.sweep)
    record = await _record(pair)

    assert (record.outcome, record.reason, record.closed_at) == ("expired", "permit_expired", permit.expires_at)
    (late,) = await pair.send(pair.world.answer(permit))
    assert late.status == "lapsed"
    assert await _record(pair) == record


@pytest.mark.requirement("TXR-03")
async def test_the_same_answer_again_gets_the_same_receipt_and_is_passed_on_once(pair: Pair) -> None:
    permit = await pair.notice()
    body = msgspec.json.encode(pair.world.answer(permit))
    network = pair.world.network
    first = await network.answers("nation", [body])
    pair.world.clock.advance(10 * VALID_S)
    assert await network.answers("nation", [body]) == first
    assert await network.answers("nation", [body, body]) == first + first
    # Another answer pushes a second delivery, behind which a second one of the first would have arrived.
    other = await pair.notice()
    await pair.send(pair.world.answer(other))
    await pair.east.inbox.until(lambda: len(pair.east.inbox.answers_) >= 2)

    assert len(pair.east.inbox.answers_) == 2
    assert msgspec.json.decode(first[0], type=Receipt).status == "accepted"


@pytest.mark.requirement("TXR-03")
async def test_a_second_answer_to_one_permit_is_refused(pair: Pair) -> None:
    permit = await pair.notice()
    first, second = pair.world.answer(permit), pair.world.answer(permit, outcome="no_record", sealed=None)
    accepted, refused = await pair.send(first, second)

    assert (accepted.status, refused.status, refused.reason) == ("accepted", "refused", "already_answered")
    assert (await _record(pair)).outcome == "provided"


async def test_under_review_is_interim_once_and_followed_by_one_final_answer(pair: Pair) -> None:
    permit = await pair.notice()
    interim = {"outcome": "under_review", "sealed": None}
    (held,) = await pair.send(pair.world.answer(permit, **interim))
    (again,) = await pair.send(pair.world.answer(permit, **interim))
    after_interim = await _record(pair)
    (final,) = await pair.send(pair.world.answer(permit, outcome="refused", sealed=None, reason="officer"))
    (late,) = await pair.send(pair.world.answer(permit, **interim))
    await pair.east.inbox.until(lambda: len(pair.east.inbox.answers_) == 2)

    assert (held.status, final.status) == ("accepted", "accepted")
    assert (again.reason, late.reason) == ("already_answered", "already_answered")
    assert after_interim.outcome is None
    assert [one.outcome for one in pair.east.inbox.answers_] == ["under_review", "refused"]
    assert ((await _record(pair)).outcome, (await _record(pair)).reason) == ("refused", "officer")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"route": "nws-somewhere-else"}, "wrong_route"),
        ({"provider": ASKS}, "not_your_permit"),
        ({"sealed": None}, "content_mismatch"),
        ({"outcome": "no_record"}, "content_mismatch"),
    ],
)
async def test_an_answer_that_does_not_fit_its_permit_reaches_nobody(
    pair: Pair, changes: dict[str, str], reason: str
) -> None:
    permit = await pair.notice()
    (refused,) = await pair.send(pair.world.answer(permit, **changes))
    (accepted,) = await pair.send(pair.world.answer(permit))
    await pair.east.inbox.until(lambda: bool(pair.east.inbox.answers_))

    assert (refused.status, refused.reason) == ("refused", reason)
    assert accepted.status == "accepted"
    assert len(pair.east.inbox.answers_) == 1


@pytest.mark.requirement("TXR-01")
async def test_an_answer_over_another_route_is_refused(pair: Pair) -> None:
    permit = await pair.notice()
    (foreign,) = await pair.send(pair.world.answer(permit), by=pair.east)
    (unknown,) = await pair.send(msgspec.structs.replace(pair.world.answer(permit), permit=pair.world.chance.uuid7()))

    assert (foreign.status, foreign.reason) == ("refused", "not_your_permit")
    assert (unknown.status, unknown.reason) == ("refused", "unknown_permit")
    assert (await _record(pair)).outcome is None


async def test_content_is_kept_sealed_for_redelivery_and_then_forgotten(pair: Pair, clock: ManualClock) -> None:
    permit = await pair.notice()
    await pair.send(pair.world.answer(permit))
    await pair.east.inbox.until(lambda: bool(pair.east.inbox.answers_))
    await pair.world.until_empty()

    assert "U0VBTEVEIENPTlRFTlQ" in await pair.world.everything()  # as it travels, in base64
    clock.advance(PUSHED_KEEP.total_seconds() + 1)
    await pair.world.network.store.write(Redelivery(clock).sweep)
    everything = await pair.world.everything()

    assert "SEALED CONTENT" not in everything
    assert "U0VBTEVEIENPTlRFTlQ" not in everything


@pytest.mark.requirement("PRV-03")
async def test_a_notice_that_could_not_be_delivered_in_time_is_dropped(pair: Pair, clock: ManualClock) -> None:
    pair.nation.inbox.status = "again"
    await pair.ask()
    await pair.nation.inbox.until(lambda: bool(pair.nation.inbox.notices_))
    clock.advance(VALID_S + 1)
    await pair.world.until_empty()
    record = await _record(pair)

    assert record.notified_at is None
    assert record.provider == NATION


async def test_records_tell_when_each_side_had_what_was_pushed(pair: Pair) -> None:
    permit = await pair.notice()
    await pair.send(pair.world.answer(permit))
    await pair.east.inbox.until(lambda: bool(pair.east.inbox.answers_))
    await pair.world.until_empty()
    record = await _record(pair)

    assert record.notified_at is not None
    assert record.delivered_at is not None
