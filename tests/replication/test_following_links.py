"""A gateway's process follows the leader with its own login alone, and a lease outlives the failover that lost it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import msgspec
import pytest

from chukan.errors import Problem
from chukan.replication.primary import Cells
from chukan.tenants.links import LinkController
from chukan.tests.replication.fake_members import FakeMember, serving
from chukan.tests.replication.pair import Pair, until

pytestmark = pytest.mark.requirement("TEN-03", "CON-01")


@pytest.fixture
async def following(pair: Pair) -> AsyncIterator[tuple[LinkController, FakeMember, FakeMember]]:
    admin = await pair.admin()
    system = await admin.fetchval("SELECT system_identifier::text FROM pg_control_system()")
    await admin.close()
    first, second = FakeMember("first", system=system), FakeMember("second", system=system)
    first.lead(1)
    async with serving(first, second) as urls:
        cell = pair.members(urls)
        alone = msgspec.structs.replace(
            cell,
            broker_password_file=None,
            app_password_file=None,
            steward_password_file=None,
            links_password_file=cell.broker_password_file.with_name("chukan_links"),
        )
        async with Cells({"here": alone}) as cells:
            yield LinkController(cells, "here"), first, second


async def asked(controller: LinkController) -> int | None:
    with contextlib.suppress(Problem):
        return await controller.number()
    return None


async def test_a_gateway_follows_the_leader_and_nobody_takes_a_lease_that_may_still_be_held(
    pair: Pair, following: tuple[LinkController, FakeMember, FakeMember]
) -> None:
    controller, first, second = following
    heard: asyncio.Queue[None] = asyncio.Queue()
    listening = asyncio.create_task(controller.hear(lambda: heard.put_nowait(None)))
    try:
        epoch = await controller.hold_service("east", "east-1", 60.0)
        assert epoch is not None
        async with asyncio.timeout(20):
            await heard.get()
        await pair.settled()
        first.black_hole = True
        heir = await pair.fail_over()
        # As if the last renewals had not reached the standby.
        await heir.execute("UPDATE chukan.link_service SET until = now() - interval '1 hour'")
        second.lead(2)

        async def met() -> bool:
            return await asked(controller) is not None

        await until(met, "the gateway asks at the new leader")
        async with asyncio.timeout(20):
            await heard.get()
        assert await controller.hold_service("west", "west-1", 60.0) is None
        assert (await controller.hold_service("east", "east-1", 60.0) or 0) > epoch
        await heir.close()
    finally:
        listening.cancel()
        await asyncio.wait({listening})
