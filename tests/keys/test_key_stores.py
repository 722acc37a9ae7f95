"""A key encrypts nothing before every centre holds and confirmed it; destroyed keys are gone from every centre."""

import json
import shutil
import stat
from collections.abc import Mapping
from pathlib import Path

import pytest

from chukan.chance import SystemChance
from chukan.clock import SystemClock
from chukan.errors import Problem
from chukan.tenants.key_files import FileKeyStore
from chukan.tenants.key_port import Held, Name
from chukan.tenants.keystore import KeyStores
from chukan.tenants.sealing import AgencyKeys, SealError


def test_created_keys_load_in_any_process_and_from_any_order_of_centres(
    stores: KeyStores, folders: dict[str, Path]
) -> None:
    stores.create(7)
    sealed = stores.load(7).seal("copy", b"row", b"value")
    elsewhere = KeyStores(dict(reversed(folders.items())))
    assert elsewhere.load(7).open("copy", b"row", sealed) == b"value"
    assert elsewhere.load(7).answer_key_id() == stores.load(7).answer_key_id()
    assert stores.load(7) is stores.load(7)
    assert elsewhere.agencies() == [7]


def test_two_agencies_share_no_key(stores: KeyStores) -> None:
    stores.create(1)
    stores.create(2)
    one, two = stores.load(1), stores.load(2)
    assert one.digest("addressee", b"A1") != two.digest("addressee", b"A1")
    assert one.answer_public() != two.answer_public()


def test_creating_again_changes_nothing(stores: KeyStores, folders: dict[str, Path], keys: AgencyKeys) -> None:
    sealed = keys.seal("copy", b"row", b"value")
    stores.create(42)
    assert KeyStores(folders).load(42).open("copy", b"row", sealed) == b"value"


def test_an_agency_without_keys_is_refused(stores: KeyStores) -> None:
    with pytest.raises(Problem, match="keys_unconfirmed"):
        stores.load(9)


def test_a_centre_whose_folder_is_away_stops_creation(folders: dict[str, Path]) -> None:
    stores = KeyStores(folders)
    stores.prepare()
    shutil.rmtree(folders["west"])
    with pytest.raises(Problem, match="keys_unconfirmed"):
        stores.create(42)
    assert not folders["west"].exists()
    stores.prepare()
    stores.create(42)
    assert stores.load(42).agency == 42


class Forgetful(FileKeyStore):
    """A store that says that it has written, and keeps something else."""

    def write(self, agency: int, keys: Mapping[Name, Held]) -> None:
        damaged = dict(keys)
        damaged[Name("data", 1)] = Held(b"\x09" * 32, damaged[Name("data", 1)].confirmed)
        super().write(agency, damaged)


def test_a_centre_that_does_not_give_back_what_it_was_given_stops_creation(folders: dict[str, Path]) -> None:
    chance = SystemChance(SystemClock())
    east, west = FileKeyStore(folders["east"], chance), Forgetful(folders["west"], chance)
    stores = KeyStores({"east": east, "west": west})
    stores.prepare()
    with pytest.raises(Problem, match="keys_unconfirmed"):
        stores.create(42)
    assert not any(held.confirmed for store in (east, west) for held in store.read(42).values())


@pytest.mark.parametrize("centre", ["east", "west"])
def test_a_key_that_one_centre_lacks_is_not_used(stores: KeyStores, folders: dict[str, Path], centre: str) -> None:
    stores.create(42)
    (folders[centre] / "keys" / "00042.json").unlink()
    with pytest.raises(Problem, match="keys_unconfirmed"):
        KeyStores(folders).load(42)
    with pytest.raises(Problem, match="keys_unconfirmed"):
        KeyStores(folders).create(42)


