"""``chukan drill``: break something on purpose, see what clients see, and keep a signed report (切替訓練).

``run`` makes a drill on a lab of its own, brought up for it, on the one that runs, or on a real site (``--site``), on
whose hosts ``hand`` does what it asks for. Ctrl-C, SIGTERM and the drill's own deadline all end in the same way: what
was broken is mended, and what could not be is said. The exit status is 0 only when everything held.
"""

import asyncio
import signal
import sys
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec
from cyclopts import App, Parameter, validators

from chukan import log
from chukan.chance import SystemChance
from chukan.clock import SystemClock
from chukan.errors import Problem
from chukan.ops.demo.screen import Screen
from chukan.ops.drills import figures
from chukan.ops.drills import report as reports
from chukan.ops.drills.bringing_up import own_lab, running, running_lab
from chukan.ops.drills.history import PAGE, History
from chukan.ops.drills.ports import Installation
from chukan.ops.drills.report import Report
from chukan.ops.drills.runner import Drill
from chukan.ops.drills.scenario import Scenario, find, read_all
from chukan.ops.drills.sites import real_site
from chukan.ops.drills.vocabulary import ALWAYS
from chukan.ops.local.machine import CLONE
from chukan.ops.output import Json, say, table
from chukan.replication.site_file import read

app = App(name="drill", help="Break something on purpose, and prove that nothing is lost.")
app.command("chukan.ops.drills.host_hand:app", name="hand")
app.command("chukan.ops.drill_summary:summary", name="summary")

EXIT_INTERRUPTED: Final = 130
ALL: Final = "all"
LINKS: Final = "links"
Topology = Literal["2+2", "2+1"]
Times = Annotated[int, Parameter(validator=validators.Number(gte=1, lte=100))]
Store = Annotated[Path, Parameter(name="--store")]
_STORE: Final = CLONE / "var" / "drills"


# ---------------------------------------------------------------- list


@app.command(name="list")
def list_drills(*, as_json: Json = False) -> None:
    """Show every drill: what it breaks, what must hold afterwards, and how long it takes at most."""
    scenarios = read_all()
    if as_json:
        say([_described(one) for one in scenarios.values()], "", as_json=True)
        return
    screen = Screen(for_program=False)
    for scenario in scenarios.values():
        screen.title(f"{scenario.name}  {scenario.title_ja}")
        screen.tell(f"  {scenario.title_en}")
        screen.tell(f"  壊すもの: {scenario.breaks_ja}")
        screen.tell(f"  breaks:   {scenario.breaks_en}")
        for text in _wanted(scenario):
            screen.tell(f"  holds:    {text}")
        screen.tell(f"  takes at most {scenario.within.drill_s / 60:.0f} min{_needs(scenario)}")
    screen.title("どの訓練でも成り立つべきこと After every drill")
    for sentence in ALWAYS:
        screen.tell(f"  {sentence.ja} / {sentence.en}")


def _needs(scenario: Scenario) -> str:
    return f"; needs {', '.join(scenario.needs)}" if scenario.needs else ""


def _wanted(scenario: Scenario) -> list[str]:
    within = scenario.within
    found = [f"{step.ja} / {step.en}" for step in scenario.then]
    for home, limit in (("east", within.outage_home_east_s), ("west", within.outage_home_west_s)):
        if limit is not None:
            found.append(f"本拠{home}の停止 {limit:g} 秒以内 / outage of home {home} at most {limit:g} s")
    if within.after_word_s is not None:
        limit_s = f"{within.after_word_s:g}"
        found.append(f"運用者の宣言から {limit_s} 秒以内 / at most {limit_s} s after an operator's word")
    return found


def _described(scenario: Scenario) -> dict[str, object]:
    return {
        "name": scenario.name,
        "title_ja": scenario.title_ja,
        "title_en": scenario.title_en,
        "breaks_ja": scenario.breaks_ja,
        "breaks_en": scenario.breaks_en,
        "given": [step.en for step in scenario.given],
        "when": [step.en for step in scenario.when],
        "then": [sentence.en for sentence in ALWAYS] + [step.en for step in scenario.then],
        "within": msgspec.to_builtins(scenario.within),
        "needs": list(scenario.needs),
    }


