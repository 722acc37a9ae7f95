"""Key stores of two centres in folders of their own, and one agency's keys."""

from pathlib import Path

import pytest

from chukan.tenants.keystore import KeyStores
from chukan.tenants.sealing import AgencyKeys


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, Path]:
    return {"east": tmp_path / "east" / "keys", "west": tmp_path / "west" / "keys"}


@pytest.fixture
def stores(folders: dict[str, Path]) -> KeyStores:
    made = KeyStores(folders)
    made.prepare()
    return made


@pytest.fixture
def keys(stores: KeyStores) -> AgencyKeys:
    stores.create(42)
    return stores.load(42)
