"""Where the primary of each cell (セル) is, and connections to it that are safe to serve with.

A cell is one server (``host`` and ``port``), or the members of a Patroni cluster (``members``), whose leader is looked
for every second and at once when a connection breaks (``leader``); connections follow it (``doors``). What a statement
may end in stands in ``driver``; the names that callers need are all here.

Invariant: every connection that is lent was checked when it was made and leads to the leader of the moment; a statement
whose end was not awaited is never cancelled on the server.
"""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

import asyncpg

from chukan import log
from chukan.errors import Problem
from chukan.replication.doors import CONNECT_TIMEOUT_S, CellDoors, Door, Target, password
from chukan.replication.driver import DRIVER_ERRORS, Connection, Proxy, bounded, is_gone, translate
from chukan.replication.durability import Durability, DurabilityWatch
from chukan.replication.leader import Finder, Leader
from chukan.replication.patroni import NodeState, Patroni
from chukan.replication.revoked import Refuses, refusing
from chukan.settings import Cell, Environment, Member

__all__ = [
    "CONNECT_TIMEOUT_S",
    "DRIVER_ERRORS",
    "CellConnections",
    "CellPicture",
    "Cells",
    "Connection",
    "Leader",
    "Pool",
    "Proxy",
    "bounded",
    "cell_context",
    "is_gone",
    "translate",
]

Pool = Door
"""What lends connections; the pools of the driver come and go behind it."""

_PROBE_S: Final = 20.0
_RETRY_S: Final = 0.5
_ANSWERS_S: Final = 1.0

_log = log.get("primary")


@dataclass(frozen=True, slots=True)
class CellConnections:
    """The doors to one cell: ``broker`` calls set functions, ``app`` acts for one agency at a time.

    ``canary`` is another broker, for whoever watches: what is busy must not look dead.
    """

    broker: Pool
    app: Pool
    canary: Pool


@dataclass(frozen=True, slots=True)
class CellPicture:
    """A cell with members, as this process sees it."""

    leader: Leader | None
    serving: bool
    """Whether the doors lead to the leader: work has been resumed on it."""
    since_s: float | None
    """For how long it has led."""
    leaderless_s: float
    """Seconds without a leader since the start, all together."""
    changes: int
    """How often another leader was accepted, after the first."""
    nodes: Mapping[str, NodeState | None]
    """What each member said last; None for a silent one."""
    centres: Mapping[str, str]
    durability: Durability | None
    """How durable the last commit that was looked at is."""


