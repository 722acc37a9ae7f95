"""From notice to sealed answer in one commit: single use of permits, repeats, and lines that must be decided again."""

import asyncio
import dataclasses

import pytest

from chukan.errors import Problem
from chukan.tenants.states import LinkStatus, Outcome, ProvisionState, Side


async def link(bench, make, agency=1, version=1):
    person = make.digest()
    await bench.admin.execute(
        f"INSERT INTO a{agency:05d}.codes (person, status, version, addressee, code_digest, code)"
        " VALUES ($1, $2, $3, 'x', $4, 'sealed')",
        person,
        LinkStatus.ACTIVE,
        version,
        make.digest(),
    )
    return person


async def nothing_of(bench, row):
    for table in ("provisions", "outbox", "records"):
        assert await bench.rows(row.agency, table, row.id) == []
    assert await bench.rows(row.agency, "inbox", row.inbox) == []
    assert await bench.work("provision_work", row.id) is None


async def test_effect_record_outbox_and_keys_are_one_commit(bench, make):
    row = make.provide(42, person=await link(bench, make, 42), link_version=1)
    assert await bench.sets.provide([row]) == ["stored"]
    (provision,) = await bench.rows(42, "provisions", row.id)
    assert (provision["person"], provision["notice"]) == (row.person, row.notice)
    assert [each["sealed"] for each in await bench.rows(42, "outbox", row.id)] == [b"sealed answer"]
    assert [each["commitment"] for each in await bench.rows(42, "records", row.id)] == [row.record.commitment]
    (permit,) = await bench.rows(42, "permits_used", row.permit, by="permit")
    assert (permit["message"], permit["until"]) == (row.inbox, row.permit_until)
    work = await bench.work("provision_work", row.id)
    assert (work["state"], work["outcome"], work["outbox"]) == (ProvisionState.ANSWERED, Outcome.PROVIDED, True)
    assert await bench.steps(42, row.id) == [(None, 50)]


@pytest.mark.requirement("TXR-03")
async def test_the_same_message_has_one_effect(bench, make):
    row = make.provide()
    repeats = [dataclasses.replace(row, id=(line := make.id()), record=make.record(line)) for _ in range(12)]
    words = await asyncio.gather(*(bench.sets.provide([each]) for each in (row, *repeats)))
    assert sorted(word for (word,) in words) == ["repeat"] * 12 + ["stored"]
    assert await bench.sets.provide(repeats) == ["repeat"] * 12
    assert len(await bench.rows(1, "provisions", row.id, *(each.id for each in repeats))) == 1


@pytest.mark.requirement("TXR-03")
async def test_a_permit_is_used_once(bench, make):
    row = make.provide(2)
    assert await bench.sets.provide([row]) == ["stored"]
    replay = make.provide(2, permit=row.permit)
    for _ in range(2):
        assert await bench.sets.provide([replay]) == ["replayed"]
    await nothing_of(bench, replay)
    elsewhere = make.provide(3, permit=row.permit)
    assert await bench.sets.provide([elsewhere]) == ["stored"], "digests are keyed: elsewhere it is another permit"


async def test_of_two_messages_with_one_permit_in_a_call_one_is_a_replay(bench, make):
    row = make.provide()
    rows = [row, make.provide(permit=row.permit), make.provide(), dataclasses.replace(row)]
    assert await bench.sets.provide(rows) == ["stored", "replayed", "stored", "repeat"]
    await nothing_of(bench, rows[1])


@pytest.mark.parametrize("stale", ["hold_version", "snapshot"])
async def test_a_line_decided_on_other_versions_is_decided_again(bench, make, stale):
    good, other = make.provide(1), make.provide(2, **{stale: 5})
    assert await bench.sets.provide([good, other]) == ["stored", "again"]
    await nothing_of(bench, other)
    fresh = dataclasses.replace(other, **{stale: 0})
    assert await bench.sets.provide([fresh]) == ["stored"]


async def test_a_line_decided_on_another_link_is_decided_again(bench, make):
    person = await link(bench, make, version=3)
    stale = make.provide(person=person, link_version=2)
    gone = make.provide(person=make.digest(), link_version=1)
    good = make.provide(person=person, link_version=3)
    assert await bench.sets.provide([stale, good, gone]) == ["again", "stored", "again"]
    await nothing_of(bench, stale)


