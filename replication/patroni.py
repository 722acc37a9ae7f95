"""Patroni's REST interface of one cell's members: who leads, how each node is, and an operator's orders.

Every call has a deadline, and a member that does not answer in time is silent, never an error: the loss of a node is
what this is for. Calls are TLS 1.3 with a certificate on both sides; the unsafe verbs may need a password besides.

Patroni answers HTTP/1.0, so each call is a connection of its own. ``GET /primary`` says in one answer what a look
needs: its status says whether the member holds the leader's key, its body how the node is (Patroni's rest_api.rst).

Invariant: what is read here is one member's word, which may be stale; ``leader`` judges it.
"""

import asyncio
import ssl
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from http import HTTPStatus
from typing import Any, Final

import aiohttp
import msgspec

from chukan import log
from chukan.errors import Problem
from chukan.replication.answers import whole

RACE_TIMEOUT_S: Final = 0.5
"""How long a member may take to say whether it leads."""
READ_TIMEOUT_S: Final = 2.0
ORDER_TIMEOUT_S: Final = 60.0
"""A switchover is answered when the new primary leads; Patroni itself gives up earlier."""
_TEXT_MAX: Final = 200

_log = log.get("replication.patroni")
_FAILURES: Final = (aiohttp.ClientError, OSError, TimeoutError, ValueError)
"""What a member that is away, half dead or no Patroni makes of a call; an unreadable answer is a ValueError."""


@dataclass(frozen=True, slots=True)
class NodeState:
    """What one member says of itself."""

    leads: bool
    """Whether it answered that it is the primary and holds the leader's key."""
    role: str
    """``primary`` or ``replica``, as its server says (also ``demoted``, ``uninitialized``…)."""
    state: str
    """``running`` when its server answers."""
    timeline: int | None
    system: str
    """System identifier of its database; empty where it has none."""
    sync: bool = False
    """Whether it is a synchronous standby."""
    streaming: bool = False
    """A replica that receives from a primary now."""
    position: int | None = None
    """Bytes of log: written (primary) or received (replica)."""
    scope: str = ""
    name: str = ""
    replayed_at: float | None = None
    """When the newest commit that it has replayed was made, by its primary's clock (Unix seconds); of a replica."""

    @classmethod
    def read(cls, status: int, body: bytes) -> "NodeState":
        """Return the state that an answer describes. Raises ``ValueError`` for anything but Patroni's document."""
        document = msgspec.json.decode(body)
        if not (isinstance(document, dict) and isinstance(document.get("patroni"), dict)):
            raise ValueError("not a document of Patroni")  # noqa: TRY004 - the answer is wrong, not a caller's type
        log_position = document.get("xlog") or {}
        timeline = document.get("timeline")
        return cls(
            leads=status == HTTPStatus.OK,
            role="primary" if document.get("role") in {"primary", "master"} else str(document.get("role", "")),
            state=str(document.get("state", "")),
            timeline=timeline if isinstance(timeline, int) else None,
            system=str(document.get("database_system_identifier", "")),
            sync=bool(document.get("sync_standby") or document.get("quorum_standby")),
            streaming=document.get("replication_state") == "streaming",
            position=log_position.get("location", log_position.get("received_location")),
            scope=str(document["patroni"].get("scope", "")),
            name=str(document["patroni"].get("name", "")),
            replayed_at=_instant(log_position.get("replayed_timestamp")),
        )


def _instant(text: object) -> float | None:
    """Return Patroni's text of an instant in Unix seconds; None where there is none, or none that can be read."""
    try:
        at = datetime.fromisoformat(str(text))
    except ValueError:
        return None
    return None if at.tzinfo is None else at.timestamp()


@dataclass(frozen=True, slots=True)
class ClusterMember:
    """One member in a member's view of the whole cluster."""

    name: str
    role: str
    """``leader``, ``sync_standby``, ``quorum_standby``, ``replica``, ``standby_leader``."""
    state: str
    timeline: int | None
    lag_bytes: int | None


