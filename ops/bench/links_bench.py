"""``chukan bench links``: what one gateway does for a whole country, beside ``wg syncconf`` of the same peers.

Three figures, ours and the limit in turn, each on a wireguard-go in the same namespace:

- ``configure``: every peer onto an interface that has none. Ours: the controller's first pass, as it measures it, with
  the seals of the pre-shared keys, the packet filter and the comparison; without its start.
- ``change``: one link that was suspended is put back into service. Ours: from before the act in the database until the
  device has a session, so commit, hint, reading, pass and handshake. The limit: ``wg syncconf`` of the file with that
  peer, which nobody had to write first.
- ``reconnect``: controller and wireguard-go are killed and started anew; the devices stay where they are and begin
  nothing. Until the last session is back. The limit: wireguard-go started, ``wg syncconf`` with the endpoints.

Invariant: a run in which a peer is missing, or a session does not come back, is a failure, not a figure. However it
ends, no process and no namespace is left.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import msgspec
from rich.table import Table

from chukan import private_file
from chukan.clock import SystemClock
from chukan.errors import Problem
from chukan.ops.bench import machine
from chukan.ops.bench.country import LINKS, PORT, syncconf
from chukan.ops.bench.driving import RoundTripError
from chukan.ops.bench.figures import Figure, Run, Sample, figure, median, run_of
from chukan.ops.bench.links_limit import PROGRAM, Stock, require_wg, stock
from chukan.ops.bench.links_stand import LinksStand
from chukan.ops.bench.measuring import EXIT_FAILED, Measured, measured, require_runs, tell
from chukan.ops.bench.swarm import Device
from chukan.ops.demo.place import Place
from chukan.ops.demo.screen import Screen
from chukan.ops.local.machine import CLONE, is_root, state_folder

CHANGES: Final = 10
_QUICK_CHANGES: Final = 3
_PASS_TIMEOUT_S: Final = 60.0
_SESSIONS_TIMEOUT_S: Final = 120.0
_CONNECTS_PER_S: Final = 1_000.0
_DONE: Final = "chukan_links_passes_total/done"
_BOTH: Final = 2
_MS: Final = 1000.0


class Options(msgspec.Struct, frozen=True):
    """What the command line said."""

    runs: int
    quick: bool
    as_json: bool
    links: int = LINKS


class Memory(msgspec.Struct, frozen=True):
    """Resident memory at the end, in MiB."""

    controller_mib: float
    wireguard_mib: float


class Settings(msgspec.Struct, frozen=True):
    """How it was measured."""

    runs: int
    links: int
    changes: int
    connects_per_s: float


class Result(Measured, frozen=True):
    """What ``--json`` prints."""

    settings: Settings
    figures: list[Figure]
    memory: Memory
    cookies: int
    """How many handshakes the gateway put off by a cookie: it was under load then."""


def place() -> Place:
    """Return where the benchmark's installation lies."""
    return Place(CLONE / "var" / "bench-links", state_folder() / "bench-links")


def run(options: Options, where: Place | None = None) -> int:
    """Measure, and return the exit status: 0, 1 when a session did not come, 130 interrupted. Raises ``Problem``."""
    require_runs(options.runs, quick=options.quick)
    require_wg()
    if not is_root():
        raise Problem("not_possible_here", expected="network namespaces: run it as root")
    where = where or place()
    return measured(where, lambda: LinksBench(options, where))


