"""Bringing the demo's cells and credentials up, again and again, on what earlier starts left."""

import datetime as dt
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from chukan.chance import SystemChance
from chukan.clock import SystemClock
from chukan.ops.certificates import Authority
from chukan.ops.demo import cast
from chukan.ops.demo.bring_up import Credentials, Memory, read_memory, write_memory
from chukan.ops.demo.config import SigningKey
from chukan.ops.demo.databases import CELLS, Databases, common_data, keep_common_data, make_keys
from chukan.ops.demo.place import Place
from chukan.tenants import births
from chukan.tenants.directory import Directory, SignedSnapshot, verify
from chukan.tenants.keystore import KeyStores

CLOCK = SystemClock()
CHANCE = SystemChance(CLOCK)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    # PostgreSQL runs as another user when the tests run as root; pytest's folders are closed to it.
    databases = Path(tempfile.mkdtemp(prefix="chukan-test-"))
    databases.chmod(0o755)
    made = Place(tmp_path / "demo", databases / "demo")
    made.make()
    yield made
    shutil.rmtree(databases, ignore_errors=True)


async def test_cells_come_up_twice_and_hold_their_own_agencies_and_the_same_common_data(place: Place) -> None:
    for _ in range(2):
        key = SigningKey(place.signing, "directory")
        signed, snapshot = keep_common_data(place, key, CLOCK, 7)
        databases = Databases(place, CHANCE)
        try:
            await databases.start()
            await databases.prepare()
            await databases.populate(signed, snapshot)
            for cell in CELLS:
                admin = await databases.admin(cell)
                here = {row.agency for row in await births.list_agencies(admin)}
                body, signature, number = await admin.fetchrow(
                    "SELECT body, signature, number FROM chukan.current_snapshot()"
                )
                await admin.close()
                assert here == {row.number for row in snapshot.agencies if row.cell == cell}
                read = verify(SignedSnapshot(body, signature, signed.key), key.private.public_key())
                assert (read, number) == (snapshot, snapshot.number)
        finally:
            await databases.stop()
    passwords = [file for files in databases.passwords.values() for file in files.values()]
    assert {stat.S_IMODE(file.stat().st_mode) for file in passwords} == {0o600}
    assert len({file.read_text() for file in passwords}) == len(passwords) == 6


def test_common_data_are_signed_once_and_again_for_new_lists_of_the_law(place: Place) -> None:
    key = SigningKey(place.signing, "directory")
    first = keep_common_data(place, key, CLOCK, 7)
    assert keep_common_data(place, key, CLOCK, 7) == first
    _, newer = keep_common_data(place, key, CLOCK, 8)
    assert (newer.number, newer.law_number) == (first[1].number + 1, 8)
    assert newer.agencies == first[1].agencies


def test_every_agency_of_the_demo_is_known_and_one_kind_is_stopped() -> None:
    snapshot = common_data(dt.datetime(2026, 11, 23, tzinfo=dt.UTC), 1)
    known = Directory(snapshot)
    for agency in cast.agencies():
        row = known.agency(agency.code)
        assert (row.cell, row.name) == (agency.home_centre, agency.name)
    assert len(snapshot.stopped) == 1


def test_keys_are_confirmed_by_both_centres(place: Place) -> None:
    snapshot = common_data(CLOCK.now(), 1)
    for _ in range(2):
        make_keys(place, snapshot, CHANCE)
    stores = KeyStores(place.keystores)
    assert stores.agencies() == sorted(row.number for row in snapshot.agencies)
    stores.load(snapshot.agencies[0].number)


def test_credentials_are_made_once_and_replaced_before_they_end(place: Place) -> None:
    first = Credentials(place, CLOCK)
    again = Credentials(place, CLOCK)
    client = cast.system_of(cast.agencies()[0].code)
    kept = first.clients[client].certificate.read_bytes()
    assert again.clients[client].certificate.read_bytes() == kept
    assert set(first.clients) == {row.id for row in cast.clients()}
    # One whose last day has begun is put aside and issued again.
    shutil.rmtree(place.pki / "clients" / client)
    Authority(place.pki, CLOCK).issue_client(client, days=1)
    renewed = Credentials(place, CLOCK).clients[client].certificate.read_bytes()
    assert renewed != kept
    assert len(list((place.pki / "clients").glob(f"{client}*"))) == 2


def test_what_the_demo_remembers_survives(place: Place) -> None:
    assert read_memory(place) is None
    write_memory(place, Memory(people=900, seed=3, runs=2, registered=True))
    assert read_memory(place) == Memory(people=900, seed=3, runs=2, registered=True)
