"""Who has a database superuser, the disks and every log, but no key store, reads nothing personal (TEN-02, SEC-04).

Both sides of exchanges are run whole; then everything that a superuser and the disks can give is searched for what was
planted: each table's rows, the dump, the files of the databases, the WAL, the server's log and the exchanges' own.
"""

import asyncio
import base64
import contextlib
import itertools
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from chukan.errors import Problem
from chukan.tenants import copies, directory
from chukan.tenants.copies import Copy
from chukan.tenants.keystore import KeyStores
from chukan.tenants.partition import schema_name
from chukan.tenants.sealing import AgencyKeys, SealError
from chukan.tests.exchange.test_separation import dump, linkage_codes, one_of_each, without_snapshot
from chukan.tests.support.nation import ASKS, GIVES, GIVES_WEST, LAW, TAX

PERSON, NAME, AMOUNT = "PLANTED7ADR", "植田花子", "7777345"
CLEAR = "clear-on-purpose"
"""A source of copies rests in the clear: where it is not found, nothing was searched."""
_PIECE = 1 << 22
_CACHE = "pg_internal.init"
"""The server's cache of its catalogue: it takes the file away whenever the catalogue changes, and nothing else."""


def forms(value: bytes) -> set[bytes]:
    """How a value may show: as it is, escaped in JSON, as hexadecimal of either case, in base64 at any offset."""
    shown = {value, value.hex().encode(), value.hex().upper().encode()}
    shown |= {base64.b64encode(b" " * n + value)[4 : -4 if len(value) > 9 else None] for n in range(3)}
    with contextlib.suppress(UnicodeDecodeError):
        shown.add(json.dumps(value.decode())[1:-1].encode())
    return {form for form in shown if len(form) >= 7}


class Attacker:
    """Searches what a superuser and the disks give for what was planted."""

    def __init__(self, secrets: set[bytes]) -> None:
        self.wanted = {form: secret for secret in secrets for form in forms(secret)}
        self.found: set[bytes] = set()
        self.marked = 0

    def search(self, content: bytes) -> None:
        self.found |= {secret for form, secret in self.wanted.items() if form in content}
        self.marked += CLEAR.encode() in content

    def read(self, path: Path) -> None:
        try:
            file = path.open("rb")
        except FileNotFoundError:
            if path.name == _CACHE:
                return
            raise
        with file:
            tail = b""
            while piece := file.read(_PIECE):
                self.search(tail + piece)
                tail = piece[-256:]


async def plant(nation: Any) -> set[bytes]:
    """Run exchanges of all kinds and lodge a named person; return every secret that there is."""
    await one_of_each(nation, ASKS, GIVES_WEST)
    agency = nation.agency(GIVES)
    layout = LAW.layouts_in_force(TAX, nation.clock.now().date())[-1]
    items = {item: AMOUNT if n else NAME for n, item in enumerate(sorted(layout.items))}
    body = json.dumps(items, ensure_ascii=False).encode()
    copy = Copy(PERSON, TAX, layout.version, nation.clock.now().date(), "2026", body)
    async with nation.east.door(agency) as partition:
        await copies.register(partition, nation.keys(GIVES), [copy], source=CLEAR, at=nation.clock.now())
    # The nation's own addressee numbers are zeros with a digit at the end, of which the disks are full.
    await nation.acquire(GIVES, [(PERSON, "99000777770")])
    secrets = {PERSON.encode(), "給付課".encode(), NAME.encode(), AMOUNT.encode(), b"99000777770"}
    secrets |= {code.encode() for code in nation.resident_codes.values()}
    return secrets | linkage_codes(nation) | key_bytes(nation)


def key_bytes(nation: Any) -> set[bytes]:
    """Every clear key of every agency: of all secrets those that would give the others."""
    store = nation.keystores.stores["east"]
    return {held.secret for row in nation.snapshot.agencies for held in store.read(row.number).values()}


async def tables(nation: Any, database: str) -> list[str]:
    admin = await nation.admin(database)
    try:
        names = await admin.fetch(
            "SELECT format('%I.%I', schemaname, tablename) AS name FROM pg_tables"
            " WHERE schemaname ~ '^(a[0-9]{5}|chukan.*)$' AND tablename <> 'snapshot'"
        )
        return [
            str([tuple(row.values()) for row in await admin.fetch(f"SELECT t::text FROM ONLY {row['name']} t")])
            for row in names
        ]
    finally:
        await admin.close()


async def folders(nation: Any) -> list[Path]:
    """The files of these databases, the WAL, and the server's log."""
    admin = await nation.admin("postgres")
    await admin.execute("CHECKPOINT")
    names = list(nation.databases.values())
    oids = await admin.fetch("SELECT oid::text FROM pg_database WHERE datname = ANY ($1)", names)
    await admin.close()
    root = nation.server.data_dir
    parts = [root / "base" / oid for (oid,) in oids] + [root / "pg_wal", root / "pg_xact"]
    return [path for part in parts for path in part.rglob("*") if path.is_file()] + [nation.server.log_file]


