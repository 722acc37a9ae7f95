"""The client can lose what the servers kept (DESIGN §7): each rule broken loses, each rule kept does not.

Every test has both halves on real servers: a careless client that breaks the rule gets its acknowledgements, and they
are gone on the promoted standby; our own code, in the same plight, acknowledges nothing that is not there afterwards.
"""

import asyncio
import contextlib
import datetime as dt
import hashlib
import os
import uuid
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from chukan.errors import Problem
from chukan.replication.primary import Cells, bounded
from chukan.tenants.partition import act_for
from chukan.tenants.rows import AcceptBatch, AcceptLine, InquirySettle, RecordRow
from chukan.tenants.sets import CellSets
from chukan.tenants.states import InquiryState, Outcome
from chukan.tests.replication.pair import Pair, absent, pause, until

COUNT = 10
"""How many writes each half makes."""
SHORT_S = 0.5
OURS_S = 2.0
"""Our own deadline in these tests: long enough to connect anew on a busy machine."""
NOT_YET = "unavailable|busy"
"""What our code says at its deadline: in a statement, or (on a busy machine) while it connects anew."""
UPSERT = "INSERT INTO public.careless (key) VALUES ($1) ON CONFLICT (key) DO UPDATE SET tries = careless.tries + 1"
NOTHING = "INSERT INTO public.careless (key) VALUES ($1) ON CONFLICT (key) DO NOTHING"
FAR = dt.datetime(2099, 1, 1, tzinfo=dt.UTC)


def digest() -> bytes:
    return hashlib.sha256(os.urandom(16)).digest()


def request(agency: int = 1) -> tuple[AcceptBatch, AcceptLine]:
    """A list of one line with an Idempotency-Key of its own."""
    batch = AcceptBatch(agency=agency, generation=1, key=digest(), body=digest(), batch=uuid.uuid4())
    line = AcceptLine(
        agency=agency,
        batch=batch.batch,
        id=uuid.uuid4(),
        ordinal=0,
        state=InquiryState.ACCEPTED,
        outcome=Outcome.NONE,
        reason=None,
        due=FAR,
        deadline=FAR,
        person=digest(),
        request=b"sealed request",
        outbox=b"sealed permit request",
    )
    return batch, line


def cancelled(line: AcceptLine) -> InquirySettle:
    """The end of a line."""
    record = RecordRow(
        id=line.id,
        label=digest(),
        month=dt.date(2026, 11, 1),
        sealed=b"sealed record",
        commitment=digest(),
        amends=None,
    )
    return InquirySettle(
        agency=line.agency,
        id=line.id,
        state=InquiryState.CANCELLED,
        outcome=Outcome.CANCELLED,
        reason=None,
        due=FAR,
        deadline=FAR,
        record=record,
    )


@contextlib.asynccontextmanager
async def ours(pair: Pair, timeout_s: float) -> AsyncIterator[CellSets]:
    """Our own way to the primary, with a deadline for each call."""
    async with Cells({"here": pair.cell}) as cells:
        yield CellSets(cells.primary("here").broker, timeout_s=timeout_s)


def patient(sets: CellSets) -> CellSets:
    """The same way, for reading: nothing that is read waits for a standby, but a busy machine may be slow."""
    return CellSets(sets._pool, timeout_s=30.0)


async def lines_kept(heir: Any, lines: list[AcceptLine]) -> int:
    """How many of our lines stand on the promoted standby, with their keys."""
    return int(
        await heir.fetchval(
            "SELECT count(*) FROM a00001.queries q JOIN chukan.inquiry_work w USING (id) WHERE q.id = ANY ($1)",
            [line.id for line in lines],
        )
    )


async def careless_writes(connection: Any, sql: str, keys: list[int], timeout_s: float | None = None) -> list[int]:
    """Write keys one after another as a driver does; return those that were acknowledged."""
    acknowledged = []
    for key in keys:
        with contextlib.suppress(TimeoutError, asyncpg.PostgresError):
            await connection.execute(sql, key, timeout=timeout_s)
            acknowledged.append(key)
    return acknowledged


