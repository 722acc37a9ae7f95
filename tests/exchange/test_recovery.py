"""What is lost on the way is found again, and nothing happens twice (invariant 5)."""

import asyncio
import datetime as dt
import uuid

import msgspec
import pytest

from chukan.ops.sandbox.endpoints import pause
from chukan.platform.exchange.forgetting import Forgetting
from chukan.platform.exchange.memos import open_notice
from chukan.platform.exchange.views import read_content
from chukan.platform.wire.network import AnswerDelivery, Notice, SignedPermit
from chukan.tenants import directory
from chukan.tenants.partition import schema_name
from chukan.tenants.sealing import SealError
from chukan.tenants.states import InquiryState

ASKS, GIVES, ASKS_WEST, GIVES_WEST = (
    "9901131121000001",
    "9901011002000001",
    "9901271004000001",
    "9901401307000001",
)


async def stored_notice(nation, code):
    """The provider's newest permit, from its own sealed notice."""
    agency = nation.agency(code)
    admin = await nation.admin(nation.databases[agency.cell])
    row = await admin.fetchrow(f"SELECT id, notice FROM {schema_name(agency.number)}.provisions ORDER BY at DESC")
    await admin.close()
    return open_notice(nation.keys(code), row["id"], row["notice"]).signed


async def stored_answer(nation, code, line):
    """The inquirer's delivery, from its own sealed answer."""
    agency = nation.agency(code)
    admin = await nation.admin(nation.databases[agency.cell])
    sealed = await admin.fetchval(f"SELECT sealed FROM {schema_name(agency.number)}.answers WHERE id = $1", line)
    await admin.close()
    return msgspec.json.decode(nation.keys(code).open("answer", line.bytes, sealed), type=AnswerDelivery)


@pytest.mark.requirement("TXR-03", "INQ-12")
async def test_queries_wait_while_the_network_is_away_and_go_on_when_it_is_back(nation):
    addressee = await nation.person(ASKS, GIVES_WEST)
    await nation.stop_network()
    batch = await nation.ask(ASKS, [nation.line(addressee, GIVES_WEST) for _ in range(3)])
    await nation.until(lambda: first_state(nation, batch), "permit_requested")
    await nation.start_network()
    done = await nation.answered(ASKS, batch)
    assert {line.outcome for line in done.lines} == {"provided"}
    assert len(await nation.records(ASKS)) == len(await nation.records(GIVES_WEST)) == 3


async def first_state(nation, batch):
    return (await nation.east.inquiries.view(nation.agency(ASKS), batch.batch)).lines[0].state


@pytest.mark.requirement("TXR-03", "PRV-01")
async def test_a_permit_is_used_once_whoever_brings_it_again(nation):
    addressee = await nation.person(ASKS, GIVES)
    await nation.answered(ASKS, await nation.ask(ASKS, [nation.line(addressee, GIVES)]))
    notice = Notice(id=uuid.uuid4(), permit=await stored_notice(nation, GIVES))
    (ack,) = await nation.west.inbox.notices([notice])
    assert (ack.status, ack.reason) == ("refused", "permit_replayed")
    assert len(await nation.records(GIVES)) == 1


@pytest.mark.requirement("PRV-01", "TXR-04")
async def test_a_forged_permit_provides_nothing(nation):
    addressee = await nation.person(ASKS, GIVES)
    await nation.answered(ASKS, await nation.ask(ASKS, [nation.line(addressee, GIVES)]))
    genuine = await stored_notice(nation, GIVES)
    body = genuine.body.replace(genuine.body[-40:-38], b"ab")
    forged = msgspec.structs.replace(genuine, body=body)
    assert isinstance(forged, SignedPermit)
    (ack,) = await nation.east.inbox.notices([Notice(id=uuid.uuid4(), permit=forged)])
    assert (ack.status, ack.reason) == ("refused", "permit_forged")
    assert len(await nation.records(GIVES)) == 1


@pytest.mark.requirement("TXR-03")
async def test_a_repeated_answer_changes_nothing_and_a_late_one_is_an_amendment(nation):
    addressee = await nation.person(ASKS, GIVES)
    batch = await nation.ask(ASKS, [nation.line(addressee, GIVES)])
    await nation.answered(ASKS, batch)
    delivery = await stored_answer(nation, ASKS, batch.lines[0].id)
    (repeat,) = await nation.west.inbox.answers([delivery])
    assert (repeat.status, repeat.reason) == ("accepted", "repeat")
    late = msgspec.structs.replace(delivery, id=uuid.uuid4(), outcome="refused", sealed=None)
    (ack,) = await nation.west.inbox.answers([late])
    assert (ack.status, ack.reason) == ("accepted", "late")
    records = [record.fields for record in await nation.records(ASKS)]
    assert sorted(record.outcome for record in records) == ["provided", "refused"]
    (amendment,) = [record for record in records if record.amends is not None]
    assert amendment.amends == batch.lines[0].id
    view = await nation.east.inquiries.view(nation.agency(ASKS), batch.batch)
    assert view.lines[0].outcome == "provided"


@pytest.mark.requirement("TXR-02")
async def test_content_opens_for_the_inquirer_only(nation):
    addressee = await nation.person(ASKS, GIVES)
    batch = await nation.ask(ASKS, [nation.line(addressee, GIVES)])
    await nation.answered(ASKS, batch)
    delivery = await stored_answer(nation, ASKS, batch.lines[0].id)
    permit = uuid.UUID(msgspec.json.decode(delivery.permit.body)["permit"])
    assert read_content(nation.keys(ASKS), delivery, permit) is not None
    assert read_content(nation.keys(ASKS), delivery, uuid.uuid4()) is None
    for other in (GIVES, ASKS_WEST):
        assert read_content(nation.keys(other), delivery, permit) is None


