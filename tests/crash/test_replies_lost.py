"""Both exchanges die after a commit and before anybody hears of it, at each kind of commit of the main job.

A lock in the database holds the statement up until it is seen to wait there; then the exchanges are killed and the lock
is given back. The commit happens, its caller is dead: whoever asks again must get the first outcome.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Any, Final, NamedTuple

import pytest

from chukan.ops.demo.bring_up import EXCHANGES
from chukan.ops.demo.databases import CELLS
from chukan.tests.crash.customers import Asked, lists
from chukan.tests.crash.evidence import judge
from chukan.tests.crash.journal import Journal
from chukan.tests.crash.town import LOOK_S, Town, wait

LINES: Final = 60
DEADLINE_S: Final = 30.0
pytestmark = [pytest.mark.full, pytest.mark.asyncio(loop_scope="module")]


class Commit(NamedTuple):
    """A set function, what it waits for where that is locked, and how its effect is seen (``{schema}``: each agency's).

    A table in SHARE mode holds up whoever writes into it; a row held FOR UPDATE whoever must know that it stays.
    """

    function: str
    lock: str
    effect: str


COMMITS: Final = (
    Commit("accept", "LOCK TABLE {schema}.queries IN SHARE MODE", "count(*) FROM {schema}.queries"),
    Commit("settle_inquiries", "LOCK TABLE {schema}.permits IN SHARE MODE", "count(*) FROM {schema}.permits"),
    Commit("provide", "LOCK TABLE {schema}.provisions IN SHARE MODE", "count(*) FROM {schema}.provisions"),
    Commit(
        "settle_provisions",
        "SELECT shard FROM chukan.leases WHERE side = 2 FOR UPDATE",
        "sum(tries) FROM chukan.provision_work",
    ),
    Commit("deliver_answers", "LOCK TABLE {schema}.answers IN SHARE MODE", "count(*) FROM {schema}.answers"),
    Commit("sequence", "LOCK TABLE {schema}.log IN SHARE MODE", "count(*) FROM {schema}.log"),
)
_WAITING: Final = """
SELECT count(*) FROM pg_stat_activity
WHERE wait_event_type = 'Lock' AND query LIKE 'SELECT * FROM chukan.' || $1 || '(%'
"""
_BUSY: Final = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'chukan_broker' AND state = 'active'"


class Brake:
    """Holds a function up in both cells while it is pulled."""

    def __init__(self, commit: Commit, holders: Sequence[Any], watchers: Sequence[Any]) -> None:
        self._commit = commit
        self._holders, self._watchers = holders, watchers

    async def pull(self) -> None:
        """Take the locks."""
        for holder in self._holders:
            await holder.execute("BEGIN")
            for words in await self._each(holder, self._commit.lock):
                await holder.execute(words)

    async def waiting(self) -> None:
        """Return when the function waits in a cell."""
        async with asyncio.timeout(DEADLINE_S):
            while not sum([await one.fetchval(_WAITING, self._commit.function) for one in self._watchers]):
                await wait(LOOK_S)

    async def let_go(self) -> None:
        """Give the locks back, and return when whatever waited has ended."""
        for holder in self._holders:
            await holder.execute("COMMIT")
        async with asyncio.timeout(DEADLINE_S):
            while sum([await one.fetchval(_BUSY) for one in self._watchers]):
                await wait(LOOK_S)

    async def effect(self) -> int:
        """Return a number that grows with each effect of the function."""
        found = 0
        for one in self._watchers:
            for words in await self._each(one, f"SELECT {self._commit.effect}"):
                found += await one.fetchval(words) or 0
        return found

    @staticmethod
    async def _each(admin: Any, words: str) -> list[str]:
        numbers = [row[0] for row in await admin.fetch("SELECT agency FROM chukan.agencies ORDER BY agency")]
        return list(dict.fromkeys(words.format(schema=f"a{number:05d}") for number in numbers))


@contextlib.asynccontextmanager
async def brake(town: Town, commit: Commit) -> AsyncIterator[Brake]:
    """Give a brake on a function, and let it go at the end."""
    async with contextlib.AsyncExitStack() as stack:
        admins = []
        for cell in (*CELLS, *CELLS):
            admin = await town.databases.admin(cell)
            stack.push_async_callback(admin.close)
            admins.append(admin)
        yield Brake(commit, admins[: len(CELLS)], admins[len(CELLS) :])


@pytest.mark.requirement("TXR-03")
@pytest.mark.parametrize("commit", COMMITS, ids=lambda commit: commit.function)
async def test_a_commit_of_which_nobody_heard_has_its_effect_once(
    here: Town, asked: Asked, journal: Journal, commit: Commit
) -> None:
    (one,) = lists(here, 1, LINES, run=COMMITS.index(commit))
    async with brake(here, commit) as braked:
        await braked.pull()
        asking = asyncio.create_task(asked.ask(*one))
        await braked.waiting()
        before = await braked.effect()
        for name in EXCHANGES:
            await here.kill(name)
        await braked.let_go()
        assert await braked.effect() > before
    for name in EXCHANGES:
        await here.again(name)
    await asking
    verdict = await judge(here, asked, journal)
    assert verdict.faults == []
    assert verdict.report.differences == []
    assert verdict.report.pending == 0
