"""The lab of two centres as an installation to drill on: its stage, an operator's hand, and how clients reach it.

Roles are asked of everybody at once, by the operator's certificate; agencies are reached by their own, as any system
would. A real site is described by the same files (``site.toml``, ``connection.json``); only its stage is another one.
"""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Final, Self

from chukan.errors import Problem
from chukan.ops.centres.picture import NodePicture, Painter
from chukan.ops.demo.population import Population
from chukan.ops.drills.cases import Case, make_cases
from chukan.ops.drills.key_turns import CommandKeys
from chukan.ops.drills.mover import CommandMover
from chukan.ops.drills.operator_ports import Restorer, Steering
from chukan.ops.drills.ports import Exchange, Node, Role, Stage, View
from chukan.ops.sandbox.admin import NetworkRecord
from chukan.ops.sandbox.connection_file import ConnectionFile
from chukan.ops.sandbox.parties import read_network
from chukan.ops.sandbox.transport import Connection
from chukan.platform.law import Law
from chukan.replication.site import Site

VIEW_AGE_S: Final = 0.5
_ROLES: Final[Mapping[str, Role]] = {"primary": "primary", "old primary": "primary", "sync": "sync",
                                     "replica": "replica", "silent": "gone"}  # fmt: skip


class Hand:
    """An operator's orders, by the calls that the operator's own commands make."""

    def __init__(self, painter: Painter) -> None:
        self._painter = painter

    async def switchover(self, cell: str, leader: str, candidate: str) -> None:
        """Move a cell's primary as planned. Raises ``Problem`` node_unreachable, order_refused."""
        await self._painter.patroni[cell].switchover(leader, candidate)

    async def fence(self, cell: str) -> None:
        """Revoke the lease of a cell's leader. Raises ``Problem`` etcd_unavailable, site_not_settled."""
        key = await self._painter.etcd.leader_key(cell)
        if key is None:
            raise Problem("site_not_settled", expected=f"somebody who holds the leader's key of {cell}")
        await self._painter.etcd.revoke(key)


class Lab:
    """An installation on one machine; ``async with``."""

    def __init__(
        self,
        site: Site,
        stage: Stage,
        connection: ConnectionFile,
        population: Population,
        law: Law,
        offers: Sequence[str] = (),
        restorer: Restorer | None = None,
    ) -> None:
        """``offers`` names what some drills need and this lab has; ``restorer`` makes its backups, where it has any."""
        self.name, self.topology, self.marked = site.name, site.topology, site.drills
        self.stage: Stage = stage
        self._restorer = restorer
        self._site, self._connection, self._offers = site, connection, offers
        self._cases = tuple(make_cases(population, law, connection.agencies))
        self._painter = Painter(site)
        self.steering: Steering = Hand(self._painter)
        self.mover = CommandMover(site)
        self.keys = CommandKeys(site)
        self._asked: asyncio.Task[View] | None = None
        self._asked_at = 0.0
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        await self._stack.enter_async_context(self._painter)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._asked is not None:
            await asyncio.wait({self._asked})
        await self._stack.aclose()

    def offers(self, need: str) -> bool:
        """Tell whether it has what some drills need."""
        return need in self._offers or (need in {"agency moves", "key rotation"} and self.mover.is_there)

    def does(self, act: str, target: str) -> bool:  # noqa: ARG002 - the same call as at a real site
        """Everything that ``offers`` does not ask for is possible in every lab."""
        return True

    @property
    def restorer(self) -> Restorer:
        """Return who makes backups and restores them. Raises ``Problem`` not_possible_here."""
        if self._restorer is None:
            raise Problem("not_possible_here", expected="backup")
        return self._restorer

    @property
    def routed(self) -> bool:
        """Tell whether the clients stand behind the devices of their bodies."""
        return any(agency.namespace for agency in self._connection.agencies.values())

    def home(self, cell: str) -> str:
        """Return the home centre of a cell; ``KeyError`` for none of its cells."""
        return self._site.cells[cell].home

    def exchanges(self) -> Mapping[str, Exchange]:
        """Return the exchanges by name."""
        site = self._site
        return {
            row.name: Exchange(
                row.name,
                site.where(row.host),
                f"https://{site.address(row.host)}:{row.agency_port}",
                f"http://{site.address(row.host)}:{row.health_port}",
            )
            for row in site.exchanges
        }

    def connection(self, agency: str, exchange: str) -> Connection:
        """Return how an agency's system reaches one exchange. Raises ``Problem`` unknown_agency."""
        known = self._connection.connect(agency)
        # Behind a device the first address is the one that it moves, wherever it leads.
        url = known.urls[0] if known.namespace else self.exchanges()[exchange].agency_url
        return Connection(agency, [url], known.ca, known.certificate, known.key, namespace=known.namespace)

    def cases(self) -> Sequence[Case]:
        """Return who can ask whom about whom."""
        return self._cases

    async def view(self) -> View:
        """Return the roles as everybody tells them now; who asks at the same time gets the same answer.

        Asking costs each node work just when it has most to do: a drill must not make the outage that it measures.
        """
        loop = asyncio.get_running_loop()
        if self._asked is None or (self._asked.done() and loop.time() - self._asked_at > VIEW_AGE_S):
            self._asked, self._asked_at = loop.create_task(self._view()), loop.time()
        return await asyncio.shield(self._asked)

    async def _view(self) -> View:
        picture = await self._painter.paint()
        return View(
            tuple(_node(cell.name, node) for cell in picture.cells for node in cell.nodes),
            picture.etcd,
            {exchange.name: exchange.answers for exchange in picture.exchanges},
        )

    async def network_records(self) -> Sequence[NetworkRecord]:
        """Return the network's own records. Raises ``Problem`` network_unavailable."""
        if self._connection.network_admin_url is None:
            raise Problem("setting_missing", pointer="/network_admin_url")
        return await read_network(self._connection.network_admin_url)


def _node(cell: str, node: NodePicture) -> Node:
    role = _ROLES.get(node.role, "starting")
    if role != "gone" and node.state not in {"running", "streaming"}:
        role = "starting"
    return Node(node.name, cell, node.centre, role, node.timeline or 0)
