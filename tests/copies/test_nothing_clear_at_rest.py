"""What is personal rests as ciphertext or keyed digest only: a planted value is in no dump, data file, WAL or log."""

import base64
import datetime as dt
import json
import os
import re
import subprocess
import uuid
from pathlib import Path
from typing import Any

import pytest

from chukan.chance import SystemChance
from chukan.clock import SystemClock
from chukan.tenants import copies, drafts, idempotency, loads
from chukan.tenants.copies import Copy, person_digest
from chukan.tenants.records import RecordFields, make_record
from chukan.tenants.rows import AcceptBatch, AcceptLine, CodeNumber, CodeOpen, CodePut
from chukan.tenants.sets import CellSets
from chukan.tenants.states import InquiryState, Outcome

AT = dt.datetime(2026, 11, 23, 3, 0, tzinfo=dt.UTC)
MARKER = "clear-on-purpose"
"""A source of copies rests in the clear: finding it shows that the search works."""

PERSON = "PLANTED7ADR"
STAGED = "PLANTED8ADR"
PLANTED = [
    PERSON,
    STAGED,
    "植田花子",
    "planted amount",
    "planted code",
    "planted number",
    "planted section",
    "planted note",
]
TIMEOUT_S = 60


def forms(value: str) -> list[bytes]:
    """The ways in which a value may show: as text, escaped in JSON, as a bytea in hexadecimal, in base64."""
    text = value.encode()
    escaped = json.dumps(value)[1:-1].encode()
    return [text, escaped, text.hex().encode(), *(base64.b64encode(b" " * n + text)[4:-4] for n in range(3))]


def seen(haystack: bytes) -> set[str]:
    return {value for value in PLANTED for form in forms(value) if form in haystack}


async def plant(desk: Any) -> None:
    """Register, load, hold, acquire, ask, draft and record something about planted persons."""
    keys, chance = desk.keys, SystemChance(SystemClock())
    items = json.dumps({"TM1": "植田花子", "TM2": "planted amount"}, ensure_ascii=False).encode()
    copy = Copy(PERSON, "TM00000000000002", 1, dt.date(2026, 4, 1), "2026", items)
    load = chance.uuid7()
    async with desk.open() as partition:
        await copies.register(partition, keys, [copy], source=MARKER, at=AT)
        await copies.set_holds(partition, keys, [(PERSON, None, True)])
        spec = loads.LoadSpec(kind=copy.kind, layout=1, mode="full", expected=1, period="2026")
        await loads.open_load(partition, spec, load=load, at=AT)
        staged = Copy(STAGED, copy.kind, 1, copy.effective_from, "2026", items)
        await loads.put_part(partition, keys, load, 0, [staged], digest=b"\x01" * 32)
        await idempotency.claim(partition, keys, PERSON, items, chance.uuid7())
        draft = drafts.Draft(chance.uuid7(), "refuse", False, "officer", "planted note", AT)  # noqa: FBT003
        await drafts.save(partition, keys, draft)
    sets = CellSets(desk.cells.primary("here").broker)
    person, request = person_digest(keys, PERSON), chance.uuid7()
    addressee = keys.seal("addressee", person, PERSON.encode())
    await sets.open_codes([CodeOpen(desk.agency, 1, person, addressee, request)])
    number, code = (keys.digest(word, f"planted {word}".encode()) for word in ("number", "code"))
    sealed = keys.seal("number", person, b"planted number")
    await sets.set_numbers([CodeNumber(desk.agency, person, request, number, sealed)])
    sealed = keys.seal("code", person, b"planted code")
    assert await sets.put_codes([CodePut(desk.agency, chance.uuid7(), number, code, sealed)]) == ["applied"]
    await ask(desk, sets, chance.uuid7(), person)


