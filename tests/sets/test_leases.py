"""Leases: who holds a shard, who takes it over, and that a stale holder is fenced off."""

import asyncio
import contextlib
import dataclasses

import pytest

from chukan.errors import Problem
from chukan.tenants.rows import Grant
from chukan.tenants.states import SHARDS, InquiryState, Outcome, ProvisionState, Side, shard_of


@pytest.fixture
async def leases(bench):
    """The lease table with nobody in it."""
    await bench.sets.raise_epochs()
    await bench.admin.execute("DELETE FROM chukan.workers")
    return bench.sets


def shards(grants):
    return {grant.shard for grant in grants}


async def expire(bench, owner):
    await bench.admin.execute("UPDATE chukan.leases SET until = now() - interval '1 s' WHERE owner = $1", owner)


async def test_shards_are_taken_renewed_and_shared(leases):
    first = await leases.lease("one", Side.INQUIRER, 40, 10)
    second = await leases.lease("two", Side.INQUIRER, 40, 10)
    assert (len(first), len(second)) == (40, 24)
    assert shards(first) | shards(second) == set(range(SHARDS))
    assert await leases.lease("one", Side.INQUIRER, 40, 10) == first, "a renewal keeps shards and epochs"


async def test_the_sides_do_not_touch(leases):
    await leases.lease("one", Side.INQUIRER, SHARDS, 10)
    assert len(await leases.lease("two", Side.PROVIDER, SHARDS, 10)) == SHARDS


async def test_a_smaller_wish_gives_shards_back_for_others(leases):
    await leases.lease("one", Side.INQUIRER, SHARDS, 10)
    kept = await leases.lease("one", Side.INQUIRER, 32, 10)
    taken = await leases.lease("two", Side.INQUIRER, SHARDS, 10)
    assert (len(kept), len(taken)) == (32, 32)
    assert not shards(kept) & shards(taken)


async def test_an_expired_lease_changes_hands_with_a_higher_epoch(bench, leases):
    before = {grant.shard: grant.epoch for grant in await leases.lease("one", Side.INQUIRER, SHARDS, 10)}
    await expire(bench, "one")
    after = await leases.lease("two", Side.INQUIRER, SHARDS, 10)
    assert {grant.shard: grant.epoch - 1 for grant in after} == before
    assert await leases.lease("one", Side.INQUIRER, SHARDS, 10) == []


async def test_an_expired_lease_that_nobody_took_is_renewed_as_it_was(bench, leases):
    before = await leases.lease("one", Side.INQUIRER, SHARDS, 10)
    await expire(bench, "one")
    assert await leases.lease("one", Side.INQUIRER, SHARDS, 10) == before


async def test_release_frees_at_once(leases):
    await leases.lease("one", Side.INQUIRER, SHARDS, 1000)
    await leases.lease("one", Side.PROVIDER, SHARDS, 1000)
    await leases.release("one")
    for side in Side:
        assert len(await leases.lease("two", side, SHARDS, 10)) == SHARDS


async def test_workers_share_fairly(bench, leases):
    assert await leases.worker_share("one", Side.INQUIRER, 10) == 64
    assert await leases.worker_share("two", Side.INQUIRER, 10) == 32
    assert await leases.worker_share("three", Side.INQUIRER, 10) == 22
    assert await leases.worker_share("one", Side.PROVIDER, 10) == 64
    await bench.admin.execute("UPDATE chukan.workers SET until = now() - interval '1 s' WHERE owner = 'two'")
    assert await leases.worker_share("one", Side.INQUIRER, 10) == 32
    await leases.release("three")
    assert await leases.worker_share("one", Side.INQUIRER, 10) == 64


async def test_two_workers_at_once_never_hold_the_same_shard(leases):
    wishes = [leases.lease(f"worker {n}", Side.INQUIRER, 20, 10) for n in range(8)]
    held = [grant.shard for grants in await asyncio.gather(*wishes) for grant in grants]
    assert len(held) == len(set(held))


async def line_and_grants(bench, make):
    batch = make.batch()
    line = make.line(batch)
    await bench.sets.accept([batch], [line])
    return line, await bench.sets.lease(bench.owner, Side.INQUIRER, SHARDS, 10)


async def test_a_stale_lease_moves_nothing(bench, make, leases):
    line, grants = await line_and_grants(bench, make)
    await expire(bench, bench.owner)
    newer = await leases.lease("another", Side.INQUIRER, SHARDS, 10)
    step = make.settle(line, InquiryState.STOPPED, Outcome.STOPPED)
    with pytest.raises(Problem, match="stale_lease"):
        await leases.settle_inquiries(grants, [step])
    with pytest.raises(Problem, match="stale_lease"):
        await leases.take_inquiries(grants, 10)
    assert (await bench.work("inquiry_work", line.id))["state"] == InquiryState.ACCEPTED
    assert await leases.settle_inquiries(newer, [step]) == ["applied"]


