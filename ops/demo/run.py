"""The demo from beginning to end: bring up, lodge, ask, count, show; then stay up until told to end.

Invariant: however it ends, by Ctrl-C, a signal, a failure or a kill, no process is left; and whatever was finished is
found again by the next start.
"""

import asyncio
import sys
from pathlib import Path

import aiohttp
import msgspec

from chukan import log
from chukan.clock import SystemClock, today_jst
from chukan.errors import Problem
from chukan.ops.demo import connection, guide
from chukan.ops.demo.asking import Asking
from chukan.ops.demo.bring_up import Memory, Running, read_memory, write_memory
from chukan.ops.demo.checkpoints import look_at_logs
from chukan.ops.demo.lodging import Lodging
from chukan.ops.demo.model import read_model
from chukan.ops.demo.national import NationalInquirer
from chukan.ops.demo.place import Lock, Place
from chukan.ops.demo.population import Population
from chukan.ops.demo.questions import Planned, plan
from chukan.ops.demo.screen import Screen
from chukan.ops.demo.supervisor import guarded, tail
from chukan.ops.demo.systems import Systems, connect
from chukan.ops.demo.tally import Tally, count_withheld, read_records, tally
from chukan.ops.interruption import until_told
from chukan.ops.sandbox.transport import ClientError
from chukan.platform.law import Law

EXIT_INTERRUPTED = 130
_DATA_IN_THE_WAY = frozenset(
    {
        "agency_closed",
        "common_data_stale",
        "database_failed",
        "keys_unconfirmed",
        "other_environment",
        "signature_invalid",
    }
)
_NATIONAL_ONE_IN = 50
"""One query in so many is asked by the national counterpart."""


class Options(msgspec.Struct, frozen=True):
    """What the command line said."""

    once: bool
    as_json: bool
    reset: bool
    people: int
    queries: int
    seed: int


def run(options: Options, place: Place | None = None) -> int:
    """Run the demo and return the exit status: 0, 1 when something did not come out as it should, 130 interrupted."""
    place = place or Place()
    with Lock(place.root):
        if options.reset:
            place.clear()
        place.make()
        with (place.log / "demo.log").open("a", encoding="utf-8") as stream:
            log.configure(stream=stream)
            try:
                return asyncio.run(run_until_told(Demo(options, place)))
            finally:
                log.configure()


async def run_until_told(demo: "Demo") -> int:
    """Run until done or told to end by a signal; return the exit status."""
    status = await until_told(demo)
    if status is None:
        return 0 if demo.finished else EXIT_INTERRUPTED
    return status