async def test_a_change_of_holds_in_progress_makes_no_set_wait(bench, make):
    busy, other = make.provide(1788), make.provide(1)
    changing = bench.admin.transaction()
    await changing.start()
    await bench.admin.execute("UPDATE chukan.agencies SET hold_version = hold_version WHERE agency = 1788")
    assert await bench.sets.provide([busy, other]) == ["again", "stored"]
    await changing.rollback()
    assert await bench.sets.provide([busy]) == ["stored"]


async def test_a_change_of_a_link_in_progress_makes_no_set_wait(bench, make):
    person = await link(bench, make)
    row = make.provide(person=person, link_version=1)
    changing = bench.admin.transaction()
    await changing.start()
    await bench.admin.execute("UPDATE a00001.codes SET version = 2 WHERE person = $1", person)
    assert await bench.sets.provide([row]) == ["again"]
    await changing.commit()
    assert await bench.sets.provide([row]) == ["again"]


async def test_a_stale_generation_refuses_the_whole_set(bench, make):
    good = make.provide()
    with pytest.raises(Problem, match="agency_moved"):
        await bench.sets.provide([good, make.provide(2, generation=2)])
    await nothing_of(bench, good)


@pytest.mark.parametrize("held", [True, False])
async def test_a_final_answer_has_a_record_and_an_interim_one_has_none(bench, make, held):
    row = make.provide(held=held)
    wrong = dataclasses.replace(row, record=make.record(row.id) if held else None)
    with pytest.raises(Problem, match="internal"):
        await bench.sets.provide([wrong])
    await nothing_of(bench, row)


async def take(bench, grants, row):
    found = [each for each in await bench.sets.take_provisions(grants, 5000) if each.id == row.id]
    return found[0] if found else None


async def test_what_must_be_sent_is_taken_until_its_receipt(bench, make):
    row = make.provide(42)
    await bench.sets.provide([row])
    grants = await bench.all_grants(Side.PROVIDER)
    work = await take(bench, grants, row)
    assert (work.agency, work.notice, work.outbox, work.state) == (42, row.notice, row.outbox, ProvisionState.ANSWERED)
    again = make.receipt(row, ProvisionState.ANSWERED, Outcome.PROVIDED, due=make.now, drop_outbox=False)
    assert await bench.sets.settle_provisions(grants, [again]) == ["applied"]
    assert (await take(bench, grants, row)).tries == 1
    receipt = make.receipt(row, ProvisionState.RECEIPTED, Outcome.PROVIDED)
    assert await bench.sets.settle_provisions(grants, [receipt]) == ["applied"]
    assert await take(bench, grants, row) is None
    assert await bench.sets.settle_provisions(grants, [receipt]) == ["late"]
    assert await bench.steps(42, row.id) == [(None, 50), (50, 70)]


@pytest.mark.requirement("PRV-03")
async def test_a_lapsed_answer_is_amended_at_the_provider(bench, make):
    row = make.provide()
    await bench.sets.provide([row])
    grants = await bench.all_grants(Side.PROVIDER)
    lapse = make.receipt(row, ProvisionState.LAPSED, Outcome.EXPIRED, record=make.record(row.id, amends=True))
    assert await bench.sets.settle_provisions(grants, [lapse, lapse]) == ["applied", "late"]
    (amendment,) = await bench.rows(1, "records", row.id, by="amends")
    assert amendment["id"] == lapse.record.id
    assert len(await bench.rows(1, "records", row.id)) == 1


async def test_a_held_line_sends_its_interim_answer_then_waits_for_its_deadline(bench, make):
    row = make.provide(held=True)
    assert await bench.sets.provide([row]) == ["stored"]
    grants = await bench.all_grants(Side.PROVIDER)
    assert (await take(bench, grants, row)).outbox == row.outbox
    sent = make.receipt(row, ProvisionState.HELD, Outcome.UNDER_REVIEW, due=make.now)
    assert await bench.sets.settle_provisions(grants, [sent]) == ["applied"]
    assert (await take(bench, grants, row)).outbox is None
    lapse = make.receipt(row, ProvisionState.LAPSED, Outcome.EXPIRED)
    with pytest.raises(Problem, match="internal"):
        await bench.sets.settle_provisions(grants, [lapse])
    assert await bench.sets.settle_provisions(grants, [dataclasses.replace(lapse, record=make.record(row.id))]) == [
        "applied"
    ]
    assert len(await bench.rows(1, "records", row.id)) == 1
