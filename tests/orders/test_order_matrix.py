"""Every act that an order is for × every way in which an order is none: refused, told for audit, and never approved."""

import datetime as dt
import io
import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from chukan import log
from chukan.errors import Problem
from chukan.ops.certificates import read_certificates
from chukan.tenants import directory, orders
from chukan.tenants.orders import Target

YOKOHAMA = "9901141003000001"
DAY = dt.timedelta(days=1)
ACTIONS = ("export", "destroy", "restore", "retire")
Given = tuple[orders.SignedOrder | None, dict[str, Any]]


def target(office: Any) -> Target:
    return Target("east", office.clock.now() - DAY)


def made(office: Any, action: str, **changes: Any) -> orders.SignedOrder:
    more = {"target": target(office)} if action == "restore" else {}
    return office.order(action, **{**more, **changes})


def asked(office: Any, action: str, **changes: Any) -> dict[str, Any]:
    more = {"target": target(office)} if action == "restore" else {}
    return {"action": action, **more, **changes}


def signed(office: Any, action: str, *names: str, **changes: Any) -> orders.SignedOrder:
    return office.sign(made(office, action, **changes), *(names or ("head-1", "head-2")))


def other(action: str) -> str:
    return ACTIONS[(ACTIONS.index(action) + 1) % len(ACTIONS)]


def serials(office: Any, name: str) -> set[int]:
    return {read_certificates(office.card(name).certificate)[0].serial_number}


def twice(office: Any, action: str) -> orders.SignedOrder:
    document = signed(office, action, "head-1")
    return msgspec.structs.replace(document, signatures=document.signatures * 2)


def altered(office: Any, action: str) -> orders.SignedOrder:
    document = signed(office, action)
    return msgspec.structs.replace(document, order=msgspec.structs.replace(document.order, reason="another reason"))


def by_stranger(office: Any, action: str) -> orders.SignedOrder:
    return office.sign(signed(office, action, "head-1"), "head-2", authority=office.stranger)


def removed(office: Any) -> directory.Directory:
    return directory.Directory(directory.remove_client(office.snapshot, office.clock.now(), "head-2"))


def restored_elsewhere(office: Any, action: str) -> Given:
    """A restore of another cell, or to another moment; any other act with a target at all."""
    there = Target("west", target(office).moment)
    return signed(office, action), asked(office, action, target=there)


FLAWS: dict[str, Callable[[Any, str], Given]] = {
    "nothing": lambda office, action: (None, asked(office, action)),
    "nobody": lambda office, action: (made(office, action), asked(office, action)),
    "one officer": lambda office, action: (signed(office, action, "head-1"), asked(office, action)),
    "one officer twice": lambda office, action: (twice(office, action), asked(office, action)),
    "no such function": lambda office, action: (signed(office, action, "head-1", "reviewer"), asked(office, action)),
    "a system": lambda office, action: (signed(office, action, "head-1", "machine"), asked(office, action)),
    "nobody known": lambda office, action: (signed(office, action, "head-1", "nobody"), asked(office, action)),
    "of another body": lambda office, action: (signed(office, action, "head-1", "yokohama-1"), asked(office, action)),
    "a third who may not": lambda office, action: (
        signed(office, action, "head-1", "head-2", "reviewer"),
        asked(office, action),
    ),
    "removed since": lambda office, action: (signed(office, action), asked(office, action, directory=removed(office))),
    "another authority": lambda office, action: (by_stranger(office, action), asked(office, action)),
    "a revoked card": lambda office, action: (
        signed(office, action),
        asked(office, action, revoked=lambda card: card.serial_number in serials(office, "head-2")),
    ),
    "altered": lambda office, action: (altered(office, action), asked(office, action)),
    "another act": lambda office, action: (signed(office, other(action)), asked(office, action)),
    "another agency": lambda office, action: (
        signed(office, action),
        asked(office, action, agency=office.directory.agency(YOKOHAMA)),
    ),
    "over": lambda office, action: (signed(office, action), asked(office, action, at=office.clock.now() + 3 * DAY)),
    "not yet": lambda office, action: (signed(office, action), asked(office, action, at=office.clock.now() - DAY)),
    "restored elsewhere": restored_elsewhere,
}


@pytest.mark.requirement("CON-01")
@pytest.mark.parametrize("action", ACTIONS)
def test_no_act_is_done_on_an_order_that_is_none(office: Any, action: str) -> None:
    stream = io.StringIO()
    log.configure("info", stream)
    try:
        for flaw, make in FLAWS.items():
            document, changes = make(office, action)
            with pytest.raises(Problem) as refusal:
                office.demand(document, **changes)
            wanted = "order_required" if document is None else "order_invalid"
            assert refusal.value.code == wanted, flaw
        approved = office.demand(signed(office, action), **asked(office, action))
    finally:
        log.configure("info")
    told = [json.loads(line)["event"] for line in stream.getvalue().splitlines()]
    # Each refusal stands in the log as one, in the order in which they were tried; then what was heard.
    assert told == ["order missing", *["order refused"] * (len(FLAWS) - 1), *["order accepted"] * 2]
    assert approved.order.action == action
    assert approved.officers == ("head-1", "head-2")