class Patroni:
    """The members of one cell by name; ``close`` in the end."""

    def __init__(
        self,
        members: Mapping[str, str],
        context: ssl.SSLContext | None,
        *,
        password: tuple[str, str] | None = None,
    ) -> None:
        """``members`` maps names to base URLs; ``password`` is user and password of the unsafe verbs."""
        self._members = {name: url.rstrip("/") for name, url in members.items()}
        self._context = context
        self._headers = {} if password is None else {"Authorization": aiohttp.encode_basic_auth(*password)}
        self._session: aiohttp.ClientSession | None = None

    @property
    def members(self) -> list[str]:
        """Their names."""
        return list(self._members)

    async def close(self) -> None:
        """Close what is open."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    # ---------------------------------------------------------------- reading

    async def look(
        self, names: Iterable[str] | None = None, timeout_s: float = RACE_TIMEOUT_S
    ) -> dict[str, NodeState | None]:
        """Ask members (all by default) in parallel whether they lead and how they are; None for a silent one."""
        asked = list(self._members if names is None else names)
        answers = await asyncio.gather(*(self._node(name, "primary", timeout_s) for name in asked))
        return dict(zip(asked, answers, strict=True))

    async def primaries(self, timeout_s: float = RACE_TIMEOUT_S) -> list[str]:
        """Return who says that it leads (``HEAD /primary`` to all in parallel)."""
        said = await asyncio.gather(*(self._heads(name, timeout_s) for name in self._members))
        return [name for name, yes in zip(self._members, said, strict=True) if yes]

    async def node(self, name: str, timeout_s: float = READ_TIMEOUT_S) -> NodeState | None:
        """Return how a member is (``GET /patroni``); None when it is silent. Says nothing of who leads."""
        return await self._node(name, "patroni", timeout_s)

    async def views(self, timeout_s: float = READ_TIMEOUT_S) -> dict[str, str | None]:
        """Return whom each member that answers takes for the leader; None where it knows of none."""
        seen = await asyncio.gather(*(self._cluster(name, timeout_s) for name in self._members))
        return {
            name: next((member.name for member in cluster if member.role.endswith("leader")), None)
            for name, cluster in zip(self._members, seen, strict=True)
            if cluster is not None
        }

    async def cluster(self, timeout_s: float = READ_TIMEOUT_S) -> list[ClusterMember]:
        """Return the cluster as most of the members that answer see it; empty when none does.

        One that was just thawed or healed answers from before for some seconds, so one answer is not enough.
        """
        seen = await asyncio.gather(*(self._cluster(name, timeout_s) for name in self._members))
        by_leader: dict[str, list[list[ClusterMember]]] = {}
        for cluster in seen:
            if cluster is not None:
                leader = next((member.name for member in cluster if member.role.endswith("leader")), "")
                by_leader.setdefault(leader, []).append(cluster)
        return max(by_leader.values(), key=len)[0] if by_leader else []

    async def config(self, timeout_s: float = READ_TIMEOUT_S) -> dict[str, Any]:
        """Return the dynamic configuration. Raises ``Problem`` node_unreachable."""
        _, body = await self._any("GET", "config", None, timeout_s)
        document = msgspec.json.decode(body)
        return document if isinstance(document, dict) else {}

    # ---------------------------------------------------------------- orders

    async def switchover(self, leader: str, candidate: str | None, timeout_s: float = ORDER_TIMEOUT_S) -> str:
        """Have ``leader`` hand over in good order (計画切替) and return what Patroni says.

        Raises ``Problem`` node_unreachable, order_refused (with Patroni's reason).
        """
        order = {"leader": leader} | ({} if candidate is None else {"candidate": candidate})
        return await self._order("POST", "switchover", order, [leader, *self._members], timeout_s)

    async def failover(self, candidate: str, timeout_s: float = ORDER_TIMEOUT_S) -> str:
        """Have ``candidate`` lead although there may be no leader; Patroni still refuses who may lack a commit.

        Raises ``Problem`` node_unreachable, order_refused.
        """
        return await self._order("POST", "failover", {"candidate": candidate}, [candidate, *self._members], timeout_s)

    async def patch_config(self, changes: Mapping[str, Any], timeout_s: float = READ_TIMEOUT_S) -> str:
        """Change the dynamic configuration; None as a value removes a key. Raises ``Problem`` as ``switchover``."""
        return await self._order("PATCH", "config", dict(changes), list(self._members), timeout_s)

    # ---------------------------------------------------------------- calls

    async def _node(self, name: str, path: str, timeout_s: float) -> NodeState | None:
        try:
            status, body = await self._call("GET", name, path, None, timeout_s)
            return NodeState.read(status, body)
        except _FAILURES:
            return None

    async def _heads(self, name: str, timeout_s: float) -> bool:
        try:
            status, _ = await self._call("HEAD", name, "primary", None, timeout_s)
        except _FAILURES:
            return False
        return status == HTTPStatus.OK

    async def _cluster(self, name: str, timeout_s: float) -> list[ClusterMember] | None:
        try:
            _, body = await self._call("GET", name, "cluster", None, timeout_s)
            members = msgspec.json.decode(body)["members"]
            return [
                ClusterMember(
                    name=str(member["name"]),
                    role=str(member.get("role", "")),
                    state=str(member.get("state", "")),
                    timeline=member.get("timeline"),
                    lag_bytes=lag if isinstance(lag := member.get("lag"), int) else None,
                )
                for member in members
            ]
        except (*_FAILURES, KeyError, TypeError):
            return None

    async def _any(
        self, method: str, path: str, body: Mapping[str, Any] | None, timeout_s: float, names: Iterable[str] = ()
    ) -> tuple[int, bytes]:
        """Call the first member that answers; an order that was perhaps taken is never given twice."""
        for name in dict.fromkeys([*names, *self._members]):
            try:
                return await self._call(method, name, path, body, timeout_s)
            except (aiohttp.ClientConnectorError, ConnectionError):
                continue  # this one cannot have taken it
            except _FAILURES:
                if method != "GET":
                    break
        raise Problem("node_unreachable", expected="an answer of Patroni")

    async def _order(self, method: str, path: str, body: Mapping[str, Any], names: list[str], timeout_s: float) -> str:
        status, answer = await self._any(method, path, body, timeout_s, names)
        text = answer.decode("utf-8", "replace")[:_TEXT_MAX]
        _log.warning("order given to Patroni", stage=path, status=status)
        if status not in {HTTPStatus.OK, HTTPStatus.ACCEPTED}:
            raise Problem("order_refused", expected=text)
        return text

    async def _call(
        self, method: str, name: str, path: str, body: Mapping[str, Any] | None, timeout_s: float
    ) -> tuple[int, bytes]:
        if self._session is None:
            connector = aiohttp.TCPConnector(ssl=self._context or False, force_close=True, limit=0)
            self._session = aiohttp.ClientSession(connector=connector, headers=self._headers, trust_env=False)
        url = f"{self._members[name]}/{path}"
        async with asyncio.timeout(timeout_s):
            async with self._session.request(method, url, json=body, allow_redirects=False) as answer:
                return answer.status, await whole(answer)
