"""``chukan switchover|failover|failback|drain|fence``: an operator's hand on the cells (セル), one step at a time.

Each command says first what it will do and to whom, and does it when the name that it asks for is typed (or ``--yes``).
*switchover* hands a cell over in good order (計画切替); *failback* hands it back to its first node at home; *drain*
(退避) hands over every cell that is led from a centre, so that the centre can be taken down; *failover* has a node lead
where nobody does. *fence* (確認済み死亡) is the operator's word that a leader is dead: its lease is revoked, and the
others vote at once instead of after the lease's end. It asks twice, and refuses while the leader says that it leads.

Invariant: Patroni decides who may lead: a node that may lack an acknowledged commit is refused, whatever is asked here.
"""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Annotated, Any, Final, NamedTuple, TypeVar

from cyclopts import App, Parameter
from rich.console import Console

from chukan.errors import Problem
from chukan.ops.centres.picture import Painter
from chukan.ops.local.machine import state_folder
from chukan.ops.namespaces import enter
from chukan.ops.output import Json, say
from chukan.replication.patroni import NodeState
from chukan.replication.site import Site
from chukan.replication.site_file import read

WAIT_S: Final = 60.0
"""How long the outcome of an order is waited for."""
LOOK_S: Final = 0.1
HEAD_S: Final = 1.5

T = TypeVar("T")
SiteFile = Annotated[Path | None, Parameter(name=["--site", "-s"])]
Yes = Annotated[bool, Parameter(name="--yes", negative="")]
Dead = Annotated[bool, Parameter(name="--yes-i-confirmed-it-is-dead", negative="")]

switchover_app = App(name="switchover", help="Hand a cell over to another node in good order.")
failover_app = App(name="failover", help="Have a node lead a cell that has no leader.")
failback_app = App(name="failback", help="Hand cells back to their first node at home.")
drain_app = App(name="drain", help="Hand over every cell that is led from a centre.")
fence_app = App(name="fence", help="Confirm that a cell's leader is dead, so that another is elected at once.")


class Standing(NamedTuple):
    """One cell before an order."""

    cell: str
    leader: str | None
    states: dict[str, NodeState | None]


class Move(NamedTuple):
    """One hand-over."""

    cell: str
    leader: str
    candidate: str


class Moved(NamedTuple):
    """What came of an order."""

    cell: str
    leader: str
    timeline: int | None
    seconds: float


# ---------------------------------------------------------------- what is to be done (pure)


def candidate_in(site: Site, standing: Standing, *, avoid: str) -> str:
    """Return the node to hand a cell to: the first, in the site's order, outside a centre that may lead now.

    Raises ``Problem`` order_refused when there is none.
    """
    for node in site.cells[standing.cell].nodes:
        state = standing.states.get(node.name)
        if node.name == standing.leader or site.where(node.host) == avoid:
            continue
        if state is not None and state.sync and state.state == "running":
            return node.name
    raise Problem("order_refused", expected=f"a synchronous standby of cell {standing.cell} outside {avoid}")


def plan_drain(site: Site, standings: list[Standing], centre: str) -> list[Move]:
    """Return the hand-overs after which no cell is led from a centre. Raises ``Problem`` order_refused, not_found."""
    if centre not in site.centres:
        raise Problem("site_name_unknown", expected=", ".join(site.centres))
    return [
        Move(each.cell, each.leader, candidate_in(site, each, avoid=centre))
        for each in standings
        if each.leader is not None and site.where(site.node(each.leader)[1].host) == centre
    ]


def plan_failback(site: Site, standings: list[Standing]) -> list[Move]:
    """Return the hand-overs after which every cell is led by its first node; a cell without leader is left alone."""
    moves = []
    for each in standings:
        first = site.cells[each.cell].nodes[0].name
        if each.leader in {None, first} or each.leader is None:
            continue
        state = each.states.get(first)
        if state is None or not state.streaming:
            raise Problem("order_refused", expected=f"{first} streaming")
        moves.append(Move(each.cell, each.leader, first))
    return moves


# ---------------------------------------------------------------- what it is done with