@pytest.mark.requirement("CON-01")
async def test_a_retry_that_writes_nothing_is_acknowledged_and_lost(pair: Pair) -> None:
    """Time out, cancel, repeat with DO NOTHING: the repeat says that all is done, in milliseconds."""
    keys = list(range(COUNT))
    mine = [request() for _ in range(2)]
    await pair.cut()
    async with pair.careless() as client:
        first = await careless_writes(client, NOTHING, keys, timeout_s=SHORT_S)
        again = await careless_writes(client, NOTHING, keys, timeout_s=SHORT_S)
        upserted = await careless_writes(client, UPSERT, keys[:2], timeout_s=SHORT_S)
    async with ours(pair, OURS_S) as sets:
        for _ in range(2):  # the first try and its repeat
            for batch, line in mine:
                with pytest.raises(Problem, match=NOT_YET):
                    await sets.accept([batch], [line])
    heir = await pair.fail_over()
    assert (first, again, upserted) == ([], keys, []), "the repeat was acknowledged, the writing repeat was not"
    assert await absent(heir, again) == keys, "all of what was acknowledged is lost"
    assert await lines_kept(heir, [line for _, line in mine]) == 0
    await heir.close()


@pytest.mark.requirement("CON-01")
async def test_a_repeat_of_ours_is_acknowledged_once_it_is_safe_and_kept(pair: Pair) -> None:
    mine = [request() for _ in range(COUNT)]
    await pair.cut()
    async with ours(pair, OURS_S) as sets:
        with pytest.raises(Problem, match=NOT_YET):
            await sets.accept([batch for batch, _ in mine], [line for _, line in mine])
        await pair.mend()
        again = await sets.accept([batch for batch, _ in mine], [line for _, line in mine])
    assert [(each.batch, each.same_body) for each in again] == [(batch.batch, True) for batch, _ in mine]
    heir = await pair.fail_over()
    assert await lines_kept(heir, [line for _, line in mine]) == COUNT
    await heir.close()


async def test_a_cancel_shows_what_is_not_safe_and_a_dropped_connection_does_not(pair: Pair) -> None:
    """Whoever looks at what a cancelled commit left finds it done; behind a dropped connection there is nothing."""
    keys = list(range(COUNT))
    batch, line = request()
    await pair.cut()
    async with pair.careless() as client:
        await careless_writes(client, UPSERT, keys, timeout_s=SHORT_S)
        seen = [row["key"] for row in await client.fetch("SELECT key FROM public.careless ORDER BY key")]
        async with ours(pair, OURS_S) as sets:
            with pytest.raises(Problem, match=NOT_YET):
                await sets.accept([batch], [line])
            assert await pair.waiting() == 1, "the commit of a dropped connection waits on"
            assert await patient(sets).inquiry_views(1, batch=batch.batch) == [], "nobody sees it before it is safe"
    heir = await pair.fail_over()
    assert seen == keys
    assert await absent(heir, seen) == keys, "what a reader was told is lost"
    await heir.close()


async def test_a_commit_whose_wait_was_cancelled_is_no_success(pair: Pair) -> None:
    """Somebody cancels the wait on the server: the client gets INSERT 0 1 and a warning that nobody reads."""
    batch, line = request()
    await pair.cut()
    admin = await pair.admin()

    async def cancel_waiting() -> None:
        await until(pair.waiting, "a commit that waits")
        await admin.execute("SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'")

    acknowledged = []
    async with pair.careless() as client:
        for key in range(COUNT):
            status, _ = await asyncio.gather(client.execute(UPSERT, key), cancel_waiting())
            if status == "INSERT 0 1":
                acknowledged.append(key)
        # The same through our own eyes: an error.
        with pytest.raises(Problem, match=NOT_YET):
            await asyncio.gather(bounded(client, client.execute(UPSERT, COUNT), 10.0), cancel_waiting())
    async with ours(pair, 10.0) as sets:
        canceller = asyncio.create_task(cancel_waiting())
        with pytest.raises(Problem, match=NOT_YET):
            await sets.accept([batch], [line])
        await canceller
    await admin.close()
    heir = await pair.fail_over()
    assert acknowledged == list(range(COUNT))
    assert await absent(heir, acknowledged) == acknowledged, "all of what was acknowledged is lost"
    await heir.close()


