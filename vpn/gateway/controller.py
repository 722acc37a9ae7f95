"""The controller's loop: passes that never overlap, are never lost, and wait for nobody.

A pass takes what was heard last (``learning``; it never asks a database itself), judges what shall be now, cuts what
may no longer pass (the packet filter first, then the peer), and has every kind of tunnels and the filter compared and
repaired. What follows a pass, files and what the database is told, is done apart from it (``telling``). It is made
when something was heard, a validity begins or ends, a back end dies, the service changes hands, and by a timer; while
a device's key is changed, often.

Invariant: whatever fails in a pass, the loop goes on, and the age of the last good pass is a metric. Where nothing
was ever known, nothing is touched: what runs may be right.
"""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Coroutine, Mapping, Sequence
from functools import partial
from typing import Any, Final

import msgspec

from chukan import log
from chukan.clock import Clock
from chukan.errors import Problem
from chukan.tenants.links import Desired
from chukan.vpn.gateway.astray import Astray
from chukan.vpn.gateway.config import Mode, Timing
from chukan.vpn.gateway.desired import Goal, Open, goal_of, merge
from chukan.vpn.gateway.drift import Found, Telling, drifted
from chukan.vpn.gateway.kinds import COUNTING, Kind, Pass, Report, Sighting
from chukan.vpn.gateway.lasting import lasting
from chukan.vpn.gateway.learning import Learner
from chukan.vpn.gateway.metrics import LinkFigures, Snapshot
from chukan.vpn.gateway.rotation import Progress, rotating
from chukan.vpn.gateway.state import Memory, Store
from chukan.vpn.gateway.telling import Teller
from chukan.vpn.gateway.tenant_filter import FilterReport, TenantFilter

FIRST_S: Final = 3.0
"""How long the first pass waits for the database, before it begins with what was known last."""
AFTER_FAILURE_S: Final = 2.0
"""How soon a failed pass is made again at first; twice as long each time, up to the timer."""
ROTATION_S: Final = 1.0
ROTATION_SHARE: Final = 5.0
"""So many times as long as a pass took it waits at least, however much is under rotation."""
DOUBLINGS_MAX: Final = 10
ROTATION_FOR_S: Final = 900.0
"""How long after the last new rotation the gateway looks often: a device changes its key soon, or is not there."""
REMEMBER_S: Final = 300.0
"""How old the time of reading may become in the file."""
DEATH_S: Final = 0.5
DEATH_MAX_S: Final = 30.0
UNHEALTHY: Final = 4
"""Passes that may fail to come before the process calls itself sick."""

_log = log.get("vpn.gateway")


