"""A national agency outside the platform (国の機関), simulated: it speaks the network protocol and nothing else.

It has its own TLS identity, signing key, answer key and store. As a provider it answers notices about its synthetic
people from made-up copies; as an inquirer it asks municipal agencies and opens what they answer. It acquires the
linkage codes of its people by itself, as any agency does. Everything it owes the network rests in its store and is sent
again until the network has replied; a repeat has no second effect (TXR-03).

Invariant: nothing leaves without a verified, current, unused permit and a yes of its own matching list.
"""

import asyncio
import datetime as dt
import sqlite3
import uuid
from collections.abc import Sequence
from contextlib import suppress
from importlib import resources
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from chukan import log
from chukan.chance import Chance
from chukan.clock import Clock, today_jst
from chukan.errors import Problem
from chukan.ops.sandbox import counterpart_store as jobs
from chukan.ops.sandbox import koseki, people
from chukan.ops.sandbox.admin import to_microseconds
from chukan.ops.sandbox.answer_keys import keep_answer_key, key_id
from chukan.ops.sandbox.config import CounterpartConfig
from chukan.ops.sandbox.counterpart_answers import Answering, Books
from chukan.ops.sandbox.endpoints import pause
from chukan.ops.sandbox.registry import RegistryClient
from chukan.ops.sandbox.store import Store
from chukan.platform.law import Law
from chukan.platform.peer import NetworkPeer, NetworkTrouble
from chukan.platform.permits import PermitVerifier
from chukan.platform.sealed import UnreadableAnswerError, open_answer
from chukan.platform.wire.agency import Record
from chukan.platform.wire.network import (
    Ack,
    AcquiredCode,
    AcquisitionRequest,
    AnswerDelivery,
    AnswerKey,
    Code16,
    Condition,
    InquirerPermit,
    Message,
    Notice,
    PermitReply,
    PermitRequest,
    ProviderPermit,
)
from chukan.platform.wire.network_asks import AcquisitionNotice

LINE_DEADLINE: Final = dt.timedelta(minutes=30)
PERMIT_GRACE: Final = dt.timedelta(seconds=30)
ROUND_S: Final = 0.5
"""How often the worker looks for what it owes, unless it is woken."""
TROUBLE_S: Final = 2.0
CODES_MAX: Final = 1000

_log = log.get("sandbox.counterpart")


class Question(Message, frozen=True):
    """One line that the agency is told to ask (person × kind)."""

    person: str
    """The agency's own number of the person."""
    provider: str
    affair: Code16
    procedure: Code16
    kind: Code16
    department: str = "審査課"
    items: list[str] | None = None
    """None asks for all that the procedure allows."""
    condition: Condition = Condition()
    withheld: bool = False


class Surroundings(NamedTuple):
    """What a counterpart is given: the network as it calls it, and the ports."""

    peer: NetworkPeer
    verifier: PermitVerifier
    registry: RegistryClient
    law: Law
    clock: Clock
    chance: Chance
    seed: int


