"""Looking up holders (通知先の通知, 命令85号40条3項・4項): whom an inquirer may ask about a person.

The network answers by its own list; what it names is held against ours before anybody sees it, as everything is that
comes from there. A look-up is no request for provision: it has no state and no record, and it is never repeated here.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from chukan import log
from chukan.clock import today_jst
from chukan.errors import Problem
from chukan.platform.exchange.context import Context
from chukan.platform.exchange.facts import Persons
from chukan.platform.exchange.views import problem_body
from chukan.platform.law import Verdict
from chukan.platform.peer import NetworkPeer
from chukan.platform.wire.holders import HolderAsk, HolderLine, HolderView, HolderViews
from chukan.platform.wire.network import HolderReply, HolderRequest
from chukan.tenants.directory import AgencyRow
from chukan.tenants.rows import CodeRow
from chukan.tenants.states import LinkStatus

_log = log.get("exchange.holders")


class Holders:
    """Implements ``services.HolderService``."""

    def __init__(self, context: Context, persons: Persons, peer: NetworkPeer) -> None:
        self._context = context
        self._persons = persons
        self._peer = peer

    async def ask(self, agency: AgencyRow, body: HolderAsk) -> HolderViews:
        """Answer line by line. Raises ``Problem`` network_unavailable."""
        links = await self._persons.links(agency, [line.addressee for line in body.lines])
        views: dict[int, HolderView] = {}
        asked: dict[int, HolderRequest] = {}
        for number, (line, link) in enumerate(zip(body.lines, links, strict=True)):
            found = self._here(agency, line, link)
            if isinstance(found, HolderRequest):
                asked[number] = found
            else:
                views[number] = msgspec.structs.replace(found, line=number)
        replies = await self._peer.holders([msgspec.json.encode(each) for each in asked.values()]) if asked else []
        for number, reply in zip(asked, replies, strict=True):
            views[number] = self._view(agency, number, body.lines[number], reply)
        _log.info("holders looked up", agency=agency.number, count=len(body.lines))
        return HolderViews(lines=[views[number] for number in sorted(views)])

    def _here(self, agency: AgencyRow, line: HolderLine, link: CodeRow | None) -> HolderRequest | HolderView:
        """Return the request for the network, or what can be said without it."""
        law = self._context.law
        try:
            _check(law.known_kind(line.kind), "unknown_kind", "/kind")
            _check(law.known_affair(line.affair), "unknown_affair", "/affair")
            procedure = law.procedures.get(line.procedure)
            known = procedure is not None and procedure.affair == line.affair
            _check(known, "unknown_procedure", "/procedure")
        except Problem as problem:
            return HolderView(line=0, status="refused", problem=problem_body(problem))
        if self._context.common.directory.is_stopped(line.kind, line.procedure):
            return HolderView(line=0, status="stopped", reason="kind_stopped")
        if link is None or link.status is not LinkStatus.ACTIVE:
            reason = "no_code" if link is None else f"link_{link.status.name.lower()}"
            return HolderView(line=0, status="no_code", reason=reason)
        return HolderRequest(
            id=self._context.chance.uuid7(),
            inquirer=agency.code,
            affair=line.affair,
            procedure=line.procedure,
            kind=line.kind,
            code=Persons.open_code(self._context.keys(agency.number), link),
        )

    def _view(self, agency: AgencyRow, number: int, line: HolderLine, reply: HolderReply) -> HolderView:
        if reply.outcome == "answered":
            return HolderView(line=number, status="answered", providers=self._allowed(agency, line, reply.providers))
        status = "refused" if reply.outcome == "bad_request" else reply.outcome
        return HolderView(line=number, status=status, reason=reply.reason)

    def _allowed(self, agency: AgencyRow, line: HolderLine, named: Sequence[str]) -> list[str]:
        """Leave out whom our own list in force does not let this inquirer ask (deny by default)."""
        today = today_jst(self._context.clock)
        return [
            provider
            for provider in named
            if self._context.law.decide(
                inquirer=agency.code,
                provider=provider,
                affair=line.affair,
                procedure=line.procedure,
                kind=line.kind,
                day=today,
            ).verdict
            is Verdict.YES
        ]


def _check(known: bool, code: str, pointer: str) -> None:  # noqa: FBT001 - a check reads as one
    if not known:
        raise Problem(code, pointer=pointer)
