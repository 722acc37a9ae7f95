"""An exchange that is killed and starts again goes on at once: it takes over from its own predecessor."""

import asyncio
import datetime as dt
import types

import pytest

from chukan.clock import ManualClock
from chukan.errors import Problem
from chukan.ops.sandbox.endpoints import pause
from chukan.platform.exchange.leases import TTL_S, Leases
from chukan.tenants.rows import Grant
from chukan.tenants.states import SHARDS, Side

ASKS, GIVES = "9901131121000001", "9901011002000001"


class Cell:
    """Set functions that note their calls, and fail as often as they are told to."""

    def __init__(self, failures=0):
        self.calls = []
        self.failures = failures

    async def succeed(self, owner, side):
        self.calls.append(("succeed", owner, side))
        if self.failures:
            self.failures -= 1
            raise Problem("no_primary", retry_after_s=1)
        return 3

    async def worker_share(self, _owner, _side, _ttl_s):
        self.calls.append("worker_share")
        return 2

    async def lease(self, _owner, side, want, _ttl_s):
        self.calls.append("lease")
        return [Grant(side, shard, 1) for shard in range(want)]


def leases(cell):
    clock = ManualClock(dt.datetime(2026, 1, 1, tzinfo=dt.UTC))
    meter = types.SimpleNamespace(leases=lambda *_: None)
    context = types.SimpleNamespace(sets={"east": cell}, clock=clock, meter=meter)
    return Leases(context, "east", Side.INQUIRER, "east-0000000a", lambda: None)


async def test_it_succeeds_once_before_its_first_lease():
    cell = Cell()
    mine = leases(cell)
    for _ in range(3):
        await mine.renew()
    first = ("succeed", "east-0000000a", Side.INQUIRER)
    assert cell.calls == [first, *["worker_share", "lease"] * 3]
    assert len(mine.grants()) == 2


async def test_while_the_cell_is_away_it_tries_again_with_each_renewal():
    cell = Cell(failures=2)
    mine = leases(cell)
    for _ in range(2):
        await mine.renew()
        assert mine.grants() == []
    await mine.renew()
    await mine.renew()
    succeed = ("succeed", "east-0000000a", Side.INQUIRER)
    assert cell.calls == [succeed, succeed, succeed, "worker_share", "lease", "worker_share", "lease"]


async def held_by(admin, name):
    """How many leases of both sides processes of this name hold."""
    return await admin.fetchval("SELECT count(*) FROM chukan.leases WHERE owner LIKE $1 AND until > now()", f"{name}-%")


@pytest.mark.requirement("TXR-03")
async def test_a_killed_exchange_that_starts_again_works_before_its_old_leases_have_run_out(nation):
    """Both were alone; the killed one gave nothing back. A new one of its name answers within a part of their term."""
    addressee = await nation.person(ASKS, GIVES)
    await nation.sites["west"].stop()
    admin = await nation.admin(nation.databases["east"])
    async with asyncio.timeout(30):
        while await held_by(admin, "east") < 2 * SHARDS:
            await pause(0.05, asyncio.Event())
    killed = nation.sites["east"]
    await kill(killed)
    assert await held_by(admin, "east") == 2 * SHARDS
    began = nation.clock.monotonic()
    await nation.start_site("east")
    done = await nation.answered(ASKS, await nation.ask(ASKS, [nation.line(addressee, GIVES)]))
    took_s = nation.clock.monotonic() - began
    assert [line.outcome for line in done.lines] == ["provided"]
    owners = await admin.fetch("SELECT DISTINCT owner FROM chukan.leases WHERE owner IS NOT NULL")
    assert [row["owner"] for row in owners] == [nation.east.owner]
    await admin.close()
    assert took_s < TTL_S / 2, f"it took {took_s:.1f} s"
    await nation.start_site("west")


async def kill(site):
    """End a site as a kill does: nothing is finished, nothing is given back."""
    await site.listener.stop()
    for task in list(site.exchange._tasks):
        task.cancel()
    await asyncio.gather(*site.exchange._tasks, return_exceptions=True)
    await site.peer.close()
    await site.cells.close()
