"""The book of orders: an order is begun durably, goes on after an interruption, and is done once."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable
from typing import Any

import asyncpg
import msgspec
import pytest

from chukan.errors import Problem
from chukan.tenants import order_book, orders

Sign = Callable[..., orders.SignedOrder]


@pytest.fixture(scope="session")
def cell(either_server: Any, make_cell: Callable[..., Any]) -> Any:
    return make_cell(either_server, [])


@pytest.fixture
async def steward(cell: Any, open_cell: Callable[..., Any]) -> AsyncIterator[Any]:
    cells = await open_cell(cell)
    async with cells.steward("here") as connection:
        yield connection


@pytest.fixture
def approved(office: Any, signed: Sign) -> orders.Approved:
    return office.demand(signed(order=uuid.UUID(bytes=office.recipient.private_bytes_raw()[:16], version=4)))


async def test_an_order_goes_on_until_it_is_done(steward: Any, approved: orders.Approved) -> None:
    assert await order_book.begin(steward, approved, 1) == "new"
    assert await order_book.begin(steward, approved, 1) == "begun"
    assert await order_book.finish(steward, approved)
    assert await order_book.begin(steward, approved, 1) == "done"
    assert not await order_book.finish(steward, approved)


async def test_what_was_never_begun_is_not_finished(steward: Any, approved: orders.Approved) -> None:
    assert not await order_book.finish(steward, approved)
    assert await order_book.begin(steward, approved, 1) == "new"


@pytest.mark.parametrize("other", [{"digest": bytes(32)}, {}], ids=["another text", "another agency"])
async def test_under_an_id_there_is_one_order(steward: Any, approved: orders.Approved, other: dict[str, Any]) -> None:
    await order_book.begin(steward, approved, 1)
    with pytest.raises(Problem, match="order_invalid"):
        await order_book.begin(steward, approved._replace(**other), 1 if other else 2)
    destroyed = msgspec.structs.replace(approved.order, action="export")
    with pytest.raises(Problem, match="order_invalid"):
        await order_book.begin(steward, approved._replace(order=destroyed), 1)


async def test_two_operators_at_once_begin_it_once(
    cell: Any, open_cell: Callable[..., Any], steward: Any, approved: orders.Approved
) -> None:
    cells = await open_cell(cell)
    admin = await cell.admin()
    async with cells.steward("here") as other, asyncio.timeout(20):
        await other.execute("BEGIN")
        begin = "SELECT chukan.order_begin($1, 1, 'destroy', $2)"
        first = await other.fetchval(begin, approved.order.id, approved.digest)
        second = asyncio.create_task(order_book.begin(steward, approved, 1))
        while not await admin.fetchval("SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted)"):
            assert not second.done()
        await other.execute("COMMIT")
        assert (first, await second) == ("new", "begun")
    await admin.close()


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO chukan.orders VALUES (gen_random_uuid(), 'done', 1, 'export', sha256(''))",
        "UPDATE chukan.orders SET step = 'begun'",
        "DELETE FROM chukan.orders",
        "TRUNCATE chukan.orders",
        "SELECT * FROM chukan.orders",
    ],
    ids=lambda sql: sql.split()[0],
)
async def test_the_book_opens_by_its_functions_only(cell: Any, steward: Any, sql: str) -> None:
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await steward.execute(sql)
    admin = await cell.admin()
    try:
        if sql.split(maxsplit=1)[0] not in ("INSERT", "SELECT"):
            # Not even the functions' owner, should one of them ever be tricked.
            await admin.execute("SET ROLE chukan_fn")
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await admin.execute(sql)
    finally:
        await admin.close()


async def test_nobody_but_the_steward_takes_an_order_up(cell: Any, open_cell: Callable[..., Any]) -> None:
    cells = await open_cell(cell)
    for pool in (cells.primary("here").broker, cells.primary("here").app):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            async with pool.acquire() as connection:
                await connection.fetchval("SELECT chukan.order_finish($1)", uuid.UUID(int=1))