class Hand:
    """Gives the orders and waits for what comes of them."""

    def __init__(self, site: Site, painter: Painter) -> None:
        self.site = site
        self._painter = painter

    async def standing(self, cell: str) -> Standing:
        """Return how a cell stands. Raises ``Problem`` site_name_unknown."""
        if cell not in self.site.cells:
            raise Problem("site_name_unknown", expected=", ".join(self.site.cells))
        states = await self._painter.patroni[cell].look(timeout_s=HEAD_S)
        leaders = [name for name, state in states.items() if state is not None and state.leads]
        return Standing(cell, leaders[0] if len(leaders) == 1 else None, states)

    async def standings(self) -> list[Standing]:
        """Return how all cells stand."""
        return list(await asyncio.gather(*(self.standing(cell) for cell in self.site.cells)))

    async def hand_over(self, move: Move) -> Moved:
        """Hand over and wait until the candidate leads. Raises ``Problem`` node_unreachable, order_refused."""
        started = time.monotonic()
        await self._painter.patroni[move.cell].switchover(move.leader, move.candidate)
        return await self._led_by(move.cell, lambda name: name == move.candidate, started)

    async def promote(self, cell: str, node: str) -> Moved:
        """Have a node lead a cell. Raises ``Problem`` node_unreachable, order_refused."""
        started = time.monotonic()
        await self._painter.patroni[cell].failover(node)
        return await self._led_by(cell, lambda name: name == node, started)

    async def holder(self, cell: str) -> str:
        """Return who holds a cell's leader key. Raises ``Problem`` no_primary, etcd_unavailable."""
        key = await self._painter.etcd.leader_key(cell)
        if key is None:
            raise Problem("no_primary", expected=f"a leader key of cell {cell}")
        return key.holder

    async def fence(self, cell: str, holder: str) -> Moved:
        """Revoke the lease of a holder that is dead, and wait until another one leads; ``Problem`` as ``revoke``."""
        started = time.monotonic()
        await self.revoke(cell, holder)
        return await self._led_by(cell, lambda name: name != holder, started)

    async def revoke(self, cell: str, holder: str) -> None:
        """Revoke the lease of a holder that is dead.

        Raises ``Problem``: not_confirmed when somebody else holds the key by now, order_refused while the holder says
        that it leads, etcd_unavailable.
        """
        key = await self._painter.etcd.leader_key(cell)
        if key is None or key.holder != holder:
            raise Problem("not_confirmed", expected="a key that is still held by the one that was named")
        state = (await self._painter.patroni[cell].look([holder], timeout_s=HEAD_S))[holder]
        if state is not None and state.leads:
            raise Problem("order_refused", expected=f"{holder} silent: it says that it leads; use switchover")
        await self._painter.etcd.revoke(key)

    async def _led_by(self, cell: str, wanted: Callable[[str], bool], started: float) -> Moved:
        while time.monotonic() - started < WAIT_S:
            states = await self._painter.patroni[cell].look()
            for name, state in states.items():
                if state is not None and state.leads and state.role == "primary" and wanted(name):
                    return Moved(cell, name, state.timeline, round(time.monotonic() - started, 2))
            await asyncio.sleep(LOOK_S)
        raise Problem("order_refused", expected=f"a new leader of cell {cell} within {WAIT_S:.0f} s")


# ---------------------------------------------------------------- commands


@switchover_app.default
def switchover(
    cell: str, node: str | None = None, *, site: SiteFile = None, yes: Yes = False, as_json: Json = False
) -> None:
    """Hand a cell over in good order; nothing acknowledged is lost, writers wait about two seconds.

    Args:
        cell: The cell.
        node: Who is to lead; by default the first synchronous standby in the other centre.
        site: The site file; CHUKAN_SITE names it otherwise.
        yes: Do not ask.
        as_json: Print JSON.
    """

    async def work(hand: Hand) -> list[Moved]:
        standing = await hand.standing(cell)
        if standing.leader is None:
            raise Problem("no_primary", expected="a leader to hand over from; see chukan failover")
        here = hand.site.where(hand.site.node(standing.leader)[1].host)
        chosen = node or candidate_in(hand.site, standing, avoid=here)
        confirm(f"Cell {cell}: {standing.leader} hands over to {chosen}.", cell, yes=yes)
        return [await hand.hand_over(Move(cell, standing.leader, chosen))]

    _tell(_with_hand(site, work), as_json=as_json)


@failover_app.default
def failover(cell: str, node: str, *, site: SiteFile = None, yes: Yes = False, as_json: Json = False) -> None:
    """Have a node lead a cell; Patroni refuses one that may lack an acknowledged commit.

    Args:
        cell: The cell.
        node: Who is to lead.
        site: The site file; CHUKAN_SITE names it otherwise.
        yes: Do not ask.
        as_json: Print JSON.
    """

    async def work(hand: Hand) -> list[Moved]:
        standing = await hand.standing(cell)
        confirm(f"Cell {cell}: {node} is to lead; the leader now: {standing.leader or 'nobody'}.", cell, yes=yes)
        return [await hand.promote(cell, node)]

    _tell(_with_hand(site, work), as_json=as_json)