class Counterpart:
    """One simulated national agency; implements the push port ``NetworkInbox``."""

    def __init__(self, config: CounterpartConfig, directory: Path, on: Surroundings) -> None:
        self.config = config
        self._on = on
        schema = resources.files("chukan.ops.sandbox").joinpath("counterpart_schema.sql").read_text(encoding="utf-8")
        self._store = Store(directory / f"{config.name}.sqlite", schema)
        self._private = keep_answer_key(directory / f"{config.name}.answer.key", on.chance)
        public = self._private.public_key().public_bytes_raw()
        self._answer_key = AnswerKey(id=key_id(public), agency=config.agency, public=public)
        known = [] if config.people_body is None else people.generate(config.people_body, config.people_count, on.seed)
        self._people = {people.addressee_number(person, config.agency): person for person in known}
        # The Minister of Justice has no resident codes: it goes by way of the mayors of registered domiciles.
        minister = config.agency == koseki.MINISTER
        self._mayor = koseki.DomicileMayor(koseki.annex_of(self._people), on.registry) if minister else None
        books = Books(self._people, frozenset(config.provides), on.law, on.seed)
        self._answering = Answering(config.agency, books, on.clock, on.chance)
        self._woken = asyncio.Event()
        self._announced = False
        self._running: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to work: announce the answer key, acquire codes, send what is owed."""
        wanted = {key: self._on.chance.uuid7() for key in self._people}
        await self._store.write(lambda connection: jobs.add_people(connection, wanted))
        self._running = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Stop at once; what is owed is sent after the next start."""
        if self._running is not None:
            self._running.cancel()
            with suppress(asyncio.CancelledError):
                await self._running
        await self._store.close()

    # ------------------------------------------------------------ told by people

    async def ask(self, questions: Sequence[Question]) -> list[uuid.UUID]:
        """Ask for specific personal information; returns an id per line once they are durable.

        Raises:
            Problem: no_code, with the line of a person who has no code here.
        """
        codes = await self._store.read(lambda connection: jobs.codes_of(connection, [q.person for q in questions]))
        lines = []
        for number, question in enumerate(questions, start=1):
            if question.person not in codes:
                raise Problem("no_code", line=number)
            lines.append(self._line(question, codes[question.person]))
        await self._store.write(lambda connection: jobs.ask(connection, lines))
        self._woken.set()
        return [line.id for line in lines]

    def _line(self, question: Question, code: bytes) -> jobs.Asked:
        on = self._on
        now = on.clock.now()
        line = on.chance.uuid7()
        allowed = on.law.allowed_items(question.procedure, question.kind, today_jst(on.clock))
        items = question.items or sorted(allowed)
        request = PermitRequest(
            id=line,
            inquirer=self.config.agency,
            department=question.department,
            affair=question.affair,
            procedure=question.procedure,
            kind=question.kind,
            items=items,
            provider=question.provider,
            code=code,
            condition=question.condition,
            asked_at=now,
            answer_key=self._answer_key.id,
            withheld=question.withheld,
        )
        record = Record(
            id=line,
            side="inquirer",
            inquirer=request.inquirer,
            provider=request.provider,
            department=request.department,
            affair=request.affair,
            procedure=request.procedure,
            kind=request.kind,
            items=items,
            outcome="",
            asked_at=now,
            closed_at=now,
            withheld=request.withheld,
        )
        deadline = to_microseconds(now + LINE_DEADLINE)
        return jobs.Asked(line, question.person, msgspec.json.encode(request), record, deadline)

    def knows(self, person: str) -> bool:
        """Tell whether the agency has a person of this number."""
        return person in self._people

    async def views(self, lines: Sequence[uuid.UUID]) -> list[jobs.View]:
        """The lines that were asked, as they stand."""
        return await self._store.read(lambda connection: jobs.views(connection, lines))

    async def records(self, after: int, limit: int) -> list[tuple[int, Record]]:
        """A page of the agency's own provision records."""
        return await self._store.read(lambda connection: jobs.records(connection, after, limit))

    async def counts(self) -> dict[str, int]:
        """How much of everything there is."""
        return await self._store.read(jobs.counts)

    # ------------------------------------------------------------ pushed by the network

    async def notices(self, items: list[Notice], /) -> list[Ack]:
        """Answer each notice from the books, in one commit with its record."""
        acks: dict[uuid.UUID, Ack] = {}
        permits: list[tuple[uuid.UUID, ProviderPermit]] = []
        for item in items:
            try:
                permit = self._on.verifier.verify_provider(item.permit)
            except Problem as problem:
                acks[item.id] = Ack(id=item.id, status="refused", reason=problem.code)
                continue
            if permit.provider != self.config.agency:
                acks[item.id] = Ack(id=item.id, status="refused", reason="permit_not_for_us")
                continue
            permits.append((item.id, permit))
        codes = [permit.code for _, permit in permits]
        known = await self._store.read(lambda connection: jobs.keys_of(connection, codes))
        lines = self._answering.answer(permits, known)
        statuses = await self._store.write(lambda connection: jobs.give(connection, lines))
        for line, status in zip(lines, statuses, strict=True):
            reason = None if status == "accepted" else "permit_replayed"
            acks[line.notice] = Ack(id=line.notice, status=status, reason=reason)
        self._woken.set()
        return [acks[item.id] for item in items]

    async def answers(self, items: list[AnswerDelivery], /) -> list[Ack]:
        """Take answers to what was asked."""
        return [await self._take_answer(item) for item in items]

    async def _take_answer(self, item: AnswerDelivery) -> Ack:
        try:
            permit = self._on.verifier.verify_inquirer(item.permit)
        except Problem as problem:
            return Ack(id=item.id, status="refused", reason=problem.code)
        if permit.inquirer != self.config.agency or permit.request != item.request:
            return Ack(id=item.id, status="refused", reason="permit_not_for_us")
        now = to_microseconds(self._on.clock.now())
        if item.outcome == "under_review":
            ours = await self._store.write(lambda connection: jobs.hold(connection, item.id, item.request, now))
        else:
            closing = self._closing(item, permit, now)
            amended = self._on.chance.uuid7()
            ours = await self._store.write(
                lambda connection: jobs.close(connection, item.request, closing, amended, item.id)
            )
        return Ack(id=item.id, status="accepted" if ours else "refused", reason=None if ours else "not_found")

    def _closing(self, item: AnswerDelivery, permit: InquirerPermit, now: int) -> jobs.Closing:
        reference = str(permit.permit)
        if item.sealed is None:
            return jobs.Closing(item.outcome, item.reason, reference, None, item.withheld, now)
        try:
            content = open_answer(item.sealed, permit.permit, self._private)
        except UnreadableAnswerError:
            return jobs.Closing("failed", "unreadable", reference, None, item.withheld, now)
        return jobs.Closing(item.outcome, item.reason, reference, content, item.withheld, now)

    async def codes(self, items: list[AcquiredCode], /) -> list[Ack]:
        """Take acquired codes; the acquisition number goes in the same commit (SYM-06)."""
        now = to_microseconds(self._on.clock.now())
        acks = []
        for item in items:
            status = await self._store.write(
                lambda connection, item=item: jobs.put_code(connection, item.id, item.number, item.code, now)  # type: ignore[misc]
            )
            acks.append(msgspec.convert({"id": item.id, "status": status}, Ack))
        return acks

    async def acquisition_asks(self, items: list[AcquisitionNotice], /) -> list[Ack]:
        """Take requests to acquire (施行令26条3項); it acquires all of its people by itself, and looks for no other."""
        return [Ack(id=item.id, status="accepted") for item in items]

    # ------------------------------------------------------------ the worker

    async def _run(self) -> None:
        while True:
            self._woken.clear()
            try:
                await self._round()
            except NetworkTrouble:
                await asyncio.sleep(TROUBLE_S)
                continue
            except (Problem, sqlite3.Error) as error:
                _log.warning("a round failed", error=type(error).__name__)
            await pause(ROUND_S, self._woken)

    async def _round(self) -> None:
        """Do once what is owed, in the order in which it is needed."""
        if not self._announced:
            reply = await self._on.peer.answer_keys([msgspec.json.encode(self._answer_key)])
            self._announced = reply[0].status == "accepted"
        await self._acquire()
        while await self._send_requests() + await self._send_answers():
            continue
        await self._expire()
        now = to_microseconds(self._on.clock.now())
        await self._store.write(lambda connection: jobs.forget(connection, now))

    async def _acquire(self) -> None:
        """Get numbers for people without a code, and hand them to the registry network."""
        missing = await self._store.read(lambda connection: jobs.without_code(connection, CODES_MAX))
        if not missing:
            return
        requests = [
            msgspec.json.encode(AcquisitionRequest(id=request, agency=self.config.agency))
            for _, request, number in missing
            if number is None
        ]
        if requests:
            replies = await self._on.peer.acquisitions(requests)
            numbers = [(reply.id, reply.number) for reply in replies]
            await self._store.write(lambda connection: jobs.put_numbers(connection, numbers))
            missing = await self._store.read(lambda connection: jobs.without_code(connection, CODES_MAX))
        known = [(number, key) for key, _, number in missing if number is not None and key in self._people]
        pairs = [(number, key if self._mayor else self._people[key].resident_code) for number, key in known]
        if self._mayor is None:
            await self._on.registry.hand_over(pairs)
        else:
            await self._mayor.notices(koseki.notices_of(pairs))

    async def _send_requests(self) -> int:
        waiting = await self._store.read(jobs.requests_waiting)
        if not waiting:
            return 0
        replies = await self._on.peer.permit_requests([request for _, request in waiting])
        settled = [(reply, self._deadline_of(reply), self._on.chance.uuid7()) for reply in replies]
        now = to_microseconds(self._on.clock.now())

        def job(connection: sqlite3.Connection) -> None:
            for reply, deadline, amended in settled:
                if deadline is not None:
                    jobs.put_permit(connection, reply.id, reply.reference, deadline)
                    continue
                outcome = "failed" if reply.outcome in {"bad_request", "permitted"} else reply.outcome
                closing = jobs.Closing(outcome, reply.reason, reply.reference, None, withheld=False, at=now)
                jobs.close(connection, reply.id, closing, amended, None)

        await self._store.write(job)
        return len(waiting)

    def _deadline_of(self, reply: PermitReply) -> int | None:
        """When a permitted line ends at the latest; None for a refused one and for a permit that does not hold."""
        if reply.permit is None:
            return None
        try:
            permit = self._on.verifier.verify_inquirer(reply.permit)
        except Problem:
            return None
        return to_microseconds(permit.expires_at + PERMIT_GRACE) if permit.request == reply.id else None

    async def _send_answers(self) -> int:
        waiting = await self._store.read(jobs.answers_waiting)
        if not waiting:
            return 0
        receipts = await self._on.peer.answers([answer for _, answer in waiting])
        now = self._on.clock.now()

        def job(connection: sqlite3.Connection) -> None:
            for receipt in receipts:
                amendment = None
                record = jobs.given_record(connection, receipt.id) if receipt.status != "accepted" else None
                if record is not None:
                    outcome = "expired" if receipt.status == "lapsed" else "failed"
                    amendment = msgspec.structs.replace(
                        record,
                        id=self._on.chance.uuid7(),
                        amends=record.id,
                        outcome=outcome,
                        reason=receipt.reason,
                        closed_at=now,
                        provided_at=None,
                    )
                jobs.put_receipt(connection, receipt.id, amendment)

        await self._store.write(job)
        return len(waiting)

    async def _expire(self) -> None:
        now = to_microseconds(self._on.clock.now())
        late = await self._store.read(lambda connection: jobs.overdue(connection, now))
        amended = self._on.chance.uuid7()

        def job(connection: sqlite3.Connection) -> None:
            for line, reference in late:
                closing = jobs.Closing("expired", "deadline", reference, None, withheld=False, at=now)
                jobs.close(connection, line, closing, amended, None)

        if late:
            await self._store.write(job)
