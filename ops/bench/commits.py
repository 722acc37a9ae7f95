"""Acknowledged commits of one cell's write path, ours and pgbench's: one line made durable, by the same set function.

Ours is what an exchange does with a line that it has checked: the stage that gathers what waits into one commit,
door 2, the pool to the cell's leader, and after the commit the hint to the workers, alone, at most one on its way.
pgbench's clients each commit their own line by the same function, and each sends its own hint after it.

Invariant: a round trip counts when the commit was acknowledged and the line was new; anything else ends the benchmark.
"""

import asyncio
import datetime as dt
import time
from collections.abc import Sequence
from typing import Final

from chukan.chance import SystemChance
from chukan.clock import SystemClock
from chukan.errors import Problem
from chukan.ops.bench.driving import RoundTripError
from chukan.ops.bench.figures import Sample
from chukan.ops.demo.systems import for_each
from chukan.platform.exchange.inquiries import SMALL_LIST
from chukan.platform.stages import Stage
from chukan.tenants.directory import AgencyRow
from chukan.tenants.hints import Hint
from chukan.tenants.rows import AcceptBatch, AcceptedBatch, AcceptLine
from chukan.tenants.sets import CHANNELS, CellSets
from chukan.tenants.states import InquiryState, Outcome, Side

REQUEST_BYTES: Final = 700
PERMIT_REQUEST_BYTES: Final = 1100
"""About what the exchanges seal for a line of household information."""
_DIGEST_BYTES: Final = 32
_TIMEOUT_S: Final = 30.0
_LATER_S: Final = 3600.0


class Commits:
    """Makes lines durable for one agency."""

    def __init__(self, sets: CellSets, agency: AgencyRow) -> None:
        self._sets, self._agency = sets, agency
        self._clock = SystemClock()
        self._chance = SystemChance(self._clock)
        self._stage: Stage[tuple[AcceptBatch, AcceptLine], AcceptedBatch] = Stage(
            "accept", self._accept, clock=self._clock, cap=SMALL_LIST
        )
        self._hint: asyncio.Task[None] | None = None
        self.commits = 0

    async def _accept(self, items: list[tuple[AcceptBatch, AcceptLine]]) -> list[AcceptedBatch]:
        done = await self._sets.accept([batch for batch, _ in items], [line for _, line in items])
        self.commits += 1
        return done

    async def one(self) -> None:
        """Make one line durable. Raises ``RoundTripError``."""
        try:
            accepted = await self._stage.submit(self._line(), _TIMEOUT_S)
        except Problem as problem:
            raise RoundTripError(problem.code) from None
        if not accepted.fresh:
            raise RoundTripError("a line that was there already")
        if self._hint is None or self._hint.done():
            self._hint = asyncio.create_task(self._sets.notify(Side.INQUIRER, Hint()))

    def _line(self) -> tuple[AcceptBatch, AcceptLine]:
        now, agency, line = self._clock.now(), self._agency.number, self._chance.uuid7()
        batch = AcceptBatch(
            agency, self._agency.generation, self._chance.token(_DIGEST_BYTES), self._chance.token(_DIGEST_BYTES), line
        )
        return batch, AcceptLine(
            agency=agency,
            batch=line,
            id=line,
            ordinal=0,
            state=InquiryState.ACCEPTED,
            outcome=Outcome.NONE,
            reason=None,
            due=now,
            deadline=now + dt.timedelta(seconds=_LATER_S),
            person=self._chance.token(_DIGEST_BYTES),
            request=self._chance.token(REQUEST_BYTES),
            outbox=self._chance.token(PERMIT_REQUEST_BYTES),
        )

    async def run(self, clients: int, seconds: float) -> Sample:
        """Let each of ``clients`` commit one line after the other, waiting for each, until the time is over."""
        taken_s: list[float] = []
        began = time.monotonic()

        async def client(_: int) -> None:
            while time.monotonic() - began < seconds:
                asked = time.monotonic()
                await self.one()
                taken_s.append(time.monotonic() - asked)

        await for_each(range(clients), client, at_once=clients)
        return Sample(len(taken_s), time.monotonic() - began, taken_s)

    async def close(self) -> None:
        """Let what is under way end. Raises ``Problem`` when the last hint could not be sent."""
        await self._stage.close()
        if self._hint is not None:
            await self._hint


def script(agency: AgencyRow) -> str:
    """Return pgbench's script: one new line in one commit, then its hint, alone as ours. Pure."""
    line = (
        "SELECT (lpad(to_hex((extract(epoch FROM clock_timestamp()) * 1000)::bigint), 12, '0') || '7'"
        " || substr(md5(random()::text), 1, 3) || '8' || substr(md5(random()::text), 1, 15))::uuid AS id,"
        " sha256(convert_to(random()::text || clock_timestamp(), 'UTF8')) AS digest"
    )
    number, ids = f"ARRAY[{agency.number}]", "ARRAY[g.id]"
    digests = "ARRAY[g.digest]"
    given = [
        number,
        f"ARRAY[{agency.generation}]",
        digests,
        digests,
        ids,
        number,
        ids,
        ids,
        "ARRAY[0]",
        f"ARRAY[{InquiryState.ACCEPTED:d}]::smallint[]",
        f"ARRAY[{Outcome.NONE:d}]::smallint[]",
        "ARRAY[NULL]::text[]",
        "ARRAY[now()]",
        f"ARRAY[now() + interval '{_LATER_S:g} s']",
        digests,
        _sealed(REQUEST_BYTES),
        _sealed(PERMIT_REQUEST_BYTES),
        *_no_records(),
        "ARRAY[NULL]::bigint[]",
        "ARRAY[NULL]::uuid[]",
    ]
    accept = f"chukan.accept_asked({', '.join(given)})"
    return (
        f"SELECT 1 / (count(*) FILTER (WHERE r.fresh) = 1)::int FROM ({line}) g, LATERAL {accept} r;\n"
        f"SELECT pg_notify('{CHANNELS[Side.INQUIRER]}', '');\n"
    )


def _sealed(width: int) -> str:
    return f"ARRAY[decode(repeat('5a', {width}), 'hex')]"


def _no_records() -> Sequence[str]:
    return [f"ARRAY[NULL]::{kind}[]" for kind in ("uuid", "bytea", "date", "bytea", "bytea", "uuid")]