class Cells:
    """The connection provider: ``open`` once in the running loop (or ``async with``), then ``primary(name)``.

    Opening connects to nothing, so that an exchange starts while a cell is away; every connection is made and checked
    when it is first needed, and what is wrong with it is that caller's problem.
    """

    def __init__(
        self, cells: Mapping[str, Cell], environment: Environment = "production", refuses: Refuses | None = None
    ) -> None:
        """``refuses`` knows the revoked certificates of members. Raises ``Problem`` certificate_unreadable."""
        self._environment: Environment = environment
        self._cells = {name: _Watched(name, cell, environment, refuses) for name, cell in cells.items()}

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @property
    def environment(self) -> Environment:
        """The environment that all cells belong to."""
        return self._environment

    @property
    def names(self) -> list[str]:
        """The cells, in the order of the settings."""
        return list(self._cells)

    async def open(self) -> None:
        """Make the doors usable in this event loop, and begin to look for leaders; once is enough."""
        for cell in self._cells.values():
            await cell.open()

    def primary(self, name: str) -> CellConnections:
        """Return the connections to the primary of a cell; ``KeyError`` when there is no such cell.

        Acquiring one raises ``Problem`` no_primary when there is none, unavailable when the database must not be served
        with, other_environment when it is a cell of another environment.
        """
        doors = self._cells[name].doors
        return CellConnections(doors.broker, doors.app, doors.canary)

    def links(self, name: str) -> Pool:
        """Return the door of a gateway's login (``links_password_file``); acquiring raises as for ``primary``.

        ``KeyError`` when there is no such cell.
        """
        return self._cells[name].doors.links

    def leader(self, name: str) -> Leader | None:
        """Return who leads a cell of several members; None when nobody does, and for a cell that is one server."""
        return self._cells[name].leader

    def picture(self, name: str) -> CellPicture | None:
        """Return what is seen of a cell with members; None for a cell that is one server."""
        return self._cells[name].picture()

    async def durability(self, name: str) -> Durability:
        """Return where everything that was committed before this call is on disk, asked of the leader now.

        Never raises: what cannot be found out is ``unknown``.
        """
        return await self._cells[name].durability()

    async def told_durability(self, name: str) -> str:
        """Return the same as text, with who told it: ``two-centres; leader=e1; timeline=3`` (RFC 8941 parameters).

        Whoever keeps these texts can see by himself that no two leaders ever acknowledged at the same time.
        """
        found = await self.durability(name)
        asked = self._cells[name].asked
        if asked is None or found is Durability.UNKNOWN:
            return str(found)
        return f"{found}; leader={asked.member}; timeline={asked.timeline}"

    @contextlib.asynccontextmanager
    async def steward(self, name: str) -> AsyncIterator[Connection]:
        """Lend one connection of the steward's login, which may make and close agencies and put snapshots.

        ``Problem`` no_primary, unavailable; setting_missing when no password file is set.
        """
        doors = self._cells[name].doors
        if doors.cell.steward_password_file is None:
            raise Problem("setting_missing", pointer=f"/cells/{name}/steward_password_file")
        connection = await doors.connect("chukan_steward")
        try:
            yield connection
        finally:
            connection.terminate()

    async def hear(self, name: str, channels: Sequence[str], heard: Callable[[str, str], None]) -> None:
        """Call ``heard(channel, payload)`` at each notification, until cancelled; with "" on every (re)connect as well.

        A notification is a hint, and those of the time without a connection are lost: so whoever listens also looks
        when the connection is back, and by itself every second.
        """
        while True:
            try:
                doors = self._cells[name].doors
                connection = await doors.connect(doors.watcher)
            except Problem:
                await asyncio.sleep(_RETRY_S)
                continue
            try:
                await _hear(connection, channels, heard)
            except (*DRIVER_ERRORS, Problem) as error:
                _log.warning("a listener lost its connection", cell=name, exc_info=error)
            finally:
                connection.terminate()

    async def close(self) -> None:
        """Drop all connections; what was in flight on them is found out by a repeat."""
        for cell in self._cells.values():
            await cell.close()


