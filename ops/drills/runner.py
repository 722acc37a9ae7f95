"""Runs one drill from its first sentence to its report: time-boxed, safe to abort, and always healed.

However it ends, by its last sentence, a step that failed, its own deadline, Ctrl-C or SIGTERM, what was broken is
undone before this returns, and the report says what could not be. Nothing can cancel the healing but its own deadline.

The clients work the whole time, from before the first breaking to after the last mending. Only when they have stopped
is anything asked for a second time, and only then do the checkers begin.
"""

import asyncio
from collections.abc import Callable, Iterable
from datetime import datetime
from pathlib import Path
from typing import Final

import msgspec

from chukan import log
from chukan.chance import Chance
from chukan.clock import Clock
from chukan.errors import Problem
from chukan.ops.drills import evidence as reading
from chukan.ops.drills.acts import acts
from chukan.ops.drills.cases import marks_of
from chukan.ops.drills.checkers import outage
from chukan.ops.drills.crowd import Crowd
from chukan.ops.drills.facts import Evidence
from chukan.ops.drills.hands import Hands
from chukan.ops.drills.history import JOURNALS, History
from chukan.ops.drills.page import page
from chukan.ops.drills.ports import Installation
from chukan.ops.drills.report import Event, Report, Stretch
from chukan.ops.drills.restored import Restored
from chukan.ops.drills.scenario import Scenario
from chukan.ops.drills.verdict import Course, Verdict, judge
from chukan.ops.drills.watch import Watch
from chukan.platform.law import Law
from chukan.platform.wire.agency import Gap

SETTLE_S: Final = 180.0
EVIDENCE_S: Final = 180.0
JUDGE_S: Final = 300.0
CALM_S: Final = 2.0
CONTENTS_MAX: Final = 20
"""Newest answers of each client that are collected once more."""
STRETCH_S: Final = 1.0

_log = log.get("drills.runner")


