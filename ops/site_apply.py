"""``chukan site apply``: has the cells' Patroni clusters take the dynamic settings that the site file wants.

Invariant: only settings that the site file names are changed, each is shown first, and nothing is restarted: what a
server takes only when it starts, Patroni marks as pending.
"""

import asyncio
from typing import Annotated

from cyclopts import Parameter
from rich.console import Console

from chukan.ops import patroni_settings
from chukan.ops.failover import SiteFile, confirm, default_site
from chukan.ops.namespaces import enter
from chukan.ops.output import Json, say, table
from chukan.replication.site_file import read


def apply(
    *,
    site: SiteFile = None,
    look: Annotated[bool, Parameter(negative="")] = False,
    confirmed: Annotated[bool, Parameter(name="--yes", negative="")] = False,
    as_json: Json = False,
) -> int:
    """Show where Patroni's settings differ from the site file's, and set them after asking.

    Args:
        site: The site file; CHUKAN_SITE names it otherwise.
        look: Show only; status 1 when something differs.
        confirmed: For scripts: do not ask.
        as_json: Print JSON.
    """
    described = read(site or default_site())
    if described.operator.namespace:
        enter(described.operator.namespace)
    found = asyncio.run(patroni_settings.look(described))
    rows = [[each.cell, each.setting, str(each.wanted), _text(each.present)] for each in found]
    shown = table("cell", "setting", "site file", "Patroni", rows=rows)
    say([each._asdict() for each in found], shown if rows else "Patroni has what the site file wants.", as_json=as_json)
    if look or not found:
        return int(bool(found))
    confirm("These settings will be changed in the cells named.", described.name, yes=confirmed)
    for cell in sorted({each.cell for each in found}):
        asyncio.run(patroni_settings.put(described, cell))
    Console(stderr=True, highlight=False).print("Patroni takes them within its next loop.", markup=False)
    return 0


def _text(present: object) -> str:
    return "–" if present is None else str(present)
