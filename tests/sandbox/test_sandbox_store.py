"""The store of a simulated neighbour: jobs share a commit, a bad one undoes itself alone, nothing committed is lost."""

import asyncio
import sqlite3
import threading
from pathlib import Path

import pytest

from chukan.errors import Problem
from chukan.ops.sandbox import store as module
from chukan.ops.sandbox.store import Store, connect

SCHEMA = "CREATE TABLE IF NOT EXISTS things (id INTEGER PRIMARY KEY)"


def _put(number: int):
    return lambda connection: connection.execute("INSERT INTO things VALUES (?)", (number,)).rowcount


def _all(connection: sqlite3.Connection) -> list[int]:
    return [row[0] for row in connection.execute("SELECT id FROM things ORDER BY id")]


@pytest.fixture
async def store(tmp_path: Path):
    made = Store(tmp_path / "s.sqlite", SCHEMA)
    yield made
    await made.close()


async def test_a_job_that_fails_takes_no_other_with_it(store: Store) -> None:
    results = await asyncio.gather(*(store.write(_put(number)) for number in (1, 2, 2, 3)), return_exceptions=True)

    assert [type(result) for result in results] == [int, int, sqlite3.IntegrityError, int]
    assert await store.read(_all) == [1, 2, 3]


async def test_what_a_failed_job_did_before_it_failed_is_undone(store: Store) -> None:
    def half(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO things VALUES (7)")
        raise Problem("busy")

    with pytest.raises(Problem, match="busy"):
        await store.write(half)

    assert await store.read(_all) == []


@pytest.mark.requirement("TXR-03")
async def test_a_result_is_given_only_after_the_commit(store: Store, tmp_path: Path) -> None:
    await store.write(_put(1))
    other = connect(tmp_path / "s.sqlite")

    assert _all(other) == [1]
    other.close()


async def test_waiting_jobs_share_a_commit(tmp_path: Path) -> None:
    store = Store(tmp_path / "s.sqlite", SCHEMA)
    gate = asyncio.get_running_loop().create_future()
    loop = asyncio.get_running_loop()
    opened = threading.Event()

    def slow(_connection: sqlite3.Connection) -> None:
        loop.call_soon_threadsafe(gate.set_result, None)
        opened.wait(10)

    def in_transaction(connection: sqlite3.Connection) -> int:
        return connection.total_changes

    first = asyncio.create_task(store.write(slow))
    await gate
    rest = [asyncio.create_task(store.write(_put(number))) for number in range(40)]
    await asyncio.sleep(0)
    seen = asyncio.create_task(store.write(in_transaction))
    await asyncio.sleep(0)
    assert await store.read(_all) == []
    opened.set()
    await asyncio.gather(first, *rest)

    assert await seen >= 40
    assert len(await store.read(_all)) == 40
    await store.close()


async def test_too_many_waiting_jobs_are_told_to_come_back(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WAITING_MAX", 0)

    with pytest.raises(Problem) as raised:
        await store.write(_put(1))

    assert raised.value.code == "busy"
    assert raised.value.retry_after_s == 1


async def test_a_closed_store_answers_instead_of_hanging(tmp_path: Path) -> None:
    store = Store(tmp_path / "s.sqlite", SCHEMA)
    await store.write(_put(1))
    await store.close()

    with pytest.raises(Problem, match="busy"):
        async with asyncio.timeout(5):
            await store.write(_put(2))


async def test_jobs_that_wait_at_the_close_are_done(tmp_path: Path) -> None:
    store = Store(tmp_path / "s.sqlite", SCHEMA)
    tasks = [asyncio.create_task(store.write(_put(number))) for number in range(10)]
    await asyncio.sleep(0)
    await store.close()
    await asyncio.gather(*tasks)
    again = connect(tmp_path / "s.sqlite")

    assert len(_all(again)) == 10
    again.close()


async def test_commits_are_on_disk_before_they_are_told(store: Store) -> None:
    modes = await store.write(
        lambda connection: [
            connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous")
        ]
    )

    assert modes == ["wal", 2]
