"""Runs one seed: makes the world, lets it be used and troubled, waits until all is settled, and has it judged.

Once the sky has cleared, every line must come to its end by itself. What waits for a deadline is helped by leaps of
time in which nobody runs: an hour of waiting costs nothing.
"""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Iterable, Iterator, MutableMapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final

import structlog

from chukan.log import describe
from chukan.ops.simulation.checkers import CHECKERS, Checker, Evidence
from chukan.ops.simulation.clients import Clients
from chukan.ops.simulation.loop import START, DeadlockError
from chukan.ops.simulation.troubles import Troubles
from chukan.ops.simulation.world import World

USED_S: Final = 3.0
LOOK_S: Final = 0.25
CALM_LOOKS: Final = 6
"""Looks without progress before time leaps to the next deadline."""
LOOKS_MAX: Final = 600


@dataclass(frozen=True)
class Verdict:
    """What became of a seed."""

    seed: int
    complaints: tuple[tuple[str, str], ...]
    """(checker, complaint) pairs."""
    lines: int
    commits: int
    virtual_s: float
    seen: frozenset[str]
    """What happened: outcomes that the records of a side say, as ``inquirer/provided``."""
    trace: tuple[tuple[float, str, str], ...] = ()


def run_seed(seed: int, *, trace: bool = False, checkers: Sequence[Checker] = CHECKERS) -> Verdict:
    """Run a seed and judge it."""
    world = World(seed, trace=trace)
    clients = Clients(world)
    complaints: list[tuple[str, str]] = []
    with _listening(world.errors):
        try:
            settled = world.loop.run(_live(world, clients))
        except DeadlockError as error:
            complaints.append(("run", str(error)))
            settled = True
    if not settled:
        complaints.append(("run", f"not settled: {_open(world)}"))
    complaints += [("run", fault) for fault in (*world.loop.faults, *world.errors, *world.network.faults())]
    evidence = Evidence(world, clients.journal)
    for checker in checkers:
        complaints += [(checker.name, found) for found in checker.check(evidence)]
    return Verdict(
        seed=seed,
        complaints=tuple(complaints),
        lines=sum(len(posted.lines) for posted in clients.journal.posted),
        commits=len(world.journal.entries),
        virtual_s=world.loop.now_s,
        seen=frozenset(
            f"{record.side}/{record.outcome}{' (amended)' if record.amends else ''}"
            for records in evidence.records.values()
            for record in records
        ),
        trace=tuple(world.trace or ()),
    )


@contextmanager
def _listening(errors: list[str]) -> Iterator[None]:
    """Take the log's error lines as faults of the run, and keep everything else quiet."""
    before = structlog.get_config()

    def take(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        error = event.get("exc_info")
        found = describe(error) if isinstance(error, BaseException) else {}
        errors.append(f"{event.get('event')}: {found.get('error')} at {found.get('error_at')}" if found else f"{event}")
        raise structlog.DropEvent

    structlog.configure(processors=[take], wrapper_class=structlog.make_filtering_bound_logger(40))
    try:
        yield
    finally:
        structlog.configure(**before)


async def _live(world: World, clients: Clients) -> bool:
    """The whole life of a world; whether it came to rest."""
    world.network.start()
    for server in world.servers.values():
        await world.start(server)
    troubles = Troubles(world)
    users = [asyncio.ensure_future(work) for work in _uses(world, clients)]
    await troubles.play(USED_S)
    await asyncio.sleep(max(0.0, USED_S - world.loop.now_s))
    await troubles.mend()
    settled = await _settle(world, users)
    for server in world.servers.values():
        await _stop(world, server.name)
    return settled


def _uses(world: World, clients: Clients) -> Iterable[Any]:
    draw = world.draw
    lines = draw.randint(5, 40)
    while lines > 0:
        size = min(lines, draw.randint(1, 12))
        lines -= size
        yield _after(draw.uniform(0.0, USED_S), clients.post(draw.choice(world.agencies()), size))
    for agency in world.agencies():
        yield clients.review(agency, USED_S + 1.0)


async def _after(seconds: float, work: Any) -> None:  # noqa: ANN401 - any coroutine
    await asyncio.sleep(seconds)
    await work


async def _settle(world: World, users: Sequence[asyncio.Future[Any]]) -> bool:
    """Wait until nothing is open any more; leap where only a deadline is waited for."""
    calm, before = 0, ""
    for _ in range(LOOKS_MAX):
        await asyncio.sleep(LOOK_S)
        done = all(user.done() for user in users)
        what = _open(world)
        if done and not what:
            break
        calm = calm + 1 if what == before else 0
        before = what
        if done and calm >= CALM_LOOKS:
            span_s = _next_deadline_s(world)
            world.tell("world", f"{span_s:.0f} s pass; still open: {what}")
            world.loop.leap(span_s)
            calm = 0
    else:
        return False
    for user in users:
        user.result()
    return True


def _open(world: World) -> str:
    """What is not settled yet, in words."""
    found = []
    for cell in world.cells.values():
        for name, rows, final in (("inquiries", cell.tables.inquiries, 50), ("provisions", cell.tables.provisions, 70)):
            states = sorted(row.state for row in rows.values() if row.state < final)
            if states:
                found.append(f"{name} in {cell.name} {states}")
        if cell.tables.to_sequence:
            found.append(f"{len(cell.tables.to_sequence)} records without a place in {cell.name}")
    connection = world.network.store.connection
    for what, query in (
        ("messages to push", "SELECT count(*) FROM outbox"),
        ("permits without an end", "SELECT count(*) FROM exchanges WHERE outcome IS NULL"),
    ):
        (count,) = connection.execute(query).fetchone()
        if count:
            found.append(f"{count} {what}")
    return ", ".join(found)


def _next_deadline_s(world: World) -> float:
    """Seconds until the first of the instants that something waits for; a few where none is known."""
    now = START + dt.timedelta(seconds=world.loop.now_s)
    instants = [
        row.due
        for cell in world.cells.values()
        for rows, final in ((cell.tables.inquiries, 50), (cell.tables.provisions, 70))
        for row in rows.values()
        if row.state < final
    ]
    (expires,) = world.network.store.connection.execute(
        "SELECT min(expires_at) FROM exchanges WHERE outcome IS NULL"
    ).fetchone()
    if expires is not None:
        instants.append(dt.datetime.fromtimestamp(expires / 1e6, dt.UTC))
    coming = [span for instant in instants if (span := (instant - now).total_seconds()) > 0]
    return min(coming, default=5.0) + 0.5


async def _stop(world: World, name: str) -> None:
    """End an exchange; what it was doing was settled before."""
    server = world.servers[name]
    server.process.kill(world.loop)
    with suppress(asyncio.CancelledError):
        await asyncio.sleep(0)
