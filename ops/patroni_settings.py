"""Looks at the dynamic settings that Patroni has of each cell, and sets what the site file wants otherwise.

Invariant: only settings that the site file names are changed, and no server is restarted by this.
"""

from typing import NamedTuple

from chukan.ops.centres.picture import Painter
from chukan.replication import render
from chukan.replication.dynamic import Difference, differences
from chukan.replication.site import Site


class CellDifference(NamedTuple):
    """One setting of one cell: what the site file wants, and what Patroni has (None where it has none)."""

    cell: str
    setting: str
    wanted: object
    present: object


async def look(site: Site) -> list[CellDifference]:
    """Return what differs, by cell. Raises ``Problem`` node_unreachable."""
    async with Painter(site) as painter:
        return [
            CellDifference(cell, *difference) for cell in site.cells for difference in await _of(painter, site, cell)
        ]


async def put(site: Site, cell: str) -> None:
    """Set what differs in one cell. Raises ``Problem`` node_unreachable, order_refused."""
    async with Painter(site) as painter:
        if await _of(painter, site, cell):
            await painter.patroni[cell].patch_config(render.dynamic(site))


async def _of(painter: Painter, site: Site, cell: str) -> list[Difference]:
    return list(differences(render.dynamic(site), await painter.patroni[cell].config()))
