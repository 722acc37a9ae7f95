"""Health (DESIGN §6): what a load balancer, a device agent and an operator may rely on.

``/healthz`` says that the process answers. ``/readyz`` says 503 only for faults that another exchange does not share:
this loop is stuck, these keys cannot be read, this clock jumped, no cell's primary can be reached from here, the common
data is too old here, or this exchange does not listen yet or is going out of service. A stalled cell, the network or
the other centre being away are told in the detail of a 200, for taking every exchange out of service would help nobody.
``/readyz?cell=C`` is what a device agent asks: it says 503 also when that cell cannot commit.

What is said comes from a canary commit in each cell every second, not from a configuration or an open connection: a
half-dead server is one that does not commit. A change shows within three seconds.
"""

import asyncio
import math
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
from aiohttp import web

from chukan import log
from chukan.clock import Clock
from chukan.errors import Problem
from chukan.platform import metrics as exposition
from chukan.platform.http import bodies, problems
from chukan.platform.http.drain import Drain
from chukan.platform.metrics import Metrics
from chukan.replication.durability import Durability
from chukan.replication.primary import CellPicture

CANARY_EVERY_S: Final = 1.0
CANARY_TIMEOUT_S: Final = 1.4
"""A canary that takes longer is reported and not given up: the next look waits for the same one. One given up would
leave a session on the server that waits on, and a cell that waits for its standbys would soon have no session left."""
STALL_S: Final = 1.0
CANARY_AGE_MAX_S: Final = 2.5
"""A cell whose last canary is older has no path from here; with the interval, a fault shows within three seconds."""
LAG_TICK_S: Final = 0.25
LAG_MAX_S: Final = 1.0
LAG_KEPT_S: Final = 3.0
CLOCK_JUMP_MAX_S: Final = 2.0
"""The skew that permits tolerate: a clock that jumped further than this may answer a lapsed permit."""
CLOCK_SUSPECT_S: Final = 60.0
COMMON_DATA_AGE_MAX_S: Final = 10.0
KEYS_TIMEOUT_S: Final = 2.0

_log = log.get("http.health")

