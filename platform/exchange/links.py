"""Links (団体の回線) for the agency API: how a body's own stand, and the acts of its officers on them.

All links lie in one cell, whichever cell the agency lives in. Whether the link is the body's, whether its state allows
the act, and whether this officer may be the one, is decided in that cell in the commit of the act.
"""

from __future__ import annotations

from chukan import log
from chukan.errors import Problem
from chukan.platform.exchange.context import Context
from chukan.platform.exchange.services import OfficersAct
from chukan.platform.wire.links import LinkEnd, LinkView, LinkViews
from chukan.tenants import link_plan
from chukan.tenants.directory import AgencyRow, ClientRow
from chukan.tenants.sets import CellSets
from chukan.tenants.sets.links import BodyLink
from chukan.tenants.sets.links import OfficersAct as Asked

_log = log.get("exchange.links")


class BodyLinks:
    """Implements ``services.LinkService``."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def list(self, agency: AgencyRow) -> LinkViews:
        """Return all links of the agency's body."""
        return LinkViews(links=[_view(row) for row in await self._sets().body_links(agency.body)])

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
        """Carry out an officer's act, and return how the link stands now."""
        sets, keys = self._sets(), self._context.keys(agency.number)
        fresh = await sets.body_link_act(
            Asked(
                agency=agency.number,
                body=agency.body,
                link=link,
                act=act,
                officer=officer.id,
                reason=reason,
                key=keys.digest("key", key.encode()),
                content=keys.digest("body", content),
            )
        )
        if fresh:
            _log.warning("officer acted on a link", agency=agency.number, peer=officer.id, link=link, outcome=act)
            await self._hint(sets)
        found = next((row for row in await sets.body_links(agency.body) if row.link == link), None)
        if found is None:
            raise Problem("not_found")
        return _view(found)

    async def _hint(self, sets: CellSets) -> None:
        try:
            await sets.hint_links()
        except Problem as problem:
            _log.info("hint not sent", cell=self._context.settings.links_cell, code=problem.code)

    def _sets(self) -> CellSets:
        return self._context.sets[self._context.settings.links_cell]


def _view(row: BodyLink) -> LinkView:
    return LinkView(
        link=row.link,
        kind=row.kind,
        mode=row.mode,
        state=row.state,
        generation=row.generation,
        addresses=[*link_plan.prefixes(row.link)],
        ends=[LinkEnd(centre=centre, last_handshake=at) for centre, at in row.handshakes.items()],
        valid_from=row.valid_from,
        valid_until=row.valid_until,
        suspended_by=row.suspended_by,
    )