async def ask(desk: Any, sets: CellSets, line: uuid.UUID, person: bytes) -> None:
    """Accept a query that closes at once, with its record."""
    keys, chance = desk.keys, SystemChance(SystemClock())
    fields = RecordFields(
        id=line, side="inquirer", inquirer="9901131016000001", provider="9901141003000001",
        department="planted section", affair="JM00000000000001", procedure="JT00000000000001", kind="TM00000000000002",
        items=["TM1"], outcome="not_permitted", asked_at=AT, closed_at=AT,
    )  # fmt: skip
    batch = AcceptBatch(desk.agency, 1, keys.digest("key", b"k"), keys.digest("body", PERSON.encode()), chance.uuid7())
    accepted = AcceptLine(
        agency=desk.agency, batch=batch.batch, id=line, ordinal=0, state=InquiryState.NOT_PERMITTED,
        outcome=Outcome.NOT_PERMITTED, reason=None, due=AT, deadline=AT, person=person,
        request=keys.seal("request", line.bytes, f"{PERSON} planted section".encode()), outbox=None,
        record=make_record(keys, chance, fields, person=person),
    )  # fmt: skip
    assert (await sets.accept([batch], [accepted]))[0].fresh


def dump(cell: Any) -> bytes:
    """What the server's own pg_dump writes of the whole database."""
    command = [
        str(cell.server.bin_dir / "pg_dump"),
        *("--host", cell.settings.host, "--port", str(cell.settings.port), "--username", cell.server.superuser),
        cell.settings.database,
    ]
    environment = {**os.environ, "PGPASSWORD": cell.server.superuser_password}
    return subprocess.run(command, env=environment, capture_output=True, check=True, timeout=TIMEOUT_S).stdout


def search_files(paths: list[Path]) -> tuple[set[str], set[str]]:
    """Return the planted values that files show, and the folders in which the marker is."""
    found: set[str] = set()
    marked: set[str] = set()
    for path in paths:
        if path.is_file():
            content = path.read_bytes()
            found |= seen(content)
            if MARKER.encode() in content:
                marked.add(path.parent.name)
    return found, marked


@pytest.mark.requirement("SYM-01", "TEN-01")
async def test_no_dump_shows_a_planted_value(desk: Any) -> None:
    await plant(desk)
    text = dump(desk.cell)
    assert MARKER.encode() in text
    assert person_digest(desk.keys, PERSON).hex().encode() in text
    assert seen(text) == set()


@pytest.mark.requirement("SYM-01", "REC-07")
async def test_no_file_of_the_server_shows_a_planted_value(desk: Any) -> None:
    await plant(desk)
    await desk.admin.execute("CHECKPOINT")
    found, marked = search_files([*desk.cell.server.data_dir.rglob("*"), desk.cell.server.log_file])
    assert "pg_wal" in marked
    assert len(marked) > 1
    assert found == set()


def test_the_search_finds_every_form() -> None:
    for value in PLANTED:
        text = value.encode()
        for shown in (
            text,
            text.hex().encode(),
            json.dumps(value).encode(),
            base64.b64encode(b"a longer " + text + b" text"),
        ):
            assert value in seen(b"before " + shown + b" after")


@pytest.mark.requirement("TEN-01")
async def test_two_agencies_rows_share_no_value_about_the_same_person(desk: Any, neighbour: Any) -> None:
    await plant(desk)
    await plant(neighbour)

    async def values(agency: Any) -> set[bytes]:
        tables = await desk.admin.fetch("SELECT tablename FROM pg_tables WHERE schemaname = $1", agency.schema)
        rows = [row for (name,) in tables for row in await agency.rows(name)]
        assert len(rows) > 10
        wide = {value for row in rows for value in row.values() if isinstance(value, bytes | uuid.UUID)}
        return {bytes(value) if isinstance(value, bytes) else value.bytes for value in wide}

    # The digest that this test gave to both loads' parts is no personal value.
    assert (await values(desk)) & (await values(neighbour)) == {b"\x01" * 32}


@pytest.mark.requirement("SYM-01")
async def test_no_column_is_meant_for_an_individual_number_or_a_resident_code(desk: Any) -> None:
    names = await desk.admin.fetch(
        "SELECT DISTINCT column_name FROM information_schema.columns WHERE table_schema IN ($1, 'chukan')",
        desk.schema,
    )
    columns = {name for (name,) in names}
    assert {"person", "code", "number", "addressee"} < columns
    assert not [name for name in columns if re.search("individual|resident|my_?number|juki|kojin", name)]
