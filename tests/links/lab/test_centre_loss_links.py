"""A centre is lost with its gateway, its exchange and its databases: a municipality's queries go on, unattended.

Nobody confirms the loss: the cell waits for the end of its leader's lease, the device for its own probes.
"""

import asyncio
import time
from collections.abc import Iterator

import pytest

from chukan.ops.demo import cast
from chukan.ops.sandbox.agency_client import AgencyClient
from chukan.ops.sandbox.transport import ClientError
from chukan.platform.wire.agency import Queries, QueryLine
from chukan.tests.centres.conftest import print_ends_of_logs
from chukan.tests.links.lab.linked_lab import LinkedLab, look_again

SETAGAYA, KOBE, NAHA = BODIES = ("131121", "281000", "472018")
BACK_MAX_S = 30.0
RETURNED_S = 120.0

pytestmark = pytest.mark.full


@pytest.fixture(scope="module")
def lab(request: pytest.FixtureRequest) -> Iterator[LinkedLab]:
    failed = request.session.testsfailed
    with LinkedLab("test-links-loss", BODIES) as standing:
        yield standing
        if request.session.testsfailed > failed:
            print_ends_of_logs(standing.place.lab)


async def asked(one: AgencyClient, line: QueryLine) -> bool:
    try:
        await one.query(Queries(lines=[line]))
    except ClientError:
        return False
    return True


@pytest.mark.requirement("TEN-03", "PLT-01", "PLT-02")
def test_queries_through_the_tunnels_succeed_again_within_half_a_minute(lab: LinkedLab) -> None:
    line = next(query.line for query in lab.planned if query.inquirer == cast.head(SETAGAYA))

    async def lose() -> tuple[float, str]:
        async with lab.client(SETAGAYA) as one:
            first = await one.query(Queries(lines=[line]), wait_s=5)
            assert first.lines[0].id is not None
            await lab.stage.lose_centre("east")
            lost = time.monotonic()
            async with asyncio.timeout(3 * BACK_MAX_S):
                while not await asked(one, line):
                    await look_again(0.2)
            return time.monotonic() - lost, await lab.led_to(SETAGAYA)

    back_s, centre = lab.run(lose())
    assert back_s < BACK_MAX_S
    assert centre == "west"


@pytest.mark.requirement("TEN-03", "PLT-01")
def test_the_centre_that_is_back_has_its_links_back(lab: LinkedLab) -> None:
    async def back() -> None:
        await lab.stage.return_centre("east")
        await lab.stage.settled(RETURNED_S)
        await lab.until_led_to(SETAGAYA, "east", RETURNED_S)

    lab.run(back())
    assert [(each.up, each.links) for each in lab.run(lab.stage.picture()).links] == [(3, 3), (3, 3)]
