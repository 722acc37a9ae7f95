"""Two commits that keep the same two lists as evidence never wait for each other in a circle."""

import asyncio
import uuid

CALL = "SELECT chukan.keep_messages($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)"
LOOKS_MAX = 1000


def keeping(*lists):
    """The columns of as many messages of agency 1, each of another list."""
    count = len(lists)
    rows, agency = list(range(1, count + 1)), [1] * count
    ids, lines = ([uuid.uuid4() for _ in range(count)] for _ in range(2))
    words = ["stored"] * count
    return (words, agency, list(lists), [b"list"] * count, rows, words, agency, ids, lines, list(lists), [b"m"] * count)


async def waits(admin):
    for _ in range(LOOKS_MAX):
        if await admin.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = 'transactionid'"):
            return
        await admin.execute("SELECT pg_sleep(0.01)")
    raise AssertionError("nobody waits")


async def test_lists_that_two_commits_share_are_taken_in_order(bench):
    first, second = sorted([uuid.uuid4(), uuid.uuid4()])
    one, two = [await bench.admin_too() for _ in range(2)]
    transaction = one.transaction()
    await transaction.start()
    await one.fetch(CALL, *keeping(first))
    other = asyncio.create_task(two.fetch(CALL, *keeping(second, first)))
    await waits(bench.admin)
    await one.fetch(CALL, *keeping(second))
    await transaction.commit()
    async with asyncio.timeout(30):
        await other
    kept = await bench.admin.fetchval("SELECT count(*) FROM a00001.messages WHERE id = ANY ($1)", [first, second])
    assert kept == 2
