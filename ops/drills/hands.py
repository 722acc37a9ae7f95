"""Carries out the sentences of a scenario on an installation, and remembers what is broken.

Every step has a deadline of its own inside the drill's. What a step broke is undone by the scenario's own later step;
``heal`` undoes whatever is left, however the drill ended, and tells what it could not.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Final, NamedTuple

from chukan.errors import Problem
from chukan.ops.drills.key_turns import KeyTurns
from chukan.ops.drills.moves import Moves
from chukan.ops.drills.ports import Installation
from chukan.ops.drills.restarts import Restarts
from chukan.ops.drills.restores import Restores
from chukan.ops.drills.vocabulary import Step
from chukan.ops.drills.waits import LOOK_S, SETTLE_S, Clients, Sight, Waits

STEP_S: Final = 120.0
"""How long a breaking or mending step may take; a waiting step names its own time."""
CANDIDATE_S: Final = 30.0
HEAL_S: Final = 180.0


class Event(NamedTuple):
    """Something that the drill did or saw; ``at`` in seconds since it began."""

    at: float
    ja: str
    en: str
    kind: str = "step"


class Hands:
    """Does, waits, and keeps what it did as events."""

    def __init__(self, installation: Installation, clients: Clients, say: Callable[[str], None]) -> None:
        self._installation, self._clients, self._say = installation, clients, say
        self.events: list[Event] = []
        self.frozen: list[str] = []
        self.ended: list[str] = []
        self._filled: list[str] = []
        self.word_at: float | None = None
        """When an operator said that a primary is dead, and of which cell."""
        self.word_cell = ""
        self._sight = Sight(installation)
        self.restarts = Restarts(installation, clients, self._sight, self._candidate, self.note)
        self.moves = Moves(installation, clients, self.note)
        self.restores = Restores(installation, clients, self.note)
        self.key_turns = KeyTurns(installation, self.note)
        self._verbs: Mapping[str, Callable[[Step], Awaitable[None]]] = {
            **Waits(installation, clients, self._sight).verbs,
            **self.restarts.verbs,
            **self.moves.verbs,
            **self.restores.verbs,
            **self.key_turns.verbs,
            "at_home": self._at_home,
            "switchover_away": self._switch_away,
            "switchover_home": self._switch_home,
            "kill_postgres": self._kill_postgres,
            "kill_node": self._kill_node,
            "kill": self._kill,
            "freeze_node": self._freeze_node,
            "freeze_patroni": self._freeze_patroni,
            "freeze": self._freeze,
            "thaw_all": self._thaw_all,
            "start_all": self._start_all,
            "drain": self._drain,
            "lose_centre": self._lose,
            "return_centre": self._return,
            "cut": self._cut,
            "mend": self._mend,
            "isolate": self._isolate,
            "rejoin": self._rejoin,
            "lose_gateway": self._lose_gateway,
            "return_gateway": self._return_gateway,
            "fence": self._fence,
            "fill_disk": self._fill,
            "free_disk": self._free,
        }

    def can(self, step: Step) -> bool:
        """Tell whether a step can be done here."""
        return step.verb in self._verbs and (not step.needs or self._installation.offers(step.needs))

    async def do(self, step: Step) -> None:
        """Carry out one sentence. Raises ``Problem`` not_possible_here, drill_step_failed, or what the stage says."""
        verb = self._verbs.get(step.verb)
        if verb is None or not self.can(step):
            raise Problem("not_possible_here", expected=step.needs or step.en)
        self.note(step.ja, step.en)
        self._say(step.en)
        try:
            async with asyncio.timeout((step.limit_s or 0.0) + STEP_S):
                await verb(step)
        except TimeoutError:
            raise Problem("drill_step_failed", expected=step.en) from None

    def note(self, ja: str, en: str, kind: str = "step") -> None:
        """Keep an event."""
        self.events.append(Event(self._clients.now(), ja, en, kind))

    async def heal(self) -> list[str]:
        """Undo whatever is left undone; returns what could not be undone, in words."""
        left: list[str] = []
        try:
            async with asyncio.timeout(HEAL_S):
                left += await self._installation.stage.heal()
                left += await self.moves.heal()
        except Problem as problem:
            left.append(f"heal: {problem.code}")
        except TimeoutError:
            left.append(f"heal: not done within {HEAL_S:.0f} s")
        return left

    # ------------------------------------------------------------ an operator's hand

    async def _at_home(self, step: Step) -> None:
        del step
        view = await self._sight.view()
        moved = False
        for cell in sorted({node.cell for node in view.nodes}):
            leader = view.leader(cell)
            if leader is not None and leader.centre != self._installation.home(cell):
                await self._switch(cell, home=True)
                moved = True
        if moved:
            await self._installation.stage.settled(SETTLE_S)

    async def _switch_away(self, step: Step) -> None:
        await self._switch(step.words["cell"], home=False)

    async def _switch_home(self, step: Step) -> None:
        leader = (await self._sight.view()).leader(step.words["cell"])
        if leader is not None and leader.centre == self._installation.home(step.words["cell"]):
            return
        await self._switch(step.words["cell"], home=True)

    async def _switch(self, cell: str, *, home: bool) -> None:
        leader = await self._sight.primary(cell)
        candidate = await self._candidate(cell, leader.name, home=home)
        await self._installation.steering.switchover(cell, leader.name, candidate)

    async def _candidate(self, cell: str, leader: str, *, home: bool) -> str:
        """Return a synchronous standby at home, or away from it, as soon as there is one."""
        try:
            async with asyncio.timeout(CANDIDATE_S):
                while True:
                    with suppress(Problem, TimeoutError):
                        found = [
                            node.name
                            for node in (await self._sight.view()).nodes
                            if node.cell == cell and node.role == "sync" and node.name != leader
                            if (node.centre == self._installation.home(cell)) is home
                        ]
                        if found:
                            return min(found)
                    await asyncio.sleep(LOOK_S)
        except TimeoutError:
            raise Problem("site_not_settled", expected=f"a synchronous standby of cell {cell} to switch to") from None

    async def _fence(self, step: Step) -> None:
        await self._installation.steering.fence(step.words["cell"])
        self.word_at, self.word_cell = self._clients.now(), step.words["cell"]
        self.note("運用者の宣言が届いた", "the operator's word has been given", "word")

    # ------------------------------------------------------------ what is broken, what is mended

    async def _kill(self, step: Step) -> None:
        await self._end([step.words["process"]])

    async def _kill_postgres(self, step: Step) -> None:
        node = await self._sight.primary(step.words["cell"])
        await self._end([f"postgres-{node.name}"])

    async def _kill_node(self, step: Step) -> None:
        node = await self._sight.primary(step.words["cell"])
        # Patroni first, so that it does not start the server again in between.
        await self._end([f"patroni-{node.name}", f"postgres-{node.name}"])

    async def _end(self, names: list[str]) -> None:
        for name in names:
            self.ended.append(name)
            await self._installation.stage.kill(name)

    async def _drain(self, step: Step) -> None:
        self.ended.append(step.words["process"])
        await self._installation.stage.stop(step.words["process"])

    async def _start_all(self, step: Step) -> None:
        del step
        while self.ended:
            name = self.ended[-1]
            # Patroni starts its own server: one that was killed alone is up again, or will be by its hand.
            if not name.startswith("postgres-"):
                await self._installation.stage.start(name)
            self.ended.pop()

    async def _freeze(self, step: Step) -> None:
        await self._stop_still([step.words["process"]])

    async def _freeze_node(self, step: Step) -> None:
        node = await self._sight.primary(step.words["cell"])
        await self._stop_still([f"patroni-{node.name}", f"postgres-{node.name}"])

    async def _freeze_patroni(self, step: Step) -> None:
        node = await self._sight.primary(step.words["cell"])
        await self._stop_still([f"patroni-{node.name}"])

    async def _stop_still(self, names: list[str]) -> None:
        for name in names:
            self.frozen.append(name)
            await self._installation.stage.freeze(name)

    async def _thaw_all(self, step: Step) -> None:
        del step
        while self.frozen:
            await self._installation.stage.thaw(self.frozen[-1])
            self.frozen.pop()

    async def _lose(self, step: Step) -> None:
        await self._installation.stage.lose_centre(step.words["centre"])

    async def _return(self, step: Step) -> None:
        await self._installation.stage.return_centre(step.words["centre"])

    async def _cut(self, step: Step) -> None:
        await self._installation.stage.cut(step.words["centre"], step.words["other"])

    async def _mend(self, step: Step) -> None:
        await self._installation.stage.mend(step.words["centre"], step.words["other"])

    async def _isolate(self, step: Step) -> None:
        await self._installation.stage.isolate(step.words["centre"])

    async def _rejoin(self, step: Step) -> None:
        await self._installation.stage.rejoin(step.words["centre"])

    async def _lose_gateway(self, step: Step) -> None:
        await self._installation.stage.lose_gateway(step.words["centre"])

    async def _return_gateway(self, step: Step) -> None:
        await self._installation.stage.return_gateway(step.words["centre"])

    async def _fill(self, step: Step) -> None:
        node = await self._sight.primary(step.words["cell"])
        self._filled.append(node.name)
        await self._installation.stage.fill_disk(node.name)

    async def _free(self, step: Step) -> None:
        del step
        while self._filled:
            await self._installation.stage.free_disk(self._filled[-1])
            self._filled.pop()