# ---------------------------------------------------------------- run


@app.command
def run(
    name: str,
    *,
    site: Annotated[Path | None, Parameter(name=["--site", "-s"])] = None,
    topology: Topology | None = None,
    links: Annotated[bool, Parameter(negative="")] = False,
    times: Times = 1,
    i_understand: Annotated[bool, Parameter(negative="")] = False,
    store: Store = _STORE,
    as_json: Json = False,
) -> int:
    """Run a drill, or all of them, and keep the signed report.

    It is made on the lab that ``chukan demo --centres`` runs, or on one of its own that is brought up for it; or on
    the real site of a site file.

    Parameters
    ----------
    name
        The drill's name, or "all".
    site
        The site file of a real site, with a table [drill].
    topology
        Nodes of each cell at home and in the other centre; 2+2, or that of the lab or site that runs.
    links
        In a lab of its own: every client behind its body's device, through tunnels; a drill of links needs no word.
    times
        How often to run it.
    i_understand
        Run it although the site is not marked for drills.
    store
        Folder of the reports, and of the site's drill key.
    as_json
        Print one JSON object at the end; everything else goes to standard error.
    """
    chosen = list(read_all().values()) if name == ALL else [find(name)]
    session = Session(
        Screen(for_program=as_json),
        History(store),
        site=site,
        links=links or (name != ALL and LINKS in chosen[0].needs),
        understood=i_understand,
        patient=name == ALL,
    )
    with session.history.lock():
        (store / "drill.log").touch(mode=0o600)
        with (store / "drill.log").open("a", encoding="utf-8") as stream:
            log.configure(stream=stream)
            try:
                status = asyncio.run(session.until_told([one for one in chosen for _ in range(times)], topology))
            finally:
                log.configure()
    if as_json:
        single = name != ALL and times == 1 and len(session.done) == 1
        document = reports.summary(session.done[0]) if single else reports.together(
            name, session.done, session.skipped
        )  # fmt: skip
        sys.stdout.write(msgspec.json.encode(document).decode() + "\n")
    return status


class Session:
    """Drills one after the other on one lab, or on one site."""

    def __init__(
        self,
        screen: Screen,
        history: History,
        *,
        site: Path | None = None,
        links: bool = False,
        understood: bool,
        patient: bool,
    ) -> None:
        """``patient``: a drill that is not possible here is left out, not refused. ``links``: in a lab of its own."""
        self._screen, self.history, self._site, self._links = screen, history, site, links
        self._understood, self._patient = understood, patient
        self._clock = SystemClock()
        self._chance = SystemChance(self._clock)
        self._drill: Drill | None = None
        self._told = False
        self.done: list[Report] = []
        self.skipped: list[str] = []

    async def until_told(self, scenarios: Sequence[Scenario], topology: Topology | None) -> int:
        """Run until done or told to end by a signal; healing is never cut short."""
        working = asyncio.ensure_future(self._work(scenarios, topology))
        loop = asyncio.get_running_loop()

        def told() -> None:
            if self._drill is not None and self._drill.healing:
                self._screen.say("  what was broken is being mended; this ends by itself")
            elif not self._told:
                working.cancel()
            self._told = True

        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, told)
        try:
            await working
        except asyncio.CancelledError:
            return EXIT_INTERRUPTED
        return 0 if self.done and all(report.passed for report in self.done) else 1

    async def _work(self, scenarios: Sequence[Scenario], topology: Topology | None) -> None:
        async with self._installation(topology) as installation:
            left = self.history.unfinished()
            if left is not None:
                self._screen.say(f"  ! the drill {left} did not come to its end; what it broke is mended first")
                await installation.stage.heal()
                self.history.healed()
            for scenario in scenarios:
                if self._told:
                    return
                await self._one(installation, scenario)

    def _installation(self, topology: Topology | None) -> AbstractAsyncContextManager[Installation]:
        if self._site is not None:
            self._screen.title(f"On the site of {self._site}")
            _refuse_other(topology, read(self._site).topology)
            return real_site(self._site, self.history.root)
        place = running_lab()
        if place is None:
            self._screen.title(f"Bringing up a lab of two centres ({topology or '2+2'})")
            return own_lab(topology or "2+2", self._screen, links=self._links)
        self._screen.title(f"On the lab that runs ({place.lab})")
        _refuse_other(topology, read(place.site).topology)
        return running(place)

    async def _one(self, installation: Installation, scenario: Scenario) -> None:
        self._drill = drill = Drill(
            installation,
            scenario,
            self.history,
            clock=self._clock,
            chance=self._chance,
            say=lambda text: self._screen.say(f"  · {text}"),
            version=version("chukan"),
        )
        try:
            drill.check(understood=self._understood)
        except Problem as problem:
            if problem.code != "not_possible_here" or not self._patient:
                raise
            self.skipped.append(scenario.name)
            self._screen.say(f"\n{scenario.name}: not possible here (needs {problem.expected})")
            return
        self._screen.title(f"{scenario.title_ja} {scenario.title_en}")
        found, folder = await drill.run()
        self.done.append(found)
        # After every drill, so that the figures are there whatever becomes of the next one.
        figures.write(self.history.root, self.history.readable())
        self._show(found, folder)

    def _show(self, found: Report, folder: Path) -> None:
        show(self._screen, found)
        self._screen.say(f"  {folder / PAGE}")


