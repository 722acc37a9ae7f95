"""How a site stands at this moment, as everybody in it tells: one picture for people, programs and drills.

Everybody is asked at once, each with a deadline; who does not answer is said to be silent, never guessed at.
"""

import asyncio
from contextlib import AsyncExitStack
from typing import Any, Final, Self

import aiohttp
import msgspec

from chukan.ops.centres import link_picture
from chukan.ops.centres.link_picture import GatewayPicture
from chukan.platform import tls
from chukan.replication import render
from chukan.replication.etcd import Etcd
from chukan.replication.patroni import NodeState, Patroni
from chukan.replication.site import ExchangeHost, Site, gateways

TIMEOUT_S: Final = 1.5
_OK: Final = 200


class NodePicture(msgspec.Struct, frozen=True):
    """One PostgreSQL under Patroni; ``role`` is primary, sync, replica, or silent where its Patroni does not answer."""

    name: str
    centre: str
    role: str
    state: str
    timeline: int | None
    lag_bytes: int | None
    streaming: bool


class CellPicture(msgspec.Struct, frozen=True):
    """One cell; ``leader`` is who says that it leads, None where nobody does."""

    name: str
    home: str
    leader: str | None
    timeline: int | None
    sync: list[str]
    sync_wanted: int
    nodes: list[NodePicture]

    @property
    def leader_centre(self) -> str | None:
        """Where the leader stands."""
        return next((node.centre for node in self.nodes if node.name == self.leader), None)


class ExchangePicture(msgspec.Struct, frozen=True):
    """One exchange; ``cells`` are those that it can commit in."""

    name: str
    centre: str
    ready: bool
    answers: bool
    cells: dict[str, bool]
    faults: list[str]
    warnings: list[str]


class Picture(msgspec.Struct, frozen=True):
    """The whole site; ``etcd`` is, by member, whether it answers and sees a majority."""

    site: str
    topology: str
    strict: bool
    cells: list[CellPicture]
    etcd: dict[str, bool]
    exchanges: list[ExchangePicture]
    links: list[GatewayPicture] = []
    """The gateways, where the site has links."""

    @property
    def whole(self) -> bool:
        """Tell whether everything stands as the site wants it."""
        return not self.complaints()

    def complaints(self) -> list[str]:
        """Return what does not stand as it should, in words."""
        found = [f"{name} does not answer or sees no majority" for name, good in self.etcd.items() if not good]
        for cell in self.cells:
            if cell.leader is None:
                found.append(f"cell {cell.name} has no leader")
            elif len(cell.sync) < cell.sync_wanted:
                found.append(f"cell {cell.name} has {len(cell.sync)} of {cell.sync_wanted} synchronous standbys")
            found += [f"{node.name} is {node.role} ({node.state})" for node in cell.nodes if not _good(node)]
        for exchange in self.exchanges:
            if not exchange.ready:
                found.append(
                    f"{exchange.name} is not ready" if exchange.answers else f"{exchange.name} does not answer"
                )
            found += [f"{exchange.name} cannot commit in {cell}" for cell, good in exchange.cells.items() if not good]
        return [*found, *link_picture.complaints(self.links)]


def _good(node: NodePicture) -> bool:
    return node.role == "primary" or (node.role in {"sync", "replica"} and node.streaming)


