"""Which member of a cell (セル) leads: a pure judgement of what the members say, and a finder that keeps asking.

A member's word may be stale or come from the past: one that was frozen or cut off wakes up as the primary that it was
(a zombie). So a leader is accepted only when it says that it holds the leader's key, its server writes, it belongs to
the database that was seen before (system identifier), and its timeline is not lower than one that was seen before or
that another member has followed since. A restore may come back with a lower timeline: it opens a new epoch, and the
guard is kept by (system identifier, epoch) (DESIGN §7). Of two who say that they lead the higher timeline wins; on the
same timeline the one for whom most members are, by their own view of the cluster.

Silence is no answer: a leader whose Patroni is silent keeps its place while its server still takes connections
(Patroni alone may be frozen; its standbys confirm each commit, so nothing is lost), and loses it when it does not.

Invariant: at no time is a timeline accepted that is lower than one accepted before in the same epoch.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final, Literal, Protocol

from chukan import log
from chukan.replication.patroni import NodeState

POLL_S: Final = 1.0
POLL_WITHOUT_S: Final = 0.25
"""The same while nobody is found to lead: whoever asks for a connection waits then, and breaks none that would poke."""
SWEEP_EVERY: Final = 5
"""Every so many polls all members are asked, also while the leader answers: for what operators want to see."""
SILENT_S: Final = 2.5
"""How long a leader may be silent before its server is asked whether it still takes connections."""
POKE_PAUSE_S: Final = 0.2
"""Least pause between two looks, however often somebody reports a broken connection."""

Verdict = Literal["found", "silent", "none", "zombie", "other_system", "contested"]
_log = log.get("replication.leader")


@dataclass(frozen=True, slots=True)
class Leader:
    """The leader of a cell, as accepted."""

    member: str
    timeline: int
    system: str
    since: float = 0.0
    """When it was accepted, by the loop's clock."""

    @property
    def who(self) -> tuple[str, int, str]:
        """What makes it another leader when it changes; the same member on a new timeline is another."""
        return self.member, self.timeline, self.system


@dataclass(frozen=True, slots=True)
class Guard:
    """What must not be forgotten: the database of this cell in this epoch, and the highest timeline accepted."""

    epoch: int
    system: str = ""
    timeline: int = 0

    def raised(self, leader: Leader) -> "Guard":
        """Return the guard after a leader was accepted."""
        return replace(self, system=leader.system, timeline=max(self.timeline, leader.timeline))


@dataclass(frozen=True, slots=True)
class Decision:
    """What the members' words come to."""

    leader: Leader | None
    verdict: Verdict


def decide(
    cell: str,
    guard: Guard,
    present: Leader | None,
    states: Mapping[str, NodeState | None],
    views: Mapping[str, str | None] | None = None,
) -> Decision:
    """Judge one look at a cell.

    Args:
        cell: its name; a member of another cluster, or under another name, is not taken at its word.
        guard: what was accepted before.
        present: the leader in use, if any.
        states: what each member says; None for a silent one, and a member that is missing was not asked.
        views: whom each member takes for the leader; needed only when two claim the same timeline (``contested``).

    Returns:
        The leader to use; with verdict ``silent`` it is the present one, of which nothing was heard.
    """
    known = {name: state for name, state in states.items() if state is not None and _is_itself(cell, name, state)}
    claims = {name: claim for name, state in known.items() if (claim := _claim(name, state)) is not None}
    if not claims:
        if present is not None and states.get(present.member) is None:
            return Decision(present, "silent")
        return Decision(None, "none")
    ours = {name: claim for name, claim in claims.items() if guard.system in {"", claim.system}}
    if not ours:
        return Decision(None, "other_system")
    fresh = {name: claim for name, claim in ours.items() if not _is_past(claim, guard, known)}
    if not fresh:
        return Decision(None, "zombie")
    best = max(claim.timeline for claim in fresh.values())
    first = [claim for claim in fresh.values() if claim.timeline == best]
    if len(first) > 1:
        first = _backed(first, views or {})
        if len(first) != 1:
            return Decision(None, "contested")
    return Decision(first[0], "found")


def _is_itself(cell: str, name: str, state: NodeState) -> bool:
    return state.scope in {"", cell} and state.name in {"", name}


