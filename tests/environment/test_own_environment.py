"""What belongs to one environment is refused by the other: cells, key stores, common data, roots, exports, people."""

import contextlib
import datetime as dt
import shutil
import uuid
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from chukan import settings
from chukan.chance import SystemChance
from chukan.clock import SystemClock
from chukan.errors import Problem
from chukan.ops.certificates import Authority, require_environment
from chukan.ops.sandbox.acquisition import refuse_real_people
from chukan.platform.exchange.common import PolledCommonData
from chukan.replication.primary import Cells
from chukan.settings import Environment
from chukan.tenants import directory
from chukan.tenants.changes import Changes
from chukan.tenants.common_reading import read_common
from chukan.tenants.export_file import ExportWriter, Manifest, read_export
from chukan.tenants.keystore import KeyStores
from chukan.tenants.migrate import prepare_cell
from chukan.tenants.migrate import require_environment as require_cell
from chukan.tenants.numbers import resident_check, synthetic_resident_code
from chukan.tenants.publishing import Publisher
from chukan.tenants.sets import CellSets

AT = dt.datetime(2026, 11, 23, tzinfo=dt.UTC)
CHANCE = SystemChance(SystemClock())
KEY = Ed25519PrivateKey.generate()
OTHER: dict[Environment, Environment] = {"production": "sandbox", "sandbox": "production"}

pytestmark = pytest.mark.requirement("TST-01")
both = pytest.mark.parametrize("environment", ["production", "sandbox"])


@contextlib.contextmanager
def refused() -> Any:
    with pytest.raises(Problem) as raised:
        yield
    assert raised.value.code == "other_environment"


# ---------------------------------------------------------------- cells


@pytest.fixture
def cell(embedded_server: Any, make_cell: Any) -> Any:
    """A new cell without common data; ``stamp`` gives it an environment."""
    return make_cell(embedded_server, [])


async def stamp(cell: Any, environment: Environment) -> None:
    admin = await cell.admin()
    await prepare_cell(admin, "here", {}, environment)
    await admin.close()


async def put_common_data(cell: Any, environment: Environment) -> None:
    signed = directory.sign(directory.first(AT, 1, environment), KEY)
    admin = await cell.admin()
    await admin.fetchval("SELECT chukan.snapshot_put(1, $1, $2, $3)", signed.body, signed.signature, signed.key)
    await admin.close()


@both
async def test_no_login_works_on_a_cell_of_the_other_environment(cell: Any, environment: Environment) -> None:
    await stamp(cell, environment)
    async with Cells({"here": cell.settings}, environment) as ours:
        await CellSets(ours.primary("here").broker).canary()
    async with Cells({"here": cell.settings}, OTHER[environment]) as theirs:
        with refused():
            await CellSets(theirs.primary("here").broker).canary()
        with refused():
            async with theirs.primary("here").app.acquire():
                pass
        with refused():
            async with theirs.steward("here"):
                pass


@both
async def test_an_administrator_cannot_make_the_other_environments_cell_his_own(
    cell: Any, environment: Environment
) -> None:
    await stamp(cell, environment)
    await put_common_data(cell, environment)
    admin = await cell.admin()
    with refused():
        await require_cell(admin, OTHER[environment])
    with refused():
        await prepare_cell(admin, "here", {}, OTHER[environment])
    await prepare_cell(admin, "here", {}, environment)
    assert await admin.fetchval("SELECT chukan.environment()") == environment
    await admin.close()


async def test_a_cell_that_holds_nothing_yet_is_stamped_when_it_is_prepared(cell: Any) -> None:
    await stamp(cell, "production")
    admin = await cell.admin()
    await prepare_cell(admin, "here", {}, "sandbox")
    assert await admin.fetchval("SELECT chukan.environment()") == "sandbox"
    await admin.close()


# ---------------------------------------------------------------- common data


@both
def test_the_common_data_says_whose_it_is_through_every_change(environment: Environment) -> None:
    snapshot = directory.first(AT, 1, environment)
    changed = Changes().stop(kind="TM00000000000002").apply(snapshot, AT)
    opened = directory.verify(directory.sign(changed, KEY), KEY.public_key())
    directory.require_environment(opened, environment)
    with refused():
        directory.require_environment(opened, OTHER[environment])


def test_the_common_data_of_production_reads_as_it_did_before_there_was_a_stamp() -> None:
    assert b"environment" not in directory.canonical(directory.first(AT, 1))
    assert b'"environment":"sandbox"' in directory.canonical(directory.first(AT, 1, "sandbox"))


async def test_common_data_of_the_other_environment_stops_exchange_and_operator(cell: Any) -> None:
    await stamp(cell, "sandbox")
    await put_common_data(cell, "production")
    async with Cells({"here": cell.settings}, "sandbox") as cells:
        sets = {"here": CellSets(cells.primary("here").broker)}
        polled = PolledCommonData(sets, KEY.public_key(), SystemClock(), "sandbox")
        with refused():
            await polled.refresh()
        with refused():
            await read_common(cells, KEY.public_key())


async def test_what_an_operator_publishes_first_is_stamped(cell: Any) -> None:
    await stamp(cell, "sandbox")
    async with Cells({"here": cell.settings}, "sandbox") as cells:
        published = await Publisher(cells, KEY, SystemClock(), 1).publish(Changes().stop(kind="TM00000000000002"))
        assert published.snapshot.environment == "sandbox"
        found = await read_common(cells, KEY.public_key())
        assert found.snapshot == published.snapshot