class _Watched:
    """One cell: its doors, and whoever looks for its leader."""

    def __init__(self, name: str, cell: Cell, environment: Environment, refuses: Refuses | None) -> None:
        self._name = name
        self._cell = cell
        self._members: dict[str, Member] = {member.name: member for member in cell.members}
        self._context = cell_context(cell)
        if self._context is not None and refuses is not None:
            refusing(self._context, refuses)
        self._patroni = Patroni({member.name: member.rest for member in cell.members}, self._context)
        self._finder: Finder | None = None
        if cell.members:
            self._finder = Finder(name, self._patroni, self._answers, self._changed, epoch=cell.restore_epoch)
        self.doors = CellDoors(name, cell, environment, self._trouble)
        centres = {member.name: member.centre for member in cell.members}
        self._durability = DurabilityWatch(name, self.doors, centres)
        self._running: asyncio.Task[None] | None = None
        self._alone_since: float | None = None
        self._leaderless_s = 0.0
        self._changes = -1

    @property
    def leader(self) -> Leader | None:
        return None if self._finder is None else self._finder.leader

    async def open(self) -> None:
        if self.doors.target is not None or self._running is not None:
            return
        if self._finder is None:
            await self.doors.lead_alone(Target(self._cell.host, self._cell.port, None, self._context))
            return
        self.doors.expect()
        self._alone_since = asyncio.get_running_loop().time()
        self._running = asyncio.create_task(self._finder.run(), name=f"leader {self._name}")

    async def close(self) -> None:
        if self._running is not None:
            self._running.cancel()
            await asyncio.wait({self._running})
            self._running = None
        await self.doors.close()
        await self._patroni.close()

    async def durability(self) -> Durability:
        if self._finder is None:
            return Durability.ONE_SERVER
        return await self._durability.ask()

    @property
    def asked(self) -> Leader | None:
        """Which leader told the durability last."""
        return self._durability.asked

    def picture(self) -> CellPicture | None:
        if self._finder is None:
            return None
        now = asyncio.get_running_loop().time()
        leader, target = self._finder.leader, self.doors.target
        return CellPicture(
            leader=leader,
            serving=target is not None,
            since_s=None if leader is None else now - leader.since,
            leaderless_s=self._leaderless_s + (0.0 if self._alone_since is None else now - self._alone_since),
            changes=max(0, self._changes),
            nodes=dict.fromkeys(self._members) | self._finder.states,
            centres={name: member.centre for name, member in self._members.items()},
            durability=self._durability.last,
        )

    def _trouble(self) -> None:
        if self._finder is not None:
            self._finder.poke()

    def _changed(self, leader: Leader | None) -> None:
        now = asyncio.get_running_loop().time()
        if leader is None:
            self._alone_since = now
            self.doors.lead(None)
            return
        if self._alone_since is not None:
            self._leaderless_s += now - self._alone_since
            self._alone_since = None
        self._changes += 1
        member = self._members[leader.member]
        self.doors.lead(Target(member.host, member.port, leader, self._context))

    async def _answers(self, name: str) -> bool:
        """Tell whether a member's server takes a connection of ours and writes, within a second."""
        member = self._members[name]
        target = Target(member.host, member.port, self.leader, self._context)
        try:
            async with asyncio.timeout(_ANSWERS_S):
                user = self.doors.watcher
                connection: Connection = await asyncpg.connect(
                    **target.arguments(self._cell, user), password=password(self._cell, user)
                )
        except (*DRIVER_ERRORS, Problem):
            return False
        connection.terminate()
        return True


def cell_context(cell: Cell) -> ssl.SSLContext | None:
    """Return the TLS 1.3 context for members and their Patroni; None for a cell without certificates.

    Raises ``Problem`` certificate_unreadable.
    """
    if cell.tls_ca_file is None:
        return None
    return member_context(cell.tls_ca_file, cell.tls_certificate_file, cell.tls_key_file)


def member_context(ca: Path, certificate: Path | None, key: Path | None) -> ssl.SSLContext:
    """Return a TLS 1.3 context for calls to members: their certificate must lead to ``ca`` and bear their name.

    Raises ``Problem`` certificate_unreadable.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    try:
        if certificate is not None:
            # An empty password makes a key file that has one fail, instead of asking for it at the terminal.
            context.load_cert_chain(certificate, key, password="")
        context.load_verify_locations(ca)
    except (OSError, ssl.SSLError, ValueError):
        raise Problem("certificate_unreadable", expected="PEM files: a chain, its key, and the root") from None
    return context


async def _hear(connection: Connection, channels: Sequence[str], heard: Callable[[str, str], None]) -> None:
    ended = asyncio.Event()
    connection.add_termination_listener(lambda _connection: ended.set())
    for channel in channels:
        await connection.add_listener(channel, lambda *told: heard(str(told[2]), str(told[3])))
        heard(channel, "")
    while not ended.is_set():
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_PROBE_S):
                await ended.wait()
            return
        # A connection that a firewall forgot says nothing for ever; a question finds out.
        await bounded(connection, connection.fetchval("SELECT 1"), CONNECT_TIMEOUT_S)
