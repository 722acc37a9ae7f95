"""A cell that holds links, whoever decides on them, and a gateway's process that has its own login alone."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from chukan.ops.local.machine import is_root
from chukan.replication.primary import Cells
from chukan.tenants.links import LinkController, LinkSteward
from chukan.tests.support.link_desk import CELL, KeptCells, LinkDesk

# They have network namespaces of their own.
collect_ignore = [] if is_root() else ["test_scale.py", "test_swarm.py"]


@pytest.fixture(scope="session")
def links_cell_database(either_server: Any, make_cell: Callable[..., Any]) -> Any:
    """A cell without agencies."""
    return make_cell(either_server, [])


@pytest.fixture
async def desk(links_cell_database: Any) -> AsyncIterator[LinkDesk]:
    """The desk of one test; its gateway has no other login than its own."""
    folder = Path(links_cell_database.settings.broker_password_file).parent
    alone = msgspec.structs.replace(
        links_cell_database.settings,
        broker_password_file=None,
        app_password_file=None,
        steward_password_file=None,
        links_password_file=folder / "chukan_links",
    )
    admin = await links_cell_database.admin()
    async with Cells({CELL: links_cell_database.settings}) as cells, Cells({CELL: alone}) as gateway_cells:
        kept = KeptCells(cells)
        steward = LinkSteward(kept, CELL)  # type: ignore[arg-type]  # it has what a steward needs of them
        yield LinkDesk(steward, LinkController(gateway_cells, CELL), cells, gateway_cells, admin)
        await kept.close()
    await admin.close()