@pytest.mark.requirement("INQ-12", "REC-01")
async def test_a_line_whose_time_is_over_expires_with_its_record(nation):
    addressee = await nation.person(ASKS, GIVES, review=True)
    batch = await nation.ask(ASKS, [nation.line(addressee, GIVES)])
    await nation.until(lambda: first_state(nation, batch), "held")
    agency = nation.agency(ASKS)
    admin = await nation.admin(nation.databases[agency.cell])
    for work in ("inquiry_work", "provision_work"):
        await admin.execute(f"UPDATE chukan.{work} SET due = now(), deadline = now() WHERE state = 40")
    await admin.close()
    done = await nation.answered(ASKS, batch)
    assert [(line.state, line.outcome) for line in done.lines] == [("expired", "expired")]
    await nation.until_records(GIVES, 1)
    assert [r.fields.outcome for r in await nation.records(ASKS)] == ["expired"]
    assert [r.fields.outcome for r in await nation.records(GIVES)] == ["expired"]


@pytest.mark.requirement("INQ-09")
async def test_results_are_purged_after_the_keep_period_and_the_record_stays(nation):
    addressee = await nation.person(ASKS, GIVES)
    batch = await nation.ask(ASKS, [nation.line(addressee, GIVES)])
    await nation.answered(ASKS, batch)
    await nation.east.inquiries.collect(nation.agency(ASKS), batch.batch)
    sets = nation.east.sets["east"]
    grants = [grant for site in nation.sites.values() for grant in inquiry_grants(site)]
    assert len(grants) == 64
    assert await sets.purge_results(grants, nation.clock.now() - dt.timedelta(days=1), 100) == 0
    assert await sets.purge_results(grants, nation.clock.now() + dt.timedelta(days=1), 100) == 1
    again = await nation.east.inquiries.collect(nation.agency(ASKS), batch.batch)
    assert (again.lines[0].state, again.lines[0].content) == ("purged", None)
    assert len(await nation.records(ASKS)) == 1


def inquiry_grants(site):
    workers = site.exchange._workers.values()
    return [
        grant for worker in workers if worker._cell == "east" for grant in worker.leases.grants() if grant.side == 1
    ]


async def test_the_other_exchange_takes_over_when_one_is_gone(nation):
    addressee = await nation.person(ASKS, GIVES_WEST)
    await nation.sites.pop("west").stop()
    done = await nation.answered(ASKS, await nation.ask(ASKS, [nation.line(addressee, GIVES_WEST)]))
    assert [line.outcome for line in done.lines] == ["provided"]


@pytest.mark.requirement("CON-05")
async def test_open_lines_are_counted_by_agency(nation):
    addressee = await nation.person(ASKS, GIVES, review=True)
    batch = await nation.ask(ASKS, [nation.line(addressee, GIVES) for _ in range(3)])
    await nation.until(lambda: first_state(nation, batch), "held")
    counts = await nation.east.sets["east"].agency_backlog()
    assert counts == {nation.agency(ASKS).number: 3, nation.agency(GIVES).number: 3}
    await nation.stop_network()
    waiting = await nation.ask(ASKS, [nation.line(addressee, GIVES)])
    await nation.until(lambda: first_state(nation, waiting), "permit_requested")
    assert not (nation.east.peer.answered and nation.west.peer.answered)
    await nation.start_network()


@pytest.mark.requirement("TEN-01")
async def test_a_closed_agencys_keys_leave_the_memory_of_running_exchanges(nation):
    keys = nation.keys(ASKS_WEST)
    keys.digest("addressee", b"1")
    nation.snapshot = directory.close_agency(nation.snapshot, nation.clock.now(), ASKS_WEST)
    await nation.publish()
    with pytest.raises(SealError):
        keys.digest("addressee", b"1")


async def test_what_is_sent_and_over_is_forgotten(nation):
    addressee = await nation.person(ASKS, GIVES)
    await nation.answered(ASKS, await nation.ask(ASKS, [nation.line(addressee, GIVES)]))
    await nation.sequenced()
    admin = await nation.admin(nation.databases["east"])
    for code in (ASKS, GIVES):
        schema = schema_name(nation.agency(code).number)
        for table in ("outbox", "inbox", "idempotency"):
            await admin.execute(f"UPDATE {schema}.{table} SET at = at - interval '30 days'")
    await Forgetting(nation.east.sets, nation.clock).round("east")
    left = [
        await admin.fetchval(f"SELECT count(*) FROM {schema_name(nation.agency(code).number)}.{table}")
        for code in (ASKS, GIVES)
        for table in ("inbox", "idempotency")
    ]
    await admin.close()
    assert left == [0, 0, 0, 0]


async def test_a_closed_agency_does_not_hold_up_the_others(nation):
    addressee = await nation.person(ASKS, GIVES, review=True)
    batch = await nation.ask(ASKS, [nation.line(addressee, GIVES)])
    await nation.until(lambda: first_state(nation, batch), "held")
    admin = await nation.admin(nation.databases["east"])
    await admin.execute("UPDATE chukan.inquiry_work SET due = now(), deadline = now()")
    nation.snapshot = directory.close_agency(nation.snapshot, nation.clock.now(), ASKS)
    await nation.publish()
    async with asyncio.timeout(30):
        while await admin.fetchval("SELECT state FROM chukan.inquiry_work") != InquiryState.EXPIRED:
            await pause(0.05, asyncio.Event())
    await admin.close()
    other = await nation.person(ASKS_WEST, GIVES)
    done = await nation.answered(ASKS_WEST, await nation.ask(ASKS_WEST, [nation.line(other, GIVES)]))
    assert [line.outcome for line in done.lines] == ["provided"]
