"""A kill switch that the cell knows and the exchange does not yet: nothing held leaves, whatever officers say.

The simulation found it (one seed in five hundred): the officers' decision was judged by the process's own common data,
and committed against the cell's number of the newer ones.
"""

import asyncio
from typing import Any

import pytest

from chukan.errors import Problem
from chukan.ops.simulation.tables import Transaction
from chukan.ops.simulation.world import AFFAIR, KIND, PROCEDURE, World, addressee_of
from chukan.platform.exchange.reviews import OfficerReviews
from chukan.platform.wire.agency import Queries, QueryLine, ReviewDecision, ReviewPrepare
from chukan.tenants import directory
from chukan.tenants.directory import AgencyRow, ClientRow
from chukan.tenants.states import LinkStatus, Outcome

SEEDS = 50


def pair(world: World) -> tuple[AgencyRow, AgencyRow, int] | None:
    """Two agencies and a person whom both know, with a copy at the second."""
    for asks in world.agencies():
        for gives in world.agencies():
            for person in world.people if asks is not gives else ():
                at = [world.keys(a).digest("addressee", addressee_of(a, person).encode()) for a in (asks, gives)]
                links = [world.table(a).codes.get(who) for a, who in zip((asks, gives), at, strict=True)]
                active = all(link is not None and link.status is LinkStatus.ACTIVE for link in links)
                if active and (at[1], KIND) in world.table(gives).copies:
                    return asks, gives, person
    return None


def officer(name: str) -> ClientRow:
    return ClientRow(id=name, body="990101", kind="officer", name=name, agencies=[], functions=[])


async def pause(seconds: float) -> None:
    """Let virtual time pass."""
    over = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_later(seconds, over.set_result, None)
    await over


async def decide_while_stopped(world: World, asks: AgencyRow, gives: AgencyRow, person: int) -> str:
    """Hold, ask, prepare, stop in the cell only, approve; the outcome at the provider, or the problem's code."""
    table = world.table(gives)

    def hold(tx: Transaction) -> None:
        tx.put(table.holds, (None, KIND), True)  # noqa: FBT003 - a row that only has a key
        tx.set(table, "hold_version", table.hold_version + 1)

    world.cells[gives.cell].execute("agency", "holds", hold, (gives.number, (None, KIND)))
    world.network.start()
    for server in world.servers.values():
        await world.start(server)
    await pause(1.0)
    server = world.servers["east"]
    exchange = server.exchange
    line = QueryLine(
        addressee=addressee_of(asks, person),
        kind=KIND,
        provider=gives.code,
        affair=AFFAIR,
        procedure=PROCEDURE,
        department="給付課",
    )

    async def served(work: Any) -> Any:
        return await server.process.serve(lambda: work)

    await served(exchange.inquiries.accept(asks, officer("system"), Queries(lines=[line]), "key", b"raw"))
    for _ in range(100):
        await pause(0.1)
        found = (await served(exchange.reviews.list(gives))).reviews
        if found:
            break
    (review,) = found
    await served(exchange.reviews.prepare(gives, officer("first"), review.id, ReviewPrepare(decision="provide")))
    world.publish(directory.stop(world.snapshot, world.snapshot.made_at, kind=KIND), (gives.cell,))
    try:
        await served(exchange.reviews.approve(gives, officer("second"), review.id, ReviewDecision()))
    except Problem as problem:
        return problem.code
    (row,) = [row for row in world.cells[gives.cell].tables.provisions.values() if row.id == review.id]
    return Outcome(row.outcome).word


def outcome() -> str:
    for seed in range(SEEDS):
        world = World(seed)
        world.weather.clear = True
        found = pair(world)
        if found is not None and all(server.skew_s == 0.0 for server in world.servers.values()):
            return world.loop.run(decide_while_stopped(world, *found))
    raise AssertionError("no world has such a pair")


@pytest.mark.requirement("PRV-01", "PRV-05")
def test_a_stop_in_the_cell_stops_what_officers_release() -> None:
    assert outcome() in {"stopped", "busy"}


def test_judging_by_older_common_data_would_release_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(OfficerReviews, "_is_behind", lambda *_given: False)
    assert outcome() in {"provided", "provided_with_gaps"}