def test_a_key_that_differs_between_centres_is_not_used(folders: dict[str, Path]) -> None:
    stores = KeyStores(folders)
    stores.prepare()
    stores.create(42)
    west = FileKeyStore(folders["west"], stores._chance)
    held = west.read(42)
    west.write(42, held | {Name("data", 1): Held(b"\x01" * 32, confirmed=True)})
    for degraded in (False, True):
        with pytest.raises(Problem, match="keys_unconfirmed"):
            KeyStores(folders, degraded=degraded).load(42)


def test_an_unconfirmed_version_is_not_used_and_a_crashed_creation_is_finished(folders: dict[str, Path]) -> None:
    stores = KeyStores(folders)
    stores.prepare()
    east = FileKeyStore(folders["east"], stores._chance)
    left = {Name(purpose, 1): Held(b"\x02" * 32, confirmed=False) for purpose in ("data", "index", "answer")}
    east.write(42, left)
    with pytest.raises(Problem, match="keys_unconfirmed"):
        stores.load(42)
    stores.create(42)
    # What nobody confirmed has encrypted nothing: it is replaced.
    assert east.read(42)[Name("data", 1)].secret != b"\x02" * 32
    assert stores.load(42).agency == 42


def test_a_creation_that_crashed_between_the_marks_keeps_its_keys(stores: KeyStores, folders: dict[str, Path]) -> None:
    stores.create(42)
    sealed = stores.load(42).seal("copy", b"row", b"value")
    west = FileKeyStore(folders["west"], stores._chance)
    west.write(42, {name: Held(held.secret, confirmed=False) for name, held in west.read(42).items()})
    again = KeyStores(folders)
    assert again.load(42).open("copy", b"row", sealed) == b"value"
    again.create(42)
    assert all(held.confirmed for held in west.read(42).values())


def test_with_a_centre_away_confirmed_keys_load_only_when_that_is_allowed(
    stores: KeyStores, folders: dict[str, Path]
) -> None:
    stores.create(42)
    sealed = stores.load(42).seal("copy", b"row", b"value")
    shutil.rmtree(folders["east"])
    survivor = KeyStores(folders)
    with pytest.raises(Problem, match="keys_unconfirmed"):
        survivor.load(42)
    survivor.degraded = True
    assert survivor.load(42).open("copy", b"row", sealed) == b"value"
    assert survivor.agencies() == [42]
    with pytest.raises(Problem, match="keys_unconfirmed"):
        survivor.create(43)
    with pytest.raises(Problem, match="keys_unconfirmed"):
        survivor.rotate(42)


def test_with_a_centre_away_an_unconfirmed_version_stays_unused(folders: dict[str, Path]) -> None:
    stores = KeyStores(folders)
    stores.prepare()
    stores.create(42)
    west = FileKeyStore(folders["west"], stores._chance)
    west.write(42, west.read(42) | {Name("data", 2): Held(b"\x03" * 32, confirmed=False)})
    shutil.rmtree(folders["east"])
    sealed = KeyStores(folders, degraded=True).load(42).seal("copy", b"row", b"value")
    assert sealed[1:5] == b"\0\0\0\x01"


def test_rotation_seals_with_the_new_version_and_opens_the_old(
    stores: KeyStores, folders: dict[str, Path], keys: AgencyKeys
) -> None:
    other_process = KeyStores(folders).load(42)
    old = keys.seal("copy", b"row", b"old")
    assert stores.rotate(42) == 2
    new = keys.seal("copy", b"row", b"new")
    assert new[1:5] == b"\0\0\0\x02"
    assert keys.open("copy", b"row", old) == b"old"
    assert other_process.open("copy", b"row", new) == b"new"
    assert other_process.digest("code", b"x") == keys.digest("code", b"x")


def test_rotation_of_the_answer_key_keeps_the_old_private_key(stores: KeyStores, keys: AgencyKeys) -> None:
    old_id, old_public = keys.answer_key_id(), keys.answer_public()
    stores.rotate(42, "answer")
    assert keys.answer_key_id() != old_id
    assert keys.answer_private(old_id).public_key().public_bytes_raw() == old_public


