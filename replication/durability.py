"""How durable a commit is (永続性), computed after it from what the standbys have on disk, not from any configuration.

The leader is asked what each standby has flushed. A commit that was acknowledged before the question is on disk in the
other centre when a member there has flushed everything that the leader had. When others commit at the same moment that
may never be so at any instant; then it is still so when that member is one for whom commits wait, has been since a
moment ago at which it was seen to have flushed what the leader had flushed before, over the same connection, and the
leader still waits for the same standbys: every acknowledgement between then and now waited for it. (Patroni changes
whom the leader waits for at most once in a loop of two seconds; evidence older than one second is not used.)

Questions are shared: any number of callers at once wait for one answer that began after all of their commits.
"""

import asyncio
import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from chukan import log
from chukan.errors import Problem
from chukan.replication.doors import CellDoors
from chukan.replication.driver import DRIVER_ERRORS, bounded
from chukan.replication.leader import Leader

ASK_TIMEOUT_S: Final = 1.0
EVIDENCE_S: Final = 1.0
LOOKS: Final = 6
LOOK_S: Final = 0.02
"""How often, and after how long each time, a standby that is just a little behind is looked at again."""
_SYNC: Final = "sync"
"""For one of a quorum alone nobody waits: only what it has flushed counts."""

_log = log.get("replication.durability")


class Durability(enum.StrEnum):
    """Where an acknowledged commit is on disk; the words of the ``Chukan-Durability`` header."""

    TWO_CENTRES = "two-centres"
    """At home and in the other centre: what invariant 2 promises."""
    ONE_CENTRE = "one-centre"
    """On two disks of one centre: the other centre is away."""
    ONE_DISK = "one-disk"
    """On the leader alone."""
    ONE_SERVER = "one-server"
    """The cell is a single server and cannot promise more (demo)."""
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Standing:
    """A standby at one moment; positions are bytes of log."""

    name: str
    pid: int
    waited_for: bool
    flushed: int


@dataclass(frozen=True, slots=True)
class Standings:
    """What the leader says at one moment."""

    leader: str
    flushed: int
    waits_for: str
    """The standbys for which its commits wait, as its settings say."""
    standbys: tuple[Standing, ...]
    at: float
    """When the question began, in seconds."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is kept of earlier answers: whom commits have been seen to reach, under which settings."""

    leader: str = ""
    waits_for: str = ""
    at: float = -EVIDENCE_S
    flushed: int = 0
    """What the leader had flushed at the last answer."""
    proven: frozenset[tuple[str, int]] = frozenset()
    """Standbys (name, connection) that had later flushed what the leader had, and were waited for ever since."""


def judge(evidence: Evidence, now: Standings, centres: Mapping[str, str]) -> tuple[Durability, Evidence]:
    """Return where everything acknowledged before ``now`` is on disk, and what to remember.

    ``centres`` maps members to their centres; a standby that is no member (a backup's) counts for nothing.
    """
    same = (evidence.leader, evidence.waits_for) == (now.leader, now.waits_for) and now.at - evidence.at < EVIDENCE_S
    before = evidence if same else Evidence()
    members = [each for each in now.standbys if each.name in centres and each.name != now.leader]
    proven = {
        (each.name, each.pid)
        for each in members
        if each.waited_for
        and (each.flushed >= now.flushed or (same and each.flushed >= before.flushed) or _key(each) in before.proven)
    }
    holding = [
        each.name
        for each in members
        if each.flushed >= now.flushed or (each.waited_for and _key(each) in before.proven)
    ]
    kept = Evidence(now.leader, now.waits_for, now.at, now.flushed, frozenset(proven))
    home = centres.get(now.leader)
    if any(centres[name] != home for name in holding):
        return Durability.TWO_CENTRES, kept
    return (Durability.ONE_CENTRE if holding else Durability.ONE_DISK), kept


def reached(first: Standings, later: Standings, centres: Mapping[str, str]) -> bool:
    """Tell whether everything that the leader had at the first moment is in the other centre at the later one."""
    home = centres.get(first.leader)
    return first.leader == later.leader and any(
        each.flushed >= first.flushed and centres.get(each.name, home) != home for each in later.standbys
    )


def expected(now: Standings, centres: Mapping[str, str]) -> bool:
    """Tell whether a member in the other centre is waited for, so that it will have everything in a moment."""
    home = centres.get(now.leader)
    return any(each.waited_for and centres.get(each.name, home) != home for each in now.standbys)


def _key(each: Standing) -> tuple[str, int]:
    return each.name, each.pid


class DurabilityWatch:
    """Asks a cell's leader, one question at a time."""

    def __init__(self, cell: str, doors: CellDoors, centres: Mapping[str, str]) -> None:
        self._cell = cell
        self._doors = doors
        self._centres = dict(centres)
        self._evidence = Evidence()
        self._asking = asyncio.Lock()
        self._next: asyncio.Task[Durability] | None = None
        self.last: Durability | None = None
        self.asked: Leader | None = None
        """Who was asked last."""

    async def ask(self) -> Durability:
        """Return the answer to a question that begins after this call; never raises, but ``CancelledError``."""
        if self._next is None:
            self._next = asyncio.create_task(self._after_others(), name=f"durability {self._cell}")
        return await asyncio.shield(self._next)

    async def _after_others(self) -> Durability:
        async with self._asking:
            self._next = None  # whoever comes from here on needs a later answer
            return await self._ask()

    async def _ask(self) -> Durability:
        try:
            found = await self._find()
        except (Problem, *DRIVER_ERRORS) as error:
            _log.info("durability not known", cell=self._cell, exc_info=error)
            self.last = Durability.UNKNOWN
            return self.last
        if found is not self.last:
            _log.warning("durability", cell=self._cell, outcome=str(found))
        self.last = found
        return found

    async def _find(self) -> Durability:
        first = await self._read()
        found, self._evidence = judge(self._evidence, first, self._centres)
        for _ in range(LOOKS if found is not Durability.TWO_CENTRES and expected(first, self._centres) else 0):
            # What others commit at this moment is on its way: what there was at the first look arrives before it.
            await asyncio.sleep(LOOK_S)
            later = await self._read()
            _, self._evidence = judge(self._evidence, later, self._centres)
            if reached(first, later, self._centres):
                return Durability.TWO_CENTRES
        return found

    async def _read(self) -> Standings:
        target = await self._doors.present(0.0)
        self.asked = target.leader
        async with self._doors.broker.acquire(timeout=ASK_TIMEOUT_S) as connection:
            at = asyncio.get_running_loop().time()
            asked = connection.fetch("SELECT * FROM chukan.standings()")
            rows = await bounded(connection, asked, ASK_TIMEOUT_S)
        return _standings("" if target.leader is None else target.leader.member, rows, at)


def _standings(leader: str, rows: Sequence[Mapping[str, Any]], at: float) -> Standings:
    return Standings(
        leader=leader,
        flushed=rows[0]["flushed"],
        waits_for=rows[0]["waits_for"],
        standbys=tuple(
            Standing(row["name"], row["pid"], row["sync"] == _SYNC, row["standby_flushed"] or 0)
            for row in rows
            if row["name"] is not None
        ),
        at=at,
    )