async def test_already_done_is_not_answered_before_it_is_safe(pair: Pair) -> None:
    """A commit that lost its connection on the server stands there for all to see, and is not safe."""
    keys = list(range(COUNT))
    mine = [request() for _ in range(3)]
    async with ours(pair, 10.0) as sets:
        await sets.accept([batch for batch, _ in mine], [line for _, line in mine])
    await pair.cut()
    admin = await pair.admin()

    async def end_waiting() -> None:
        await until(pair.waiting, "a commit that waits")
        await admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'")

    for key in keys:
        async with pair.careless() as client:
            done, _ = await asyncio.gather(client.execute(UPSERT, key), end_waiting(), return_exceptions=True)
            assert isinstance(done, Exception)
    async with ours(pair, OURS_S) as sets:
        closing = asyncio.gather(
            sets.close_inquiries([cancelled(line) for _, line in mine]), end_waiting(), return_exceptions=True
        )
        assert isinstance((await closing)[0], Problem)
        views = await patient(sets).inquiry_views(1, ids=[line.id for _, line in mine])
        assert {view.state for view in views} == {InquiryState.CANCELLED}, "it stands there for all to see"
        # A careless client looks and answers; ours finds it done too, and waits until that is safe.
        async with pair.careless() as client:
            found = [row["key"] for row in await client.fetch("SELECT key FROM public.careless ORDER BY key")]
            assert found == keys
            fenced = client.execute("SELECT pg_logical_emit_message(true, 'fence', '')")
            with pytest.raises(Problem, match=NOT_YET):
                await bounded(client, fenced, SHORT_S)
        with pytest.raises(Problem, match=NOT_YET):
            await sets.close_inquiries([cancelled(line) for _, line in mine])
        with pytest.raises(Problem, match=NOT_YET):
            await sets.collect(1, 1, [line.id for _, line in mine])
    await admin.close()
    heir = await pair.fail_over()
    assert await absent(heir, found) == keys, "what was found done is lost"
    states = await heir.fetch(
        "SELECT DISTINCT state FROM chukan.inquiry_work WHERE id = ANY ($1)", [line.id for _, line in mine]
    )
    assert [row["state"] for row in states] == [InquiryState.ACCEPTED], "and so is what we answered to nobody"
    await heir.close()


async def test_what_a_restart_in_place_shows_is_not_safe_either(pair: Pair) -> None:
    """The primary is killed while commits wait and comes back on its own data: they stand there for all to see."""
    batch, line = request()
    await pair.cut()
    async with ours(pair, OURS_S) as sets:
        with pytest.raises(Problem, match=NOT_YET):
            await sets.accept([batch], [line])
    async with pair.careless() as client:
        with pytest.raises(TimeoutError):
            await client.execute(UPSERT, 1, timeout=SHORT_S)
    await asyncio.to_thread(pair.first.kill)
    await asyncio.to_thread(pair.first.start)
    pair.cell = pair._cell(pair.first.socket_dir)
    async with pair.careless() as client:
        assert [row["key"] for row in await client.fetch("SELECT key FROM public.careless")] == [1]
    async with ours(pair, OURS_S) as sets:
        assert [view.id for view in await patient(sets).inquiry_views(1, batch=batch.batch)] == [line.id]
        with pytest.raises(Problem, match=NOT_YET):
            await sets.accept([batch], [line])
    heir = await pair.fail_over()
    assert await absent(heir, [1]) == [1]
    assert await lines_kept(heir, [line]) == 0
    await heir.close()


