"""An operator's installation: two cells on a real server, two key stores, an authority, officers who sign orders."""

import asyncio
import contextlib
import datetime as dt
import json
import os
import uuid
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from chukan import settings
from chukan.chance import SystemChance
from chukan.clock import SystemClock
from chukan.ops.certificates import Authority, Issued, read_certificates, read_identity
from chukan.ops.installation import Installation, open_installation
from chukan.tenants import copies, directory, orders, own_flags, records
from chukan.tenants.directory import AgencyRow, ClientRow, Directory
from chukan.tenants.partition import act_for
from chukan.tenants.pem_keys import read_private_key
from chukan.tenants.rows import AcceptBatch, AcceptLine, CodeNumber, CodeOpen, CodePut
from chukan.tenants.sealing import AgencyKeys
from chukan.tenants.sets import CellSets
from chukan.tenants.states import InquiryState, Outcome

SAPPORO, SAPPORO_BOARD, FUKUOKA = "9901011002000001", "9902011002000001", "9901401307000001"
TAX, CHILD = "TM00000000000002", "TM00000000000003"
AGENCIES = "SELECT agency FROM chukan.agencies"
_PEM, _PRIVATE = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8


class Site:
    """The files of an installation, as an operator has them, and what its agencies have."""

    def __init__(self, folder: Path, cells: dict[str, Any]) -> None:
        self.folder = folder
        self.cells = cells
        self.clock = SystemClock()
        self.authority = Authority.create(folder / "pki", "Example", self.clock, "sandbox")
        self.directory_key = folder / "directory.pem"
        key = Ed25519PrivateKey.generate()
        self.directory_key.write_bytes(key.private_bytes(_PEM, _PRIVATE, serialization.NoEncryption()))
        public = key.public_key().public_bytes(_PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        (folder / "directory.public.pem").write_bytes(public)
        self.recipient = X25519PrivateKey.generate()
        secret = self.recipient.private_bytes(_PEM, _PRIVATE, serialization.NoEncryption())
        (folder / "export-key.pem").write_bytes(secret)
        server = cells["east"].server
        (folder / "admin").write_text(server.superuser_password)
        self.config = folder / "chukan.toml"
        self._write_settings()

    def _write_settings(self) -> None:
        exchange = {"name": "east", "directory_key_file": "directory.public.pem", "tls_ca_file": "pki/ca.pem"}
        exchange |= dict.fromkeys(("tls_certificate_file", "tls_key_file", "signing_key_file"), "none.pem")
        tables: dict[str, dict[str, Any]] = {
            "site": {"centre": "east", "sandbox": True},
            "exchange": exchange,
            "network": {"url": "https://localhost:1", "ca_file": "pki/ca.pem", "verify_key_file": "none.pem"},
            "keystores": {"east": "keys-east", "west": "keys-west"},
        }
        for name, cell in self.cells.items():
            members = ("host", "port", "database", "broker_password_file", "app_password_file", "steward_password_file")
            values = {member: getattr(cell.settings, member) for member in members}
            tables[f"cells.{name}"] = {k: v if isinstance(v, int) else str(v) for k, v in values.items()}
        lines = [
            line
            for name, table in tables.items()
            for line in (f"[{name}]", *(f"{k} = {json.dumps(v)}" for k, v in table.items()))
        ]
        self.config.write_text("\n".join(lines))

    @property
    def settings(self) -> settings.Settings:
        return settings.load(self.config, {})

    @contextlib.asynccontextmanager
    async def open(self, *, key: bool = True) -> AsyncIterator[Installation]:
        async with open_installation(self.settings, directory_key=self.directory_key if key else None) as opened:
            opened.keystores.prepare()
            yield opened

    def officers(self, code: str = SAPPORO) -> list[ClientRow]:
        return [
            ClientRow(
                id=f"officer-{code[2:10]}-{n}",
                body=code[4:10],
                kind="officer",
                name="職員",
                agencies=[code],
                functions=["order"],
            )
            for n in (1, 2)
        ]

    def order(self, action: orders.Action, code: str = SAPPORO, **changes: Any) -> orders.SignedOrder:
        members: dict[str, Any] = {
            "order": SystemChance(self.clock).uuid7(),
            "action": action,
            "agency": code,
            "reason": "移行のため",
            "at": self.clock.now(),
            "life": dt.timedelta(days=3),
            "recipient": self.recipient.public_key().public_bytes_raw() if action == "export" else None,
        }
        document = orders.prepare(**{**members, **changes})
        for officer in self.officers(code):
            folder = self.authority.folder / "clients" / officer.id
            if not folder.exists():
                self.authority.issue_client(officer.id)
            card = read_identity(Issued(folder / "certificate.pem", folder / "key.pem"))
            document = orders.sign(document, read_certificates(folder / "certificate.pem"), card.key)
        return document

    async def empty_common_data(self) -> None:
        for cell in self.cells:
            await self.fetch(cell, "UPDATE chukan.cell SET snapshot = 0")
            await self.fetch(cell, "DELETE FROM chukan.snapshot")

    async def fetch(self, cell: str, sql: str, *values: object) -> list[Any]:
        """Look as the superuser does."""
        admin = await self.cells[cell].admin()
        try:
            return await admin.fetch(sql, *values)
        finally:
            await admin.close()


@pytest.fixture(scope="session")
def pair(embedded_server: Any, make_cell: Callable[..., Any]) -> dict[str, Any]:
    """Two cells for all tests: agencies of one test stay, under numbers that no other one is given.

    Of a sandbox, where changes of the common data take effect at once unless a test says otherwise.
    """
    made = {name: make_cell(embedded_server, []) for name in ("east", "west")}
    for cell in made.values():
        asyncio.run(_stamp(cell))
    return made


async def _stamp(cell: Any) -> None:
    admin = await cell.admin()
    await admin.execute("UPDATE chukan.cell SET environment = 'sandbox'")
    await admin.close()


async def _make_site(pair: dict[str, Any], folder: Path) -> Site:
    made = Site(folder, pair)
    known = max([row["agency"] for cell in pair for row in await made.fetch(cell, AGENCIES)], default=50_000)
    closed = AgencyRow(
        number=known + 1, code="0" * 16, body="000000", name="廃止", cell="east", generation=1, state="closed"
    )
    seed = msgspec.structs.replace(directory.first(made.clock.now(), 1, "sandbox"), agencies=[closed])
    signed = directory.sign(seed, read_private_key(made.directory_key))
    await made.empty_common_data()
    for cell in pair:
        sql = "SELECT chukan.snapshot_put(1, $1, $2, $3)"
        await made.fetch(cell, sql, signed.body, signed.signature, signed.key)
    return made


@pytest.fixture
def make_site() -> Callable[..., Any]:
    """Make a site whose common data holds nothing but one agency that was closed long ago."""
    return _make_site


@pytest.fixture
async def site(pair: dict[str, Any], tmp_path: Path) -> Site:
    """Such a site."""
    return await _make_site(pair, tmp_path)


@pytest.fixture
async def installation(site: Site) -> AsyncIterator[Installation]:
    """Opened by an operator who has the key of the common data."""
    async with site.open() as opened:
        yield opened


class Content:
    """Gives an agency something of everything, by the ways in which it would come."""

    def __init__(self, installation: Installation, agency: AgencyRow) -> None:
        self.agency = agency
        self.keys: AgencyKeys = installation.keystores.load(agency.number)
        self.connections = installation.cells.primary(agency.cell)
        self.sets = CellSets(self.connections.broker)
        self.now = installation.clock.now()
        self.far = self.now + dt.timedelta(days=1)

    async def copies(self, *addressees: str, kind: str = TAX) -> None:
        lodged = [
            copies.Copy(
                addressee=addressee, kind=kind, layout=1, effective_from=dt.date(2026, 4, 1), period="2026",
                items=b'{"TM1":"1000"}', review=False,
            )
            for addressee in addressees
        ]  # fmt: skip
        async with act_for(self.connections.app, self.agency.number) as partition:
            await copies.register(partition, self.keys, lodged, source="test", at=self.now)

    async def holds(self, *wanted: tuple[str | None, str | None]) -> None:
        async with act_for(self.connections.app, self.agency.number) as partition:
            await copies.set_holds(partition, self.keys, [(who, kind, True) for who, kind in wanted])

    async def flag(self, wanted: own_flags.Wanted) -> None:
        async with act_for(self.connections.app, self.agency.number) as partition:
            await own_flags.set_flags(partition, self.keys, [wanted])

    async def link(self, addressee: str, code: bytes | None) -> None:
        person = copies.person_digest(self.keys, addressee)
        number, request = f"n-{addressee}".encode(), uuid.uuid5(uuid.NAMESPACE_OID, addressee)
        digest = self.keys.digest("number", number)
        agency = self.agency.number
        sealed = self.keys.seal("addressee", person, addressee.encode())
        await self.sets.open_codes([CodeOpen(agency, 1, person, sealed, request)])
        if code is None:
            return
        given = self.keys.seal("number", person, number)
        await self.sets.set_numbers([CodeNumber(agency, person, request, digest, given)])
        code_digest = self.keys.digest("code", code)
        put = CodePut(
            agency, uuid.UUID(bytes=os.urandom(16)), digest, code_digest, self.keys.seal("code", code_digest, code)
        )
        assert await self.sets.put_codes([put]) == ["applied"]

    async def record(self, addressee: str) -> records.RecordFields:
        """A query that closed at once leaves a record, which gets its place in the log."""
        chance = SystemChance(SystemClock())
        line, batch = chance.uuid7(), chance.uuid7()
        person = copies.person_digest(self.keys, addressee)
        fields = records.RecordFields(
            id=line, side="inquirer", inquirer=self.agency.code, provider=FUKUOKA, department="税務課",
            affair="JM01000000121000", procedure="JT01010000000214", kind=TAX, items=["TM1"], outcome="no_code",
            asked_at=self.now, closed_at=self.now,
        )  # fmt: skip
        key, body = (self.keys.digest(domain, line.bytes) for domain in ("key", "body"))
        accepted = AcceptLine(
            agency=self.agency.number, batch=batch, id=line, ordinal=0, state=InquiryState.NO_CODE,
            outcome=Outcome.NO_CODE, reason=None, due=self.far, deadline=self.far, person=person,
            request=self.keys.seal("request", line.bytes, b"query"), outbox=None,
            record=records.make_record(self.keys, chance, fields, person=person),
        )  # fmt: skip
        await self.sets.accept([AcceptBatch(self.agency.number, 1, key, body, batch)], [accepted])
        await self.sets.sequence("test", 100)
        return fields


@pytest.fixture
def content() -> type[Content]:
    return Content


@pytest.fixture
def at_agency() -> Callable[[Directory, str], AgencyRow]:
    """The row of an agency, open or not."""
    return lambda directory, code: next(row for row in directory.snapshot.agencies if row.code == code)