@failback_app.default
def failback(cell: str | None = None, *, site: SiteFile = None, yes: Yes = False, as_json: Json = False) -> None:
    """Hand cells back to their first node at home, one after another.

    Args:
        cell: One cell; all by default.
        site: The site file; CHUKAN_SITE names it otherwise.
        yes: Do not ask.
        as_json: Print JSON.
    """

    async def work(hand: Hand) -> list[Moved]:
        standings = await hand.standings() if cell is None else [await hand.standing(cell)]
        return await _move(hand, plan_failback(hand.site, standings), "home", yes=yes)

    _tell(_with_hand(site, work), as_json=as_json)


@drain_app.default
def drain(centre: str, *, site: SiteFile = None, yes: Yes = False, as_json: Json = False) -> None:
    """Hand over every cell that is led from a centre; afterwards its exchange and nodes may be stopped in good order.

    Args:
        centre: The centre to be taken down.
        site: The site file; CHUKAN_SITE names it otherwise.
        yes: Do not ask.
        as_json: Print JSON.
    """

    async def work(hand: Hand) -> list[Moved]:
        return await _move(hand, plan_drain(hand.site, await hand.standings(), centre), centre, yes=yes)

    _tell(_with_hand(site, work), as_json=as_json)


@fence_app.default
def fence(cell: str, *, site: SiteFile = None, confirmed: Dead = False, as_json: Json = False) -> None:
    """Confirm that the leader of a cell is dead: its lease is revoked, and another node is elected at once.

    Nothing acknowledged is lost even when the word was wrong: a leader that lives is fenced off.

    Args:
        cell: The cell.
        site: The site file; CHUKAN_SITE names it otherwise.
        confirmed: For scripts: it was confirmed by other means that the leader is dead.
        as_json: Print JSON.
    """

    async def work(hand: Hand) -> list[Moved]:
        holder = await hand.holder(cell)
        where = hand.site.where(hand.site.node(holder)[1].host)
        words = f"Cell {cell} is led by {holder} in {where}. Its lease will be revoked: it loses the lead for good."
        confirm(words, cell, yes=confirmed)
        confirm(
            f"Has somebody confirmed, by other means than this screen, that {holder} is dead?", holder, yes=confirmed
        )
        return [await hand.fence(cell, holder)]

    _tell(_with_hand(site, work), as_json=as_json)


def confirm(words: str, name: str, *, yes: bool) -> None:
    """Say what will be done, and go on only when the name is typed. Raises ``Problem`` not_confirmed."""
    console = Console(stderr=True, highlight=False)
    console.print(words, markup=False)
    if yes:
        return
    try:
        typed = console.input(f"Type {name} to go on: ", markup=False)
    except (EOFError, KeyboardInterrupt):
        typed = ""
    if typed.strip() != name:
        raise Problem("not_confirmed", expected=name)


async def _move(hand: Hand, moves: list[Move], name: str, *, yes: bool) -> list[Moved]:
    if not moves:
        return []
    words = "\n".join(f"Cell {move.cell}: {move.leader} hands over to {move.candidate}." for move in moves)
    confirm(words, name, yes=yes)
    return [await hand.hand_over(move) for move in moves]


def _tell(moved: list[Moved], *, as_json: bool) -> None:
    lines = [
        f"Cell {each.cell} is led by {each.leader} on timeline {each.timeline}, after {each.seconds} s."
        for each in moved
    ]
    text = "\n".join(lines) or "There was nothing to do."
    say([each._asdict() for each in moved], text, as_json=as_json)


def _with_hand(path: Path | None, work: Callable[[Hand], Awaitable[T]]) -> T:
    site = read(path or default_site())
    if site.operator.namespace:
        enter(site.operator.namespace)

    async def run() -> T:
        async with Painter(site) as painter:
            return await work(Hand(site, painter))

    started: Coroutine[Any, Any, T] = run()
    return asyncio.run(started)


def default_site() -> Path:
    """Return the site file of CHUKAN_SITE, or that of the running lab. Raises ``Problem`` settings_unreadable."""
    if named := os.environ.get("CHUKAN_SITE"):
        return Path(named)
    found = state_folder() / "centres" / "site.toml"
    if not found.exists():
        raise Problem("settings_unreadable", expected="--site FILE, CHUKAN_SITE, or a running chukan demo --centres")
    return found
