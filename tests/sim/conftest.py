"""A cell twice: the model in memory, and the same functions on PostgreSQL."""

import datetime as dt
from collections.abc import Callable
from typing import Any

import pytest

from chukan.errors import Problem
from chukan.ops.simulation.tables import AgencyTables, CellTables, Transaction
from chukan.tenants.sets import CellSets

AGENCIES = (1, 2, 3)


class Twin:
    """Does each call on both and compares what comes back; times that the database sets itself are not compared."""

    def __init__(self, sets: CellSets, admin: Any) -> None:
        self.sets = sets
        self.admin = admin
        self.model = CellTables("here", {number: AgencyTables(number) for number in AGENCIES})
        self.now = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
        self.calls = 0

    async def both(self, call: Any, rule: Callable[[Transaction], Any], what: object) -> Any:
        """The real call, the model's rule, and the same result or the same problem from both."""
        self.calls += 1
        self.now += dt.timedelta(milliseconds=1)
        tx = Transaction(self.now)
        try:
            expected = await call
        except Problem as problem:
            expected = problem.code
        try:
            modelled = rule(tx)
        except Problem as problem:
            tx.roll_back()
            modelled = problem.code
        assert plain(modelled) == plain(expected), (self.calls, what)
        return expected


def plain(result: Any) -> Any:
    """A result without the instants of its commits."""
    if isinstance(result, list):
        return [plain(each) for each in result]
    names = getattr(result, "__dataclass_fields__", None)
    if names is None:
        return result
    return {name: plain(getattr(result, name)) for name in names if name != "updated_at"}


@pytest.fixture
def fresh_cell(embedded_server: Any, make_cell: Callable[..., Any]) -> Any:
    """A cell that nobody has used: the model knows nothing of what others left."""
    return make_cell(embedded_server, AGENCIES)


@pytest.fixture
async def twin(fresh_cell: Any, open_cell: Callable[..., Any]) -> Any:
    cells = await open_cell(fresh_cell)
    admin = await fresh_cell.admin()
    yield Twin(CellSets(cells.primary("here").broker), admin)
    await admin.close()