Canary = Callable[[], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class Sources:
    """Where health looks."""

    canaries: Mapping[str, Canary]
    """Commits something in a cell; by the cell's name."""
    keys: Callable[[], int]
    """Counts the agencies whose keys can be read; raises ``OSError`` or ``Problem``. Called in a thread."""
    common_age_s: Callable[[], float]
    snapshot: Callable[[], int]
    """Number of the common data in force; may raise ``Problem``."""
    network_ok: Callable[[], bool] | None = None
    """Whether the network answered of late, where somebody knows."""
    listening: Callable[[], bool] | None = None
    """Whether the listeners of agencies and network are open, where somebody knows."""
    picture: Callable[[str], CellPicture | None] = lambda _: None
    """What is seen of a cell's members, for a cell that has several."""
    opening: Callable[[str], tuple[int, bool] | None] = lambda _: None
    """In which epoch a cell was opened, and whether it is closed: restored and not opened yet. None: not known."""


@dataclass(slots=True)
class CellState:
    """What the canary of one cell says."""

    succeeded_at: float = -math.inf
    commit_s: float = math.inf
    code: str | None = None
    flying: asyncio.Future[object] | None = None
    """A canary that has not committed yet."""
    flown_at: float = 0.0


@dataclass(slots=True)
class _Lag:
    """Delays of the loop in the last seconds."""

    seen: deque[tuple[float, float]] = field(default_factory=deque)

    def add(self, now: float, lag_s: float) -> None:
        self.seen.append((now, lag_s))
        while self.seen and self.seen[0][0] < now - LAG_KEPT_S:
            self.seen.popleft()

    def worst(self) -> float:
        return max((lag for _, lag in self.seen), default=0.0)


class Health:
    """Watches while ``run`` runs; ``application`` serves what it sees."""

    def __init__(
        self,
        sources: Sources,
        clock: Clock,
        metrics: Metrics,
        drain: Drain,
        about: Mapping[str, str | int] | None = None,
    ) -> None:
        """``about`` names the exchange, its centre and its process in the detail."""
        self._sources = sources
        self._clock = clock
        self._metrics = metrics
        self._drain = drain
        self._about = dict(about or {})
        self.cells = {cell: CellState() for cell in sources.canaries}
        self._lag = _Lag()
        self._offset: float | None = None
        self._jumped_at = -math.inf
        self._keys_ok = False
        self._was_ready: bool | None = None

    # ---------------------------------------------------------------- watching

    async def run(self) -> None:
        """Watch until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._watch_loop(), name="health loop")
                group.create_task(self._every(CANARY_EVERY_S, self.check_keys), name="health keys")
                for cell in self.cells:
                    group.create_task(self._every(CANARY_EVERY_S, self._canary_of(cell)), name=f"health {cell}")
        finally:
            for state in self.cells.values():
                if state.flying is not None:
                    state.flying.cancel()

    async def _every(self, pause_s: float, check: Callable[[], Awaitable[None]]) -> None:
        while True:
            await check()
            self._report()
            await asyncio.sleep(pause_s)

    async def _watch_loop(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            asked = loop.time()
            await asyncio.sleep(LAG_TICK_S)
            self.note_lag(loop.time() - asked - LAG_TICK_S)
            self.check_clock()

    def note_lag(self, lag_s: float) -> None:
        """Take one measured delay of the loop."""
        self._lag.add(self._clock.monotonic(), max(0.0, lag_s))
        self._metrics.loop_lag(self._lag.worst())

    def check_clock(self) -> None:
        """Compare the clock's two hands: they move together unless somebody set the time."""
        offset = self._clock.now().timestamp() - self._clock.monotonic()
        if self._offset is not None and abs(offset - self._offset) > CLOCK_JUMP_MAX_S:
            self._jumped_at = self._clock.monotonic()
            _log.error("the clock jumped", seconds=round(offset - self._offset, 3))
            self._offset = offset
        if self._offset is None:
            self._offset = offset

    async def check_keys(self) -> None:
        """Read the key store once."""
        try:
            async with asyncio.timeout(KEYS_TIMEOUT_S):
                count = await asyncio.to_thread(self._sources.keys)
        except (OSError, Problem, TimeoutError) as error:
            if self._keys_ok:
                _log.error("the key store cannot be read", exc_info=error)
            self._keys_ok = False
            self._metrics.keys(0, usable=False)
        else:
            self._keys_ok = True
            self._metrics.keys(count, usable=True)

    def _canary_of(self, cell: str) -> Callable[[], Awaitable[None]]:
        async def check() -> None:
            await self.check_cell(cell)

        return check

    async def check_cell(self, cell: str) -> None:
        """Commit one canary, or look after the one that has not committed yet."""
        state = self.cells[cell]
        if state.flying is None:
            state.flying = asyncio.ensure_future(self._sources.canaries[cell]())
            state.flown_at = self._clock.monotonic()
        done, _ = await asyncio.wait({state.flying}, timeout=CANARY_TIMEOUT_S)
        if not done:
            state.code = "deadline_exceeded"
            return
        flown, state.flying = state.flying, None
        try:
            flown.result()
        except Problem as problem:
            state.code = problem.code
        except (OSError, TimeoutError):
            state.code = "deadline_exceeded"
        else:
            state.succeeded_at = self._clock.monotonic()
            state.commit_s = state.succeeded_at - state.flown_at
            state.code = None

    # ---------------------------------------------------------------- judging

    def age_s(self, cell: str) -> float:
        """Seconds since a cell's canary committed; infinity where it never did."""
        return self._clock.monotonic() - self.cells[cell].succeeded_at

    def cell_ok(self, cell: str) -> bool:
        """Whether a cell commits."""
        return self.age_s(cell) <= CANARY_AGE_MAX_S

    def commits(self, cell: str) -> bool:
        """Whether a cell commits promptly just now: no canary of it has been on its way for long."""
        state = self.cells.get(cell)
        if state is None:
            return True
        waits_s = 0.0 if state.flying is None else self._clock.monotonic() - state.flown_at
        return waits_s < STALL_S and self.cell_ok(cell)

    def faults(self) -> list[str]:
        """Return the faults that another exchange does not share; none means ready."""
        found: list[str] = []
        if self._sources.listening is not None and not self._sources.listening():
            found.append("starting")
        if self._drain.begun:
            found.append("draining")
        if self._lag.worst() > LAG_MAX_S:
            found.append("loop")
        if self._clock.monotonic() - self._jumped_at < CLOCK_SUSPECT_S:
            found.append("clock")
        if not self._keys_ok:
            found.append("keys")
        if not any(self.cell_ok(cell) for cell in self.cells):
            found.append("no_primary")
        if self._sources.common_age_s() > COMMON_DATA_AGE_MAX_S:
            found.append("common_data")
        return found

    def detail(self) -> dict[str, Any]:
        """Return what an operator wants to know, ready or not."""
        faults = self.faults()
        snapshot = None
        with suppress(Problem):
            snapshot = self._sources.snapshot()
        warnings = [f"cell:{cell}" for cell in self.cells if not self.cell_ok(cell)]
        pictures = {cell: self._sources.picture(cell) for cell in self.cells}
        # Durability fell: loudly (invariant 2), but taking this exchange out of service would not mend it.
        warnings += [
            f"durability:{cell}"
            for cell, seen in pictures.items()
            if seen is not None and seen.durability not in {None, Durability.TWO_CENTRES}
        ]
        openings = {cell: self._sources.opening(cell) for cell in self.cells}
        warnings += [f"restored:{cell}" for cell, seen in openings.items() if seen is not None and seen[1]]
        if self._sources.network_ok is not None and not self._sources.network_ok():
            warnings.append("network")
        return {
            **self._about,
            "ready": not faults,
            "faults": faults,
            "warnings": warnings,
            "cells": {
                cell: self._cell_detail(cell) | _opened(openings[cell]) | _seen(pictures[cell]) for cell in self.cells
            },
            "loop_lag_s": round(self._lag.worst(), 3),
            "common_data": {"number": snapshot, "age_s": _finite(self._sources.common_age_s())},
        }

    def _cell_detail(self, cell: str) -> dict[str, Any]:
        state = self.cells[cell]
        return {
            "ok": self.cell_ok(cell),
            "age_s": _finite(self.age_s(cell)),
            "commit_s": _finite(state.commit_s),
            "code": state.code,
        }

    def _report(self) -> None:
        ready = not self.faults()
        if ready != self._was_ready:
            _log.warning("readiness changed", outcome="ready" if ready else "not ready")
            self._was_ready = ready
        self._metrics.ready(ready=ready)
        for cell, state in self.cells.items():
            self._metrics.canary(cell, age_s=self.age_s(cell), commit_s=state.commit_s)
            if (picture := self._sources.picture(cell)) is not None:
                self._metrics.cell(cell, picture, self._clock.now().timestamp())
            if (opening := self._sources.opening(cell)) is not None:
                self._metrics.opening(cell, *opening)
        with suppress(Problem):
            self._metrics.snapshot(self._sources.snapshot())

    # ---------------------------------------------------------------- serving

    def application(self) -> web.Application:
        """Return the application of the health listener: plain HTTP on an address of its own, GET only."""
        app = web.Application(middlewares=[as_problems])
        app.router.add_get("/healthz", self._healthz, expect_handler=bodies.expect_later)
        app.router.add_get("/readyz", self._readyz, expect_handler=bodies.expect_later)
        app.router.add_get("/metrics", self._metrics_page, expect_handler=bodies.expect_later)
        return app

    async def _healthz(self, _request: web.Request) -> web.Response:
        return answer_json({"ok": True}, 200)

    async def _readyz(self, request: web.Request) -> web.Response:
        return answer_json(self.detail(), 200 if self.ready_for(request.query.get("cell")) else 503)

    def ready_for(self, cell: str | None) -> bool:
        """Whether this exchange is ready, and a cell commits where one is named. Raises ``Problem`` not_found."""
        if cell is not None and cell not in self.cells:
            raise Problem("not_found")
        return not self.faults() and (cell is None or self.cell_ok(cell))

    async def _metrics_page(self, _request: web.Request) -> web.Response:
        answer = web.Response(body=self._metrics.render())
        answer.headers["Content-Type"] = exposition.CONTENT_TYPE
        return answer


def _opened(opening: tuple[int, bool] | None) -> dict[str, Any]:
    """Return the epoch in which a cell was opened, and whether it was restored since and takes no writes."""
    return {} if opening is None else {"restore_epoch": opening[0], "restored": opening[1]}


def _seen(picture: CellPicture | None) -> dict[str, Any]:
    """Return what an operator wants to know of a cell with members: who leads, and how far a commit reaches."""
    if picture is None:
        return {}
    return {
        "leader": None if picture.leader is None else picture.leader.member,
        "timeline": None if picture.leader is None else picture.leader.timeline,
        "leader_since_s": None if picture.since_s is None else round(picture.since_s, 3),
        "leader_changes": picture.changes,
        "leaderless_s": round(picture.leaderless_s, 3),
        "durability": None if picture.durability is None else str(picture.durability),
        "members": {
            name: None if state is None else {"role": state.role, "timeline": state.timeline, "sync": state.sync}
            for name, state in picture.nodes.items()
        },
    }


def _finite(seconds: float) -> float | None:
    return round(seconds, 3) if math.isfinite(seconds) else None


def answer_json(detail: Mapping[str, Any], status: int) -> web.Response:
    """Return a document that nobody keeps, with the time to come back where it says 503."""
    answer = web.Response(status=status, body=msgspec.json.encode(detail), content_type=bodies.JSON)
    answer.headers["Cache-Control"] = "no-store"
    if status == web.HTTPServiceUnavailable.status_code:
        answer.headers["Retry-After"] = "1"
    return answer


@web.middleware
async def as_problems(
    request: web.Request, handler: Callable[..., Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Let nothing leave but an answer or a problem document."""
    try:
        return await handler(request)
    except Problem as problem:
        return problems.response(problem)
    except web.HTTPException as error:
        return problems.response(problems.from_framework(error))
    except Exception as error:  # noqa: BLE001 - the task boundary: nothing may leave but a problem document
        _log.error("request failed", exc_info=error)
        return problems.response(Problem("internal"))
