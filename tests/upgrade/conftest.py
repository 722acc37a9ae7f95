"""A database of its own on each supported server, without our schema."""

import itertools
from collections.abc import AsyncIterator
from typing import Any

import pytest

NUMBERS = itertools.count(1)


@pytest.fixture
async def admin(any_server: Any) -> AsyncIterator[Any]:
    """The superuser in an empty database, which is dropped at the end."""
    name = f"upgraded{next(NUMBERS)}"
    outside = await any_server.admin()
    await outside.execute(f"CREATE DATABASE {name}")
    connection = await any_server.admin(name)
    yield connection
    await connection.close()
    await outside.execute(f"DROP DATABASE {name} WITH (FORCE)")
    await outside.close()
