"""Acquisition of linkage codes (符号取得, 番号法21条の2): one open acquisition per person, resumable at every step.

The exchange asks the network for an acquisition number under the request id that already rests in the agency's
partition, so that asking again after a crash gets the same number. The linkage code itself never leaves (its status
does).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from chukan.platform.exchange.context import Context
from chukan.platform.exchange.facts import Persons, refuse_old_key
from chukan.platform.peer import NetworkPeer
from chukan.platform.wire.agency import CodeAsk, CodeStatus, CodeStatuses
from chukan.platform.wire.network import AcquisitionRequest
from chukan.tenants.directory import AgencyRow
from chukan.tenants.rows import CodeNumber, CodeOpen, CodeRow
from chukan.tenants.sealing import AgencyKeys
from chukan.tenants.states import LinkStatus

_WORDS: Final = {status: status.name.lower() for status in LinkStatus}


class Codes:
    """Implements ``services.CodeService``."""

    def __init__(self, context: Context, persons: Persons, peer: NetworkPeer) -> None:
        self._context = context
        self._persons = persons
        self._peer = peer

    async def ask(self, agency: AgencyRow, body: CodeAsk, key: str) -> CodeStatuses:
        """Open what is not open yet, fetch missing numbers from the network, answer per line.

        The effect is idempotent by person, so the key needs no row of its own; only a too old one is refused.
        """
        context = self._context
        refuse_old_key(key, context.clock)
        keys = context.keys(agency.number)
        sets = context.cell(agency)
        people = {line.addressee: self._persons.person(agency, line.addressee) for line in body.lines}
        opens = [
            CodeOpen(
                agency=agency.number,
                generation=agency.generation,
                person=person,
                addressee=keys.seal("addressee", person, addressee.encode()),
                request=context.chance.uuid7(),
            )
            for addressee, person in people.items()
        ]
        rows = {row.person: row for row in await sets.open_codes(opens)}
        waiting = [row for row in rows.values() if row.status is LinkStatus.REQUESTED and row.number is None]
        if waiting:
            rows.update((row.person, row) for row in await self._number(agency, keys, waiting))
        return self._statuses(keys, [rows.get(people[line.addressee]) for line in body.lines])

    async def _number(self, agency: AgencyRow, keys: AgencyKeys, rows: Sequence[CodeRow]) -> list[CodeRow]:
        requests = {row.request: row for row in rows if row.request is not None}
        replies = await self._peer.acquisitions(
            [msgspec.json.encode(AcquisitionRequest(id=request, agency=agency.code)) for request in requests]
        )
        numbers = [
            CodeNumber(
                agency=agency.number,
                person=requests[reply.id].person,
                request=reply.id,
                number_digest=keys.digest("number", reply.number.encode()),
                number=keys.seal("number", requests[reply.id].person, reply.number.encode()),
            )
            for reply in replies
        ]
        return await self._context.cell(agency).set_numbers(numbers)

    async def search(self, agency: AgencyRow, body: CodeAsk) -> CodeStatuses:
        """Status per addressee number; opens nothing."""
        links = await self._persons.links(agency, [line.addressee for line in body.lines])
        return self._statuses(self._context.keys(agency.number), links)

    @staticmethod
    def _statuses(keys: AgencyKeys, rows: Sequence[CodeRow | None]) -> CodeStatuses:
        lines = []
        for n, row in enumerate(rows):
            if row is None:
                lines.append(CodeStatus(line=n, status="none"))
                continue
            number = None
            if row.status is LinkStatus.REQUESTED and row.number is not None:
                number = keys.open("number", row.person, row.number).decode()
            lines.append(
                msgspec.convert({"line": n, "status": _WORDS[row.status], "acquisition_number": number}, CodeStatus)
            )
        return CodeStatuses(lines=lines)
