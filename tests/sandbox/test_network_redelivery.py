"""What the network tells and pushes again after a restore, and permits that replace others."""

import datetime as dt
import uuid

import msgspec
import pytest

from chukan.ops.sandbox.reissues import REISSUES_MAX
from chukan.platform.wire.network import (
    AcquiredCode,
    InventoryReply,
    InventoryRequest,
    Notice,
    ProviderPermit,
    RedeliveryReply,
    RedeliveryRequest,
)

from .conftest import ASKS, NATION, PERSON, STRANGER, VALID_S, Exchange, Pair, World

pytestmark = pytest.mark.requirement("TXR-03")
REASON = "permit_before_restore"


async def inventory(
    exchange: Exchange, agency: str, world: World, *, ago_s: float = 60.0, after: int = 0
) -> InventoryReply:
    since = world.clock.now() - dt.timedelta(seconds=ago_s)
    request = InventoryRequest(id=world.chance.uuid7(), agency=agency, since=since, after=after)
    (reply,) = await exchange.peer.inventories([msgspec.json.encode(request)])
    return reply


async def redeliver(exchange: Exchange, agency: str, *messages: uuid.UUID) -> list[RedeliveryReply]:
    requests = [RedeliveryRequest(id=message, agency=agency) for message in messages]
    return await exchange.peer.redeliveries([msgspec.json.encode(request) for request in requests])


def face(pair: Pair, notice: Notice) -> ProviderPermit:
    return pair.nation.verifier.verify_provider(notice.permit)


async def refused_once(pair: Pair) -> tuple[ProviderPermit, ProviderPermit]:
    """Have a notice refused as of before a restore; return its permit and the one that replaces it."""
    inbox = pair.nation.inbox
    inbox.status, inbox.reason = "refused", REASON
    await pair.ask()
    await inbox.until(lambda: len(inbox.notices_) == 1)
    inbox.status, inbox.reason = "accepted", None
    await inbox.until(lambda: len(inbox.notices_) == 2)
    await pair.world.until_empty()
    return face(pair, inbox.notices_[0]), face(pair, inbox.notices_[1])


async def test_a_refused_permit_is_replaced_and_void(pair: Pair) -> None:
    old, new = await refused_once(pair)
    same = {"code", "inquirer", "provider", "items", "condition", "asked_at", "expires_at", "answer_key"}
    assert {name: getattr(new, name) for name in same} == {name: getattr(old, name) for name in same}
    assert (new.replaces, old.replaces) == (old.permit, None)
    assert (new.permit, new.route) != (old.permit, old.route)
    (late,) = await pair.send(pair.world.answer(old))
    assert (late.status, late.reason) == ("refused", "permit_replaced")
    (receipt,) = await pair.send(pair.world.answer(new))
    assert receipt.status == "accepted"
    await pair.east.inbox.until(lambda: bool(pair.east.inbox.answers_))
    delivered = pair.east.verifier.verify_inquirer(pair.east.inbox.answers_[0].permit)
    assert (delivered.permit, delivered.replaces) == (new.permit, old.permit)
    (record,) = (await pair.world.network.records(0, 10)).records
    assert (record.reference, record.outcome) == (new.permit, "provided")


async def test_the_inquirer_that_asks_again_gets_the_permit_that_is_valid(pair: Pair) -> None:
    inbox = pair.nation.inbox
    inbox.status, inbox.reason = "refused", REASON
    request, first = await pair.ask()
    await inbox.until(lambda: len(inbox.notices_) >= 2)
    inbox.status, inbox.reason = "accepted", None
    await pair.world.until_empty()
    (again,) = await pair.east.peer.permit_requests([msgspec.json.encode(request)])
    assert again.reference == str(face(pair, inbox.notices_[-1]).permit) != first.reference


async def test_a_permit_is_replaced_a_few_times_and_then_lapses(pair: Pair) -> None:
    inbox = pair.nation.inbox
    inbox.status, inbox.reason = "refused", REASON
    await pair.ask()
    await inbox.until(lambda: len(inbox.notices_) == 1 + REISSUES_MAX)
    await pair.world.until_empty()
    assert len(inbox.notices_) == 1 + REISSUES_MAX


async def test_nothing_is_replaced_for_a_line_that_was_answered(pair: Pair) -> None:
    permit = await pair.notice()
    await pair.send(pair.world.answer(permit))
    await pair.world.until_empty()
    inbox = pair.nation.inbox
    before = len(inbox.notices_)
    inbox.status, inbox.reason = "refused", REASON
    (reply,) = await redeliver(pair.nation, NATION, inbox.notices_[0].id)
    assert reply.status == "closed"
    await pair.world.until_empty()
    assert len(inbox.notices_) == before


