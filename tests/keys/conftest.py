"""Key stores of two centres in folders of their own, and one agency's keys."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from chukan.chance import SystemChance
from chukan.clock import SystemClock
from chukan.errors import Problem
from chukan.settings import Environment
from chukan.tenants.key_token import TokenKeyStore
from chukan.tenants.keystore import KeyStores
from chukan.tenants.sealing import AgencyKeys
from chukan.tests.support.tokens import Tokens


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


@pytest.fixture
def half_retired(stores: KeyStores, keys: AgencyKeys, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Retire the agency's versions below 2 while the west is away."""

    def away(agency: int, below: int) -> None:
        raise FileNotFoundError(agency, below)

    def retire() -> None:
        with monkeypatch.context() as broken:
            broken.setattr(stores.stores["west"], "retire", away)
            with pytest.raises(Problem, match="keys_unconfirmed"):
                stores.retire(42, 2)

    return retire


@pytest.fixture
def tokens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tokens:
    """Two tokens of SoftHSM, one of each centre."""
    made = Tokens(tmp_path / "softhsm")
    monkeypatch.setenv("SOFTHSM2_CONF", str(made.conf))
    return made


@pytest.fixture
def make_token_store(tokens: Tokens, folders: dict[str, Path]) -> Iterator[Callable[..., TokenKeyStore]]:
    """Open a centre's store on its token, as each process would for itself."""
    made: list[TokenKeyStore] = []

    def make(centre: str, environment: Environment = "production") -> TokenKeyStore:
        made.append(TokenKeyStore(folders[centre], tokens.settings(centre), SystemChance(SystemClock()), environment))
        return made[-1]

    yield make
    for store in made:
        store.close()