# ---------------------------------------------------------------- key stores


@both
def test_a_key_store_serves_its_own_environment_only(tmp_path: Path, environment: Environment) -> None:
    folders = {centre: tmp_path / centre for centre in ("east", "west")}
    ours = KeyStores(folders, environment=environment)
    ours.prepare()
    ours.create(7)
    sealed = ours.load(7).seal("copy", b"row", b"value")
    theirs = KeyStores(folders, environment=OTHER[environment])
    for attempt in (theirs.check, theirs.prepare):
        with refused():
            attempt()
    for act in (theirs.load, theirs.create, theirs.rotate, theirs.destroy):
        with refused():
            act(7)
    again = KeyStores(folders, environment=environment)
    again.check()
    assert again.load(7).open("copy", b"row", sealed) == b"value"


@both
def test_key_files_that_were_carried_over_do_not_open(tmp_path: Path, environment: Environment) -> None:
    ours, theirs = ({c: tmp_path / name / c for c in ("east", "west")} for name in ("ours", "theirs"))
    KeyStores(ours, environment=environment).prepare()
    KeyStores(ours, environment=environment).create(7)
    KeyStores(theirs, environment=OTHER[environment]).prepare()
    for centre, folder in ours.items():
        for part in ("keys", "master"):
            shutil.copytree(folder / part, theirs[centre] / part, dirs_exist_ok=True)
    with pytest.raises(Problem, match="keys_unconfirmed"):
        KeyStores(theirs, environment=OTHER[environment]).load(7)


def test_a_key_store_of_before_the_stamp_is_productions(tmp_path: Path) -> None:
    folders = {centre: tmp_path / centre for centre in ("east", "west")}
    KeyStores(folders).prepare()
    KeyStores(folders).create(7)
    for folder in folders.values():
        (folder / "environment").unlink()
    KeyStores(folders).load(7)
    with refused():
        KeyStores(folders, environment="sandbox").check()


# ---------------------------------------------------------------- roots


@both
def test_a_root_is_trusted_in_its_own_environment_only(tmp_path: Path, environment: Environment) -> None:
    trusted = Authority.create(tmp_path / "pki", "Example", SystemClock(), environment).trusted
    require_environment(trusted, environment)
    with refused():
        require_environment(trusted, OTHER[environment])


def test_one_foreign_root_among_our_own_is_refused(tmp_path: Path) -> None:
    ours, theirs = (
        Authority.create(tmp_path / name, "Example", SystemClock(), name).trusted for name in ("sandbox", "production")
    )
    bundle = tmp_path / "bundle.pem"
    bundle.write_bytes(ours.read_bytes() + theirs.read_bytes())
    with refused():
        require_environment(bundle, "sandbox")


# ---------------------------------------------------------------- exports


@both
def test_an_export_is_not_opened_for_another_environment(tmp_path: Path, environment: Environment) -> None:
    private = X25519PrivateKey.generate()
    path = tmp_path / "export"
    writer = ExportWriter(
        path, order=uuid.uuid4(), agency="9901011002000001", recipient=private.public_key().public_bytes_raw(),
        made_at=AT, chance=CHANCE, environment=environment,
    )  # fmt: skip
    with writer:
        writer.row("copies", b'{"a":1}')
        manifest, _ = writer.finish()
    assert manifest.environment == environment
    assert list(read_export(path, private)) == list(read_export(path, private, environment)) == [
        ("copies", b'{"a":1}'), manifest,
    ]  # fmt: skip
    given: list[Any] = []
    with refused():
        given.extend(read_export(path, private, OTHER[environment]))
    assert given == []
    # The word stands before the chunks and is bound to them: whoever changes it has no export any more.
    told = path.read_bytes()
    if environment == "sandbox":
        path.write_bytes(told.replace(b'"environment":"sandbox"', b'"environment":"sandbux"', 1))
        with pytest.raises(Problem, match="export_unreadable"):
            list(read_export(path, private))
    assert isinstance(manifest, Manifest)


# ---------------------------------------------------------------- people


def test_a_sandbox_takes_synthetic_people_only_and_quotes_nobody() -> None:
    refuse_real_people([synthetic_resident_code(n) for n in range(100)])
    body = "1234567890"
    real = body + resident_check(body)
    with pytest.raises(Problem) as raised:
        refuse_real_people([synthetic_resident_code(1), real])
    assert (raised.value.code, raised.value.line) == ("number_not_synthetic", 2)
    assert real not in str(raised.value.as_dict())


# ---------------------------------------------------------------- settings and the doors


def test_production_is_no_fraction_of_itself(tmp_path: Path) -> None:
    text = """
[site]
centre = "east"
fraction = 4
[cells.east]
host = "h"
port = 1
broker_password_file = "b"
app_password_file = "a"
[exchange]
name = "e"
tls_certificate_file = "x"
tls_key_file = "x"
tls_ca_file = "x"
signing_key_file = "x"
directory_key_file = "x"
[network]
url = "https://n"
ca_file = "x"
verify_key_file = "x"
[keystores]
"""
    path = tmp_path / "s.toml"
    path.write_text(text)
    with pytest.raises(Problem) as raised:
        settings.load(path, {})
    assert (raised.value.code, raised.value.pointer) == ("setting_forbidden", "/site/fraction")
    read = settings.load(path, {"CHUKAN__SITE__SANDBOX": "true"})
    assert (read.site.environment, read.site.fraction) == ("sandbox", 4)