@pytest.mark.requirement("TEN-02")
async def test_a_superuser_with_the_disks_and_without_keys_reads_nothing_personal(
    nation: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    attacker = Attacker(await plant(nation))
    nation.snapshot = directory.stop(nation.snapshot, nation.clock.now(), procedure="JTX0000000000099")
    await nation.publish()  # so that the exchanges' log says something
    written = "".join(capfd.readouterr()).encode()
    assert b"common data in force" in written
    attacker.search(written)
    for database in nation.databases.values():
        for text in await tables(nation, database):
            attacker.search(text.encode())
        attacker.search(without_snapshot(dump(nation, database)))
    before = attacker.marked
    assert before >= 2, "a table and a dump show what rests in the clear"
    for path in await folders(nation):
        attacker.read(path)
    assert attacker.marked > before, "the disks were searched"
    assert attacker.found == set()


def test_the_search_finds_what_is_there() -> None:
    secret = b"9901131121000001x"
    for shown in (secret, secret.hex().encode(), base64.b64encode(b"ab" + secret + b"cd")):
        attacker = Attacker({secret})
        attacker.search(b"before " + shown + b" after")
        assert attacker.found == {secret}


# ---------------------------------------------------------------- crypto-erase


async def sealed(nation: Any, code: str, database: str) -> list[tuple[str, bytes, bytes]]:
    """Every sealed value of an agency in a database: word, what names its row, the value."""
    admin = await nation.admin(database)
    schema = schema_name(nation.agency(code).number)
    found = []
    for place in await admin.fetch("SELECT * FROM chukan.sealed_places"):
        named, column = place["named_by"], place["sealed"]
        sql = f"SELECT {named} AS named, {column} AS value FROM {schema}.{place['relation']} WHERE {column} IS NOT NULL"
        for row in await admin.fetch(sql):
            name = row["named"] if isinstance(row["named"], bytes) else row["named"].bytes
            found.append((place["word"], name + place["suffix"].encode(), row["value"]))
    await admin.close()
    return found


def opens(keys: AgencyKeys, values: list[tuple[str, bytes, bytes]]) -> int:
    count = 0
    for word, named, value in values:
        try:
            keys.open(word, named, value)
            count += 1
        except SealError:
            continue
    return count


@pytest.mark.requirement("SEC-04", "TEN-02")
async def test_a_destroyed_agency_opens_nowhere_not_even_in_a_backup_and_everybody_else_is_whole(nation: Any) -> None:
    await one_of_each(nation, ASKS, GIVES)
    east = nation.databases["east"]
    backup = dump(nation, east)
    live = {code: await sealed(nation, code, east) for code in (ASKS, GIVES)}
    assert all(len(values) >= 10 for values in live.values())
    mine, theirs = nation.keys(ASKS), nation.keys(GIVES)
    assert (opens(mine, live[ASKS]), opens(theirs, live[GIVES])) == (len(live[ASKS]), len(live[GIVES]))
    neighbours = await rows(nation, GIVES, east)
    number = nation.agency(ASKS).number
    kept = {centre: (nation.folder / f"keys-{centre}" / "keys" / f"{number:05d}.json").read_bytes()
            for centre in ("east", "west")}  # fmt: skip

    nation.keystores.destroy(number)

    restored = await restore(nation, backup)
    for database in (east, restored):
        values = await sealed(nation, ASKS, database)
        assert len(values) == len(live[ASKS])
        for code in (GIVES, GIVES_WEST):  # with whatever keys there still are
            assert opens(nation.keys(code), values) == 0
        assert opens(mine, values) == 0
        assert opens(theirs, await sealed(nation, GIVES, database)) == len(live[GIVES])
    # Even with the key files of a backup: what wrapped them is gone in both centres.
    for centre, content in kept.items():
        folder = nation.folder / f"keys-{centre}"
        (folder / "keys" / f"{number:05d}.json").write_bytes(content)
        (folder / "destroyed" / f"{number:05d}").unlink()
    stores = KeyStores({centre: nation.folder / f"keys-{centre}" for centre in ("east", "west")}, environment="sandbox")
    with pytest.raises((Problem, OSError)):
        stores.load(number)
    assert await rows(nation, GIVES, east) == neighbours
    await drop(nation, restored)


async def rows(nation: Any, code: str, database: str) -> dict[str, list[Any]]:
    admin = await nation.admin(database)
    schema = schema_name(nation.agency(code).number)
    names = ("copies", "codes", "records", "log", "provisions")
    found = {name: sorted(map(str, await admin.fetch(f"SELECT * FROM {schema}.{name}"))) for name in names}
    await admin.close()
    return found


_names = itertools.count(1)


async def restore(nation: Any, backup: bytes) -> str:
    """Read a dump back into a database of its own, as whoever restores a backup does."""
    name = f"{nation.databases['east']}_restored{next(_names)}"
    admin = await nation.admin("postgres")
    await admin.execute(f'CREATE DATABASE "{name}"')
    await admin.close()
    command = [
        str(nation.server.bin_dir / "psql"), "-h", str(nation.server.socket_dir), "-p", str(nation.server.port),
        "-U", nation.server.superuser, "-d", name, "-q", "-v", "ON_ERROR_STOP=1",
    ]  # fmt: skip
    await asyncio.to_thread(read_back, command, backup, nation.server.superuser_password)
    return name


def read_back(command: list[str], backup: bytes, password: str) -> None:
    environment = {**os.environ, "PGPASSWORD": password}
    subprocess.run(command, input=backup, check=True, capture_output=True, env=environment, timeout=120)


async def drop(nation: Any, name: str) -> None:
    admin = await nation.admin("postgres")
    await admin.execute(f'DROP DATABASE "{name}" WITH (FORCE)')
    await admin.close()
