"""Reads the provision records of the simulated parties: the network's own, and those of the national agencies.

Both stand on loopback admin endpoints of the sandbox; a platform's agencies are read through the agency API instead.
"""

from typing import Final, TypeVar

import aiohttp
import msgspec

from chukan.errors import Problem
from chukan.ops.sandbox.admin import PAGE_MAX, NetworkRecord, NetworkRecords
from chukan.platform.wire.agency import Record, Records

PAGES_MAX: Final = 100_000
TIMEOUT_S: Final = 60.0
_OK: Final = 200
T = TypeVar("T")


async def read_network(url: str) -> list[NetworkRecord]:
    """All records of the sandbox network. Raises ``Problem`` network_unavailable."""
    found: list[NetworkRecord] = []
    after = 0
    async with _session() as session:
        for _ in range(PAGES_MAX):
            page = await _get(session, f"{url}/admin/records?after={after}&limit={PAGE_MAX}", NetworkRecords)
            found += page.records
            if page.next is None:
                break
            after = page.next
    return found


async def read_counterparts(url: str) -> dict[str, list[Record]]:
    """All records of the simulated national agencies, by agency. Raises ``Problem`` network_unavailable."""
    found: dict[str, list[Record]] = {}
    async with _session() as session:
        for agency in await _get(session, f"{url}/admin/state", dict[str, dict[str, int]]):
            found[agency] = await _records(session, f"{url}/admin/{agency}/records")
    return found


async def _records(session: aiohttp.ClientSession, url: str) -> list[Record]:
    found: list[Record] = []
    after = "0"
    for _ in range(PAGES_MAX):
        page = await _get(session, f"{url}?after={after}", Records)
        found += page.records
        if page.next is None:
            break
        after = page.next
    return found


def _session() -> aiohttp.ClientSession:
    return aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=TIMEOUT_S))


async def _get(session: aiohttp.ClientSession, url: str, kind: type[T]) -> T:
    try:
        async with session.get(url, allow_redirects=False) as response:
            body = await response.read()
            if response.status != _OK:
                raise Problem("network_unavailable")
            return msgspec.json.decode(body, type=kind)
    except (aiohttp.ClientError, TimeoutError, msgspec.MsgspecError):
        raise Problem("network_unavailable") from None
