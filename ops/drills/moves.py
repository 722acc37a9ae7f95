"""Moves an agency (機関の移動) to another cell and back while its clients and all others work.

Which one is the clients' affair: one of those that the drill uses anyway. While it moves, it alone is refused, each
time with a time to come back; how long that took is what its own client saw.

Invariant: whatever happens in between, ``heal`` brings the agency home.
"""

from collections.abc import Awaitable, Callable, Mapping

from chukan.errors import Problem
from chukan.ops.drills.ports import Installation
from chukan.ops.drills.vocabulary import Step
from chukan.ops.drills.waits import Clients

Note = Callable[[str, str, str], None]


class Moves:
    """The sentences that move, by verb."""

    def __init__(self, installation: Installation, clients: Clients, note: Note) -> None:
        self._installation, self._clients, self._note = installation, clients, note
        self.agency = ""
        """Who was moved; empty before."""
        self._home = ""
        self.verbs: Mapping[str, Callable[[Step], Awaitable[None]]] = {
            "move_away": self._away,
            "move_home": self._back,
        }

    async def _away(self, step: Step) -> None:
        self._home = step.words["cell"]
        self.agency = self._clients.agency_of(self._home)
        await self._move(step.words["other"])

    async def _back(self, step: Step) -> None:
        del step
        await self._move(self._home)
        self._home = ""

    async def _move(self, cell: str) -> None:
        begun = self._clients.now()
        await self._installation.mover.move(self.agency, cell)
        took = self._clients.now() - begun
        self._note(
            f"機関{self.agency}はセル{cell}にある(命令の所要 {took:.1f} 秒)",
            f"agency {self.agency} lives in cell {cell} (the commands took {took:.1f} s)",
            "move",
        )

    async def heal(self) -> list[str]:
        """Bring home who is away; returns what could not be done, in words."""
        if not self._home:
            return []
        try:
            await self._move(self._home)
        except (Problem, TimeoutError):
            return [f"move agency {self.agency} to cell {self._home}"]
        self._home = ""
        return []