def _claim(name: str, state: NodeState) -> Leader | None:
    """Return the member as a leader when it claims to be one and can serve."""
    if not (state.leads and state.role == "primary" and state.state == "running"):
        return None
    if state.timeline is None or not state.system:
        return None
    return Leader(name, state.timeline, state.system)


def _is_past(claim: Leader, guard: Guard, known: Mapping[str, NodeState]) -> bool:
    """Tell whether the claim comes from a timeline that has been left behind."""
    if claim.timeline < guard.timeline:
        return True
    return any(
        name != claim.member
        and state.system == claim.system
        and (state.role == "primary" or state.streaming)
        and (state.timeline or 0) > claim.timeline
        for name, state in known.items()
    )


def _backed(claims: list[Leader], views: Mapping[str, str | None]) -> list[Leader]:
    """Return the claims for which more than half of the members that answered are."""
    return [claim for claim in claims if 2 * sum(view == claim.member for view in views.values()) > len(views)]


# ---------------------------------------------------------------- the finder


class Members(Protocol):
    """Asks the members of a cell; ``patroni.Patroni`` does."""

    async def look(self, names: Iterable[str] | None = None) -> dict[str, NodeState | None]:
        """What members say, within half a second."""
        ...

    async def views(self) -> dict[str, str | None]:
        """Whom each member that answers takes for the leader."""
        ...


Answers = Callable[[str], Awaitable[bool]]
"""Tells whether a member's server takes connections and writes; within a second."""


class Finder:
    """Keeps looking for the leader of one cell while ``run`` runs; ``changed`` is told each leader and its loss.

    ``changed`` is called in order and must return at once.
    """

    def __init__(
        self, cell: str, members: Members, answers: Answers, changed: Callable[[Leader | None], None], *, epoch: int = 1
    ) -> None:
        self._cell = cell
        self._members = members
        self._answers = answers
        self._changed = changed
        self._guard = Guard(epoch)
        self._heard_at = 0.0
        self._looks = 0
        self._poked = asyncio.Event()
        self._verdict: Verdict = "none"
        self.leader: Leader | None = None
        self.states: dict[str, NodeState | None] = {}
        """What each member said last."""

    def poke(self) -> None:
        """Look again at once: a connection broke."""
        self._poked.set()

    async def run(self) -> None:
        """Look every second, oftener while nobody leads, and at once when poked, until cancelled."""
        while True:
            self._poked.clear()
            try:
                await self.look()
            except Exception as error:  # noqa: BLE001 - task boundary: whatever one look came to, the next one is made
                _log.error("a look for the leader failed", cell=self._cell, exc_info=error)
            await asyncio.sleep(POKE_PAUSE_S)
            pause_s = POLL_S if self._verdict == "found" else POLL_WITHOUT_S
            try:
                async with asyncio.timeout(pause_s - POKE_PAUSE_S):
                    await self._poked.wait()
            except TimeoutError:
                pass

    async def look(self) -> None:
        """Look once: at the leader alone while it says that it is, and at all members otherwise."""
        whole = self.leader is None or self._looks % SWEEP_EVERY == 0
        self._looks += 1
        states = await self._members.look(None if whole or self.leader is None else [self.leader.member])
        decision = decide(self._cell, self._guard, self.leader, states)
        if not whole and decision.verdict != "found":
            states = await self._members.look()
            decision = decide(self._cell, self._guard, self.leader, states)
        if decision.verdict == "contested":
            decision = decide(self._cell, self._guard, self.leader, states, await self._members.views())
        self.states.update(states)
        await self._follow(decision)

    async def _follow(self, decision: Decision) -> None:
        now = asyncio.get_running_loop().time()
        leader = decision.leader
        if decision.verdict == "found":
            self._heard_at = now
        elif leader is not None and now - self._heard_at > SILENT_S and not await self._answers(leader.member):
            # Its Patroni says nothing, and neither does its server.
            leader = None
        if decision.verdict != self._verdict:
            self._verdict = decision.verdict
            _log.warning("the members say", cell=self._cell, outcome=decision.verdict)
        if leader is None:
            if self.leader is not None:
                _log.error("a cell has no leader", cell=self._cell, peer=self.leader.member)
                self.leader = None
                self._changed(None)
        elif self.leader is None or leader.who != self.leader.who:
            self.leader = replace(leader, since=now)
            self._guard = self._guard.raised(leader)
            _log.warning("a cell has a leader", cell=self._cell, peer=leader.member, count=leader.timeline)
            self._changed(self.leader)
