"""Delegations (委任, INQ-08): officers register their agency's half with the network; asking and answering rest on it.

A half takes effect here only once the network has it, and is ended here before the network is told: whatever fails in
between, nobody acts under a half that its own agency does not hold. Whether the other agency's half stands is the
network's to say, for each request anew.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import msgspec

from chukan import log
from chukan.errors import Problem
from chukan.platform.exchange.context import Context
from chukan.platform.peer import NetworkPeer
from chukan.platform.wire.delegations import DelegationTerms, DelegationView, DelegationViews
from chukan.platform.wire.registrations import Delegation, DelegationReply
from chukan.tenants import bodies, delegations, idempotency
from chukan.tenants.directory import AgencyRow, ClientRow
from chukan.tenants.partition import Partition

_log = log.get("exchange.delegations")
Door = Callable[[AgencyRow], AbstractAsyncContextManager[Partition]]


class Delegations:
    """Implements ``services.DelegationService``; ``door`` opens an agency's own partition."""

    def __init__(self, context: Context, door: Door, peer: NetworkPeer) -> None:
        self._context = context
        self._door = door
        self._peer = peer

    async def held(self, agency: AgencyRow) -> list[delegations.Half]:
        """Return the agency's halves that are not ended."""
        async with self._door(agency) as partition:
            return await delegations.list_halves(partition, self._context.keys(agency.number), ended=False)

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
        if found.state == "proposed" and found.proposed_by == officer.id:
            raise Problem("second_officer_required")
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
            await self._tell(agency, found, ended=True)
        return _view(found)

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