class Painter:
    """Asks everybody in a site; usable as a context, whose end closes its connections."""

    def __init__(self, site: Site) -> None:
        """Use the operator's certificate. Raises ``Problem`` certificate_unreadable."""
        folder = site.operator.directory
        context = tls.client_context(folder / "certificate.pem", folder / "key.pem", folder / "ca.pem")
        self._site = site
        self._context = context
        self._etcd_urls = {
            member.name: f"https://{site.address(member.host)}:{site.etcd.client_port}" for member in site.etcd.members
        }
        self.etcd = Etcd(list(self._etcd_urls.values()), context)
        password = (render.REST_USER, (folder / "passwords" / render.REST_PASSWORD).read_text(encoding="ascii").strip())
        self.patroni = {name: Patroni(rest_urls(site, name), context, password=password) for name in site.cells}
        self._stack = AsyncExitStack()
        self._session: aiohttp.ClientSession

    async def __aenter__(self) -> Self:
        self._session = await self._stack.enter_async_context(
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=TIMEOUT_S), trust_env=False)
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.gather(self.etcd.close(), *(patroni.close() for patroni in self.patroni.values()))
        await self._stack.aclose()

    async def leaders(self) -> dict[str, str]:
        """Return who leads each cell that has a leader."""
        found = await asyncio.gather(*(patroni.primaries(TIMEOUT_S) for patroni in self.patroni.values()))
        return {cell: names[0] for cell, names in zip(self.patroni, found, strict=True) if names}

    async def paint(self) -> Picture:
        """Ask everybody; takes as long as the slowest deadline at most."""
        site = self._site
        cells, etcd, exchanges, links = await asyncio.gather(
            asyncio.gather(*(self._cell(name) for name in site.cells)),
            self.etcd.health(TIMEOUT_S),
            asyncio.gather(*(self._exchange(row) for row in site.exchanges)),
            asyncio.gather(*(link_picture.paint(site, self._session, row) for row in gateways(site))),
        )
        return Picture(
            site=site.name,
            topology=site.topology,
            strict=site.strict,
            cells=list(cells),
            etcd={name: etcd[url] for name, url in self._etcd_urls.items()},
            exchanges=list(exchanges),
            links=list(links),
        )

    async def _cell(self, name: str) -> CellPicture:
        cell = self._site.cells[name]
        # One question a node: every answer costs it a TLS handshake, and a node that struggles is asked most.
        nodes = await self.patroni[name].look(timeout_s=TIMEOUT_S)
        leading = {node: state for node, state in nodes.items() if state is not None and state.leads}
        # Of two that say so the one with the higher timeline: the other has not heard of its end yet.
        leader = max(leading, key=lambda node: leading[node].timeline or 0, default=None)
        written = None if leader is None else leading[leader].position
        pictures = [
            _node(node.name, self._site.where(node.host), nodes[node.name], written, leading=node.name == leader)
            for node in cell.nodes
        ]
        return CellPicture(
            name=name,
            home=cell.home,
            leader=leader,
            timeline=None if leader is None else leading[leader].timeline,
            sync=[picture.name for picture in pictures if picture.role == "sync"],
            sync_wanted=self._site.synchronous_node_count,
            nodes=pictures,
        )

    async def _exchange(self, row: ExchangeHost) -> ExchangePicture:
        centre = self._site.where(row.host)
        url = f"http://{self._site.address(row.host)}:{row.health_port}/readyz"
        try:
            async with self._session.get(url) as reply:
                told: dict[str, Any] = msgspec.json.decode(await reply.read())
                return ExchangePicture(
                    name=row.name,
                    centre=centre,
                    ready=reply.status == _OK,
                    answers=True,
                    cells={name: bool(state["ok"]) for name, state in told.get("cells", {}).items()},
                    faults=[str(fault) for fault in told.get("faults", [])],
                    warnings=[str(warning) for warning in told.get("warnings", [])],
                )
        except (aiohttp.ClientError, OSError, TimeoutError, msgspec.DecodeError):
            return ExchangePicture(row.name, centre, ready=False, answers=False, cells={}, faults=[], warnings=[])


def rest_urls(site: Site, cell: str) -> dict[str, str]:
    """Return Patroni's REST of each node of a cell."""
    return {node.name: f"https://{site.address(node.host)}:{node.rest_port}" for node in site.cells[cell].nodes}


def _node(name: str, centre: str, state: NodeState | None, written: int | None, *, leading: bool) -> NodePicture:
    if state is None:
        return NodePicture(name, centre, "silent", "silent", None, None, streaming=False)
    lag = None if leading or written is None or state.position is None else max(0, written - state.position)
    if leading:
        role = "primary"
    elif state.role == "primary":
        role = "old primary"
    else:
        role = "sync" if state.sync else "replica"
    return NodePicture(name, centre, role, state.state, state.timeline, lag, streaming=state.streaming)
