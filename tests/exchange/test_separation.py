"""What rests cannot be read and cannot be joined: planted values, and the two sides of one exchange (invariant 6)."""

import itertools
import os
import sqlite3
import subprocess
import uuid

import pytest

from chukan.platform.wire.agency import ReviewDecision, ReviewPrepare
from chukan.tenants import directory
from chukan.tenants.partition import schema_name

ASKS, GIVES, ASKS_WEST, GIVES_WEST = (
    "9901131121000001",
    "9901011002000001",
    "9901271004000001",
    "9901401307000001",
)


async def one_of_each(nation, asks, gives):
    """A provided, a held-and-released and a local refusal between two agencies; the person's addressee number."""
    addressee = await nation.person(asks, gives)
    held = await nation.person(asks, gives, review=True)
    batch = await nation.ask(asks, [nation.line(addressee, gives), nation.line(held, gives), nation.line("1", gives)])
    (review,) = [await nation.until_some(nation.east.reviews.list, nation.agency(gives))]
    await nation.east.reviews.prepare(
        nation.agency(gives), nation.officer(gives, "first"), review.id, ReviewPrepare(decision="provide")
    )
    await nation.east.reviews.approve(
        nation.agency(gives), nation.officer(gives, "second"), review.id, ReviewDecision()
    )
    done = await nation.answered(asks, batch)
    assert [line.outcome for line in done.lines] == ["provided", "provided", "no_code"]
    await nation.west.inquiries.collect(nation.agency(asks), batch.batch)
    await nation.sequenced()
    return addressee, held


async def rows_of(nation, code):
    """Every value of 8 bytes or more that rests for an agency: its schema, and its rows in the cell's work tables."""
    agency = nation.agency(code)
    admin = await nation.admin(nation.databases[agency.cell])
    values = set()
    tables = await admin.fetch("SELECT tablename FROM pg_tables WHERE schemaname = $1", schema_name(agency.number))
    sources = [f"SELECT * FROM {schema_name(agency.number)}.{row['tablename']}" for row in tables]
    sources += [
        f"SELECT * FROM chukan.{name} WHERE agency = {agency.number}"
        for name in ("inquiry_work", "provision_work", "to_sequence")
    ]
    for source in sources:
        for row in await admin.fetch(source):
            for value in row.values():
                if isinstance(value, bytes | uuid.UUID):
                    values.add(value.bytes if isinstance(value, uuid.UUID) else value)
    await admin.close()
    return {value for value in values if len(value) >= 8}


def pieces(values):
    """The values and how they end: a ciphertext that was stored twice with another head would show here."""
    for value in values:
        yield value
        if len(value) > 48 and value[-32:] != bytes(32):  # a log's first leaf of a person ends in zeros
            yield value[-32:]


@pytest.mark.requirement("TEN-01", "SYM-08")
@pytest.mark.parametrize("gives", [GIVES, GIVES_WEST], ids=["same-cell", "other-cell"])
async def test_no_value_is_common_to_the_two_sides_of_an_exchange(nation, gives):
    await one_of_each(nation, ASKS, gives)
    asked, gave = await rows_of(nation, ASKS), await rows_of(nation, gives)
    assert len(asked) > 20
    assert len(gave) > 20
    assert set(pieces(asked)).isdisjoint(pieces(gave))


@pytest.mark.requirement("TEN-01", "SYM-01", "REC-07", "TXR-02")
async def test_planted_values_are_nowhere_in_the_dumps_nor_in_the_log(nation, capfd):
    addressee, held = await one_of_each(nation, ASKS, GIVES_WEST)
    nation.snapshot = directory.stop(nation.snapshot, nation.clock.now(), procedure="JTX0000000000099")
    await nation.publish()  # so that the log says something
    secrets = {addressee.encode(), held.encode(), "給付課".encode(), *linkage_codes(nation)}
    secrets |= {f"99{n:08d}0".encode() for n in range(1, 4)}
    secrets |= {ASKS.encode(), GIVES_WEST.encode(), b"TKX002"}
    for database in nation.databases.values():
        text = dump(nation, database)
        for secret in secrets:
            forms = {secret, secret.hex().encode(), b"\\\\x" + secret.hex().encode()}
            for form in forms:
                assert form not in without_snapshot(text), "a planted value stands in a dump"
    written = "".join(capfd.readouterr())
    assert "common data in force" in written
    assert not any(secret.decode("utf-8", "ignore") in written for secret in secrets if secret.isascii())


def linkage_codes(nation):
    store = next(nation.network_config.state_directory.glob("*.sqlite"))
    connection = sqlite3.connect(f"file:{store}?mode=ro", uri=True)
    names = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    found = set()
    for name in names:
        for row in connection.execute(f"SELECT * FROM {name}"):
            found |= {value for value in row if isinstance(value, bytes) and len(value) == 32}
    connection.close()
    assert found
    return found


def dump(nation, database):
    environment = {**os.environ, "PGPASSWORD": nation.server.superuser_password}
    command = [
        str(nation.server.bin_dir / "pg_dump"), "-h", str(nation.server.socket_dir), "-p", str(nation.server.port),
        "-U", nation.server.superuser, "-d", database,
    ]  # fmt: skip
    return subprocess.run(command, check=True, capture_output=True, env=environment, timeout=120).stdout


def without_snapshot(text):
    """The dump less the signed common data, which names agencies and is public to all of them."""
    lines = text.split(b"\n")
    begin = next(n for n, line in enumerate(lines) if line.startswith(b"COPY chukan.snapshot "))
    end = next(n for n in itertools.count(begin) if lines[n] == b"\\.")
    return b"\n".join(lines[:begin] + lines[end:])
