"""Keys that are destroyed while another process rotates them stay destroyed: neither undoes what the other did."""

import contextlib
from pathlib import Path

import pytest

from chukan.errors import Problem
from chukan.tenants import key_folder
from chukan.tenants.keystore import KeyStores
from chukan.tenants.sealing import AgencyKeys


@pytest.mark.requirement("SEC-01")
def test_a_rotation_under_way_brings_no_destroyed_key_back(
    stores: KeyStores, keys: AgencyKeys, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(key_folder, "_HOLD_S", 0.05)
    other, east = KeyStores(folders), stores.stores["east"]
    assert isinstance(east, key_folder.KeyFolder)
    wrap, destroyed = east._wrap, list[bool]()

    def meanwhile(agency: int, clear: list[key_folder.Unwrapped]) -> list[bytes]:
        if not destroyed:
            destroyed.append(False)
            with contextlib.suppress(Problem):  # it says that it missed a store, and is repeated below
                other.destroy(agency)
                destroyed[0] = True
        return wrap(agency, clear)

    monkeypatch.setattr(east, "_wrap", meanwhile)
    with contextlib.suppress(Problem):
        stores.rotate(keys.agency)
    assert destroyed
    if not destroyed[0]:
        other.destroy(keys.agency)
    for folder in folders.values():
        assert not (folder / "keys" / "00042.json").exists()
        assert not (folder / "master" / "00042.key").exists()
    with pytest.raises(Problem, match="agency_closed"):
        KeyStores(folders).load(keys.agency)
