"""etcd as the operator needs it: who holds a cell's leader key, and the word that its holder is dead (確認済み死亡).

Patroni keeps the leader of a cell in a key whose lease the leader renews. When the centre of the leader is known to be
gone, revoking that lease lets the others vote at once instead of waiting for its end (ttl, 20 s): Patroni's own checks
still apply, so no acknowledged commit is lost even when the word was wrong; a leader that lives is fenced by it.

Invariant: only the lease that was read together with the holder's name is revoked. A leader elected in between has a
lease of its own, which this never touches.
"""

import asyncio
import base64
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

import aiohttp
import msgspec

from chukan import log
from chukan.errors import Problem
from chukan.replication.answers import whole

NAMESPACE: Final = "/chukan/"
CALL_TIMEOUT_S: Final = 2.0

_log = log.get("replication.etcd")
_FAILURES: Final = (aiohttp.ClientError, OSError, TimeoutError, ValueError, KeyError, TypeError)


@dataclass(frozen=True, slots=True)
class LeaderKey:
    """Who holds a cell's leader key, under which lease (a decimal number, as etcd's gateway writes it)."""

    holder: str
    lease: str


class Etcd:
    """The v3 JSON gateway of the voters; ``close`` in the end."""

    def __init__(self, endpoints: Sequence[str], context: ssl.SSLContext | None, *, namespace: str = NAMESPACE) -> None:
        """``endpoints`` are base URLs (https://host:port); the first that answers is asked."""
        self._endpoints = [url.rstrip("/") for url in endpoints]
        self._context = context
        self._namespace = namespace
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        """Close what is open."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def health(self, timeout_s: float = CALL_TIMEOUT_S) -> dict[str, bool]:
        """Return for each endpoint whether it answers and its voters have a majority."""
        said = await asyncio.gather(*(self._healthy(url, timeout_s) for url in self._endpoints))
        return dict(zip(self._endpoints, said, strict=True))

    async def leader_key(self, cell: str, timeout_s: float = CALL_TIMEOUT_S) -> LeaderKey | None:
        """Return who holds the leader key of a cell; None when nobody does. Raises ``Problem`` etcd_unavailable."""
        key = base64.b64encode(f"{self._namespace}{cell}/leader".encode()).decode()
        answer = await self._ask("kv/range", {"key": key}, timeout_s)
        try:
            found = answer.get("kvs", [])
            if not found:
                return None
            return LeaderKey(base64.b64decode(found[0]["value"]).decode(), str(found[0].get("lease", "0")))
        except (KeyError, TypeError, ValueError):
            raise Problem("etcd_unavailable") from None

    async def revoke(self, key: LeaderKey, timeout_s: float = CALL_TIMEOUT_S) -> None:
        """Revoke the lease of a leader that is known to be dead. Raises ``Problem`` etcd_unavailable.

        A lease that has ended meanwhile is as good as revoked.
        """
        _log.warning("leader's lease revoked", peer=key.holder)
        await self._ask("lease/revoke", {"ID": key.lease}, timeout_s, gone_is_fine=True)

    async def forget(self, cell: str, timeout_s: float = CALL_TIMEOUT_S) -> None:
        """Remove everything of a cell that was stopped, so that it is born again from what lies in its leader's folder.

        Raises ``Problem`` etcd_unavailable.
        """
        folder = f"{self._namespace}{cell}/"
        # All keys that begin with it: etcd wants the first key that does not.
        first, after = (base64.b64encode(key.encode()).decode() for key in (folder, f"{folder[:-1]}0"))
        _log.warning("a cell is removed from etcd", cell=cell)
        await self._ask("kv/deleterange", {"key": first, "range_end": after}, timeout_s)

    async def _ask(
        self, path: str, body: dict[str, str], timeout_s: float, *, gone_is_fine: bool = False
    ) -> dict[str, Any]:
        for url in self._endpoints:
            try:
                status, document = await self._call("POST", f"{url}/v3/{path}", body, timeout_s)
            except _FAILURES:
                continue
            if status == HTTPStatus.OK or (gone_is_fine and status == HTTPStatus.NOT_FOUND):
                return document
        raise Problem("etcd_unavailable")

    async def _healthy(self, url: str, timeout_s: float) -> bool:
        try:
            status, document = await self._call("GET", f"{url}/health", None, timeout_s)
        except _FAILURES:
            return False
        return status == HTTPStatus.OK and str(document.get("health")).lower() == "true"

    async def _call(
        self, method: str, url: str, body: dict[str, str] | None, timeout_s: float
    ) -> tuple[int, dict[str, Any]]:
        if self._session is None:
            connector = aiohttp.TCPConnector(ssl=self._context or False, limit=0)
            self._session = aiohttp.ClientSession(connector=connector, trust_env=False)
        async with asyncio.timeout(timeout_s):
            async with self._session.request(method, url, json=body, allow_redirects=False) as answer:
                document = msgspec.json.decode(await whole(answer))
                if not isinstance(document, dict):
                    raise TypeError("not a document of etcd")
                return answer.status, document