async def test_each_agency_is_told_its_own_and_no_id_of_the_other_side(pair: Pair) -> None:
    permit = await pair.notice()
    request = (await pair.world.network.records(0, 10)).records[0].request
    await pair.send(pair.world.answer(permit))
    await pair.east.inbox.until(lambda: bool(pair.east.inbox.answers_))
    await pair.world.until_empty()
    asked = await inventory(pair.east, ASKS, pair.world)
    (line,) = [entry for entry in asked.entries if entry.what == "request"]
    assert (line.request, line.permit, line.final, line.push) == (
        request,
        None,
        "provided",
        pair.east.inbox.answers_[0].id,
    )
    gave = await inventory(pair.nation, NATION, pair.world)
    (line,) = [entry for entry in gave.entries if entry.what == "notice"]
    assert (line.request, line.permit, line.final) == (None, permit.permit, "provided")
    assert line.push == pair.nation.inbox.notices_[-1].id
    foreign = await inventory(pair.east, NATION, pair.world)
    assert (foreign.outcome, foreign.reason, foreign.entries) == ("bad_request", "not_your_agency", [])
    (stolen,) = await redeliver(pair.east, ASKS, pair.nation.inbox.notices_[-1].id)
    assert stolen.status == "unknown"


async def test_what_was_exchanged_before_is_not_told(pair: Pair) -> None:
    await pair.notice()
    await pair.world.until_empty()
    pair.world.clock.advance(3600)
    reply = await inventory(pair.nation, NATION, pair.world, ago_s=VALID_S)
    assert reply.next == 1, "lines come first, codes after them"
    last = await inventory(pair.nation, NATION, pair.world, ago_s=VALID_S, after=1)
    assert ([entry for entry in reply.entries if entry.final is None], last.next) == ([], None)


async def test_an_answer_is_pushed_again_with_the_same_bytes(pair: Pair) -> None:
    permit = await pair.notice()
    await pair.send(pair.world.answer(permit))
    await pair.east.inbox.until(lambda: bool(pair.east.inbox.answers_))
    await pair.world.until_empty()
    (first,) = pair.east.inbox.answers_
    for _ in range(2):
        (reply,) = await redeliver(pair.east, ASKS, first.id)
        assert reply.status == "queued"
    await pair.east.inbox.until(lambda: len(pair.east.inbox.answers_) >= 2)
    assert pair.east.inbox.answers_[1] == first
    (unknown,) = await redeliver(pair.east, ASKS, pair.world.chance.uuid7())
    assert unknown.status == "unknown"


@pytest.mark.requirement("SYM-05", "SYM-06")
async def test_a_code_that_was_lost_is_acquired_once_more(world: World) -> None:
    east = await world.exchange("east")
    first = await world.acquire(ASKS, PERSON, east)
    await world.until_empty()
    again = await world.acquire(ASKS, PERSON, east)
    assert (again.status, again.code) == ("already_acquired", None)
    (lost,) = [entry for entry in (await inventory(east, ASKS, world, after=1)).entries if entry.what == "code"]
    assert lost.push == first.id
    (reply,) = await redeliver(east, ASKS, first.id)
    assert reply.status == "reopened"
    anew = await world.acquire(ASKS, PERSON, east)
    assert (anew.status, anew.code) == ("acquired", first.code)
    assert (await world.acquire(ASKS, PERSON, east)).status == "already_acquired"
    await world.until_empty()
    assert first.number not in await world.everything()


@pytest.mark.requirement("SYM-06")
async def test_the_used_number_of_a_lost_code_may_be_handed_over_once_more(world: World) -> None:
    east = await world.exchange("east")
    first = await world.acquire(ASKS, PERSON, east)
    await world.until_empty()
    await redeliver(east, ASKS, first.id)
    assert world.registry is not None
    assert await world.registry.hand_over([(first.number, PERSON)]) == 1
    await east.inbox.until(lambda: len(east.inbox.codes_) == 2)
    anew: AcquiredCode = east.inbox.codes_[-1]
    assert (anew.number, anew.status, anew.code) == (first.number, "acquired", first.code)
    await world.until_empty()
    assert await world.registry.hand_over([(first.number, STRANGER)]) == 1
    await world.until_empty()
    assert len(east.inbox.codes_) == 2, "once more, and not for ever"
