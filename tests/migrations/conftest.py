"""Databases of their own on each server, without our schema."""

import datetime as dt
import itertools
import os
import uuid
from collections.abc import AsyncIterator
from typing import Any

import pytest

NUMBERS = itertools.count(1)


@pytest.fixture
async def blank(any_server: Any) -> AsyncIterator[str]:
    """The name of an empty database, dropped at the end."""
    name = f"blank{next(NUMBERS)}"
    admin = await any_server.admin()
    await admin.execute(f"CREATE DATABASE {name}")
    yield name
    await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
    await admin.close()


@pytest.fixture
async def admin(any_server: Any, blank: str) -> AsyncIterator[Any]:
    """The superuser in that database."""
    connection = await any_server.admin(blank)
    yield connection
    await connection.close()


class Draw:
    """Ids and digests that nobody else has."""

    now = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)

    def bytes(self, count: int) -> bytes:
        return os.urandom(count)

    def id(self) -> uuid.UUID:
        return uuid.UUID(bytes=os.urandom(16), version=4)


@pytest.fixture
def draw() -> Draw:
    return Draw()
