"""Calls of the agency API about residents (本人開示). Part of ``AgencyClient``."""

import msgspec

from chukan.ops.sandbox.transport import Request, Transport
from chukan.platform.wire.resident import ResidentAsk, ResidentRecords


class ResidentCalls:
    """These calls, on the transport of the client that they belong to."""

    _transport: Transport

    async def resident_records(self, body: ResidentAsk) -> ResidentRecords:
        """A person's records with the proof that none is missing; changes nothing."""
        request = Request("POST", "/resident/records", body=msgspec.json.encode(body))
        return await self._transport.call(request, ResidentRecords)