class Controller:
    """One centre's controller; ``run`` until cancelled."""

    def __init__(
        self,
        centre: str,
        mode: Mode,
        timing: Timing,
        *,
        kinds: Sequence[Kind],
        tenants: TenantFilter,
        store: Store,
        open_psk: Open,
        clock: Clock,
    ) -> None:
        """Put it together; nothing is read or touched yet. ``attach`` gives it who hears and who tells."""
        self.centre = centre
        self.repairs = mode == "repair"
        self._timing = timing
        self._kinds = list(kinds)
        self._tenants = tenants
        self._store = store
        self._open_psk = open_psk
        self._clock = clock
        self._telling = Telling(clock)
        self._wake = asyncio.Event()
        self._passed = asyncio.Event()
        self._heard: Desired | None = None
        self._heard_at: float | None = None
        self._memory = Memory(centre=centre)
        self._written = self._memory
        self._back: tuple[str, ...] = ()
        self._goal: Goal | None = None
        self._found: list[Found] = []
        self._sightings: dict[str, dict[str, Sighting]] = {}
        self._rotations: frozenset[str] = frozenset()
        self._rotations_at = 0.0
        self._whole_at = 0.0
        self._failures = 0
        self._counts: Counter[str] = Counter()
        self._drift: Counter[tuple[str | None, str]] = Counter()
        self._filtered = FilterReport()
        self._astray = Astray()
        self._starts = 0
        self._seconds = 0.0
        self._seconds_sum = 0.0
        self._done_at: float | None = None

    def attach(self, learner: Learner, teller: Teller) -> None:
        """Give it who hears for it and who tells for it."""
        self._learner = learner
        self._teller = teller

    # ------------------------------------------------------------ what wakes it

    def wake(self) -> None:
        """Make a pass as soon as possible."""
        self._wake.set()

    def learnt(self, heard: Desired) -> None:
        """Take in a desired state; a pass follows at once."""
        self._heard = heard
        self._heard_at = self._clock.now().timestamp()
        self.wake()

    async def run(self) -> None:
        """Keep the links until cancelled. Nothing that a pass meets ends it."""
        await self.start()
        async with asyncio.TaskGroup() as group:
            group.create_task(lasting(self._learner.run, "learn"))
            group.create_task(lasting(self._teller.run, "tell"))
            group.create_task(lasting(self._pass_on_time, "pass"))
            for kind in self._kinds if self.repairs else ():
                group.create_task(lasting(partial(self._watch, kind), kind.name))

    async def start(self) -> None:
        """Read what was kept on the disk."""
        self._memory = self._written = await asyncio.to_thread(self._store.read)
        self._heard_at = self._memory.read_at
        self._teller.start_with(await asyncio.to_thread(self._store.read_places))

    async def close(self) -> None:
        """Let go of what this process holds; tunnels and sessions go on."""
        for kind in self._kinds:
            await kind.close()

    async def _pass_on_time(self) -> None:
        await self._learner.first(FIRST_S)
        whole = True
        while True:
            self._wake.clear()
            await self._pass_safely(whole=whole)
            self._passed.set()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, self._due_s())):
                    await self._wake.wait()
            whole = self._failures > 0 or self._clock.monotonic() >= self._whole_at + self._timing.every_s

    def _due_s(self) -> float:
        """Return in how many seconds the next pass is due, if nothing wakes us before."""
        whole_s = self._whole_at + self._timing.every_s - self._clock.monotonic()
        if self._failures:
            return min(self._timing.every_s, AFTER_FAILURE_S * (1 << min(self._failures - 1, DOUBLINGS_MAX)))
        turn = None if self._goal is None else self._goal.next_turn
        turn_s = whole_s if turn is None else (turn - self._clock.now()).total_seconds()
        rotation_s = max(ROTATION_S, ROTATION_SHARE * self._seconds) if self._looks_often() else whole_s
        return min(whole_s, turn_s, rotation_s)

    def _looks_often(self) -> bool:
        return bool(self._rotations) and self._clock.monotonic() - self._rotations_at < ROTATION_FOR_S

    async def _watch(self, kind: Kind) -> None:
        """Have a pass made whenever a back end dies; one that dies at once is waited for longer and longer."""
        pause_s = DEATH_S
        while True:
            await self._passed.wait()
            began = self._clock.monotonic()
            await kind.died()
            _log.warning("a back end of links is gone", stage=kind.name)
            pause_s = min(2 * pause_s, DEATH_MAX_S) if self._clock.monotonic() - began < DEATH_S else DEATH_S
            self._passed.clear()
            self.wake()
            await asyncio.sleep(0 if pause_s == DEATH_S else pause_s)

    # ------------------------------------------------------------ a pass

    async def _pass_safely(self, *, whole: bool) -> None:
        """Make a pass; whatever it meets is counted and told, for the next one may succeed."""
        try:
            async with asyncio.timeout(self._timing.pass_s):
                failures = await self.once(whole=whole)
        except Exception as error:  # noqa: BLE001 - a task's boundary: the loop goes on whatever a pass meets
            failures = [error]
        self._failures = self._failures + 1 if failures else 0
        self._counts["failed" if failures else "done"] += 1
        for failure in failures:
            _log.error("a pass over the links failed", exc_info=failure)

    async def once(self, *, whole: bool = True) -> list[Exception]:
        """Make one pass; return what failed in it. What is no problem of a back end comes out as it is.

        ``whole`` has the packet filter listed and compared too, which takes longer than a change may.
        """
        began = self._clock.monotonic()
        self._take_in()
        if self._heard_at is None:
            return [Problem("unavailable")]
        last = {} if self._goal is None else self._goal.links
        goal = await asyncio.to_thread(goal_of, self._memory.kept, self._clock.now(), self._open_psk, last)
        failures = [*await self._cut(goal), *await self._all(goal, whole=whole)]
        self._goal = goal
        self._note_rotations(goal)
        self._remember()
        if not failures:
            self._done_at = self._clock.monotonic()
            self._seconds = self._done_at - began
            self._seconds_sum += self._seconds
        if whole:
            self._whole_at = self._clock.monotonic()
        return failures

    def _take_in(self) -> None:
        heard, self._heard = self._heard, None
        if heard is not None:
            kept, self._back = merge(self._memory.kept, heard)
            self._memory = msgspec.structs.replace(self._memory, kept=kept, read_at=self._heard_at)
            self._teller.forget([link for link, peer in kept.peers.items() if peer.state == "revoked"])

    async def _cut(self, goal: Goal) -> list[Exception]:
        """Cut who passed until now and may no longer, before anything is read or compared."""
        last = self._goal
        if last is None or not self.repairs:
            return []
        gone = [link for link in last.links if link not in goal.links and link not in goal.held]
        if not gone:
            return []
        prefixes = {prefix for link in gone for prefix in last.links[link].prefixes}
        failures = [await _tried(self._tenants.cut(prefixes))]
        for kind in self._kinds:
            mine = [link for link in gone if kind.mine(last.links[link].peer)]
            if mine:
                failures.append(await _tried(kind.cut(goal, mine)))
        _log.info("links were cut", count=len(gone))
        return [failure for failure in failures if failure is not None]

    async def _all(self, goal: Goal, *, whole: bool) -> list[Exception]:
        """Have the filter and every kind looked after; one that fails holds up no other, but for the first filter."""
        found: list[Found] = [Found(link, "desired_went_back", repaired=False) for link in self._back]
        found += [Found(link, reason, repaired=False) for link, reason in goal.held.items()]
        failures = [] if self._tenants.known else [await _tried(self._filter(goal, found, whole=whole))]
        # Until the filter has stood once no tunnel is brought up: everything would pass that is not said.
        if not (self.repairs and any(failures)):
            works = [_tried(self._kind(kind, goal, found)) for kind in self._kinds]
            works += [] if failures else [_tried(self._filter(goal, found, whole=whole))]
            failures += await asyncio.gather(*works)
        self._found = found
        self._drift.update((each.link, each.kind) for each in found)
        self._teller.drifted(self._telling.choose(found))
        for each in found:
            if each.repaired:
                _log.warning("a difference was found and repaired", link=each.link, reason=each.kind)
        return [failure for failure in failures if failure is not None]

    async def _filter(self, goal: Goal, found: list[Found], *, whole: bool) -> None:
        prefixes = {prefix for link in goal.links.values() for prefix in link.prefixes}
        kept = self._memory.kept.peers
        prefixes |= {prefix for link in goal.held for prefix in kept[link].prefixes}
        wanted = frozenset(prefixes)
        if self.repairs and self._tenants.known:
            await self._tenants.change(wanted, draining=goal.draining)
        if whole or not self._tenants.known:
            report = await self._tenants.reconcile(wanted, draining=goal.draining, repair=self.repairs)
            self._filtered = report
            came_in = {link: seen.rx for name in COUNTING for link, seen in self._sightings.get(name, {}).items()}
            self._astray.add(self._clock.monotonic(), came_in, report.passed)
            found.extend(report.found)

    async def _kind(self, kind: Kind, goal: Goal, found: list[Found]) -> None:
        before = self._memory.marks.get(kind.name, {})
        if self.repairs and await kind.ensure():
            before = {}
            self._starts += 1
        links = {link: each for link, each in goal.links.items() if kind.mine(each.peer)}
        told = Pass(
            goal=goal,
            links=links,
            progress=self._memory.progress,
            endpoints=self._endpoints(),
            now_s=self._clock.now().timestamp(),
            repair=self.repairs,
            hurried=self._wake.is_set,
        )
        report = await kind.reconcile(told)
        # Where nothing is repaired, whatever differs is told.
        before = before if self.repairs else report.marks
        found.extend(drifted(report.differences, report.left, before, report.marks))
        self._take(kind, links, report)

    def _endpoints(self) -> dict[str, str]:
        """Return where devices were seen: here, as this gateway knows best; one of one tunnel perhaps elsewhere."""
        told = {peer.link: peer.endpoint for peer in self._memory.kept.peers.values() if peer.endpoint is not None}
        elsewhere = {link: told[link] for link in told if self._memory.kept.peers[link].mode == "service"}
        return {**told, **self._teller.endpoints(), **elsewhere}

    def _take(self, kind: Kind, links: Mapping[str, object], report: Report) -> None:
        """Keep what a kind reported."""
        self._sightings[kind.name] = dict(report.sightings)
        self._teller.saw(report.sightings)
        progress: dict[str, Progress] = {k: v for k, v in self._memory.progress.items() if k not in links}
        changes: dict[str, object] = {"progress": {**progress, **report.progress}}
        if self.repairs:
            changes["marks"] = {**self._memory.marks, kind.name: report.marks}
            peers = self._memory.kept.peers
            self._teller.rotated({link: peers[link].generation for link in report.rotated})
        self._memory = msgspec.structs.replace(self._memory, **changes)

    def _note_rotations(self, goal: Goal) -> None:
        rotations = frozenset(link for link, each in goal.links.items() if rotating(each))
        if rotations - self._rotations:
            self._rotations_at = self._clock.monotonic()
        self._rotations = rotations

    def _remember(self) -> None:
        """Have the memory written where it says something new."""
        if not self.repairs:
            return
        same = msgspec.structs.replace(self._memory, read_at=self._written.read_at) == self._written
        read_at, written_at = self._memory.read_at or 0.0, self._written.read_at or 0.0
        if not same or read_at - written_at > REMEMBER_S:
            self._written = self._memory
            self._teller.remember(self._memory)

    # ------------------------------------------------------------ what is seen of it

    def draining(self) -> bool:
        """Tell whether devices are sent to the other centre; they are before anything is known."""
        return self._goal is None or self._goal.draining

    @property
    def found(self) -> list[Found]:
        """What differed in the last pass and was ordered by nobody; in report mode all that differed."""
        return list(self._found)

    def healthy(self) -> bool:
        """Tell whether passes come as they should."""
        if self._done_at is None:
            return False
        return self._clock.monotonic() - self._done_at < UNHEALTHY * self._timing.every_s

    def snapshot(self, *, service_held: bool | None = None) -> Snapshot:
        """Return all figures of this moment; may be called in a thread: it reads what is replaced as a whole."""
        now, now_s = self._clock.monotonic(), self._clock.now().timestamp()
        goal, kept, sightings = self._goal, self._memory.kept, dict(self._sightings)
        known: dict[str, Sighting] = {}
        for seen in sightings.values():
            known.update(seen)
        links = [
            LinkFigures(
                link=peer.link,
                body=peer.body,
                # A device of one tunnel is at the other centre while that one serves it: no fault of this one.
                active=(peer.mode == "pair" or service_held is not False) and _passes(goal, peer.link),
                sighting=known.get(peer.link, Sighting()),
                valid_until=None if peer.valid_until is None else peer.valid_until.timestamp(),
            )
            for peer in kept.peers.values()
        ]
        return Snapshot(
            centre=self.centre,
            now_s=now_s,
            links=links,
            drops=self._filtered.drops,
            link_drops=self._filtered.link_drops,
            astray=self._astray.counted,
            drift=self._drift,
            passes={"done": self._counts["done"], "failed": self._counts["failed"]},
            pass_seconds=self._seconds,
            pass_seconds_sum=self._seconds_sum,
            pass_age_s=None if self._done_at is None else now - self._done_at,
            desired_age_s=None if self._heard_at is None else max(0.0, now_s - self._heard_at),
            desired_number=kept.number,
            held=0 if goal is None else len(goal.held),
            service_held=service_held,
            draining=goal is not None and goal.draining,
            repairs=self.repairs,
            back_end_starts=self._starts,
        )


def _passes(goal: Goal | None, link: str) -> bool:
    return goal is not None and (link in goal.links or link in goal.held)


async def _tried(work: Coroutine[Any, Any, None]) -> Exception | None:
    """Do some work and return what it raised, where that is a problem."""
    try:
        await work
    except (Problem, TimeoutError, OSError) as error:
        return error
    return None
