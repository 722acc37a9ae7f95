"""Rows drawn from small pools, so that ids, messages, permits and persons meet again in the conformance scripts."""

import datetime as dt
import hashlib
import uuid
from random import Random
from typing import Any

from chukan.tenants.rows import (
    AcceptBatch,
    AcceptLine,
    AnswerRow,
    CodePut,
    DecideRow,
    Grant,
    InquirySettle,
    LookupRow,
    ProvideRow,
    ProvisionSettle,
    RecordRow,
)
from chukan.tenants.states import InquiryState, Outcome, ProvisionState, Side

AGENCIES = (1, 2, 3)
PAST = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
FUTURE = dt.datetime(2099, 1, 1, tzinfo=dt.UTC)
KINDS = ("TM00000000000002", "TM00000000000003")
_STEPS = (
    InquiryState.PERMIT_REQUESTED,
    InquiryState.PERMITTED,
    InquiryState.HELD,
    InquiryState.EXPIRED,
    InquiryState.CANCELLED,
    InquiryState.NOT_PERMITTED,
)


def digest(word: object) -> bytes:
    return hashlib.sha256(str(word).encode()).digest()


class Drawn:
    """Draws rows; the pools are small."""

    def __init__(self, seed: int, twin: Any) -> None:
        self.draw = Random(seed)  # noqa: S311 - reproducible on purpose
        self.twin = twin
        self.inquiries: list[tuple[int, uuid.UUID]] = []
        self.provisions: list[tuple[int, uuid.UUID]] = []
        self.batches: list[AcceptBatch] = []
        self.messages = [self.fresh() for _ in range(30)]
        self.grants: dict[Side, list[Grant]] = {side: [] for side in Side}
        self.persons = [digest(f"person {n}") for n in range(4)]
        self.ticks = 0

    def fresh(self) -> uuid.UUID:
        return uuid.UUID(int=self.draw.getrandbits(128), version=4)

    def chance(self, share: float) -> bool:
        return self.draw.random() < share

    def due(self) -> dt.datetime:
        self.ticks += 1
        return (PAST if self.chance(0.7) else FUTURE) + dt.timedelta(seconds=self.ticks)

    def generation(self) -> int:
        return 2 if self.chance(0.03) else 1

    def record(self, line: uuid.UUID, *, amends: bool = False) -> RecordRow:
        return RecordRow(
            id=self.fresh() if amends else line,
            label=self.draw.choice(self.persons),
            month=dt.date(2026, 11, 1),
            sealed=b"record",
            commitment=digest(self.fresh()),
            amends=line if amends else None,
        )

    def inquiry(self) -> tuple[int, uuid.UUID]:
        known = self.inquiries and not self.chance(0.05)
        return self.draw.choice(self.inquiries[-25:]) if known else (self.draw.choice(AGENCIES), self.fresh())

    def provision(self) -> tuple[int, uuid.UUID]:
        known = self.provisions and not self.chance(0.05)
        return self.draw.choice(self.provisions[-25:]) if known else (self.draw.choice(AGENCIES), self.fresh())

    def some(self, make: Any, most: int = 3) -> list[Any]:
        return [make() for _ in range(self.draw.randint(1, most))]

    def line(self, batch: AcceptBatch, ordinal: int) -> AcceptLine:
        closed = self.chance(0.2)
        line = self.fresh()
        odd = self.chance(0.02)
        person = self.draw.choice(self.persons)
        link = self.twin.model.agency(batch.agency).codes.get(person)
        asked = link is not None and self.chance(0.7)
        return AcceptLine(
            agency=batch.agency,
            batch=batch.batch,
            id=line,
            ordinal=ordinal,
            state=InquiryState.NO_CODE if closed else InquiryState.ACCEPTED,
            outcome=Outcome.NO_CODE if closed else Outcome.NONE,
            reason="no_code" if closed else None,
            due=self.due(),
            deadline=FUTURE,
            person=person,
            request=b"request",
            outbox=None if closed else b"outbox",
            record=self.record(line) if closed is not odd else None,
            link_version=link.version + self.chance(0.1) if link is not None and asked else None,
            delegation=self.fresh() if self.chance(0.02) else None,
        )

    def inquiry_step(self) -> InquirySettle:
        agency, line = self.inquiry()
        state = self.draw.choice(_STEPS)
        final = state >= InquiryState.ANSWERED
        return InquirySettle(
            agency=agency,
            id=line,
            state=state,
            outcome=Outcome.EXPIRED if final else Outcome.NONE,
            reason="deadline" if final else None,
            due=self.due(),
            deadline=FUTURE,
            permit=b"permit" if self.chance(0.4) else None,
            drop_outbox=self.chance(0.6),
            record=self.record(line) if final is not self.chance(0.02) else None,
        )

    def answer(self) -> AnswerRow:
        agency, line = self.inquiry()
        held = self.chance(0.3)
        return AnswerRow(
            agency=agency,
            generation=self.generation(),
            inbox=self.draw.choice(self.messages) if self.chance(0.3) else self.fresh(),
            id=line,
            state=InquiryState.HELD if held else InquiryState.ANSWERED,
            outcome=Outcome.UNDER_REVIEW if held else Outcome.PROVIDED,
            reason=None,
            answer=None if held else b"answer",
            record=None if held else self.record(line),
            amendment=None if held else self.record(line, amends=True),
        )

    def notice(self) -> ProvideRow:
        agency = self.draw.choice(AGENCIES)
        line = self.fresh()
        state = self.draw.choice((ProvisionState.HELD, ProvisionState.ANSWERED, ProvisionState.LAPSED))
        table = self.twin.model.agency(agency)
        person = self.draw.choice([None, *self.persons])
        link = None if person is None else table.codes.get(person)
        version = 0 if link is None else link.version
        self.provisions.append((agency, line))
        held = state is ProvisionState.HELD
        return ProvideRow(
            agency=agency,
            generation=self.generation(),
            inbox=self.draw.choice(self.messages) if self.chance(0.4) else self.fresh(),
            id=line,
            permit=digest(f"permit {self.draw.randrange(60)}"),
            permit_until=self.due(),
            permit_issued=FUTURE if self.chance(0.9) else PAST,
            notice=b"notice",
            state=state,
            outcome=Outcome.UNDER_REVIEW if held else Outcome.PROVIDED,
            reason=None,
            person=person,
            link_version=version + self.chance(0.1),
            hold_version=table.hold_version + self.chance(0.1),
            snapshot=self.twin.model.snapshot_number + self.chance(0.05),
            deadline=FUTURE,
            outbox=None if state is ProvisionState.LAPSED else b"answer",
            record=None if held is not self.chance(0.01) else self.record(line),
        )

    def provision_step(self) -> ProvisionSettle:
        agency, line = self.provision()
        state = self.draw.choice(
            (ProvisionState.HELD, ProvisionState.ANSWERED, ProvisionState.RECEIPTED, ProvisionState.LAPSED)
        )
        was = self.twin.model.provisions.get((agency, line))
        record = None
        if was is not None and was.state == ProvisionState.HELD and state >= ProvisionState.ANSWERED:
            record = self.record(line)
        elif state is ProvisionState.LAPSED:
            record = self.record(line, amends=True)
        return ProvisionSettle(
            agency=agency,
            id=line,
            state=state,
            outcome=Outcome.EXPIRED if state is ProvisionState.LAPSED else Outcome.PROVIDED,
            due=self.due(),
            drop_outbox=self.chance(0.5),
            record=record if not self.chance(0.02) else None,
        )

    def decision(self) -> DecideRow:
        agency, line = self.provision()
        person = self.draw.choice([None, *self.persons])
        link = None if person is None else self.twin.model.agency(agency).codes.get(person)
        return DecideRow(
            agency=agency,
            generation=self.generation(),
            id=line,
            outcome=Outcome.REFUSED,
            reason="officer",
            person=person,
            link_version=(0 if link is None else link.version) + self.chance(0.1),
            snapshot=self.twin.model.snapshot_number + self.chance(0.1),
            hold_version=self.twin.model.agency(agency).hold_version + self.chance(0.1),
            outbox=b"decided",
            record=self.record(line, amends=self.chance(0.02)),
        )

    def lookup_row(self) -> LookupRow:
        period = self.draw.choice("012")
        start = dt.date(2025, self.draw.randint(1, 12), 1) if period == "2" else None
        return LookupRow(
            agency=self.draw.choice(AGENCIES),
            code=digest(f"code {self.draw.randrange(6)}"),
            kind=self.draw.choice(KINDS),
            period=period,
            year=self.draw.choice(("2024", "2025", "2026")) if period == "1" else None,
            on=dt.date(2026, self.draw.randint(1, 12), 1),
            start=start,
            end=start and start + dt.timedelta(days=self.draw.randint(0, 400)),
        )

    def code_put(self, agency: int, number: bytes) -> CodePut:
        known = self.chance(0.8)
        code = None if self.chance(0.2) else digest(f"code {self.draw.randrange(6)}")
        return CodePut(
            agency=agency,
            inbox=self.draw.choice(self.messages) if self.chance(0.2) else self.fresh(),
            number_digest=number if known else digest(self.fresh()),
            code_digest=code,
            code=None if code is None else b"code",
        )
