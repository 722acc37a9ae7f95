"""How the gateways of a site stand, as they tell themselves: who answers, how many links are up, what was found wrong.

Read from the gateways' metrics by the few lines that are wanted: at 2,500 bodies there are some 20,000, and nobody
needs a parser's object for each of them once a second.
"""

from collections.abc import Iterator
from typing import Final

import aiohttp
import msgspec

from chukan.replication.site import Site
from chukan.replication.site_links import Gateway

_UP: Final = "chukan_link_up{"
_DRIFT: Final = "chukan_links_drift_total{"
_DROPS: Final = "chukan_link_drops_total{"
_ACTIVE: Final = "chukan_links_active{"
_DRAINING: Final = "chukan_links_draining{"
_WANTED: Final = (_UP, _DRIFT, _DROPS, _ACTIVE, _DRAINING)
_OK: Final = 200


class GatewayPicture(msgspec.Struct, frozen=True):
    """One gateway; ``links`` are those that may pass, ``up`` of them shook hands lately."""

    name: str
    centre: str
    answers: bool
    links: int = 0
    up: int = 0
    drift: int = 0
    """Differences found since it was started that nobody had ordered; all of them were told and counted."""
    drops: int = 0
    """Packets that it dropped."""
    draining: bool = False

    @property
    def whole(self) -> bool:
        """Tell whether every link that may pass is up."""
        return self.answers and self.up >= self.links


def read(name: str, centre: str, text: str) -> GatewayPicture:
    """Return what a gateway's metrics say."""
    sums = dict.fromkeys(_WANTED, 0.0)
    for head, value in _values(text):
        sums[head] += value
    return GatewayPicture(
        name=name,
        centre=centre,
        answers=True,
        links=int(sums[_ACTIVE]),
        up=int(sums[_UP]),
        drift=int(sums[_DRIFT]),
        drops=int(sums[_DROPS]),
        draining=sums[_DRAINING] > 0,
    )


def _values(text: str) -> Iterator[tuple[str, float]]:
    for line in text.splitlines():
        head = next((head for head in _WANTED if line.startswith(head)), None)
        if head is not None:
            try:
                yield head, float(line.rpartition(" ")[2])
            except ValueError:
                continue


async def paint(site: Site, session: aiohttp.ClientSession, row: Gateway) -> GatewayPicture:
    """Ask one gateway, within the session's deadline."""
    centre = site.where(row.host)
    try:
        async with session.get(f"http://{site.address(row.host)}:{row.metrics_port}/metrics") as reply:
            text = await reply.text()
            return read(row.name, centre, text) if reply.status == _OK else _silent(row.name, centre)
    except (aiohttp.ClientError, OSError, TimeoutError, UnicodeDecodeError):
        return _silent(row.name, centre)


def _silent(name: str, centre: str) -> GatewayPicture:
    return GatewayPicture(name, centre, answers=False)


def complaints(found: list[GatewayPicture]) -> Iterator[str]:
    """Yield what does not stand as it should, in words.

    A link that is down is none of it: of many bodies' devices one is always away, and there is an alert for those that
    stay so.
    """
    for gateway in found:
        if not gateway.answers:
            yield f"{gateway.name} does not answer"
        elif gateway.draining:
            yield f"{gateway.name} sends its devices to the other centre (drain)"


def all_up(found: list[GatewayPicture]) -> bool:
    """Tell whether every link is up at every gateway, as a lab wants it whose devices are all there."""
    return all(gateway.whole for gateway in found)
