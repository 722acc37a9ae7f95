"""The sequencer: consecutive positions, leaves that chain by label, one at a time, every record once."""

import asyncio
import hashlib
import struct

import pytest

from chukan.tenants.states import InquiryState, Outcome

AGENCY = 99999


async def close_lines(bench, make, labels, agency=AGENCY):
    """Store lines that close at once, one record a label, and return their records in order."""
    batch = make.batch(agency)
    lines = []
    for n, label in enumerate(labels):
        line = make.line(batch, n, state=InquiryState.NO_CODE, outcome=Outcome.NO_CODE, outbox=None)
        lines.append(line.__class__(**{**fields(line), "record": make.record(line.id, label)}))
    await bench.sets.accept([batch], lines)
    return [line.record for line in lines]


def fields(row):
    return {name: getattr(row, name) for name in row.__slots__}


async def drain(bench):
    while await bench.sets.sequence("test", 1000) > 0:
        pass


async def log_of(bench, agency=AGENCY):
    return await bench.admin.fetch(f"SELECT * FROM a{agency:05d}.log ORDER BY seq")


async def test_positions_are_consecutive_and_in_the_order_of_arrival(bench, make):
    await drain(bench)
    start = len(await log_of(bench))
    records = await close_lines(bench, make, [make.digest() for _ in range(7)])
    assert await bench.sets.sequence("test", 3) == 3
    assert await bench.sets.sequence("test", 100) == 4
    assert await bench.sets.sequence("test", 100) == 0
    log = await log_of(bench)
    assert [row["seq"] for row in log] == list(range(1, len(log) + 1))
    assert [row["record"] for row in log[start:]] == [record.id for record in records]


async def test_leaves_chain_by_label_within_and_across_batches(bench, make):
    one, two = make.digest(), make.digest()
    records = await close_lines(bench, make, [one, two, one, one])
    await drain(bench)
    records += await close_lines(bench, make, [two, one])
    await drain(bench)
    leaves = {row["record"]: row for row in await log_of(bench)}
    for label in (one, two):
        previous = bytes(32)
        for ordinal, record in enumerate(each for each in records if each.label == label):
            data = b"\x01" + record.commitment + label + struct.pack(">Q", ordinal) + previous
            assert leaves[record.id]["leaf_data"] == data
            previous = hashlib.sha256(b"\x00" + data).digest()
            assert leaves[record.id]["leaf_hash"] == previous
            assert leaves[record.id]["label"] == label


async def test_agencies_have_logs_of_their_own(bench, make):
    await drain(bench)
    before = {agency: len(await log_of(bench, agency)) for agency in (1, 2, 3)}
    for agency in (1, 2, 1):
        await close_lines(bench, make, [make.digest()], agency)
    assert await bench.sets.sequence("test", 100) == 3
    after = {agency: len(await log_of(bench, agency)) for agency in (1, 2, 3)}
    assert {agency: after[agency] - before[agency] for agency in after} == {1: 2, 2: 1, 3: 0}


async def test_a_second_sequencer_finds_the_lock_taken(bench, make):
    await close_lines(bench, make, [make.digest()])
    other = bench.admin.transaction()
    await other.start()
    assert await bench.admin.fetchval("SELECT chukan.sequence('other', 1)") == 1
    async with asyncio.timeout(5):
        assert await bench.sets.sequence("test", 100) == -1
    await other.rollback()
    assert await bench.sets.sequence("test", 100) >= 1


@pytest.mark.requirement("TXR-03")
async def test_many_sequencers_at_once_give_every_record_one_place(bench, make):
    records = [record for _ in range(6) for record in await close_lines(bench, make, [make.digest()] * 5)]
    while any(await asyncio.gather(*(bench.sets.sequence("x", 4) for _ in range(4)))):
        pass
    places = [row["record"] for row in await log_of(bench)]
    assert all(places.count(record.id) == 1 for record in records)


