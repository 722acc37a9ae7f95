"""An agency of its own for each test on a real server, and its officers' services as two exchanges would have them."""

import contextlib
import datetime as dt
import hashlib
import itertools
import os
import types
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest
from argon2 import PasswordHasher

from chukan.chance import SystemChance
from chukan.clock import ManualClock
from chukan.platform.exchange.officer_changes import Administrator, OfficerAccounts
from chukan.platform.exchange.officer_sessions import Acting, OfficerSessions
from chukan.platform.exchange.refused_bursts import RefusedBursts
from chukan.platform.wire.officers import (
    ChallengeAsk,
    Enrol,
    OfficerChange,
    OfficerChangePost,
    OfficerEntry,
    SignedIn,
    SignIn,
)
from chukan.settings import Officers
from chukan.tenants import operations
from chukan.tenants.births import birth
from chukan.tenants.directory import AgencyRow, ClientRow
from chukan.tenants.officer_passkeys import Passkeys
from chukan.tenants.officer_passwords import Passwords
from chukan.tenants.operations import Operation, decode_operation
from chukan.tenants.partition import Partition, act_for
from chukan.tenants.sealing import AgencyKeys, KeySet
from chukan.tests.support.soft_authenticator import Authenticator

DOMAIN, ORIGIN = "chukan.example", "https://console.chukan.example"
PASSWORD = "correct horse battery"  # noqa: S105 - of officers that exist in tests alone
BEGIN = dt.datetime(2027, 3, 30, 1, 0, tzinfo=dt.UTC)
"""10:00 on 30 March 2027 in Japan."""
CODE = "1310100000000001"
_numbers = itertools.count(1)


def client(name: str, kind: str = "officer") -> ClientRow:
    return ClientRow(id=name, body="131016", kind=kind, name=name, agencies=[CODE], functions=["order"])


TERMINAL = client("terminal-1", "system")
OTHER_TERMINAL = client("terminal-2", "system")


def keys_of(agency: int) -> AgencyKeys:
    secrets = [hashlib.sha256(f"{agency} {word}".encode()).digest() for word in ("data", "index", "answer")]
    return AgencyKeys(KeySet(agency, {1: secrets[0]}, secrets[1], {1: secrets[2]}), os.urandom)


class DoorJournal:
    """Enters acts through the agency's own door."""

    def __init__(self, office: "Office") -> None:
        self.office = office

    async def append(self, operation: Operation) -> None:
        async with self.office.door(self.office.agency) as partition:
            await operations.append(partition, self.office.keys, SystemChance(self.office.clock), operation)


