"""All clients of a drill: two agencies for each group, a group for each home and each way in (near or far exchange).

``home-east-near`` are agencies whose home is the east and whose route prefers the exchange there; ``home-east-far``
prefer the other one. Each agency has one client and one journal; a subject has one agency that registers it.
"""

import asyncio
import itertools
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final, Self

from chukan.chance import Chance
from chukan.clock import Clock
from chukan.errors import Problem
from chukan.ops.demo import cast
from chukan.ops.drills.calls import Caller
from chukan.ops.drills.cases import share_out
from chukan.ops.drills.evidence import Reader
from chukan.ops.drills.journal import Account, Client, Journal, read_all
from chukan.ops.drills.ports import Installation
from chukan.ops.drills.probing import Epoch, Prober
from chukan.ops.drills.restored import Restored
from chukan.ops.drills.route import Routes

EVERY_S: Final = 0.5
"""Each client sends so often; two clients a group see an outage to half a second."""
CASES_EACH: Final = 6
AGENCIES_A_CELL: Final = 4
BEGIN_S: Final = 60.0
AGAIN_MAX: Final = 30
"""Acknowledged queries of each client that are asked for again by their keys, to see that nothing happens twice."""


class Crowd:
    """The clients; ``async with``, then ``begin``, ``work`` and ``rest``."""

    def __init__(self, installation: Installation, folder: Path, clock: Clock, chance: Chance) -> None:
        """Choose the agencies. Raises ``Problem`` site_not_settled where there are too few to ask each other."""
        self._installation, self._folder, self._chance = installation, folder, chance
        self.epoch = Epoch(clock)
        self.salt = chance.token(16)
        cases = installation.cases()
        self._agencies = _choose(sorted({case.inquirer for case in cases} & {case.provider for case in cases}))
        self._asks = share_out(cases, list(self._agencies), CASES_EACH)
        self._owns = [case for asks in self._asks.values() for case in asks]
        cells = sorted({cell for cell, _ in self._agencies.values()})
        self.routes = Routes(installation.exchanges(), cells, routed=installation.routed)
        self.probers: dict[str, Prober] = {}
        self.reader = Reader(installation, list(self._agencies), clock.now())
        self._clients: dict[str, Client] = {}
        self._stack = AsyncExitStack()
        self._tasks: list[asyncio.Task[None]] = []
        self.begun_at = self.ended_at = 0.0

    async def __aenter__(self) -> Self:
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        await self._stack.enter_async_context(self.reader)
        for agency in self._agencies:
            prober = await self._prober(agency)
            self.probers[self._clients[agency].name] = prober
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.rest()
        await self._stack.aclose()

    async def _prober(self, agency: str) -> Prober:
        cell, way = self._agencies[agency]
        exchanges = self._installation.exchanges()
        near = next(name for name, one in exchanges.items() if one.centre == self._installation.home(cell))
        preferred = near if way == "near" else next(name for name in exchanges if name != near)
        client = self._clients[agency] = Client(f"{cell}-{way}-{agency[-8:]}", agency, cell, f"home-{cell}-{way}")
        journal = Journal(self._folder / f"{client.name}.jsonl", client)
        self._stack.callback(journal.close)
        connections = {name: self._installation.connection(agency, name) for name in exchanges}
        caller = await self._stack.enter_async_context(Caller(connections))
        return Prober(
            caller,
            journal,
            asks=self._asks[agency],
            owns=[case for case in self._owns if case.provider == agency],
            preferred=preferred,
            routes=self.routes,
            epoch=self.epoch,
            chance=self._chance,
            salt=self.salt,
        )

    # ------------------------------------------------------------ before and while the drill runs

    async def begin(self) -> None:
        """Register every copy once, then put everybody to work. Raises ``Problem`` site_not_settled."""
        await self.reader.mark_places()
        self._tasks.append(asyncio.create_task(self.routes.run()))
        try:
            async with asyncio.timeout(BEGIN_S):
                await asyncio.gather(*(prober.begin() for prober in self.probers.values()))
        except TimeoutError:
            raise Problem("site_not_settled", expected="registrations of a drill's own copies in time") from None
        self.begun_at = self.epoch.now()
        for place, prober in enumerate(self.probers.values()):
            # Of the agencies of a home, the first and second are near and far, the third and fourth again.
            run = prober.run(EVERY_S, place * EVERY_S / len(self.probers), place // 2 % 2)
            self._tasks.append(asyncio.create_task(run))

    async def rest(self) -> None:
        """Send nothing more, and let what is on its way come back; may be called again."""
        if self._tasks:
            self.ended_at = self.epoch.now()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()

    def now(self) -> float:
        """Seconds since the drill began."""
        return self.epoch.now()

    def served(self, cell: str, since: float) -> bool:
        """Whether every group of a home had a write acknowledged since an instant."""
        newest: dict[str, float] = {}
        for client in self._clients.values():
            if client.cell == cell:
                at = self.probers[client.name].acknowledged_at[-1:]
                newest[client.group] = max(newest.get(client.group, 0.0), *at, 0.0)
        return bool(newest) and min(newest.values()) >= since

    def agency_of(self, cell: str) -> str:
        """Return the first agency of a home. Raises ``Problem`` site_not_settled where there is none."""
        found = next((agency for agency, (home, _) in self._agencies.items() if home == cell), None)
        if found is None:
            raise Problem("site_not_settled", expected=f"an agency whose home is {cell}")
        return found

    def home_of(self, agency: str) -> str | None:
        """Return the home of an agency that works in this drill, None for any other."""
        return self._agencies[agency][0] if agency in self._agencies else None

    async def sequenced(self, since: float) -> bool:
        """Whether a record of a query acknowledged since an instant is shown, at one agency of each cell."""
        cells = {client.cell: agency for agency, client in self._clients.items()}
        for agency in cells.values():
            asked = self.probers[self._clients[agency].name].acknowledged_since(since)
            if not asked or not asked & await self.reader.shown(agency):
                return False
        return True

    # ------------------------------------------------------------ when it is over

    def accounts(self) -> list[Account]:
        """Return the journals as they are on disk."""
        return read_all(self._folder)

    async def ask_again(self, restored: Restored | None = None) -> None:
        """Find out what came of every write in doubt, and that acknowledged queries have no second effect.

        What a restore may have taken back is not asked for again: its cell has never heard of it.
        """
        await asyncio.gather(*(self._again(account, restored) for account in self.accounts()))

    async def _again(self, account: Account, restored: Restored | None) -> None:
        ended = {entry.n for entry in account.of("told", "refused")}
        doubtful = [n for n, sent in account.sent().items() if n not in ended and sent.act == "query"]
        told = [
            entry.n
            for entry in account.of("told")
            if entry.act == "query" and not (restored is not None and restored.takes_back(account, entry))
        ]
        step = max(1, len(told) // AGAIN_MAX)
        await self.probers[account.client.name].ask_again([*doubtful, *itertools.islice(told, 0, None, step)])

    async def put_back(self) -> None:
        """Register everything as it was."""
        await asyncio.gather(*(prober.put_back() for prober in self.probers.values()))

    @property
    def agencies(self) -> Sequence[str]:
        """Whom the drill uses."""
        return list(self._agencies)

    @property
    def totals(self) -> Mapping[str, int]:
        """Requests that failed, were refused, or were not sent because too many were on their way."""
        return {
            name: sum(getattr(prober, name) for prober in self.probers.values())
            for name in ("failed", "refused", "skipped")
        }


def _choose(agencies: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Return the agencies to use, each with its cell and its way in; as many near as far."""
    found: dict[str, tuple[str, str]] = {}
    homes: dict[str, list[str]] = {}
    for agency in agencies:
        home = cast.home(agency)
        if home is not None and len(homes.setdefault(home, [])) < AGENCIES_A_CELL:
            homes[home].append(agency)
            found[agency] = (home, "near" if len(homes[home]) % 2 else "far")
    if len(homes) < 2 or any(len(each) < 2 for each in homes.values()):  # noqa: PLR2004 - near and far, east and west
        raise Problem("site_not_settled", expected="two agencies of each home that may ask each other")
    return found
