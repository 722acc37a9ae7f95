"""Pairs of real servers, and members whose REST says what a test wants."""

import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from chukan.tests.replication.pair import Pair, Template


@pytest.fixture(scope="session")
def template() -> Iterator[Template]:
    """A prepared cell to make pairs of."""
    folder = _passable_folder()
    made = Template(folder)
    try:
        made.make()
        yield made
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
async def pair(template: Template) -> AsyncIterator[Pair]:
    """A primary with its synchronous standby, of its own for each test: a failover uses it up."""
    folder = _passable_folder()
    made = Pair(template, folder)
    try:
        await made.start()
        yield made
    finally:
        made.stop()
        shutil.rmtree(folder, ignore_errors=True)


def _passable_folder() -> Path:
    """A folder that the server's user may enter; pytest's own are closed to it."""
    folder = Path(tempfile.mkdtemp(prefix="chukan-pair-"))
    folder.chmod(0o755)
    return folder
