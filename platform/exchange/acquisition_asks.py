"""Requests to acquire a code (符号取得の依頼): an inquirer's, whose provider has none, fulfilled by the provider.

The inquirer's exchange seals the four facts to the provider's answer key and keeps nothing of them: where the network
is away, the caller sends them again. The provider's exchange opens them once, to seal them under the agency's own data
key, and deletes them 28 days later, whatever became of the request. They are in no log, exception or record.

A request is no request for provision: it has no state of the line and no provision record (番号法23条); the query is
asked again as a new one.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Final

import msgspec

from chukan import log
from chukan.errors import Problem
from chukan.platform.exchange.codes import Codes
from chukan.platform.exchange.context import Context
from chukan.platform.exchange.inbox import refusal
from chukan.platform.exchange.memos import open_request
from chukan.platform.peer import NetworkPeer
from chukan.platform.sealed import UnreadableAnswerError, is_answer_key, open_facts, seal_facts
from chukan.platform.wire.acquisition_asks import (
    AcquisitionAnswer,
    AcquisitionAnswered,
    AcquisitionAskView,
    AcquisitionAskViews,
    AskedToAcquire,
    PersonFacts,
)
from chukan.platform.wire.agency import CodeAsk, CodeLine
from chukan.platform.wire.network import Ack, Message
from chukan.platform.wire.network_asks import AcquisitionAsk, AcquisitionNotice, ProviderKeyRequest
from chukan.tenants import acquisition_asks as asks
from chukan.tenants.directory import AgencyRow, ClientRow
from chukan.tenants.numbers import find_forbidden
from chukan.tenants.partition import Partition
from chukan.tenants.sealing import SealError
from chukan.tenants.sets.acquisition_asks import AskRow
from chukan.tenants.states import InquiryState

_log = log.get("exchange.acquisition_asks")
Door = Callable[[AgencyRow], AbstractAsyncContextManager[Partition]]
PROVIDER_HAS_NONE: Final = "provider_has_no_code"
_facts: Final = msgspec.json.Decoder(PersonFacts)


class _Kept(Message, frozen=True):
    """What rests sealed of a request."""

    inquirer: str
    affair: str
    kind: str
    facts: PersonFacts


_kept: Final = msgspec.json.Decoder(_Kept)


class AcquisitionAsks:
    """Implements ``services.AcquisitionAskService`` and the network's push of requests."""

    def __init__(self, context: Context, codes: Codes, peer: NetworkPeer, door: Door) -> None:
        self._context = context
        self._codes = codes
        self._peer = peer
        self._door = door

    # ------------------------------------------------------------ inquirer

    async def request(
        self, agency: AgencyRow, caller: ClientRow, line: uuid.UUID, facts: PersonFacts
    ) -> AskedToAcquire:
        """Ask the provider of a query line to acquire a code; once for each line, a repeat has no second effect.

        Raises:
            Problem: not_found; acquisition_not_askable where the line did not end for want of the provider's code, or
                the network says so; network_unavailable.
        """
        context = self._context
        provider = await self._provider(agency, line)
        asked = ProviderKeyRequest(id=context.chance.uuid7(), inquirer=agency.code, request=line)
        (key,) = await self._peer.provider_keys([msgspec.json.encode(asked)])
        if key.outcome != "answered" or key.key is None or key.public is None or not is_answer_key(key.public):
            raise Problem("acquisition_not_askable")
        item = AcquisitionAsk(
            id=context.chance.uuid7(),
            inquirer=agency.code,
            request=line,
            asked_at=context.clock.now(),
            key=key.key,
            sealed=seal_facts(key.public, agency.code, provider, msgspec.json.encode(facts)),
        )
        (reply,) = await self._peer.acquisition_asks([msgspec.json.encode(item)])
        if reply.status != "accepted":
            raise Problem("acquisition_not_askable")
        _log.info("acquisition requested", agency=agency.number, line_id=line, peer=caller.id)
        return AskedToAcquire(id=line, provider=provider, status="requested")

    async def _provider(self, agency: AgencyRow, line: uuid.UUID) -> str:
        cell = self._context.cell(agency)
        rows = await cell.inquiry_views(agency.number, ids=[line])
        if not rows:
            raise Problem("not_found")
        if rows[0].state is not InquiryState.NO_CODE or rows[0].reason != PROVIDER_HAS_NONE:
            raise Problem("acquisition_not_askable")
        (hit,) = await cell.read_requests([(agency.number, line)])
        if hit is None:
            raise Problem("not_found")
        return open_request(self._context.keys(agency.number), line, hit.request).line.provider

    # ------------------------------------------------------------ provider

    async def take(self, items: Sequence[AcquisitionNotice]) -> list[Ack]:
        """Take what the network pushed, item by item: each is opened, sealed under its agency's own key, and kept."""
        return [await self._take(item) for item in items]

    async def _take(self, item: AcquisitionNotice) -> Ack:
        context = self._context
        try:
            agency = context.common.directory.agency(item.provider)
            await context.openings.admit(agency.cell)
            row = self._row(item, agency)
            (word,) = await context.cell(agency).put_acquisition_asks([row])
        except Problem as problem:
            return refusal(context, item.id, problem)
        _log.info("acquisition asked for", agency=agency.number, outcome=word)
        return Ack(id=item.id, status="accepted", reason=None if word == "stored" else word)

    def _row(self, item: AcquisitionNotice, agency: AgencyRow) -> AskRow:
        keys, ask = self._context.keys(agency.number), self._context.chance.uuid7()
        try:
            facts = _facts.decode(open_facts(item.sealed, item.inquirer, item.provider, keys.answer_private(item.key)))
        except (UnreadableAnswerError, SealError, msgspec.DecodeError, UnicodeDecodeError):
            raise Problem("invalid_field", pointer="/sealed") from None
        for text in (facts.name, facts.address):
            if (found := find_forbidden(text)) is not None:
                raise Problem(f"{found}_present")
        kept = _Kept(inquirer=item.inquirer, affair=item.affair, kind=item.kind, facts=facts)
        return AskRow(
            agency=agency.number,
            inbox=item.id,
            id=ask,
            sealed=asks.seal_ask(keys, ask, msgspec.json.encode(kept)),
            received_at=self._context.clock.now(),
        )

    async def list(self, agency: AgencyRow) -> AcquisitionAskViews:
        """The open requests of a provider, with the facts."""
        since = self._context.clock.now() - asks.KEEP
        async with self._door(agency) as partition:
            found = await asks.listed(partition, self._context.keys(agency.number), since=since)
        return AcquisitionAskViews(requests=[_view(ask) for ask in found])

    async def answer(
        self, agency: AgencyRow, caller: ClientRow, ask: uuid.UUID, body: AcquisitionAnswer, key: str
    ) -> AcquisitionAnswered:
        """Fulfil a request by acquiring a code for an addressee number, or decline it.

        Raises:
            Problem: not_found; already_final where it was answered otherwise; network_unavailable.
        """
        context = self._context
        now = context.clock.now()
        async with self._door(agency) as partition:
            found = await asks.get(partition, context.keys(agency.number), ask, since=now - asks.KEEP)
        if found is None:
            raise Problem("not_found")
        word = "declined" if body.addressee is None else "fulfilled"
        if found.state not in {"open", word}:
            raise Problem("already_final")
        link = None
        if body.addressee is not None:
            # The acquisition is opened first: it is idempotent, and a request said to be fulfilled must have one.
            asked = CodeAsk(lines=[CodeLine(addressee=body.addressee)])
            (link,) = (await self._codes.ask(agency, asked, key)).lines
        said = await context.cell(agency).decide_acquisition_ask(
            agency.number, agency.generation, ask, word, caller.id, now
        )
        if said != word:
            raise Problem("already_final" if said == "late" else said)
        _log.info("acquisition request answered", agency=agency.number, peer=caller.id, outcome=word)
        return msgspec.convert({"id": ask, "status": word, "link": link}, AcquisitionAnswered)


def _view(ask: asks.Ask) -> AcquisitionAskView:
    kept = _kept.decode(ask.content)
    return AcquisitionAskView(
        id=ask.id,
        inquirer=kept.inquirer,
        affair=kept.affair,
        kind=kept.kind,
        facts=kept.facts,
        received_at=ask.received_at,
        until=ask.received_at + asks.KEEP,
    )
