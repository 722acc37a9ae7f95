"""``chukan agency move``: whose password opens which cell."""

import contextlib
from pathlib import Path
from types import SimpleNamespace

import pytest

from chukan.errors import Problem
from chukan.ops import agency_moves


@pytest.mark.parametrize(("given", "used"), [("p/{cell}-superuser", "p/west-superuser"), ("p/all", "p/all")])
async def test_each_cell_may_have_an_administrator_of_its_own(monkeypatch, given, used):
    asked = []

    @contextlib.asynccontextmanager
    async def administrator(cell, user, password_file):
        asked.append((cell, user, password_file))
        yield None

    monkeypatch.setattr(agency_moves, "administrator", administrator)
    settings = SimpleNamespace(cells={"east": "the east's", "west": "the west's"})
    installation = SimpleNamespace(settings=settings, cells=None, publisher=None)
    mover = agency_moves.make_mover(installation, "postgres", Path(given))
    async with mover._admins("west"):
        pass
    assert asked == [("the west's", "postgres", Path(used))]


def test_nothing_moves_without_an_administrator():
    with pytest.raises(Problem, match="setting_missing"):
        agency_moves.make_mover(None, "postgres", None)
