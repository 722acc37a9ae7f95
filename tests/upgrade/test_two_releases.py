"""Exchanges of the release before and of this one at work at once, on one schema; changed one by one, and back again.

Counters ask the whole time and never repeat anything; what they and everybody else were told is judged at the end, from
their journal. The release before comes from the clone's history: without it these tests fail and say so.
"""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from chukan.ops.demo.bring_up import EXCHANGES
from chukan.tenants.migrate import read_migrations
from chukan.tests.crash.customers import Asked, gathered, lists
from chukan.tests.crash.evidence import judge
from chukan.tests.crash.journal import Journal
from chukan.tests.crash.probes import load
from chukan.tests.upgrade.releases import (
    RELEASE,
    ROOT,
    ReleaseMissingError,
    TwoReleases,
    git,
    imported_from,
    take_out,
    two_releases,
)

LINES, LISTS = 40, 6
SOME = 30


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def here() -> AsyncIterator[TwoReleases]:
    """A town on today's schema, as far as ``pre`` goes, whose exchanges are both of the release before."""
    async with two_releases() as built:
        yield built


async def test_a_clone_without_the_release_before_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ReleaseMissingError, match="git fetch --unshallow"):
        take_out(tmp_path, root=tmp_path)


@pytest.mark.full
def test_the_release_named_is_the_one_whose_migrations_are_named() -> None:
    names = git("ls-tree", "--name-only", RELEASE["commit"], "tenants/sql/pre/").decode().split()
    found = {Path(name).name for name in names if name.endswith(".sql")}
    assert found == {
        each.name for each in read_migrations() if each.phase == "pre" and each.number <= RELEASE["newest_migration"]
    }


@pytest.mark.full
@pytest.mark.asyncio(loop_scope="module")
async def test_each_exchange_runs_the_code_of_its_release(here: TwoReleases) -> None:
    assert imported_from(here.supervisor.environment("exchange-east")) == {here.tree / "chukan"}
    assert imported_from(os.environ) == {ROOT}


@pytest.mark.full
@pytest.mark.asyncio(loop_scope="module")
async def test_exchanges_are_upgraded_one_by_one_and_back_and_no_request_fails(here: TwoReleases) -> None:
    journal = Journal(here.root / "journal.ndjson")
    asked = Asked(here, journal)
    east, west = EXCHANGES
    async with load(here, journal, probes=6) as probing:
        await probing.until(good=SOME)
        for turn, (name, before) in enumerate([(west, False), (east, False), (west, True), (west, False)]):
            await here.change(name, before=before)
            await probing.switch.until(name, ready=True)
            # Both at work: each has shards of its own in some cell, and lists of both halves of the country pass.
            sending = [asyncio.create_task(asked.ask(*one)) for one in lists(here, LISTS, LINES, run=20 + turn)]
            await here.held_by_both()
            await gathered(sending)
            await probing.until(good=SOME)
        await here.migrate_post()
        await probing.until(good=SOME)
        results = probing.results()
    assert set(results) == {"good"}, results
    verdict = await judge(here, asked, journal)
    assert verdict.faults == []
    assert verdict.report.differences == []
    assert verdict.report.pending == 0
    assert verdict.report.agreed == verdict.report.exchanges > LINES * LISTS