def test_rotation_of_nothing_is_refused(stores: KeyStores) -> None:
    with pytest.raises(Problem, match="keys_unconfirmed"):
        stores.rotate(42)


def test_destroyed_keys_are_gone_everywhere_for_good(
    stores: KeyStores, folders: dict[str, Path], keys: AgencyKeys
) -> None:
    stores.create(43)
    sealed = keys.seal("copy", b"row", b"value")
    stores.destroy(42)
    with pytest.raises(SealError):
        keys.open("copy", b"row", sealed)
    left = [path for folder in folders.values() for path in folder.rglob("*00042*") if path.parent.name != "destroyed"]
    assert left == []
    for attempt in (stores.load, KeyStores(folders).load, stores.create, stores.rotate):
        with pytest.raises(Problem, match="agency_closed"):
            attempt(42)
    stores.destroy(42)
    assert stores.agencies() == [43]
    assert stores.load(43).agency == 43


def test_destruction_with_a_centre_away_says_so_and_is_repeated(
    stores: KeyStores, folders: dict[str, Path], tmp_path: Path
) -> None:
    stores.create(42)
    folders["east"].rename(tmp_path / "away")
    with pytest.raises(Problem, match="keys_unconfirmed"):
        stores.destroy(42)
    assert not (folders["west"] / "keys" / "00042.json").exists()
    (tmp_path / "away").rename(folders["east"])
    with pytest.raises(Problem, match="agency_closed"):
        KeyStores(folders).load(42)
    stores.destroy(42)
    assert not (folders["east"] / "master" / "00042.key").exists()


def test_files_are_private_and_hold_no_clear_key(stores: KeyStores, folders: dict[str, Path], keys: AgencyKeys) -> None:
    private = keys.answer_private(keys.answer_key_id()).private_bytes_raw()
    for folder in folders.values():
        for path in [folder, *folder.rglob("*")]:
            mode = stat.S_IMODE(path.stat().st_mode)
            assert mode == (0o700 if path.is_dir() else 0o600)
            if path.is_file():
                assert private not in path.read_bytes()
    masters = {(folder / "master" / "00042.key").read_bytes() for folder in folders.values()}
    assert len(masters) == 2


@pytest.mark.parametrize("damage", ["cut", "agency", "swap", "master", "nonsense"])
def test_a_damaged_store_is_refused(stores: KeyStores, folders: dict[str, Path], damage: str) -> None:
    stores.create(42)
    stores.create(43)
    path = folders["west"] / "keys" / "00042.json"
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-10])
    elif damage == "agency":
        path.write_bytes((folders["west"] / "keys" / "00043.json").read_bytes())
    elif damage == "swap":
        file = json.loads(path.read_bytes())
        first, second = file["keys"][0], file["keys"][1]
        first["wrapped"], second["wrapped"] = second["wrapped"], first["wrapped"]
        path.write_text(json.dumps(file))
    elif damage == "master":
        (folders["west"] / "master" / "00042.key").write_bytes(b"\x01" * 32)
    else:
        path.write_bytes(b"\0" * 100)
    with pytest.raises(Problem, match="keys_unconfirmed"):
        KeyStores(folders).load(42)
    assert KeyStores(folders).load(43).agency == 43


def test_two_centres_with_one_folder_are_refused(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "real")
    for folders in ({"east": tmp_path / "real", "west": tmp_path / "link"}, {"east": tmp_path / "real"}):
        with pytest.raises(ValueError, match="centres"):
            KeyStores(folders)


def test_the_file_store_says_that_it_is_for_the_demo(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FileKeyStore, "_warned", False)
    KeyStores({"east": tmp_path / "a", "west": tmp_path / "b"})
    KeyStores({"east": tmp_path / "a", "west": tmp_path / "b"})
    assert capsys.readouterr().err.count("demo only") == 1