class Drill:
    """One run of one scenario; make one, ``run`` it, throw it away."""

    def __init__(
        self,
        installation: Installation,
        scenario: Scenario,
        history: History,
        *,
        clock: Clock,
        chance: Chance,
        say: Callable[[str], None],
        version: str = "",
        calm_s: float = CALM_S,
    ) -> None:
        self._installation, self._scenario, self._history = installation, scenario, history
        self._clock, self._chance, self._say = clock, chance, say
        self._version, self._calm_s = version, calm_s
        begun = clock.now()
        self.id = f"{begun:%Y%m%dT%H%M%S}-{scenario.name}-{chance.token(2).hex()}"
        self._begun = begun
        self._why = ""
        self._unhealed: list[str] = []
        self._notes: list[str] = []
        self.healing = False
        """Nobody may end the drill while this is so."""

    def check(self, *, understood: bool) -> None:
        """Refuse what must not or cannot be run here, before anything is touched.

        Raises ``Problem``: site_not_for_drills, not_possible_here.
        """
        if not self._installation.marked and not understood:
            raise Problem("site_not_for_drills")
        for act, target in acts(self._scenario):
            if not self._installation.does(act, target):
                raise Problem("not_possible_here", expected=f"{act} {target}".strip())
        for need in self._scenario.needs:
            if not self._installation.offers(need):
                raise Problem("not_possible_here", expected=need)

    async def run(self) -> tuple[Report, Path]:
        """Run, heal, judge, keep; returns the report and its folder.

        Raises ``Problem`` only where the drill could not even begin; everything later is told in the report.
        """
        folder = self._history.begin(self.id)
        gaps = frozenset[str]()
        async with Crowd(self._installation, folder / JOURNALS, self._clock, self._chance) as crowd:
            gaps = gap_marks(crowd.salt)
            watch = Watch(self._installation, crowd.now)
            hands = Hands(self._installation, crowd, self._say)
            watching = asyncio.create_task(watch.run())
            try:
                found = await self._course(crowd, hands)
            finally:
                watching.cancel()
                await asyncio.gather(watching, return_exceptions=True)
            course = Course(
                begun_at=crowd.begun_at,
                ended_at=crowd.ended_at,
                word_at=hands.word_at,
                word_cell=hands.word_cell,
                leaders=watch.leaders(),
                nodes_from=hands.restarts.nodes_from,
                moved_agency=hands.moves.agency,
                restored=self._taken_back(hands),
            )
            self._notes += [
                f"{n} requests were not sent: too many on their way" for n in [crowd.totals["skipped"]] if n
            ]
            accounts = crowd.accounts()
            self._say("the checkers read the clients' journals")
            verdict = await asyncio.to_thread(judge, self._scenario, accounts, found, course, gaps)
            seconds = crowd.now()
        if found is not None:
            (folder / "evidence.json").write_bytes(msgspec.json.encode(found))
        report = self._report(
            verdict, course, hands, watch, seconds, outage.outages(accounts, course.begun_at, course.ended_at), gaps
        )
        return report, self._history.keep(report, page(report))

    async def _course(self, crowd: Crowd, hands: Hands) -> Evidence | None:
        """Carry the sentences out, heal, and read the evidence; None where a drill was aborted."""
        aborted = False
        try:
            async with asyncio.timeout(self._scenario.within.drill_s):
                await self._sentences(crowd, hands)
        except Problem as problem:
            self._why = f"{problem.code}: {problem.expected or ''}".rstrip(": ")
        except TimeoutError:
            self._why = f"the drill's own deadline of {self._scenario.within.drill_s:.0f} s"
        except asyncio.CancelledError:
            aborted = True
            self._why = "aborted"
            self._forget_cancellation()
        except BaseException:
            # A fault of the drill itself: mended like everything else, and told as what it is.
            await self._heal(crowd, hands, aborted=True)
            raise
        if self._why:
            self._say(f"ended early: {self._why}")
            hands.note("途中終了", f"ended early: {self._why}", "trouble")
        await self._heal(crowd, hands, aborted=aborted)
        if aborted or not crowd.begun_at:
            return None
        return await self._evidence(crowd, self._taken_back(hands))

    def _taken_back(self, hands: Hands) -> Restored | None:
        """Return what was restored, where the scenario itself says that this takes something back."""
        return hands.restores.restored if self._scenario.claims("taken_back") else None

    async def _sentences(self, crowd: Crowd, hands: Hands) -> None:
        for step in self._scenario.given:
            if step.verb == "warm" and not crowd.begun_at:
                self._say("clients register their copies and begin to work")
                await crowd.begin()
                hands.note("利用者が利用を始めた", "clients began to work", "clients")
            await hands.do(step)
        if not crowd.begun_at:
            await crowd.begin()
        for step in self._scenario.when:
            await hands.do(step)

    async def _heal(self, crowd: Crowd, hands: Hands, *, aborted: bool) -> None:
        """Undo what is left, wait for a settled site, and only then let the clients stop. Never cancelled."""
        self.healing = True
        try:
            self._unhealed += await hands.heal()
            try:
                await self._installation.stage.settled(SETTLE_S)
            except (Problem, TimeoutError):
                self._unhealed.append(f"the site did not settle within {SETTLE_S:.0f} s")
            if not self._unhealed:
                self._history.healed()
                hands.note("復旧を確認した", "everything is healed", "healed")
            if crowd.begun_at and not aborted:
                await asyncio.sleep(self._calm_s)
            await crowd.rest()
            if crowd.begun_at and aborted:
                self._notes.append("the drill's own copies were not registered again as they were before")
            hands.note("利用者が利用を終えた", "clients stopped", "clients")
        finally:
            self.healing = False

    async def _evidence(self, crowd: Crowd, restored: Restored | None) -> Evidence | None:
        """Ask for what is in doubt, and read what everybody holds; None where that could not be done."""
        try:
            async with asyncio.timeout(JUDGE_S):
                self._say("what is in doubt is asked for by its key")
                await crowd.ask_again(restored)
                found = await crowd.reader.settled(crowd.accounts(), crowd.probers, EVIDENCE_S, self._say, restored)
                again = await reading.contents(crowd.probers, crowd.accounts(), CONTENTS_MAX)
                await crowd.put_back()
                return msgspec.structs.replace(found, contents=again)
        except Problem as problem:
            self._why = self._why or f"the evidence could not be read: {problem.code}"
        except TimeoutError:
            self._why = self._why or f"the evidence could not be read within {JUDGE_S:.0f} s"
        except asyncio.CancelledError:
            self._why = "aborted"
            self._forget_cancellation()
        return None

    @staticmethod
    def _forget_cancellation() -> None:
        """The cancellation has been heard; what follows (healing) must not be cut short by it."""
        task = asyncio.current_task()
        if task is not None:
            task.uncancel()

    def _report(
        self,
        verdict: Verdict,
        course: Course,
        hands: Hands,
        watch: Watch,
        seconds: float,
        outages: dict[str, list[outage.Gap]],
        gaps: Iterable[str],
    ) -> Report:
        scenario = self._scenario
        stretches = [
            Stretch(group, gap.begun, gap.ended)
            for group, gaps_of in outages.items()
            for gap in gaps_of
            if gap.seconds >= STRETCH_S
        ]
        return Report(
            id=self.id,
            scenario=scenario.name,
            title_ja=scenario.title_ja,
            title_en=scenario.title_en,
            breaks_ja=scenario.breaks_ja,
            breaks_en=scenario.breaks_en,
            topology=self._installation.topology,
            site=self._installation.name,
            begun_at=_rfc3339(self._begun),
            seconds=round(seconds, 1),
            version=self._version,
            verdict=verdict,
            passed=verdict.passed and not self._why and not self._unhealed,
            ended_early=self._why,
            unhealed=self._unhealed,
            notes=self._notes,
            load_from=course.begun_at,
            load_to=course.ended_at,
            events=[Event(event.at, event.ja, event.en, event.kind) for event in hands.events],
            changes=watch.changes,
            stretches=stretches,
            gaps=sorted(gaps),
        )


def gap_marks(salt: bytes) -> frozenset[str]:
    """Return the marks of every reason code that an answer may carry for an item that was not registered."""
    law = Law.load()
    layouts = [law.layout(kind, version) for kind, version in law.layouts]
    codes = {code for layout in layouts if layout is not None for code in layout.gap_codes} | {"07", "90"}
    return frozenset(marks_of({code: Gap(gap=code) for code in codes}, salt).values())


def _rfc3339(at: datetime) -> str:
    return at.isoformat(timespec="milliseconds")