async def test_a_raised_epoch_voids_every_grant(bench, make, leases):
    line, grants = await line_and_grants(bench, make)
    row = make.provide()
    await bench.sets.provide([row])
    provider = await leases.lease(bench.owner, Side.PROVIDER, SHARDS, 10)
    await leases.raise_epochs()
    with pytest.raises(Problem, match="stale_lease"):
        await leases.settle_inquiries(grants, [make.settle(line, InquiryState.STOPPED, Outcome.STOPPED)])
    with pytest.raises(Problem, match="stale_lease"):
        await leases.settle_provisions(provider, [make.receipt(row, ProvisionState.RECEIPTED, Outcome.PROVIDED)])
    with pytest.raises(Problem, match="stale_lease"):
        await leases.take_provisions(provider, 10)
    await bench.admin.execute(
        "UPDATE chukan.inquiry_work SET state = 64, updated_at = $1 WHERE id = $2", make.now, line.id
    )
    with pytest.raises(Problem, match="stale_lease"):
        await leases.purge_results(grants, make.far, 10)


async def test_a_shard_that_was_not_granted_is_not_worked(bench, make, leases):
    line, grants = await line_and_grants(bench, make)
    shard = (await bench.work("inquiry_work", line.id))["shard"]
    others = [grant for grant in grants if grant.shard != shard]
    invented = [*others, Grant(Side.INQUIRER, shard, 10**6)]
    for wrong in (others, invented):
        with pytest.raises(Problem, match="stale_lease"):
            await leases.settle_inquiries(wrong, [make.settle(line, InquiryState.STOPPED, Outcome.STOPPED)])
    with pytest.raises(ValueError, match="other side"):
        await leases.settle_inquiries(
            [dataclasses.replace(grants[0], side=Side.PROVIDER)],
            [make.settle(line, InquiryState.STOPPED, Outcome.STOPPED)],
        )


@contextlib.asynccontextmanager
async def stage_in_flight(bench, agency, grants):
    """Hold the leases of an agency's shard as a stage function holds them until its commit."""
    transaction = bench.admin.transaction()
    await transaction.start()
    await bench.admin.execute(
        "SELECT chukan.check_leases(1::smallint, $1::smallint[], $2::bigint[], ARRAY[$3::integer])",
        [grant.shard for grant in grants],
        [grant.epoch for grant in grants],
        agency,
    )
    yield shard_of(agency)
    await transaction.rollback()


async def test_a_stage_in_flight_delays_no_renewal(bench, make, leases):
    _, grants = await line_and_grants(bench, make)
    async with stage_in_flight(bench, 1, grants):
        async with asyncio.timeout(5):
            assert await leases.lease(bench.owner, Side.INQUIRER, SHARDS, 10) == grants


async def test_a_stage_in_flight_keeps_its_shard_from_a_takeover_that_does_not_wait(bench, make, leases):
    _, grants = await line_and_grants(bench, make)
    await expire(bench, bench.owner)
    async with stage_in_flight(bench, 1, grants) as shard:
        async with asyncio.timeout(5):
            taken = await leases.lease("another", Side.INQUIRER, SHARDS, 10)
        assert shards(taken) == set(range(SHARDS)) - {shard}
    assert shards(await leases.lease("another", Side.INQUIRER, SHARDS, 10)) == set(range(SHARDS))


# ---------------------------------------------------------------- succession


@pytest.mark.requirement("TXR-03")
async def test_a_predecessors_leases_are_free_at_once(leases):
    """An exchange that was killed and starts again need not wait for what it held itself."""
    before = {grant.shard: grant.epoch for grant in await leases.lease("east-1-00000001", Side.INQUIRER, SHARDS, 1000)}
    assert await leases.worker_share("east-1-00000001", Side.INQUIRER, 1000) == 64
    assert await leases.lease("east-1-00000002", Side.INQUIRER, SHARDS, 10) == []
    assert await leases.succeed("east-1-00000002", Side.INQUIRER) == SHARDS
    assert await leases.worker_share("east-1-00000002", Side.INQUIRER, 10) == 64, "nobody else is alive"
    after = await leases.lease("east-1-00000002", Side.INQUIRER, SHARDS, 10)
    assert {grant.shard: grant.epoch - 1 for grant in after} == before
    assert await leases.succeed("east-1-00000002", Side.INQUIRER) == 0, "its own are not its predecessor's"
    assert await leases.lease("east-1-00000002", Side.INQUIRER, SHARDS, 10) == after


