"""What a gateway tells the database after it was away: everything that waited, in sets of the size that is taken."""

from collections.abc import Sequence
from pathlib import Path

from chukan.tenants.link_rows import DRIFT_MAX
from chukan.tenants.links import Drifted
from chukan.tests.support.gateway_stand import Cell
from chukan.vpn.gateway.drift import Found
from chukan.vpn.gateway.state import Store
from chukan.vpn.gateway.telling import WAITING_MAX, Teller


class Strict(Cell):
    """Takes as many rows at a time as the database's function does, and no more."""

    async def drifted(self, centre: str, differences: Sequence[Drifted]) -> int:
        return await super().drifted(centre, differences[:DRIFT_MAX])


async def test_drift_that_waited_for_the_database_is_entered_to_the_last_row(tmp_path: Path) -> None:
    cell = Strict()
    cell.away = True
    teller = Teller(cell, "east", Store(tmp_path, "east"), lambda: None)
    rows = [Found(f"131016-{number}", "missing", repaired=True) for number in range(WAITING_MAX)]
    teller.drifted(rows)
    assert not await teller.tell()
    cell.away = False
    assert await teller.tell()
    assert [each.link for each in cell.audit] == [each.link for each in rows]
    assert await teller.tell()
    assert len(cell.audit) == WAITING_MAX