async def test_a_key_twice_in_one_statement_fails_it_and_ours_are_split(pair: Pair) -> None:
    async with pair.careless() as client:
        with pytest.raises(asyncpg.CardinalityViolationError):
            await client.execute(
                "INSERT INTO public.careless (key) SELECT unnest($1::int[]) ON CONFLICT (key) DO UPDATE"
                " SET tries = careless.tries + 1",
                [1, 2, 3, 2],
            )
        assert await client.fetchval("SELECT count(*) FROM public.careless") == 0, "the others' writes failed with it"
    (one, line), (two, other) = request(), request(2)
    twin = AcceptBatch(agency=1, generation=1, key=one.key, body=one.body, batch=uuid.uuid4())
    async with ours(pair, 10.0) as sets:
        results = await sets.accept([one, twin, two], [line, other])
    assert [(each.batch, each.fresh) for each in results] == [(one.batch, True), (one.batch, False), (two.batch, True)]


async def test_a_session_that_does_not_wait_acknowledges_what_is_lost_and_ours_is_refused(pair: Pair) -> None:
    keys = list(range(COUNT))
    admin = await pair.admin()
    await admin.execute("ALTER ROLE chukan_broker SET synchronous_commit = local")
    await pair.cut()
    async with pair.careless() as client:
        await client.execute("SET synchronous_commit = local")
        acknowledged = await careless_writes(client, UPSERT, keys)
    async with ours(pair, 10.0) as sets:
        with pytest.raises(Problem, match="unavailable"):
            await sets.canary()
    await admin.close()
    heir = await pair.fail_over()
    assert acknowledged == keys
    assert await absent(heir, acknowledged) == keys, "all of what was acknowledged is lost"
    await heir.close()


async def test_a_short_deadline_fails_everybody_while_a_standby_is_dropped(pair: Pair) -> None:
    """For some seconds every commit waits until the dead standby is taken off the list; a long deadline sits it out."""
    keys = list(range(COUNT))
    mine = [request() for _ in range(COUNT)]
    await pair.cut()

    async def dropped() -> None:
        await pause(4 * SHORT_S)
        admin = await pair.admin()
        await admin.execute("ALTER SYSTEM SET synchronous_standby_names = ''")
        await admin.execute("SELECT pg_reload_conf()")
        await admin.close()

    async def hasty(key: int) -> bool:
        async with pair.careless() as client:
            return bool(await careless_writes(client, UPSERT, [key], timeout_s=SHORT_S))

    dropping = asyncio.create_task(dropped())
    async with ours(pair, 30.0) as sets:
        kept, *failed = await asyncio.gather(
            sets.accept([batch for batch, _ in mine], [line for _, line in mine]), *(hasty(key) for key in keys)
        )
    await dropping
    assert failed == [False] * COUNT
    assert [each.fresh for each in kept] == [True] * COUNT


async def test_a_transaction_of_one_agency_waits_and_is_dropped_in_the_same_way(pair: Pair) -> None:
    """Door 1: the COMMIT is what waits; past its deadline the connection is dropped and nobody sees anything."""
    key = digest()
    sql = "INSERT INTO a00001.idempotency (agency, key, body, outcome) VALUES (1, $1, $1, gen_random_uuid())"
    await pair.cut()
    async with Cells({"here": pair.cell}) as cells:
        with pytest.raises(Problem, match=NOT_YET):
            async with act_for(cells.primary("here").app, 1, timeout_s=OURS_S) as partition:
                await partition.execute(sql, key)
        async with act_for(cells.primary("here").app, 1) as partition:
            assert await partition.fetchval("SELECT count(*) FROM a00001.idempotency WHERE key = $1", key) == 0
    heir = await pair.fail_over()
    assert await heir.fetchval("SELECT count(*) FROM a00001.idempotency WHERE key = $1", key) == 0
    await heir.close()


@pytest.mark.requirement("CON-01")
async def test_what_is_found_done_by_reading_is_confirmed_before_it_is_said(pair: Pair) -> None:
    """A cancel that was done before, a snapshot that stands already: the answer waits for a commit of its own."""
    async with ours(pair, OURS_S) as sets:
        await until(lambda: _confirmed(sets), "a connection")
        await pair.cut()
        with pytest.raises(Problem, match=NOT_YET):
            await sets.confirm()
        await pair.mend()
        await until(lambda: _confirmed(sets), "a commit")


async def _confirmed(sets: CellSets) -> bool:
    try:
        await sets.confirm()
    except Problem:
        return False
    return True
