"""Officers who decide what is held, through every crash: the first proposes, the second carries out.

An officer whose reply got lost looks at the list again, as a person at a screen does; a decision that was taken
meanwhile is no error.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Final

from chukan.ops.demo import cast
from chukan.ops.sandbox.agency_client import AgencyClient
from chukan.ops.sandbox.transport import ClientError
from chukan.platform.wire.agency import Review, ReviewPrepare
from chukan.tests.crash.town import Town, wait

REFUSED_PROCEDURE: Final = "JTX0000000000007"
"""What is asked under this procedure is refused, the rest provided."""
_LOOK_S: Final = 0.5


async def _decide(first: AgencyClient, second: AgencyClient, review: Review) -> None:
    decision = "refuse" if review.procedure == REFUSED_PROCEDURE else "provide"
    with contextlib.suppress(ClientError):
        await first.prepare_review(review.id, ReviewPrepare(decision=decision))  # type: ignore[arg-type]
        await second.approve_review(review.id)


async def _work(first: AgencyClient, second: AgencyClient) -> None:
    while True:
        with contextlib.suppress(ClientError):
            for review in (await first.reviews()).reviews:
                await _decide(first, second, review)
        await wait(_LOOK_S)


@contextlib.asynccontextmanager
async def officers(town: Town) -> AsyncIterator[None]:
    """Have all officers at work for the time of a block."""
    pairs = [town.systems.officers[cast.head(body)] for body in cast.HEADS]
    working = [asyncio.create_task(_work(*pair)) for pair in pairs]
    try:
        yield
        for task in working:
            if task.done():
                task.result()
    finally:
        for task in working:
            task.cancel()
        await asyncio.gather(*working, return_exceptions=True)
