"""Delegations (委任, INQ-08): officers register their agency's half with the network; asking and answering rest on it.

A half takes effect here only once the network has it, and is ended here before the network is told: whatever fails in
between, nobody acts under a half that its own agency does not hold. Whether the other agency's half stands is the
network's to say, for each request anew.

What is decided under a half looks in its own commit whether the half still stands; what was asked under it and waits
for its answer is taken back when it ends.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Final

import msgspec

from chukan import log
from chukan.clock import today_jst
from chukan.errors import Problem
from chukan.platform.exchange.cancelling import take_back
from chukan.platform.exchange.context import Context
from chukan.platform.exchange.memos import open_request
from chukan.platform.exchange.two_persons import require_second
from chukan.platform.peer import NetworkPeer
from chukan.platform.wire.delegations import DelegationTerms, DelegationView, DelegationViews
from chukan.platform.wire.registrations import Delegation, DelegationReply
from chukan.tenants import bodies, delegations, idempotency
from chukan.tenants.directory import AgencyRow, ClientRow
from chukan.tenants.partition import Partition
from chukan.tenants.states import OPEN_INQUIRY, InquiryState

_log = log.get("exchange.delegations")
Door = Callable[[AgencyRow], AbstractAsyncContextManager[Partition]]
Lines = Sequence[tuple[uuid.UUID, InquiryState]]
PAGE: Final = 1000
PAGES_MAX: Final = 100
"""So many thousands of open lines of a state are looked through at most when a half ends."""


class Delegations:
    """Implements ``services.DelegationService``; ``door`` opens an agency's own partition.

    ``changed`` is told whose query lines were closed.
    """

    def __init__(self, context: Context, door: Door, peer: NetworkPeer, changed: Callable[[AgencyRow], None]) -> None:
        self._context = context
        self._changed = changed
        self._door = door
        self._peer = peer

    async def held(self, agency: AgencyRow) -> list[delegations.Half]:
        """Return the agency's halves that are not ended, and whose other agency is not closed."""
        async with self._door(agency) as partition:
            found = await delegations.list_halves(partition, self._context.keys(agency.number), ended=False)
        return [half for half in found if not self._is_closed(half.terms.counterpart)]

    def _is_closed(self, code: str) -> bool:
        """Whether an agency of the platform is closed; of one that is elsewhere the network knows."""
        try:
            self._context.common.directory.agency(code)
        except Problem as problem:
            return problem.code == "agency_closed"
        return False

    async def list(self, agency: AgencyRow, *, ended: bool) -> DelegationViews:
        """Return the agency's halves, newest first."""
        async with self._door(agency) as partition:
            found = await delegations.list_halves(partition, self._context.keys(agency.number), ended=ended)
        return DelegationViews(delegations=[_view(half) for half in found])

    async def propose(
        self, agency: AgencyRow, officer: ClientRow, body: DelegationTerms, *, key: str, content: bytes
    ) -> DelegationView:
        """Store a first officer's proposal; it moves nothing.

        Raises:
            Problem: unknown_agency, unknown_affair, delegation_of_itself, invalid_field, delegations_full,
                idempotency_key_reused.
        """
        context = self._context
        terms = self._terms(agency, body)
        keys = context.keys(agency.number)
        wanted = context.chance.uuid7()
        async with self._door(agency) as partition:
            claim = await idempotency.claim(partition, keys, key, content, wanted)
            if claim.fresh:
                half = delegations.Half(id=wanted, state="proposed", terms=terms, proposed_by=officer.id)
                half = await delegations.propose(partition, keys, half)
            else:
                half = await delegations.read(partition, keys, claim.outcome)
        _log.info("delegation proposed", agency=agency.number, line_id=half.id, peer=officer.id)
        return _view(half)

    def _terms(self, agency: AgencyRow, body: DelegationTerms) -> delegations.Terms:
        if body.counterpart == agency.code:
            raise Problem("delegation_of_itself", pointer="/counterpart")
        if bodies.agency(body.counterpart) is None:
            self._context.common.directory.agency(body.counterpart)
        if body.affair is not None and not self._context.law.known_affair(body.affair):
            raise Problem("unknown_affair", pointer="/affair")
        if body.valid_until is not None and body.valid_until < body.valid_from:
            raise Problem("invalid_field", pointer="/valid_until")
        return _sealed_terms(body)

    async def approve(self, agency: AgencyRow, officer: ClientRow, half: uuid.UUID) -> DelegationView:
        """Register the half with the network, then put it in force, on a second officer's word.

        Raises:
            Problem: not_found, delegation_state, second_officer_required, delegation_refused, network_unavailable.
        """
        keys = self._context.keys(agency.number)
        async with self._door(agency) as partition:
            found = await delegations.read(partition, keys, half)
        if found.state == "ended":
            raise Problem("delegation_state")
        if found.state == "proposed":
            await require_second(self._context, self._door, agency, officer.id, found.proposed_by)
        reply = await self._tell(agency, found, ended=False)
        async with self._door(agency) as partition:
            now = await delegations.read(partition, keys, half)
            if now.state == "ended":
                # Somebody ended it while the network was asked; it is told once more, so that both say the same.
                found = now
            elif now.state == "proposed":
                changed = msgspec.structs.replace(now, state="in_force", approved_by=officer.id)
                found = await delegations.change(partition, keys, changed)
            else:
                found = now
        if found.state == "ended":
            await self._tell(agency, found, ended=True)
            raise Problem("delegation_state")
        _log.info("delegation in force", agency=agency.number, line_id=half, peer=officer.id)
        return _view(found, complete=reply.complete)

    async def end(self, agency: AgencyRow, officer: ClientRow, half: uuid.UUID) -> DelegationView:
        """End a half at once, on one officer's word: refusing is the safe side. A repeat tells the network again.

        Queries under way that rest on it are taken back before the network is told.

        Raises:
            Problem: not_found, delegation_refused, network_unavailable (it is ended here all the same).
        """
        keys = self._context.keys(agency.number)
        async with self._door(agency) as partition:
            found = await delegations.read(partition, keys, half)
            known = found.state != "proposed"
            if found.state != "ended":
                ended = msgspec.structs.replace(found, state="ended", ended_by=officer.id)
                found = await delegations.change(partition, keys, ended)
        _log.info("delegation ended", agency=agency.number, line_id=half, peer=officer.id)
        if known:
            await self._take_back(agency, found)
            await self._tell(agency, found, ended=True)
        return _view(found)

    async def _take_back(self, agency: AgencyRow, half: delegations.Half) -> None:
        """Cancel the agency's own open queries that rest on a half which ended, and on no other one."""
        if (half.terms.role, half.terms.side) != ("taken", "inquirer"):
            return
        halves, taken = await self.held(agency), 0
        cell = self._context.cell(agency)
        for state in sorted(OPEN_INQUIRY):
            after: uuid.UUID | None = None
            for _ in range(PAGES_MAX):
                rows = await cell.inquiry_views(agency.number, state=state, after=after, limit=PAGE)
                lines = await self._resting(agency, half, halves, [(row.id, row.state) for row in rows])
                if lines:
                    taken += await take_back(self._context, agency, lines, reason="delegation_ended")
                if len(rows) < PAGE:
                    break
                after = rows[-1].id
        if taken:
            _log.info("lines cancelled", agency=agency.number, count=taken, code="delegation_ended")
            self._changed(agency)

    async def _resting(
        self, agency: AgencyRow, half: delegations.Half, halves: Sequence[delegations.Half], lines: Lines
    ) -> Lines:
        """Those of the lines that were asked for the half's counterpart in its affair, and may not be any more."""
        keys, today = self._context.keys(agency.number), today_jst(self._context.clock)
        hits = await self._context.cell(agency).read_requests([(agency.number, line) for line, _ in lines])
        found = []
        for (line, state), hit in zip(lines, hits, strict=True):
            asked = None if hit is None else open_request(keys, line, hit.request).line
            if asked is None or asked.on_behalf_of is None or asked.on_behalf_of != half.terms.counterpart:
                continue
            if half.terms.affair not in {None, asked.affair}:
                continue
            if not delegations.may_act(halves, "inquirer", asked.on_behalf_of, asked.affair, today):
                found.append((line, state))
        return found

    async def _tell(self, agency: AgencyRow, half: delegations.Half, *, ended: bool) -> DelegationReply:
        terms = half.terms
        message = Delegation(
            id=half.id,
            agency=agency.code,
            role=terms.role,
            side=terms.side,
            counterpart=terms.counterpart,
            affair=terms.affair,
            valid_from=terms.valid_from,
            valid_until=terms.valid_until,
            ended=ended,
        )
        (reply,) = await self._peer.delegations([msgspec.json.encode(message)])
        if reply.status != "accepted":
            self._context.meter.problem("delegation_refused")
            raise Problem("delegation_refused")
        return reply


def _sealed_terms(body: DelegationTerms) -> delegations.Terms:
    return delegations.Terms(
        role=body.role,
        side=body.side,
        counterpart=body.counterpart,
        affair=body.affair,
        valid_from=body.valid_from,
        valid_until=body.valid_until,
    )


def _view(half: delegations.Half, *, complete: bool | None = None) -> DelegationView:
    terms = half.terms
    return DelegationView(
        id=half.id,
        state=half.state,
        terms=DelegationTerms(
            role=terms.role,
            side=terms.side,
            counterpart=terms.counterpart,
            affair=terms.affair,
            valid_from=terms.valid_from,
            valid_until=terms.valid_until,
        ),
        proposed_by=half.proposed_by,
        approved_by=half.approved_by,
        ended_by=half.ended_by,
        complete=complete,
    )