def _refuse_other(asked: Topology | None, runs: Topology) -> None:
    if asked not in {None, runs}:
        raise Problem("not_possible_here", expected=f"{runs}: what runs is of this topology")


# ---------------------------------------------------------------- report


@app.command
def report(
    drill: str | None = None,
    *,
    last: Annotated[bool, Parameter(negative="")] = False,
    store: Store = _STORE,
    as_json: Json = False,
) -> int:
    """Show a kept report after checking its signature; without an id, list what is kept.

    Parameters
    ----------
    drill
        The report's id.
    last
        The newest one.
    store
        Folder of the reports.
    as_json
        Print JSON.
    """
    history = History(store)
    ids = history.ids()
    if last and ids:
        drill = ids[-1]
    if drill is None:
        kept = history.readable()
        rows = [
            [one.id, one.topology, "passed" if one.passed else "NOT PASSED", f"{one.rto_s:.1f}", str(one.rpo_lost)]
            for one in kept
        ]
        shown = table("id", "topology", "verdict", "RTO s", "lost", rows=rows)
        say([reports.summary(one) for one in kept], shown, as_json=as_json)
        return 0
    found = history.read(drill)
    if as_json:
        say(found, "", as_json=True)
    else:
        screen = Screen(for_program=False)
        screen.title(f"{found.title_ja} {found.title_en}")
        show(screen, found)
        screen.say(f"  {store / found.id / PAGE}")
    return 0 if found.passed else 1


def show(screen: Screen, found: Report) -> None:
    """Show a report in a few lines."""
    verdict = found.verdict
    screen.say(f"  {'合格 passed' if found.passed else '不合格 NOT PASSED'}: {found.id} ({found.topology})")
    screen.say(
        f"  acknowledged {verdict.acknowledged:,}, lost {verdict.lost}, duplicates {verdict.duplicates}, two writers "
        f"{verdict.two_writers}, wrong answers {verdict.wrong_answers}, failed requests {verdict.failed_requests}"
    )
    outages = ", ".join(f"{group} {seconds:.1f} s" for group, seconds in verdict.outage_s.items())
    screen.say(f"  longest outage: {outages}")
    for text in _complaints(found):
        screen.say(f"  ✗ {text}")


def _complaints(found: Report) -> list[str]:
    complaints = [f"ended early: {found.ended_early}"] if found.ended_early else []
    complaints += [f"could not be healed: {text}" for text in found.unhealed]
    complaints += [
        f"{bound.what}: {bound.seen_s:.2f} s, at most {bound.limit_s:g} s" for bound in found.bounds() if not bound.held
    ]
    complaints += [
        claim.en if claim.held is False else f"not judged: {claim.en}" for claim in found.claims() if not claim.held
    ]
    faults = found.faults()
    complaints += [f"{fault.kind}: {fault.about} {fault.detail}".rstrip() for fault in faults[:10]]
    return complaints
