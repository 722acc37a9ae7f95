"""Fixtures of the crash tests: a town for each file, its journal, and the seed from which moments are chosen."""

import os
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from typing import TypeVar

import pytest
import pytest_asyncio

from chukan.chance import SeededChance
from chukan.clock import SystemClock
from chukan.tests.crash.customers import Asked
from chukan.tests.crash.journal import Journal
from chukan.tests.crash.town import Town, town

SEED_VARIABLE = "CHUKAN_CRASH_SEED"
T = TypeVar("T")


class Moments:
    """Choices from one seed; the same seed gives the same choices."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._chance = SeededChance(seed, SystemClock())

    def number(self, first: int, last: int) -> int:
        """Return a whole number from ``first`` to ``last``."""
        return first + int.from_bytes(self._chance.token(8), "big") % (last - first + 1)

    def one_of(self, things: Sequence[T]) -> T:
        """Return one of some things."""
        return things[self.number(0, len(things) - 1)]


@pytest.fixture
def make_moments() -> Callable[[int], Moments]:
    """Make choices from a seed."""
    return Moments


@pytest.fixture
def moments(request: pytest.FixtureRequest) -> Moments:
    """Choices of one test: from CHUKAN_CRASH_SEED, or fresh; printed, so that a failure can be repeated."""
    given = os.environ.get(SEED_VARIABLE)
    seed = int(given) if given else int.from_bytes(os.urandom(4), "big")
    sys.stderr.write(f"\nRepeat with {SEED_VARIABLE}={seed} ./chukan test --full {request.node.nodeid}\n")
    return Moments(seed)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def here() -> AsyncIterator[Town]:
    """A town with both exchanges at work."""
    async with town() as built:
        yield built


@pytest.fixture(scope="module")
def journal(here: Town) -> Journal:
    """What the customers of this town were told; all tests of a file write to the same."""
    return Journal(here.root / "journal.ndjson")


@pytest.fixture(scope="module")
def asked(here: Town, journal: Journal) -> Asked:
    """The lists that this town's customers have sent."""
    return Asked(here, journal)
