"""Calls of officers: delegations (委任), resending (再送), corrections (訂正). Part of ``AgencyClient``."""

import uuid

import msgspec

from chukan.ops.sandbox.transport import Request, Transport
from chukan.platform.wire.agency import Batch
from chukan.platform.wire.corrections import CorrectionView, RecordCorrection
from chukan.platform.wire.delegations import DelegationTerms, DelegationView, DelegationViews


class DelegationCalls:
    """These calls, on the transport of the client that they belong to."""

    _transport: Transport

    async def resend(self, reference: uuid.UUID) -> Batch:
        """Send the lines of a batch that ended without an answer, or one line, once more."""
        return await self._transport.call(Request("POST", f"/queries/{reference}/resend"), Batch)

    async def delegations(self, *, ended: bool = False) -> DelegationViews:
        """The agency's halves of delegations."""
        params = {"ended": "true"} if ended else {}
        return await self._transport.call(Request("GET", "/delegations", params=params), DelegationViews)

    async def propose_delegation(self, terms: DelegationTerms) -> DelegationView:
        """First officer's proposal."""
        return await self._transport.call(Request("POST", "/delegations", msgspec.json.encode(terms)), DelegationView)

    async def approve_delegation(self, half: uuid.UUID) -> DelegationView:
        """Second officer registers it."""
        return await self._transport.call(Request("POST", f"/delegations/{half}/approve"), DelegationView)

    async def end_delegation(self, half: uuid.UUID) -> DelegationView:
        """End it at once."""
        return await self._transport.call(Request("POST", f"/delegations/{half}/end"), DelegationView)

    async def correct(self, record: uuid.UUID, body: RecordCorrection) -> CorrectionView:
        """Correct what a record says; the network and the counterpart are told."""
        request = Request("POST", f"/records/{record}/correct", msgspec.json.encode(body))
        return await self._transport.call(request, CorrectionView)
