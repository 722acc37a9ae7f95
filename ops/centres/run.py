"""``chukan demo --centres``: the main job across two centres, then the addresses, the picture, and calls to try.

The job is the demo's own; only what it runs on is another. A second start goes on from the data of the first.

Invariant: however it ends, no process and no namespace is left.
"""

import asyncio
import shlex

from chukan import log
from chukan.clock import today_jst
from chukan.ops.centres.control import SOCKET, serve
from chukan.ops.centres.drawing import draw
from chukan.ops.centres.running import CentresRunning, LabPlace
from chukan.ops.demo import guide
from chukan.ops.demo.bring_up import EXCHANGES
from chukan.ops.demo.place import Lock
from chukan.ops.demo.population import Population
from chukan.ops.demo.questions import Planned
from chukan.ops.demo.run import Demo, Options, run_until_told
from chukan.platform.law import Law
from chukan.replication import site_file
from chukan.replication.site import Topology


def run_centres(
    options: Options, topology: Topology, place: LabPlace | None = None, *, delay_ms: float | None = None
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
                return asyncio.run(run_until_told(CentresDemo(options, place, topology, delay_ms)))
            finally:
                log.configure()


def _other_topology(place: LabPlace, topology: Topology) -> bool:
    """Tell whether an earlier start was of another topology: its cells cannot be gone on with."""
    return place.site.exists() and site_file.read(place.site).topology != topology


class CentresDemo(Demo):
    """One run of the demo on two centres."""

    def __init__(self, options: Options, place: LabPlace, topology: Topology, delay_ms: float | None) -> None:
        """Choose the people as the demo does."""
        super().__init__(options, place)
        population = Population(self._memory.people, self._memory.seed, today_jst(self._clock))
        law = Law.load()
        self._centres = CentresRunning(place, self._screen, population, law, topology, delay_ms=delay_ms, backups=True)
        self._running = self._centres

    async def run(self) -> int:
        """Do everything; takes everything down before it returns or raises."""
        try:
            await self._centres.lay()
        except BaseException:
            await asyncio.shield(self._centres.stop())
            raise
        with self._centres.wires.inside():
            return await super().run()

    async def _stay(self, planned: list[Planned]) -> None:
        """Show how to go on, then keep everything running until a signal comes."""
        running, screen = self._centres, self._screen
        screen.console.print(draw(await running.stage.picture()))
        query = next(query for query in planned if query.aim == "answered")
        self._show_addresses()
        prefix = running.wires.name("wan")
        prefix = f"ip netns exec {shlex.quote(prefix)} " if prefix else ""
        calls = [(text, prefix + call) for text, call in guide.curl_calls(running, query)]
        screen.title("Try it (each is one line; in another terminal, from this folder)")
        screen.say("\n# The picture above, once a second; what the loss of each part would do:")
        site = shlex.quote(str(running.lab.site))
        screen.say(f"./chukan status --watch --site {site}\n./chukan site explain --site {site}")
        for text, call in calls:
            screen.say(f"\n# {text}\n{call}")
        screen.title("Running. Ctrl-C ends everything.")
        async with serve(running.stage, running.lab.lab / SOCKET):
            await running.watch()

    def _show_addresses(self) -> None:
        running, screen = self._centres, self._screen
        screen.title("Where everything is")
        addresses = running.addresses
        for name, centre in EXCHANGES.items():
            screen.say(f"  {name:<15} {addresses.agency_url(name)}  (documentation: /openapi.json)")
            screen.say(f"  {'':<15} {addresses.health_url(name)}/readyz, /healthz, /metrics")
            screen.say(f"  {'':<15} its centre's tree: {running.site.directory(centre)}")
        screen.say(f"  {'network':<15} {addresses.network_admin_url}/admin/state (outside)")
        screen.say(f"  {'for clients':<15} {running.place.connection}")
        screen.say(f"  {'site file':<15} {running.lab.site}")
        screen.tell(
            "\nA sandbox: three sites on one machine and one disk, whose links can be cut. What is acknowledged is"
            " durable as the site file says; nobody in it is real."
        )
