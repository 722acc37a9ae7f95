"""Who waits for lines is woken once, by what concerns them, and looks into the tables whatever was heard."""

import asyncio
import uuid

from chukan.clock import SystemClock
from chukan.platform.exchange.waiters import Waiters
from chukan.tenants.states import shard_of

LINES = [uuid.UUID(int=n) for n in range(1, 4)]
DEADLINE_S = 10.0


class Table:
    """What a look finds: the lines that are open, and how often it was looked."""

    def __init__(self) -> None:
        self.open = set(LINES)
        self.looks = 0
        self.looked = asyncio.Event()

    async def look(self) -> tuple[bool, set[uuid.UUID]]:
        self.looks += 1
        self.looked.set()
        return not self.open, set(self.open)


async def looked(table: Table) -> None:
    async with asyncio.timeout(DEADLINE_S):
        await table.looked.wait()
    table.looked.clear()
    for _ in range(3):  # the waiter goes on to wait
        await asyncio.get_running_loop().run_in_executor(None, lambda: None)


async def test_a_list_is_looked_at_again_when_its_last_line_was_heard_of():
    waiters, table = Waiters(SystemClock()), Table()
    waiting = asyncio.create_task(waiters.until("east", 7, table.look, 0.9, lambda found: found))
    await looked(table)
    waiters.changed("east", 7, LINES[:1])
    waiters.changed("east", 7, LINES[1:2])
    waiters.changed("east", 8, LINES[2:])
    waiters.changed("west", 7, LINES[2:])
    for _ in range(3):
        await asyncio.get_running_loop().run_in_executor(None, lambda: None)
    assert table.looks == 1
    table.open.clear()
    waiters.changed("east", 7, LINES[2:])
    assert await waiting == set()
    assert table.looks == 2


async def test_what_is_not_known_to_be_about_other_lines_wakes():
    waiters, table = Waiters(SystemClock()), Table()
    waiting = asyncio.create_task(waiters.until("east", 7, table.look, DEADLINE_S, lambda found: found))
    await looked(table)
    waiters.changed("east", 7)
    await looked(table)
    waiters.hint("east", frozenset({shard_of(7)}))
    await looked(table)
    table.open.clear()
    waiters.hint("east", frozenset({shard_of(7)}))
    assert await waiting == set()
    assert table.looks == 4


async def test_a_hint_about_other_shards_wakes_nobody():
    waiters, table = Waiters(SystemClock()), Table()
    waiting = asyncio.create_task(waiters.until("east", 7, table.look, 0.9, lambda found: found))
    await looked(table)
    waiters.hint("east", frozenset(range(64)) - {shard_of(7)})
    waiters.hint("west", frozenset({shard_of(7)}))
    assert await waiting == set(LINES)
    assert table.looks == 2, "once at first, once when the time was over"


async def test_nothing_heard_is_looked_at_all_the_same():
    waiters, table = Waiters(SystemClock()), Table()
    waiting = asyncio.create_task(waiters.until("east", 7, table.look, DEADLINE_S, lambda found: found))
    await looked(table)
    table.open.clear()
    assert await waiting == set(), "by itself, within its deadline"


async def test_a_change_during_the_look_is_not_missed():
    waiters = Waiters(SystemClock())
    table = Table()

    async def look() -> tuple[bool, set[uuid.UUID]]:
        found = await table.look()
        if table.looks == 1:
            waiters.changed("east", 7, LINES)  # after it was read, before anybody knows what is awaited
            table.open.clear()
        return found

    assert await waiters.until("east", 7, look, 0.9, lambda found: found) == set()
    assert table.looks == 2


async def test_told_is_true_only_when_each_line_was_heard_to_be_final():
    waiters = Waiters(SystemClock())
    told = asyncio.create_task(waiters.told("east", 7, LINES, DEADLINE_S))
    await asyncio.get_running_loop().run_in_executor(None, lambda: None)
    waiters.changed("east", 7, LINES[:2])
    waiters.changed("east", 7, LINES[2:])
    assert await told is True
    told = asyncio.create_task(waiters.told("east", 7, LINES, DEADLINE_S))
    await asyncio.get_running_loop().run_in_executor(None, lambda: None)
    waiters.hint("east", frozenset({shard_of(7)}))
    assert await told is False, "a hint tells of no line: it is time to look"
    assert await waiters.told("east", 7, LINES, 0.01) is False
