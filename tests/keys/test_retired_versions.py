"""Old versions of a data key are destroyed in every centre, also when it takes two tries, and never come back."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from chukan.tenants.keystore import KeyStores
from chukan.tenants.sealing import AgencyKeys, SealError


def other_process(folders: dict[str, Path]) -> KeyStores:
    return KeyStores(folders)


@pytest.mark.requirement("SEC-01")
def test_old_versions_open_nothing_in_any_process(
    stores: KeyStores, keys: AgencyKeys, folders: dict[str, Path]
) -> None:
    old = keys.seal("copy", b"row", b"value")
    public = keys.answer_key_id()
    assert [stores.rotate(42), stores.rotate(42)] == [2, 3]
    middle = b"\x01" + (2).to_bytes(4) + old[5:]
    new = keys.seal("copy", b"row", b"newer")
    stores.retire(42, 3)
    for held in (keys, other_process(folders).load(42)):
        assert held.open("copy", b"row", new) == b"newer"
        assert not held.holds(old)
        assert not held.holds(middle)
        with pytest.raises(SealError):
            held.open("copy", b"row", old)
        assert held.answer_key_id() == public
    for folder in folders.values():
        assert b'"version":2' not in (folder / "keys" / "00042.json").read_bytes()
    assert stores.rotate(42) == 4
    stores.retire(42, 3)
    assert other_process(folders).load(42).open("copy", b"row", new) == b"newer"


@pytest.mark.requirement("SEC-01")
@pytest.mark.parametrize("below", [0, 3, 256])
def test_the_newest_version_stays(stores: KeyStores, keys: AgencyKeys, below: int) -> None:
    old = keys.seal("copy", b"row", b"value")
    stores.rotate(42)
    with pytest.raises(ValueError, match="the newest version stays"):
        stores.retire(42, below)
    assert keys.open("copy", b"row", old) == b"value"


@pytest.mark.requirement("SEC-01")
def test_what_one_centre_has_destroyed_nobody_uses_and_a_repeat_finishes_it(
    stores: KeyStores, keys: AgencyKeys, folders: dict[str, Path], half_retired: Callable[[], None]
) -> None:
    old = keys.seal("copy", b"row", b"value")
    stores.rotate(42)
    half_retired()
    assert b'"version":1' in (folders["west"] / "keys" / "00042.json").read_bytes()
    found = other_process(folders).load(42)  # the platform goes on
    assert not found.holds(old)
    other_process(folders).retire(42, 2)
    assert b'"version":1,"wrapped"' in (folders["west"] / "keys" / "00042.json").read_bytes()  # index and answer
    assert (folders["west"] / "retired" / "00042").read_bytes() == b"2"
    assert not other_process(folders).load(42).holds(old)


@pytest.mark.requirement("SEC-01")
def test_an_old_copy_of_a_key_file_brings_nothing_back(
    stores: KeyStores, keys: AgencyKeys, folders: dict[str, Path], tmp_path: Path
) -> None:
    old = keys.seal("copy", b"row", b"value")
    stores.rotate(42)
    for centre, folder in folders.items():
        shutil.copy(folder / "keys" / "00042.json", tmp_path / centre / "kept.json")
    stores.retire(42, 2)
    for centre, folder in folders.items():
        shutil.copy(tmp_path / centre / "kept.json", folder / "keys" / "00042.json")
    assert not other_process(folders).load(42).holds(old)
    for store in other_process(folders).stores.values():
        assert [name.version for name in store.read(42) if name.purpose == "data"] == [2]