class LinksBench:
    """One measurement."""

    def __init__(self, options: Options, where: Place) -> None:
        self._options, self._place = options, where
        self._clock = SystemClock()
        self._machine = machine.look()
        self._screen = Screen(for_program=True)
        self._changes = _QUICK_CHANGES if options.quick else CHANGES
        self.stopping = False

    async def run(self) -> int:
        """Do everything; takes everything down before it returns or raises."""
        self._screen.title("Bringing up")
        stand = LinksStand(self._place.files, self._place.databases, self._options.links, self._clock)
        try:
            with self._screen.step(f"{self._options.links:,} links are invited, asked for and approved"):
                await stand.__aenter__()
            return await self._work(stand)
        except (RoundTripError, TimeoutError) as error:
            what = error.what if isinstance(error, RoundTripError) else "something did not come in time"
            self._screen.say(f"  ✗ {what}. The logs are in {self._place.files}.")
            return EXIT_FAILED
        finally:
            self.stopping = True
            with self._screen.step("everything is being stopped"):
                await asyncio.shield(stand.__aexit__())

    async def _work(self, stand: LinksStand) -> int:
        self._files(stand)
        figures = [
            await self._figure("configure", lambda: self._configure(stand)),
            await self._with_all(stand),
            await self._figure("reconnect", lambda: self._reconnect(stand)),
        ]
        memory = Memory(*(round(size, 1) for size in stand.resident_mib()))
        result = Result(
            bench="links",
            at=self._clock.now().isoformat(timespec="seconds"),
            quick=self._options.quick,
            machine=self._machine,
            postgresql=await stand.postgresql(),
            settings=Settings(
                runs=self._options.runs,
                links=self._options.links,
                changes=self._changes,
                connects_per_s=_CONNECTS_PER_S,
            ),
            figures=figures,
            memory=memory,
            cookies=stand.swarm.cookies,
        )
        self._screen.console.print(table(result))
        if self._options.as_json:
            tell(result)
        return 0

    async def _figure(self, name: str, one: Callable[[], Awaitable[Run]]) -> Figure:
        runs: list[Run] = []
        with self._screen.bar(f"{name}: {PROGRAM} and ours in turn", self._options.runs) as advance:
            for _ in range(self._options.runs):
                runs.append(await one())
                advance(1)
        return figure(name, PROGRAM, runs, set_size=self._options.links, limit_clients=1)

    async def _configure(self, stand: LinksStand) -> Run:
        async with stock(stand.ground, self._log, self._clock) as other:
            limit_s = await other.syncconf(self._beside)
        stand.end()
        stand.forget()
        stand.start()
        told = await stand.until(lambda told: told.get(_DONE, 0) >= 1, _PASS_TIMEOUT_S)
        await self._require(stand, self._options.links)
        seconds = told["chukan_links_reconcile_seconds_sum"]
        if told[_DONE] == _BOTH:
            # The hint of the first connection made a second one already.
            seconds -= told["chukan_links_last_reconcile_seconds"]
        return run_of(Sample(self._options.links, seconds, [seconds]), self._options.links / limit_s)

    async def _with_all(self, stand: LinksStand) -> Figure:
        """Measure changes while every device is connected."""
        with self._screen.step("every device opens its session"):
            await stand.swarm.connect(stand.devices, per_s=_CONNECTS_PER_S, within_s=_SESSIONS_TIMEOUT_S)
            await stand.until_places(_PASS_TIMEOUT_S)
        async with stock(stand.ground, self._log, self._clock) as other:
            await other.syncconf(self._beside)
            return await self._figure("change", lambda: self._change(stand, other))

    async def _change(self, stand: LinksStand, other: Stock) -> Run:
        limits, taken = list[float](), list[float]()
        for number in range(self._changes):
            await other.syncconf(self._beside_less_one)
            limits.append(await other.syncconf(self._beside))
            taken.append(await stand.returned(stand.devices[number]))
        limit_s, seconds = median(limits), median(taken)
        return run_of(Sample(1, seconds, taken), 1 / limit_s)

    async def _reconnect(self, stand: LinksStand) -> Run:
        stand.end()
        _forget(stand.devices)
        begun = self._clock.monotonic()
        async with stock(stand.ground, self._log, self._clock) as other:
            await other.syncconf(self._after_restart)
            await stand.swarm.until_connected(stand.devices, _SESSIONS_TIMEOUT_S)
        limit_s = max(_taken(stand.devices, begun))
        _forget(stand.devices)
        begun = self._clock.monotonic()
        stand.start()
        await stand.swarm.until_connected(stand.devices, _SESSIONS_TIMEOUT_S)
        taken = _taken(stand.devices, begun)
        await stand.until(lambda told: told.get(_DONE, 0) >= 1, _PASS_TIMEOUT_S)
        await self._require(stand, self._options.links)
        return run_of(Sample(len(taken), max(taken), taken), len(taken) / limit_s)

    async def _require(self, stand: LinksStand, count: int) -> None:
        """Raise ``RoundTripError`` unless the interface has exactly so many peers."""
        found = len((await stand.tunnels.get()).peers)
        if found != count:
            raise RoundTripError(f"the interface has {found} peers")

    def _files(self, stand: LinksStand) -> None:
        """Write what ``wg syncconf`` reads: beside ours at another port, and in its place at the same one."""
        folder = self._place.files
        self._log = folder / "stock.log"
        self._beside, self._beside_less_one, self._after_restart = (
            folder / f"{name}.conf" for name in ("beside", "less-one", "restart")
        )
        aside = PORT + 1
        for path, text in (
            (self._beside, syncconf(stand.members, stand.key, port=aside)),
            (self._beside_less_one, syncconf(stand.members[:-1], stand.key, port=aside)),
            (self._after_restart, syncconf(stand.members, stand.key, endpoints=True)),
        ):
            private_file.write(path, text.encode("ascii"))


def _forget(devices: Sequence[Device]) -> None:
    for device in devices:
        device.forget()


def _taken(devices: Sequence[Device], begun: float) -> list[float]:
    return [at - begun for device in devices if (at := device.connected_at) is not None]


def table(result: Result) -> Table:
    """Return the figures for a terminal."""
    quick = " (quick: no measurement)" if result.quick else ""
    title = f"{result.settings.links:,} links{quick}, medians of {result.settings.runs} runs"
    drawn = Table(title=title, title_justify="left", box=None, pad_edge=False)
    drawn.add_column("")
    for heading in ("ours ms", f"{PROGRAM} ms", "ratio", "p50 ms", "p99 ms"):
        drawn.add_column(heading, justify="right")
    for each in result.figures:
        of = 1 if each.name == "change" else result.settings.links
        ours, limit = (_MS * of / rate for rate in (each.per_s, each.limit_per_s))
        row = (f"{ours:,.1f}", f"{limit:,.1f}", f"{each.ratio:.2f}", f"{each.p50_ms:,.1f}", f"{each.p99_ms:,.1f}")
        drawn.add_row(each.name, *row)
    memory = result.memory
    drawn.caption = f"resident: controller {memory.controller_mib:g} MiB, wireguard-go {memory.wireguard_mib:g} MiB"
    return drawn
