"""What a gateway has beside what it shall have, without touching anything: for ``chukan gateway check``.

It may run beside the controller. Where the cell is away, what the controller kept last is compared with.
"""

import msgspec

from chukan.clock import SystemClock
from chukan.errors import Problem
from chukan.vpn.gateway.config import Config
from chukan.vpn.gateway.metrics import LinkFigures
from chukan.vpn.gateway.parts import Gateway, backend


class LinkCheck(msgspec.Struct, frozen=True, kw_only=True):
    """One link: ``active`` when it may pass now, ``differences`` by kind; the handshake in seconds since 1970."""

    link: str
    body: str
    active: bool
    up: bool
    last_handshake_at: float | None
    bytes_in: int
    bytes_out: int
    differences: tuple[str, ...]


class GatewayCheck(msgspec.Struct, frozen=True, kw_only=True):
    """The whole gateway."""

    centre: str
    number: int
    read_now: bool
    """Whether the database answered; otherwise this is beside what was known last."""
    links: tuple[LinkCheck, ...]
    others: tuple[str, ...]
    """Differences that belong to no link: ``rogue`` peers, the packet filter."""
    failures: tuple[str, ...]
    """Codes of what could not be looked at."""

    @property
    def good(self) -> bool:
        """Whether everything is as it shall be."""
        return not (self.others or self.failures or any(link.differences for link in self.links))


async def check(config: Config) -> GatewayCheck:
    """Compare, and change nothing. Raises ``Problem`` for keys and settings that cannot be used."""
    config = msgspec.structs.replace(config, mode="report")
    async with Gateway(config, SystemClock(), await backend(config)) as gateway:
        controller = gateway.controller
        await controller.start()
        await gateway.learner.once()
        failures = await controller.once()
        snapshot = controller.snapshot()
        differences: dict[str | None, list[str]] = {}
        for found in controller.found:
            differences.setdefault(found.link, []).append(found.kind)
        others = differences.pop(None, [])
        return GatewayCheck(
            centre=config.centre,
            number=snapshot.desired_number,
            read_now=not gateway.learner.away,
            links=tuple(_link(each, snapshot.now_s, differences.pop(each.link, [])) for each in snapshot.links),
            others=tuple(sorted([*others, *(kind for kinds in differences.values() for kind in kinds)])),
            failures=tuple(each.code if isinstance(each, Problem) else type(each).__name__ for each in failures),
        )


def _link(figures: LinkFigures, now_s: float, differences: list[str]) -> LinkCheck:
    return LinkCheck(
        link=figures.link,
        body=figures.body,
        active=figures.active,
        up=figures.up(now_s),
        last_handshake_at=figures.sighting.handshake_at,
        bytes_in=figures.sighting.rx,
        bytes_out=figures.sighting.tx,
        differences=tuple(sorted(differences)),
    )
