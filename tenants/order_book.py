"""The book of orders (指示書の記録): an order of an agency has its effect once.

It is an append-only table of the agency's cell, so it is as durable as the data that the order is about, on disk in
both centres before anything is done, and the same for every operator's machine; a file would be neither. The steward's
login may add to it and nothing else; nobody's may change or delete.

An order is *begun*, then *done*. What was begun and interrupted may go on under the same order while it is valid.
"""

import uuid
from typing import Any, Final, Literal

from chukan.errors import Problem
from chukan.replication.primary import DRIVER_ERRORS, Connection, bounded, translate
from chukan.tenants.orders import Approved

Standing = Literal["new", "begun", "done"]

_TIMEOUT_S: Final = 30.0


async def begin(steward: Connection, approved: Approved, agency: int) -> Standing:
    """Enter an order durably before it is carried out, and return how it stood before.

    Raises:
        Problem: order_invalid when another order was begun under its id; no_primary, unavailable.
    """
    order = approved.order
    sql = "SELECT chukan.order_begin($1, $2, $3, $4)"
    standing = await _ask(steward, sql, order.id, agency, order.action, approved.digest)
    if standing not in ("new", "begun", "done"):
        raise Problem("order_invalid", expected="an order under an id of its own")
    return standing  # type: ignore[no-any-return]


async def finish(steward: Connection, approved: Approved) -> bool:
    """Enter that an order was carried out; False when that was entered before. ``Problem`` as for ``begin``."""
    return await finish_id(steward, approved.order.id)


async def finish_id(steward: Connection, order: uuid.UUID) -> bool:
    """Enter the same of an order that lies here no more, and whose rest was carried out by what it had begun."""
    return bool(await _ask(steward, "SELECT chukan.order_finish($1)", order))


async def _ask(steward: Connection, sql: str, *values: object) -> Any:  # noqa: ANN401 - whatever the function returns
    try:
        return await bounded(steward, steward.fetchval(sql, *values), _TIMEOUT_S)
    except DRIVER_ERRORS as error:
        raise translate(error) from None
