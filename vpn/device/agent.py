"""The agent of a device (回線装置エージェント): keeps two tunnels, asks both centres, and moves one route.

What it decides stands in ``health`` (pure), what it moves behind ``Ways``. Several loops run beside each other: two
probes a centre, one that moves, one that keeps the interfaces as they shall be and tries tunnels that were granted
anew, one that writes down how things stand. On plain asyncio, for pyroute2 does not work on uvloop.

Invariant: the tunnels and the route never depend on this process. It may be killed at any moment; the next one takes
over what it finds, and moves nothing that is good. In good order it ends without touching the route, unless told to.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Final

from chukan import log
from chukan.chance import Chance
from chukan.clock import Clock
from chukan.errors import Problem
from chukan.vpn.device import health
from chukan.vpn.device.enrolling import write_configurations
from chukan.vpn.device.folder import DeviceFolder, Tunnel
from chukan.vpn.device.health import Echo, Move, Ready
from chukan.vpn.device.ports import Asking, Ways
from chukan.vpn.device.settings import AgentSettings
from chukan.vpn.device.status import FILE, CentreStatus, Status, write, write_metrics
from chukan.vpn.model import Peer

STATUS_EVERY_S: Final = 2.0
READY_TIMEOUT_S: Final = 3.0
RETRY_RENEWAL_S: Final = 600.0
"""A new tunnel that did not shake hands is tried again after this time."""
_LOOK_AGAIN_S: Final = 0.25
_ENDING_S: Final = 10.0
_JITTER_BYTES: Final = 4

_log = log.get("device.agent")


class Agent:
    """One device's agent; ``run`` is all of it."""

    def __init__(
        self, folder: DeviceFolder, settings: AgentSettings, ways: Ways, asking: Asking, clock: Clock, chance: Chance
    ) -> None:
        self._folder = folder
        self._settings = settings
        self._ways = ways
        self._asking = asking
        self._clock = clock
        self._chance = chance
        self._grant = folder.grant()
        self._state = health.begin(settings.rules(), folder.centres)
        self._problems: dict[str, str | None] = dict.fromkeys(folder.centres)
        self._renewals: dict[str, float] = {}
        self._trial: str | None = None
        self._problem: str | None = None
        self._moves = 0
        self._heard = asyncio.Event()
        self._look = asyncio.Event()
        self._tell = asyncio.Event()
        self._moving = asyncio.Lock()

    @property
    def state(self) -> health.State:
        """What is known, and where the route leads."""
        return self._state

    async def run(self, told: asyncio.Event, *, pid: int) -> None:
        """Work until ``told`` is set. Only a mistake of ours ends it otherwise."""
        jitter = int.from_bytes(self._chance.token(_JITTER_BYTES)) / 256**_JITTER_BYTES
        if await _within(told, jitter * self._settings.start_jitter_s):
            return
        await self._keep_all()
        await self._adopt()
        _log.info("agent works", centre=self._state.active, count=len(self._folder.centres))
        async with asyncio.TaskGroup() as group:
            loops = [self._move_loop(), self._keep_loop(), self._renew_loop(), self._status_loop(pid)]
            for centre in self._folder.centres:
                loops += [self._echo_loop(centre), self._ready_loop(centre), self._watch_loop(centre)]
            tasks = [group.create_task(each) for each in loops]
            await told.wait()
            for task in tasks:
                task.cancel()
        await self._end(pid)

    async def _end(self, pid: int) -> None:
        with contextlib.suppress(TimeoutError, Problem):
            async with asyncio.timeout(_ENDING_S):
                if self._settings.at_end == "remove":
                    await self._ways.remove()
                await self._write(pid, ended=True)
        _log.info("agent ended", centre=self._state.active)

    async def _adopt(self) -> None:
        """Begin with the route as it is found."""
        try:
            found = await self._ways.active()
        except Problem as problem:
            self._problem = problem.code
            return
        self._state = health.begin(self._settings.rules(), self._folder.centres, found)

    # ------------------------------------------------------------ probes

    async def _echo_loop(self, centre: str) -> None:
        every = self._settings.icmp_every_s

        async def ask() -> None:
            self._hear(Echo(centre, await self._asking.echo(centre, every)))

        await self._at_a_rate(every, ask)

    async def _ready_loop(self, centre: str) -> None:
        every = self._settings.ready_every_s

        async def ask() -> None:
            self._hear(Ready(centre, await self._asking.ready(centre, min(every, READY_TIMEOUT_S))))

        await self._at_a_rate(every, ask)

    async def _at_a_rate(self, every_s: float, act: Callable[[], Awaitable[None]]) -> None:
        """Act every so often, whatever an act takes; one that takes longer is followed at once by the next."""
        due = self._clock.monotonic()
        while True:
            await act()
            due = max(due + every_s, self._clock.monotonic())
            await asyncio.sleep(due - self._clock.monotonic())

    def _hear(self, event: Echo | Ready) -> None:
        before = health.condition(self._state, event.centre)
        self._state = health.hear(self._state, event)
        after = health.condition(self._state, event.centre)
        if after != before:
            _log.info("centre stands otherwise", centre=event.centre, status=after)
            self._tell.set()
            if after == "down":
                self._look.set()
        self._heard.set()

    # ------------------------------------------------------------ the route

    async def _move_loop(self) -> None:
        while True:
            await self._heard.wait()
            self._heard.clear()
            move = health.decide(self._state, self._clock.monotonic())
            if move is not None:
                await self._carry_out(move)

    async def _carry_out(self, move: Move) -> bool:
        """Move the route; tell whether it was moved. What fails is tried again with the next answer."""
        async with self._moving:
            try:
                await self._ways.point(move.to, self._gone())
            except Problem as problem:
                self._note(problem)
                return False
            self._state = health.moved(self._state, move, self._clock.monotonic())
        self._moves += 1
        self._problem = None
        self._tell.set()
        _log.info("service route moved", centre=move.to, reason=move.reason)
        return True

    def _note(self, problem: Problem) -> None:
        if self._problem != problem.code:
            _log.warning("service route not moved", code=problem.code)
        self._problem = problem.code

    # ------------------------------------------------------------ the interfaces

    async def _keep_loop(self) -> None:
        while True:
            await _within(self._look, self._settings.keep_every_s)
            self._look.clear()
            await self._keep_all()
            await self._keep_route()

    async def _watch_loop(self, centre: str) -> None:
        """Look after an interface at once when it goes away; at most once in a keeping's interval."""
        while True:
            with contextlib.suppress(Problem):
                await self._ways.gone(centre)
            self._look.set()
            await asyncio.sleep(self._settings.keep_every_s)

    async def _keep_all(self) -> None:
        """Look after every interface but one whose new keys are on trial."""
        for centre in self._folder.centres:
            if centre == self._trial:
                continue
            code: str | None = None
            try:
                tunnel = self._folder.tunnel(centre)
                if tunnel is not None:
                    await self._ways.ensure(tunnel)
            except Problem as problem:
                code = problem.code
            if code != self._problems[centre]:
                _log.warning("interface kept otherwise", centre=centre, code=code or "none")
            self._problems[centre] = code

    async def _keep_route(self) -> None:
        """Put the route back where somebody else has taken it away or led it elsewhere."""
        async with self._moving:
            wanted = self._state.active
            try:
                if wanted is not None and await self._ways.point(wanted, self._gone()):
                    _log.warning("service route put back", centre=wanted)
            except Problem as problem:
                self._note(problem)

    def _gone(self) -> list[str]:
        """Return the centres whose open connections cannot be finished there."""
        return [centre for centre in self._state.centres if health.condition(self._state, centre) == "down"]

    # ------------------------------------------------------------ a new tunnel

    async def _renew_loop(self) -> None:
        while True:
            await asyncio.sleep(self._settings.keep_every_s)
            for centre in self._folder.centres:
                now = self._clock.monotonic()
                if now >= self._renewals.get(centre, now):
                    await self._renew(centre)

    async def _renew(self, centre: str) -> None:
        try:
            after, before = self._folder.next_tunnel(centre), self._folder.tunnel(centre)
        except Problem as problem:
            _log.warning("new tunnel not tried", centre=centre, code=problem.code)
            return
        if after is not None and before is not None and await self._step_aside(centre):
            await self._try_next(before, after)

    async def _try_next(self, before: Tunnel, after: Tunnel) -> None:
        """Try a tunnel that was granted anew, away from the traffic; keep it once it has shaken hands."""
        centre = before.centre
        self._trial = centre
        self._tell.set()
        try:
            await self._ways.renew(after)
            if await self._shakes_hands(centre, _patience_s(before, after, self._settings)):
                self._folder.promote(centre)
                self._grant = self._folder.grant()
                write_configurations(self._folder, self._grant)
                _log.info("new tunnel in use", centre=centre)
                return
            await self._ways.renew(before)
            _log.warning("new tunnel did not shake hands", centre=centre)
        except (Problem, OSError) as error:
            # A full disk must not end the agent: the tunnel in use is what the folder says.
            _log.warning("new tunnel not taken", centre=centre, exc_info=error)
        finally:
            self._trial = None
            self._tell.set()
        self._renewals[centre] = self._clock.monotonic() + RETRY_RENEWAL_S

    async def _step_aside(self, centre: str) -> bool:
        """Lead the route elsewhere while a centre's tunnel changes; tell whether the tunnel may change now."""
        state = self._state
        if state.active != centre or len(state.centres) == 1:
            return True
        if state.moved_at is not None and self._clock.monotonic() - state.moved_at < state.rules.dwell_s:
            return False
        good = [other for other in state.centres if other != centre and health.condition(state, other) == "good"]
        return bool(good) and await self._carry_out(Move(good[0], "renewal"))

    async def _shakes_hands(self, centre: str, patience_s: float) -> bool:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience_s):
                while True:
                    peer = await self._ways.peer(centre)
                    if peer is not None and peer.handshake_at is not None:
                        return True
                    await asyncio.sleep(_LOOK_AGAIN_S)
        return False

    # ------------------------------------------------------------ what is told

    async def _status_loop(self, pid: int) -> None:
        while True:
            await self._write(pid)
            await _within(self._tell, STATUS_EVERY_S)
            self._tell.clear()

    async def _write(self, pid: int, *, ended: bool = False) -> None:
        status = Status(
            at=self._clock.now(),
            link=self._folder.identity.link,
            pid=pid,
            active=self._state.active,
            moves=self._moves,
            centres=await self._centres(),
            problem=self._problem,
            ended=ended,
        )
        try:
            write(self._folder.path / FILE, status)
            if self._settings.metrics_file:
                write_metrics(Path(self._settings.metrics_file), status)
        except OSError:
            _log.warning("status not written")

    async def _centres(self) -> Mapping[str, CentreStatus]:
        told = {}
        for centre, interface in self._folder.identity.interfaces.items():
            peer: Peer | None = None
            with contextlib.suppress(Problem):
                peer = await self._ways.peer(centre)
            told[centre] = CentreStatus(
                interface=interface,
                up=peer is not None and self._problems[centre] is None,
                condition=health.condition(self._state, centre),
                handshake_at=None if peer is None else peer.handshake_at,
                rx=0 if peer is None else peer.rx,
                tx=0 if peer is None else peer.tx,
                renewing=(self._folder.path / f"tunnel-{centre}.next.json").exists(),
                problem=self._problems[centre],
            )
        return told


def _patience_s(before: Tunnel, after: Tunnel, settings: AgentSettings) -> float:
    """Return how long a new tunnel may take to shake hands.

    A gateway has a new device key beside the old one; of two pre-shared keys it tries one after the other.
    """
    same_ends = before.public_key == after.public_key and before.gateway_key == after.gateway_key
    return settings.psk_handshake_s if same_ends else settings.handshake_s


async def _within(event: asyncio.Event, seconds: float) -> bool:
    """Wait for an event, so long at most; tell whether it came."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            return await event.wait()
    return False