@dataclass
class Office:
    """One agency, an administrator's hands in its cell, and the services over it."""

    agency: AgencyRow
    keys: AgencyKeys
    cells: Any
    admin: Any
    clock: ManualClock
    rules: Officers = field(default_factory=Officers)
    opened_at: dt.datetime = BEGIN - dt.timedelta(days=30)
    authenticators: dict[str, Authenticator] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.sessions, self.accounts = self.exchange()

    def exchange(self) -> tuple[OfficerSessions, OfficerAccounts]:
        """Another exchange's services: they share nothing with those of the first one but the cell."""
        openings = types.SimpleNamespace(opened_at=lambda _cell: self.opened_at)
        context: Any = types.SimpleNamespace(
            clock=self.clock, chance=SystemChance(self.clock), keys=lambda _n: self.keys, openings=openings
        )
        hasher = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
        self.refused = RefusedBursts(DoorJournal(self), self.clock)
        passkeys = Passkeys(DOMAIN, (ORIGIN,))
        sessions = OfficerSessions(context, self.door, Passwords(hasher), passkeys, self.rules, self.refused)
        return sessions, OfficerAccounts(context, self.door)

    @contextlib.asynccontextmanager
    async def door(self, agency: AgencyRow) -> AsyncIterator[Partition]:
        async with act_for(self.cells.primary("here").app, agency.number) as partition:
            yield partition

    @property
    def schema(self) -> str:
        return f"a{self.agency.number:05d}"

    # ---------------------------------------------------------------- what people do

    async def propose(self, by: Administrator, *entries: OfficerEntry, key: str | None = None) -> OfficerChange:
        body = OfficerChangePost(entries=list(entries))
        content = msgspec.json.encode(body)
        return await self.accounts.propose(self.agency, by, body, key=key or os.urandom(8).hex(), content=content)

    async def decide(
        self, *entries: OfficerEntry, by: tuple[Administrator, Administrator] | None = None
    ) -> dict[str, tuple[str, str]]:
        """Have two people carry a change out; returns the halves of the codes by officer."""
        first, second = by or (card("suzuki"), card("sato"))
        proposed = await self.propose(first, *entries)
        approved = await self.accounts.approve(self.agency, second, proposed.id)
        halves = {half.officer: half.half for half in proposed.codes}
        return {half.officer: (halves[half.officer], half.half) for half in approved.codes}

    async def enrol(self, officer: str, codes: tuple[str, str]) -> None:
        """Set a password and a passkey."""
        device = self.authenticators[officer] = Authenticator(DOMAIN, ORIGIN)
        asked = await self.sessions.challenge(self.agency, ChallengeAsk(officer=officer, purpose="enrol"))
        await self.sessions.enrol(
            self.agency,
            TERMINAL,
            Enrol(
                officer=officer,
                code_proposer=codes[0],
                code_approver=codes[1],
                password=PASSWORD,
                passkey=device.create(asked.options),
            ),
        )

    async def sign_in(self, officer: str, password: str = PASSWORD, via: OfficerSessions | None = None) -> SignedIn:
        sessions = via or self.sessions
        asked = await sessions.challenge(self.agency, ChallengeAsk(officer=officer))
        answer = self.authenticators[officer].get(asked.options)
        return await sessions.login(self.agency, TERMINAL, SignIn(officer=officer, password=password, passkey=answer))

    async def acting(self, session: str, terminal: ClientRow = TERMINAL) -> Acting:
        return await self.sessions.resume(self.agency, terminal, session)

    async def administrators(self, *officers: str) -> tuple[Administrator, Administrator]:
        """Begin: these become administrators, with their factors; returns the first two."""
        names = officers or ("kanri-1", "kanri-2")
        entries = [entry for name in names for entry in (add(name), grant(name, "administer"))]
        for name, codes in (await self.decide(*entries)).items():
            await self.enrol(name, codes)
        return Administrator(names[0], account=True), Administrator(names[1], account=True)

    async def operations(self) -> list[tuple[str, str, str, str | None]]:
        """What stands in the agency's operations log, in the order in which it was entered."""
        rows = await self.admin.fetch(f"SELECT id, body FROM {self.schema}.operations ORDER BY at, id")
        found = []
        for row in rows:
            fields = decode_operation(self.keys.open("operation", row["id"].bytes, row["body"])[32:])
            found.append((fields.actor, fields.kind, fields.outcome, fields.code))
        return found

    async def times(self) -> list[tuple[str, str, int]]:
        """Actor, kind and number of each entry of refusals."""
        rows = await self.admin.fetch(f"SELECT id, body FROM {self.schema}.operations ORDER BY at, id")
        found = [decode_operation(self.keys.open("operation", row["id"].bytes, row["body"])[32:]) for row in rows]
        return [(each.actor, each.kind, each.times) for each in found if each.outcome == "refused"]


def card(name: str) -> Administrator:
    return Administrator(name, account=False)


def add(officer: str, **changes: Any) -> OfficerEntry:
    return OfficerEntry(**{"act": "add", "officer": officer, "name": "職員 花子", "department": "住民課", **changes})


def grant(officer: str, function: Any, **changes: Any) -> OfficerEntry:
    return OfficerEntry(**{"act": "grant", "officer": officer, "function": function, **changes})


@pytest.fixture(scope="session")
def offices(embedded_server: Any, make_cell: Callable[..., Any]) -> Any:
    return make_cell(embedded_server, [])


@pytest.fixture
async def office(offices: Any, open_cell: Callable[..., Any]) -> AsyncIterator[Office]:
    cells = await open_cell(offices)
    admin = await offices.admin()
    number = next(_numbers)
    await birth(admin, number)
    row = AgencyRow(number=number, code=CODE, body="131016", name="市長", cell="here", generation=1)
    yield Office(row, keys_of(number), cells, admin, ManualClock(BEGIN))
    await admin.close()
