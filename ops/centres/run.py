"""``chukan demo --centres``: the main job across two centres, then the addresses, the picture, and calls to try.

The job is the demo's own; only what it runs on is another. A second start goes on from the data of the first.

Invariant: however it ends, no process and no namespace is left.
"""

import asyncio
import shlex

import msgspec

from chukan import log
from chukan.clock import today_jst
from chukan.ops.centres import link_tally
from chukan.ops.centres.control import SOCKET, serve
from chukan.ops.centres.drawing import draw
from chukan.ops.centres.place import LabPlace
from chukan.ops.centres.running import CentresRunning
from chukan.ops.demo import cast, guide
from chukan.ops.demo.bring_up import EXCHANGES
from chukan.ops.demo.place import Lock
from chukan.ops.demo.population import Population
from chukan.ops.demo.questions import Planned
from chukan.ops.demo.run import Demo, Options, run_until_told
from chukan.ops.demo.tally import Tally
from chukan.platform.law import Law
from chukan.replication import site_file
from chukan.replication.site import Topology


def run_centres(
    options: Options,
    topology: Topology,
    place: LabPlace | None = None,
    *,
    delay_ms: float | None = None,
    links: bool = False,
) -> int:
    """Run the demo on two centres and return the exit status: 0, 1 when something came out wrong, 130 interrupted."""
    place = place or LabPlace()
    with Lock(place.root):
        if options.reset or _other_topology(place, topology):
            place.clear()
        place.make()
        with (place.log / "demo.log").open("a", encoding="utf-8") as stream:
            log.configure(stream=stream)
            try:
                return asyncio.run(run_until_told(CentresDemo(options, place, topology, delay_ms, links=links)))
            finally:
                log.configure()


def _other_topology(place: LabPlace, topology: Topology) -> bool:
    """Tell whether an earlier start was of another topology: its cells cannot be gone on with."""
    return place.site.exists() and site_file.read(place.site).topology != topology


class CentresDemo(Demo):
    """One run of the demo on two centres."""

    def __init__(
        self, options: Options, place: LabPlace, topology: Topology, delay_ms: float | None, *, links: bool
    ) -> None:
        """Choose the people as the demo does."""
        super().__init__(options, place)
        population = Population(self._memory.people, self._memory.seed, today_jst(self._clock))
        law = Law.load()
        bodies = cast.bodies() if links else ()
        self._centres = CentresRunning(
            place, self._screen, population, law, topology, delay_ms=delay_ms, backups=True, bodies=bodies
        )
        self._running = self._centres
        self._beside = 0

    async def run(self) -> int:
        """Do everything; takes everything down before it returns or raises."""
        try:
            await self._centres.lay()
        except BaseException:
            await asyncio.shield(self._centres.stop())
            raise
        with self._centres.wires.inside():
            return await super().run()

    async def _complete(self, result: Tally) -> Tally:
        """Add what went through the tunnels, where there are any."""
        running = self._centres
        if running.links is None:
            return result
        links, self._beside = await link_tally.count(running.addresses, await running.stage.picture())
        return msgspec.structs.replace(result, links=links)

    def _judge(self, result: Tally) -> bool:
        """Say what did not come out as it should; here also, what went past the tunnels."""
        if self._beside:
            self._screen.say(f"  ✗ {self._beside} queries did not come through a tunnel")
        return super()._judge(result) and not self._beside

    async def _stay(self, planned: list[Planned]) -> None:
        """Show how to go on, then keep everything running until a signal comes."""
        running, screen = self._centres, self._screen
        screen.console.print(draw(await running.stage.picture()))
        query = next(query for query in planned if query.aim == "answered")
        self._show_addresses()
        prefix = running.addresses.namespace(query.inquirer) or running.wires.name("wan")
        prefix = f"ip netns exec {shlex.quote(prefix)} " if prefix else ""
        calls = [(text, prefix + call) for text, call in guide.curl_calls(running, query)]
        screen.title("Try it (each is one line; in another terminal, from this folder)")
        screen.say("\n# The picture above, once a second; what the loss of each part would do:")
        site = shlex.quote(str(running.lab.site))
        screen.say(f"./chukan status --watch --site {site}\n./chukan site explain --site {site}")
        for text, call in [*calls, *self._link_calls(cast.entry(query.inquirer).body)]:
            screen.say(f"\n# {text}\n{call}")
        screen.title("Running. Ctrl-C ends everything.")
        async with serve(running.stage, running.lab.lab / SOCKET):
            await running.watch()

    def _link_calls(self, body: str) -> list[tuple[str, str]]:
        """Return what to try with the links, each with what it shows; nothing where there are none."""
        running = self._centres
        if running.links is None:
            return []
        outside = f"ip netns exec {shlex.quote(running.wires.name('wan'))} ./chukan"
        operator = f"--config {shlex.quote(str(running.lab.operator))}"
        return [
            ("All links:", f"{outside} link list {operator}"),
            ("Who did what to them:", f"{outside} link history {operator}"),
            ("Send all devices from the east to the west, and back:",
             f"{outside} link drain east --by you {operator}; {outside} link drain east --off --by you {operator}"),
            (f"How {running.links.title(body)} is connected, as its own device says:",
             f"./chukan device show --folder {shlex.quote(str(running.links.folder(body)))}"),
        ]  # fmt: skip

    def _show_addresses(self) -> None:
        running, screen = self._centres, self._screen
        screen.title("Where everything is")
        addresses = running.addresses
        for name, centre in EXCHANGES.items():
            screen.say(f"  {name:<15} {addresses.agency_url(name)}  (documentation: /openapi.json)")
            screen.say(f"  {'':<15} {addresses.health_url(name)}/readyz, /healthz, /metrics")
            screen.say(f"  {'':<15} its centre's tree: {running.site.directory(centre)}")
        if running.links is not None:
            screen.say(
                f"  {'agencies at':<15} {addresses.published()[0][1]}, each from its body's own network namespace"
            )
            for body in running.links.bodies:
                screen.say(f"  {'':<15} {running.links.wires.town(body)}  {running.links.title(body)}")
        screen.say(f"  {'network':<15} {addresses.network_admin_url}/admin/state (outside)")
        screen.say(f"  {'for clients':<15} {running.place.connection}")
        screen.say(f"  {'site file':<15} {running.lab.site}")
        screen.tell(
            "\nA sandbox: three sites on one machine and one disk, whose links can be cut. What is acknowledged is"
            " durable as the site file says; nobody in it is real."
        )
