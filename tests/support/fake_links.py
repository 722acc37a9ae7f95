"""A service of links that lives in memory and remembers what it was asked."""

from dataclasses import dataclass, field
from typing import Any

from chukan.platform.exchange.services import OfficersAct
from chukan.platform.wire.links import LinkView, LinkViews
from chukan.tenants.directory import AgencyRow, ClientRow
from chukan.tenants.link_plan import prefixes


@dataclass
class Links:
    """LinkService in memory: every link that is named exists."""

    calls: list[Any] = field(default_factory=list)

    async def list(self, agency: AgencyRow) -> LinkViews:
        self.calls.append(("links", agency.code))
        return LinkViews(links=[_view(f"{agency.body}-1", "active")])

    async def act(
        self,
        agency: AgencyRow,
        officer: ClientRow,
        link: str,
        act: OfficersAct,
        reason: str,
        *,
        key: str,
        content: bytes,
    ) -> LinkView:
        self.calls.append((act, agency.code, officer.id, link, reason, key))
        return _view(link, {"suspend": "suspended", "resume": "active", "revoke": "revoked"}[act])


def _view(link: str, state: Any) -> LinkView:
    return LinkView(
        link=link, kind="wireguard", mode="pair", state=state, generation=1, addresses=[*prefixes(link)], ends=[]
    )