async def test_the_age_is_that_of_the_oldest_waiting_record(bench, make):
    await drain(bench)
    assert await bench.sets.sequencer_age() == 0
    (record,) = await close_lines(bench, make, [make.digest()])
    await bench.admin.execute("UPDATE chukan.to_sequence SET at = now() - interval '90 s' WHERE record = $1", record.id)
    await close_lines(bench, make, [make.digest()])
    assert 90 <= await bench.sets.sequencer_age() < 120
    await drain(bench)
    assert await bench.sets.sequencer_age() == 0


async def test_an_amendment_has_a_leaf_of_its_own(bench, make):
    label = make.digest()
    (record,) = await close_lines(bench, make, [label])
    line = make.line(make.batch(AGENCY), id=record.id)
    assert await bench.sets.deliver_answers([make.answer(line)]) == ["late"]
    await drain(bench)
    (amendment,) = await bench.rows(AGENCY, "records", record.id, by="amends")
    places = {row["record"]: row["seq"] for row in await log_of(bench)}
    assert places[amendment["id"]] > places[record.id]


async def lose(bench, record, agency=AGENCY):
    """Take a record away that has no place yet, as nobody may; return what brings it back."""
    schema = f"a{agency:05d}"
    await bench.admin.execute(f"CREATE TABLE lost AS SELECT * FROM {schema}.records WHERE id = $1", record.id)
    async with bench.admin.transaction():
        await bench.admin.execute("SET LOCAL session_replication_role = replica")
        await bench.admin.execute(f"DELETE FROM {schema}.records WHERE id = $1", record.id)

    async def back():
        await bench.admin.execute(f"INSERT INTO {schema}.records SELECT * FROM lost")
        await bench.admin.execute("DROP TABLE lost")

    return back


@pytest.mark.requirement("REC-02")
async def test_a_record_that_is_gone_sets_its_own_agency_aside_and_nobody_else(bench, make):
    await drain(bench)
    before = {agency: len(await log_of(bench, agency)) for agency in (1, 2, 3)}
    (first,) = await close_lines(bench, make, [make.digest()], 1)
    (gone,) = await close_lines(bench, make, [make.digest()], 2)
    await close_lines(bench, make, [make.digest(), make.digest()], 2)
    await close_lines(bench, make, [make.digest()], 3)
    back = await lose(bench, gone, 2)
    assert await bench.sets.logs_aside() == 0
    assert await bench.sets.sequence("test", 100) == 2
    assert await bench.sets.logs_aside() == 1
    assert await bench.sets.sequence("test", 100) == 0
    # What comes later to the others goes on, what comes later to this one waits with the rest.
    await close_lines(bench, make, [make.digest()], 1)
    await close_lines(bench, make, [make.digest()], 2)
    assert await bench.sets.sequence("test", 1) == 1
    grown = {agency: len(await log_of(bench, agency)) - before[agency] for agency in before}
    assert grown == {1: 2, 2: 0, 3: 1}
    assert [row["record"] for row in await bench.admin.fetch("SELECT * FROM chukan.resume_logs()")] == [gone.id]
    await back()
    assert await bench.admin.fetch("SELECT * FROM chukan.resume_logs()") == []
    assert await bench.sets.sequence("test", 100) == 4
    log = await log_of(bench, 2)
    assert [row["seq"] for row in log] == list(range(1, len(log) + 1))
    assert log[before[2]]["record"] == gone.id
    assert first.id in {row["record"] for row in await log_of(bench, 1)}


async def test_an_agency_without_its_tables_or_head_stops_nobody(bench, make):
    await drain(bench)
    await bench.admin.execute("INSERT INTO chukan.to_sequence (agency, record) VALUES (77777, gen_random_uuid())")
    await close_lines(bench, make, [make.digest()], 1)
    assert await bench.sets.sequence("test", 100) == 1
    assert await bench.admin.fetchval("SELECT array_agg(agency) FROM chukan.log_aside") == [77777]
    await bench.admin.execute("DELETE FROM chukan.to_sequence")
    assert await bench.admin.fetch("SELECT * FROM chukan.resume_logs()") == []
    assert await bench.sets.logs_aside() == 0
