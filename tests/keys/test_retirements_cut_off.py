"""A retirement that was cut off: the old key file's content is overwritten in the end, and the version is known."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from chukan import private_file
from chukan.tenants import key_folder
from chukan.tenants.keystore import KeyStores, Unfinished
from chukan.tenants.sealing import AgencyKeys


class Cut(Exception):  # noqa: N818 - where a process ends
    """The process is gone."""


def file(folder: Path) -> Path:
    return folder / "keys" / "00042.json"


@pytest.fixture
def opened(stores: KeyStores, keys: AgencyKeys, folders: dict[str, Path]) -> Iterator[list[int]]:
    """The key files of before the retirement, held open: their content is looked at when their names are gone."""
    stores.rotate(42)
    held = [os.open(file(folder), os.O_RDONLY) for folder in folders.values()]
    yield held
    for descriptor in held:
        os.close(descriptor)


def wiped(descriptor: int) -> bool:
    return not any(os.pread(descriptor, os.fstat(descriptor).st_size, 0))


@pytest.mark.requirement("SEC-01")
def test_the_old_key_files_are_overwritten_and_no_name_of_them_is_left(
    stores: KeyStores, opened: list[int], folders: dict[str, Path]
) -> None:
    stores.retire(42, 2)
    assert all(wiped(descriptor) for descriptor in opened)
    assert all(os.fstat(descriptor).st_nlink == 0 for descriptor in opened)
    assert stores.unfinished(42) is None
    assert [path.name for folder in folders.values() for path in (folder / "keys").iterdir()] == ["00042.json"] * 2


@pytest.mark.requirement("SEC-01")
@pytest.mark.parametrize("at", ["the new file", "the overwriting", "the mark"])
def test_wherever_it_was_cut_off_a_repeat_overwrites_what_was_left(
    stores: KeyStores, keys: AgencyKeys, opened: list[int], folders: dict[str, Path], at: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    old, write, erase = keys.seal("copy", b"row", b"value"), private_file.write, key_folder.erase

    def writes(path: Path, content: bytes) -> None:
        if (at, path.parent.name) in (("the new file", "keys"), ("the mark", "retired")):
            raise Cut
        write(path, content)

    def erases(path: Path) -> None:
        if at == "the overwriting" and path.exists():
            raise Cut
        erase(path)

    with monkeypatch.context() as broken:
        broken.setattr(private_file, "write", writes)
        broken.setattr(key_folder, "erase", erases)
        with pytest.raises(Cut):
            stores.retire(42, 2)
    begun = KeyStores(folders).unfinished(42)
    assert begun == (None if at == "the mark" else Unfinished(2, ("east", "west")))
    again = KeyStores(folders)
    assert again.load(42).holds(old), "what was sealed with the newest version is never in danger"
    again.retire(42, 2)
    assert all(wiped(descriptor) for descriptor in opened)
    assert again.unfinished(42) is None
    assert KeyStores(folders).load(42).open("copy", b"row", old) == b"value"


@pytest.mark.requirement("SEC-01")
def test_what_one_centre_owes_is_known_with_its_version_also_after_an_old_copy_came_back(
    stores: KeyStores, keys: AgencyKeys, folders: dict[str, Path], tmp_path: Path, half_retired: Callable[[], None]
) -> None:
    stores.rotate(42)
    shutil.copy(file(folders["west"]), tmp_path / "kept.json")
    half_retired()
    stores.rotate(42)
    assert KeyStores(folders).unfinished(42) == Unfinished(2, ("west",))
    stores.retire(42, 2)
    assert KeyStores(folders).unfinished(42) is None
    assert KeyStores(folders).load(42).newest() == 3  # what was rotated since stays
    shutil.copy(tmp_path / "kept.json", file(folders["west"]))
    assert KeyStores(folders).unfinished(42) == Unfinished(2, ("west",))


@pytest.mark.requirement("SEC-01")
def test_a_reader_who_had_the_old_file_open_reads_the_new_one(
    stores: KeyStores, keys: AgencyKeys, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    stores.rotate(42)
    read, late = key_folder.read_bounded, [True]

    def reads(path: Path) -> bytes:
        found = read(path)
        if path.name == "00042.json" and late:
            late.clear()
            return bytes(len(found))  # overwritten between the opening and the reading
        return found

    monkeypatch.setattr(key_folder, "read_bounded", reads)
    assert KeyStores(folders).load(42).newest() == 2
    assert not late


@pytest.mark.requirement("SEC-01")
def test_a_rotation_overwrites_the_key_file_that_it_replaces(opened: list[int], stores: KeyStores) -> None:
    stores.rotate(42)
    assert all(wiped(descriptor) for descriptor in opened)