async def test_several_predecessors_are_succeeded_together(leases):
    await leases.lease("east-0000000a", Side.INQUIRER, 20, 1000)
    await leases.lease("east-0000000b", Side.INQUIRER, 20, 1000)
    assert await leases.succeed("east-0000000c", Side.INQUIRER) == 40


async def test_the_leases_of_other_names_and_of_the_other_side_stay(bench, leases):
    others = (
        "west-00000001",
        "east-1-00000001",
        "eas-00000001",
        "east",
        "east-0001",
        "east-0000000A",
        "teast-00000001",
    )
    kept = {owner: await leases.lease(owner, Side.INQUIRER, 5, 1000) for owner in others}
    for owner in others:
        await leases.worker_share(owner, Side.INQUIRER, 1000)
    mine = await leases.lease("east-00000001", Side.PROVIDER, 5, 1000)
    await leases.worker_share("east-00000001", Side.PROVIDER, 1000)
    assert await leases.succeed("east-00000002", Side.INQUIRER) == 0
    assert {owner: await leases.lease(owner, Side.INQUIRER, 5, 1000) for owner in others} == kept
    assert await leases.lease("east-00000001", Side.PROVIDER, 5, 1000) == mine
    alive = await bench.admin.fetch("SELECT side, owner FROM chukan.workers")
    assert {tuple(row) for row in alive} == {(1, owner) for owner in others} | {(2, "east-00000001")}
    assert await leases.succeed("east-00000002", Side.PROVIDER) == 5


async def test_a_predecessor_that_still_works_is_refused(bench, make, leases):
    """Two processes of one name: the elder loses its leases, and can move nothing any more."""
    batch = make.batch()
    line = make.line(batch)
    await bench.sets.accept([batch], [line])
    elder = await leases.lease("east-00000001", Side.INQUIRER, SHARDS, 1000)
    await leases.succeed("east-00000002", Side.INQUIRER)
    younger = await leases.lease("east-00000002", Side.INQUIRER, SHARDS, 1000)
    step = make.settle(line, InquiryState.STOPPED, Outcome.STOPPED)
    with pytest.raises(Problem, match="stale_lease"):
        await leases.settle_inquiries(elder, [step])
    with pytest.raises(Problem, match="stale_lease"):
        await leases.take_inquiries(elder, 10)
    assert await leases.lease("east-00000001", Side.INQUIRER, SHARDS, 1000) == [], (
        "it holds nothing that it could renew"
    )
    assert await leases.settle_inquiries(younger, [step]) == ["applied"]


async def test_a_predecessors_set_in_flight_is_not_waited_for_and_keeps_its_shard_until_it_ends(bench, make, leases):
    elder = await leases.lease("east-00000001", Side.INQUIRER, SHARDS, 1000)
    async with stage_in_flight(bench, 1, elder) as shard:
        async with asyncio.timeout(5):
            assert await leases.succeed("east-00000002", Side.INQUIRER) == SHARDS
            taken = await leases.lease("east-00000002", Side.INQUIRER, SHARDS, 1000)
        assert shards(taken) == set(range(SHARDS)) - {shard}
    assert shards(await leases.lease("east-00000002", Side.INQUIRER, SHARDS, 1000)) == set(range(SHARDS))


@contextlib.asynccontextmanager
async def renewal_in_flight(cell, owner):
    """Hold a worker's row as its renewal holds it until its commit."""
    connection = await cell.admin()
    try:
        async with connection.transaction():
            await connection.execute("UPDATE chukan.workers SET until = now() WHERE owner = $1", owner)
            yield
    finally:
        await connection.close()


async def test_a_worker_row_that_is_just_written_holds_nobody_up(bench, cell, leases):
    await leases.worker_share("east-00000001", Side.INQUIRER, 1000)
    async with renewal_in_flight(cell, "east-00000001"), asyncio.timeout(5):
        await leases.succeed("east-00000002", Side.INQUIRER)
    await leases.succeed("east-00000002", Side.INQUIRER)
    assert await bench.admin.fetchval("SELECT count(*) FROM chukan.workers") == 0


async def test_succeeding_and_renewing_at_once_never_end_in_a_circle(leases):
    async def live(owner):
        for _ in range(8):
            await leases.succeed(owner, Side.INQUIRER)
            await leases.worker_share(owner, Side.INQUIRER, 0)
            await leases.lease(owner, Side.INQUIRER, SHARDS, 10)
            await leases.release(owner)

    async with asyncio.timeout(60):
        await asyncio.gather(*(live(f"east-0000000{n}") for n in range(6)))
    assert len(await leases.lease("west-00000001", Side.INQUIRER, SHARDS, 10)) == SHARDS


async def test_an_owner_without_a_number_of_its_own_is_a_defect(leases):
    with pytest.raises(Problem, match="internal"):
        await leases.succeed("east", Side.INQUIRER)
