"""Nothing is written over without an order of two officers for exactly this restore, and under one order once."""

import datetime as dt
import io
import json
from typing import Any

import msgspec
import pytest

from chukan import log
from chukan.errors import Problem
from chukan.tenants import orders
from chukan.tenants.orders import Target
from chukan.tests.support.nation import ASKS, GIVES


@pytest.mark.requirement("PLT-06")
async def test_without_an_order_nothing_is_done_and_it_is_written_down(town: Any) -> None:
    moment = await town.moment()
    stream = io.StringIO()
    log.configure("warning", stream)
    try:
        with pytest.raises(Problem) as refused:
            await town.restore(moment, document=None)
        assert refused.value.code == "order_required"
        await town.restore(moment)
    finally:
        log.configure("info")
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    told = [
        (line["event"], line.get("stage"), line.get("code"))
        for line in lines
        if line["logger"] in ("orders", "restore")
    ]
    assert told == [
        ("order missing", "restore", "order_required"),
        ("order accepted", "restore", None),
        ("order accepted", "restore", None),
        ("agency frozen", None, None),
        ("agency restored", None, None),
        ("order carried out", "restore", None),
    ]
    assert not any("dropped" in line for line in lines)


async def test_an_order_is_for_one_agency_one_cell_and_one_moment(town: Any) -> None:
    moment = await town.moment()
    target = moment.target()
    wrong = [
        town.order(Target("west", moment.at)),
        town.order(Target("east", moment.at - dt.timedelta(microseconds=1))),
        town.order(target, ASKS),
        town.order(None, action="destroy"),
        msgspec.structs.replace(town.order(target), signatures=town.order(target).signatures[:1]),
    ]
    for document in wrong:
        with pytest.raises(Problem, match="order_invalid"):
            await town.restore(moment, document=document)
    altered = town.order(target)
    order = msgspec.structs.replace(altered.order, moment=moment.at - dt.timedelta(days=1))
    with pytest.raises(Problem, match="order_invalid") as refused:
        await town.restore(moment._replace(at=order.moment), document=msgspec.structs.replace(altered, order=order))
    assert refused.value.expected == "signatures over exactly this order"
    assert await town.state() == (1, "open")


@pytest.mark.parametrize(
    "changes",
    [
        {"target": None},
        {"action": "destroy"},
        {"target": Target("East;", dt.datetime(2026, 1, 1, tzinfo=dt.UTC))},
        {"target": Target("east", dt.datetime(2999, 1, 1, tzinfo=dt.UTC))},
        {"recipient": bytes(range(32))},
    ],
    ids=["no target", "a target to destroy", "no cell", "a moment to come", "a recipient"],
)
def test_what_makes_no_order_to_restore_is_refused(changes: dict[str, Any]) -> None:
    at = dt.datetime(2026, 11, 23, tzinfo=dt.UTC)
    members: dict[str, Any] = {
        "order": "0193571f-0000-7000-8000-000000000001", "action": "restore", "agency": GIVES, "reason": "訂正",
        "at": at, "life": dt.timedelta(days=1), "target": Target("east", at - dt.timedelta(days=1)),
    }  # fmt: skip
    with pytest.raises(Problem, match="order_invalid"):
        orders.prepare(**{**members, **changes})


def test_what_is_signed_of_other_orders_is_what_it_was() -> None:
    at = dt.datetime(2026, 11, 23, tzinfo=dt.UTC)
    order = orders.Order(
        id="0193571f-0000-7000-8000-000000000001", action="destroy", agency=GIVES, reason="x", issued_at=at,
        expires_at=at + dt.timedelta(days=1),
    )  # fmt: skip
    content = orders.signed_bytes(order).partition(b"\0")[2]
    assert set(json.loads(content)) == {"id", "action", "agency", "reason", "issued_at", "expires_at", "recipient"}
    assert b"cell" not in orders.encode(orders.SignedOrder(order=order))


@pytest.mark.requirement("PLT-06")
async def test_an_order_serves_once(town: Any) -> None:
    world = town.world
    addressee = await world.person(ASKS, GIVES)
    moment = await town.moment()
    document = town.order(moment.target())
    await town.restore(moment, document=document)
    await world.register(GIVES, addressee, gaps=True)
    with pytest.raises(Problem, match="order_invalid") as refused:
        await town.restore(moment, document=document)
    assert refused.value.expected == "an order that was not carried out before"
    assert await town.state() == (2, "open")
    assert await town.asked(addressee) == "provided_with_gaps"
    # Another order of theirs may say the same.
    assert (await town.restore(moment)).agency.generation == 3
    assert await town.asked(addressee) == "provided"