class Demo:
    """One run of the demo."""

    def __init__(self, options: Options, place: Place) -> None:
        """Choose the people: those of an earlier start where there are any."""
        self._options = options
        self._place = place
        self._clock = SystemClock()
        self._screen = Screen(for_program=options.as_json)
        remembered = read_memory(place)
        self._memory = remembered or Memory(people=options.people, seed=options.seed)
        if remembered is not None and remembered.people != options.people:
            self._screen.say(
                f"Going on with the {remembered.people:,} people of an earlier start (--reset begins anew)."
            )
        self._population = Population(self._memory.people, self._memory.seed, today_jst(self._clock))
        model = read_model(place)
        self._law = Law.load(None if model is None else place.law)
        self._running = Running(place, self._screen, self._population, self._law, model)
        self.finished = False
        self.stopping = False

    async def run(self) -> int:
        """Do everything; takes everything down before it returns or raises."""
        try:
            return await self._work()
        except Problem as problem:
            self._explain(problem)
            raise
        except ClientError as error:
            self._screen.say(f"A call failed: {error.code}. The logs are in {self._place.log}.")
            raise error.as_problem() from None
        finally:
            self.stopping = True
            with self._screen.step("everything is being stopped"):
                await asyncio.shield(self._running.stop())

    async def _work(self) -> int:
        self._screen.title("Bringing up")
        await self._running.start()
        planned = plan(self._population, self._law, self._options.queries, self._memory.runs)
        connection.publish(self._running, planned)
        async with connect(self._running) as systems:
            result = await guarded(self._main_job(systems, planned), self._running.watch())
        result = await self._complete(result)
        guide.show_result(self._screen, result)
        good = self._judge(result)
        self.finished = True
        if self._options.as_json:
            sys.stdout.write(msgspec.json.encode(result).decode() + "\n")
            sys.stdout.flush()
        if not self._options.once:
            await self._stay(planned)
        return 0 if good else 1

    async def _main_job(self, systems: Systems, planned: list[Planned]) -> Tally:
        started_at = self._clock.now()
        lodging = Lodging(self._running, systems)
        await self._lodge(lodging)
        self._remember(runs=self._memory.runs + 1, registered=True)
        asking = Asking(systems, planned)
        self._screen.title("Asking")
        with self._screen.step("the first query"):
            outcome = await asking.first()
        self._screen.say(f"    its outcome: {outcome or 'none yet'}, {self._screen.seconds:.0f} s after the start")
        await self._ask_the_others(asking)
        self._screen.title("Counting")
        addresses = self._running.addresses
        with self._screen.step("copies and linkage codes, as the platform tells"):
            copies, codes = await lodging.count_copies(), await lodging.count_codes()
        with self._screen.step("records of both sides and of the network, compared line by line"):
            recorded = await read_records(
                systems, addresses.network_admin_url, addresses.counterparts_admin_url, started_at, self._clock
            )
        with self._screen.step("records that are withheld from the person (不開示)"):
            withheld = await count_withheld(systems, asking.answers)
        with self._screen.step("checkpoints of all logs, held against those kept before"):
            folder = self._place.root / "checkpoints"
            logs = await look_at_logs(systems, self._running.credentials, folder, self._clock)
        self._logs = logs
        self._missed = asking.answers.missed()
        self._disclosed = sum(query.aim == "withheld" for query in planned) - withheld
        seconds = self._screen.seconds
        result = tally(asking.answers, recorded, copies=copies, codes=codes, seconds=seconds, withheld=withheld)
        return msgspec.structs.replace(result, logs_cosigned=logs.cosigned)

    async def _complete(self, result: Tally) -> Tally:
        """Add to the result what only some kinds of demo have; nothing here."""
        return result

    async def _ask_the_others(self, asking: Asking) -> None:
        async with asking.aside():
            with self._screen.bar("queries at counters", len(asking.counter) - 1) as advance:
                await asking.at_counters(advance)
            with self._screen.bar("queries in lists, reviews", sum(map(len, asking.lists))) as advance:
                await asking.in_lists(advance)
                await asking.settle()
            with self._screen.step("a national counterpart asks a municipality"):
                await self._ask_nationally(asking)

    async def _lodge(self, lodging: Lodging) -> None:
        if self._memory.registered:
            self._screen.say("\nCopies and linkage codes are there from an earlier start.")
            return
        self._screen.title("Lodging copies, acquiring linkage codes")
        await lodging.show(self._screen)

    async def _ask_nationally(self, asking: Asking) -> None:
        async with aiohttp.ClientSession() as session:
            inquirer = NationalInquirer(session, self._running.addresses.counterparts_admin_url)
            await inquirer.until_ready()
            count = max(1, self._options.queries // _NATIONAL_ONE_IN)
            questions = inquirer.questions(self._population, count, self._memory.runs)
            asking.answers.national += await inquirer.ask(questions)

    def _remember(self, *, runs: int, registered: bool) -> None:
        self._memory = msgspec.structs.replace(self._memory, runs=runs, registered=registered)
        write_memory(self._place, self._memory)

    def _judge(self, result: Tally) -> bool:
        """Say what did not come out as it should; tell whether everything did."""
        complaints = [
            f"{number} queries that aimed at {aim} came out differently" for aim, number in self._missed.items()
        ]
        complaints += [f"{number} × {kind}" for kind, number in result.differences.items()]
        if self._logs.contradicted:
            complaints.append(f"{self._logs.contradicted} logs do not continue the checkpoint that was kept")
        if result.logs_cosigned + self._logs.contradicted < result.agencies:
            complaints.append("not every log is cosigned by the other centre")
        if self._disclosed:
            complaints.append(f"{self._disclosed} records that should be withheld are not")
        if result.records_reconciled != result.records_network:
            complaints.append("not every line's records agree yet")
        for complaint in complaints:
            self._screen.say(f"  ✗ {complaint}")
        return not complaints

    async def _stay(self, planned: list[Planned]) -> None:
        """Show how to go on, then keep everything running until a signal comes."""
        guide.show_addresses(self._screen, self._running)
        query = next(query for query in planned if query.aim == "answered")
        guide.show_calls(self._screen, guide.curl_calls(self._running, query), query.inquirer)
        self._screen.title("Running. Ctrl-C ends everything.")
        await self._running.watch()

    def _explain(self, problem: Problem) -> None:
        """Show the end of the log that a problem names, and what to do when the data cannot be gone on with."""
        path = Path(problem.expected or "")
        if path.is_absolute() and path.suffix == ".log":
            self._screen.say(f"\nThe end of {path}:\n{tail(path)}\n")
        if problem.code in _DATA_IN_THE_WAY:
            self._screen.say("If the data of an earlier start is in the way: ./chukan demo --reset begins anew.")
