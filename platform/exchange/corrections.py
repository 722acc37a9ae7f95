"""Corrections of records (訂正, REC-04): an amendment that names the record, and notice to the network and counterpart.

By 番号法31条 (読み替えた個人情報保護法97条) who corrects a record tells 内閣総理大臣 and the other party without delay.
The amendment and the message to the network are one commit; the message is sent at once, and by a sweep until the
network has it. The network tells the counterpart, whose own record gets an amendment of its own.

Invariant: a record is never changed, and what happened — parties, times, outcome — is not corrected by anybody: only
what the record says about it. A correction comes into force once, however often it is sent.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import uuid
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any, Final

import msgspec

from chukan import log
from chukan.errors import Problem
from chukan.platform.exchange.inbox import refusal
from chukan.platform.peer import NetworkTrouble
from chukan.platform.wire.corrections import CorrectionView, RecordCorrection
from chukan.platform.wire.network import Ack
from chukan.platform.wire.registrations import Corrected, Correction, CorrectionNotice
from chukan.tenants import code_changes, records
from chukan.tenants.numbers import find_forbidden
from chukan.tenants.rows import RecordRow
from chukan.tenants.sealing import SealError
from chukan.tenants.sets.corrections import CorrectionRow, DueCorrection
from chukan.tenants.states import Outcome, Side

if TYPE_CHECKING:
    from chukan.platform.exchange.context import Context
    from chukan.platform.peer import NetworkPeer
    from chukan.tenants.directory import AgencyRow, ClientRow
    from chukan.tenants.partition import Partition
    from chukan.tenants.sets import CellSets

_log = log.get("exchange.corrections")
Door = Callable[["AgencyRow"], AbstractAsyncContextManager["Partition"]]
SWEEP_S: Final = 30.0
AGAIN: Final = dt.timedelta(seconds=60)
"""How long after a try a message is due again."""
LIST_MAX: Final = 256
"""Messages of one call to the network."""
_SIDES: Final = {"inquirer": Side.INQUIRER, "provider": Side.PROVIDER}
_OUTCOMES: Final = {outcome.word: outcome for outcome in Outcome}


class Corrections:
    """Implements ``services.CorrectionService`` and takes the network's notices; ``door`` opens an agency's own."""

    def __init__(self, context: Context, door: Door, peer: NetworkPeer) -> None:
        self._context = context
        self._door = door
        self._peer = peer

    # ------------------------------------------------------------ who corrects

    async def correct(
        self, agency: AgencyRow, officer: ClientRow, record: uuid.UUID, body: RecordCorrection, key: str
    ) -> CorrectionView:
        """Append the amendment and tell the network; a repeated key finds what the first one made.

        Raises:
            Problem: not_found, correction_empty, unknown_affair, unknown_procedure, procedure_not_of_affair,
                unknown_item, idempotency_key_reused; correction_conflict where somebody else corrected the record
                meanwhile, or a late outcome was added to it.
        """
        context = self._context
        keys = context.keys(agency.number)
        async with self._door(agency) as partition:
            told = await records.of_line(partition, keys, record)
        amendment = uuid.uuid5(told.base.id, f"correction {key}")
        wanted = {name: value for name, value in msgspec.structs.asdict(body).items() if value is not None}
        done = next((fields for fields in told.amendments if fields.id == amendment), None)
        if done is not None:
            if any(getattr(done, name) != value for name, value in wanted.items()):
                raise Problem("idempotency_key_reused")
            await context.cell(agency).confirm()
            return CorrectionView(id=amendment, amends=told.base.id)
        self._check(body, told.last, wanted)
        now = context.clock.now()
        message = None
        if told.last.reference is not None:
            message = Correction(
                id=amendment,
                agency=agency.code,
                side=told.base.side,
                reference=told.last.reference,
                corrected=Corrected(**wanted),
                corrected_at=now,
            )
        sealed = None if message is None else keys.seal("correction", amendment.bytes, msgspec.json.encode(message))
        row = self._row(agency, told, amendment, wanted, "corrected", now, sealed)
        word = await context.cell(agency).put_correction(row)
        if word == "unknown":
            raise Problem("not_found")
        if word == "changed":
            raise Problem("correction_conflict")
        _log.info("record corrected", agency=agency.number, line_id=told.base.id, peer=officer.id, outcome=word)
        due = None if sealed is None else DueCorrection(agency.number, amendment, sealed)
        notified = None if due is None else await self._tell_now(agency, due)
        return CorrectionView(id=amendment, amends=told.base.id, notified=notified)

    def _check(self, body: RecordCorrection, last: records.RecordFields, wanted: dict[str, Any]) -> None:
        if all(getattr(last, name) == value for name, value in wanted.items()):
            raise Problem("correction_empty")
        law = self._context.law
        affair, procedure = body.affair or last.affair, body.procedure or last.procedure
        if body.affair is not None and not law.known_affair(affair):
            raise Problem("unknown_affair", pointer="/affair")
        if body.affair is not None or body.procedure is not None:
            known = law.procedures.get(procedure)
            if known is None:
                raise Problem("unknown_procedure", pointer="/procedure")
            if known.affair != affair:
                raise Problem("procedure_not_of_affair", pointer="/procedure")
        held = {item for kind, version in law.layouts if kind == last.kind for item in _items(law, kind, version)}
        for position, item in enumerate(body.items or ()):
            if item not in held:
                raise Problem("unknown_item", pointer=f"/items/{position}")

    def _row(
        self,
        agency: AgencyRow,
        told: records.Told,
        amendment: uuid.UUID,
        changes: dict[str, Any],
        reason: str,
        now: dt.datetime,
        send: bytes | None,
    ) -> CorrectionRow:
        context = self._context
        words = {"id": amendment, "amends": told.base.id, "closed_at": now, "reason": reason}
        fields = msgspec.structs.replace(told.last, **(words | changes))
        record: RecordRow = records.make_amendment(
            context.keys(agency.number), context.chance, fields, label=told.label
        )
        return CorrectionRow(
            agency=agency.number,
            generation=agency.generation,
            side=_SIDES[told.base.side],
            outcome=_OUTCOMES[told.base.outcome],
            record=record,
            send=send,
            next_at=now + AGAIN,
            seen=len(told.amendments),
        )

    # ------------------------------------------------------------ telling the network

    async def _tell_now(self, agency: AgencyRow, due: DueCorrection) -> bool:
        try:
            return await self._tell(self._context.cell(agency), [due]) == 1
        except Problem as problem:
            _log.info("correction not told yet", agency=agency.number, code=problem.code)
            return False

    async def _tell(self, cell: CellSets, due: Sequence[DueCorrection]) -> int:
        """Tell the network, in lists of a bounded length; return how many it took. Raises ``NetworkTrouble``."""
        ready = [(row, body) for row in due if (body := self._opened(row)) is not None]
        count = 0
        for start in range(0, len(ready), LIST_MAX):
            count += await self._tell_list(cell, ready[start : start + LIST_MAX])
        return count

    def _opened(self, row: DueCorrection) -> bytes | None:
        """The message's exact bytes; one agency whose keys are away holds nobody else's up."""
        try:
            return self._context.keys(row.agency).open("correction", row.id.bytes, row.sealed)
        except Problem as problem:
            code = problem.code
        except SealError:
            code = "defect"
        self._context.meter.problem(code)
        _log.error("correction not readable", agency=row.agency, code=code)
        return None

    async def _tell_list(self, cell: CellSets, ready: Sequence[tuple[DueCorrection, bytes]]) -> int:
        context, count = self._context, 0
        try:
            replies = await self._peer.corrections([body for _, body in ready])
        except NetworkTrouble as trouble:
            if not trouble.about_items:
                raise
            half = len(ready) // 2
            if half:
                return await self._tell_list(cell, ready[:half]) + await self._tell_list(cell, ready[half:])
            context.meter.problem("correction_refused")
            _log.warning("correction refused", agency=ready[0][0].agency, code="correction_refused")
            return 0
        for (row, _), reply in zip(ready, replies, strict=True):
            if reply.status != "accepted":
                # It stays untold, is tried again, and is seen: the network must know what it said itself.
                context.meter.problem("correction_refused")
                _log.warning("correction refused", agency=row.agency, code="correction_refused")
                continue
            count += await cell.told_corrections(row.agency, [row.id], context.clock.now())
        return count

    async def sweep(self, cell: str) -> int:
        """Send what the network has not taken yet; return how much was taken."""
        sets, after, count = self._context.sets[cell], 0, 0
        while True:
            now = self._context.clock.now()
            after, due = await sets.take_corrections(after, now, now + AGAIN)
            if due:
                count += await self._tell(sets, due)
            if after == 0:
                return count

    async def run(self, cell: str) -> None:
        """Sweep until cancelled; a cell or a network that is away is tried again later."""
        while True:
            await asyncio.sleep(SWEEP_S)
            try:
                await self.sweep(cell)
            except Problem as problem:
                _log.info("corrections not told", cell=cell, code=problem.code)

    # ------------------------------------------------------------ the counterpart

    async def take(self, items: Sequence[CorrectionNotice]) -> list[Ack]:
        """Take what the network pushed, item by item: each appends an amendment to the record it is about."""
        return [await self._take(item) for item in items]

    async def _take(self, item: CorrectionNotice) -> Ack:
        context = self._context
        try:
            if found := find_forbidden(item.corrected.department or ""):
                raise Problem(f"{found}_present")  # noqa: TRY301 - one way out for every refusal
            agency = context.common.directory.agency(item.agency)
            await context.openings.admit(agency.cell)
            told = await self._find(agency, item)
            amendment = uuid.uuid5(told.base.id, f"notice {item.id}")
            named = msgspec.structs.asdict(item.corrected)
            changes = {name: value for name, value in named.items() if value is not None}
            row = self._row(agency, told, amendment, changes, "corrected_by_counterpart", context.clock.now(), None)
            word = await context.cell(agency).put_correction(row)
            if word == "changed":
                # The notice comes again, and says the same of what stands by then.
                return Ack(id=item.id, status="again", reason="correction_conflict")
        except Problem as problem:
            return refusal(context, item.id, problem)
        except (records.RecordError, SealError) as error:
            # What rests is not what was recorded: evidence says so loudly; here it must not fail the others' items.
            context.meter.problem("defect")
            _log.error("correction not taken", error=type(error).__name__, code="defect")
            return Ack(id=item.id, status="again", reason="defect")
        _log.info("record corrected by its counterpart", agency=agency.number, line_id=told.base.id, outcome=word)
        return Ack(id=item.id, status="accepted", reason=None if word == "applied" else word)

    async def _find(self, agency: AgencyRow, item: CorrectionNotice) -> records.Told:
        """The record of the exchange, by the person's code and the network's number. Raises Problem ``not_found``."""
        keys = self._context.keys(agency.number)
        async with self._door(agency) as partition:
            person = await partition.fetchval(
                f"SELECT person FROM {partition.table('codes')} WHERE code_digest = $1", keys.digest("code", item.code)
            )
            if person is None:
                raise Problem("not_found")
            # The record keeps the label of the number that had the code then; the network's number tells whose it is.
            for number in await code_changes.exchanged_with(partition, person):
                for one in await records.by_person(partition, keys, number, for_person=False):
                    if (one.fields.reference, one.fields.side) == (item.reference, item.side):
                        return await records.of_line(partition, keys, one.fields.amends or one.fields.id)
        raise Problem("not_found")


def _items(law: Any, kind: str, version: int) -> Sequence[str]:  # noqa: ANN401 - the context's law, whoever made it
    layout = law.layout(kind, version)
    return () if layout is None else tuple(layout.items)
