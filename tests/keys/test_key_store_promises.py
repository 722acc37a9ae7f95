"""What every key store promises behind the port, whatever keeps its master keys: files, and a token (PKCS#11)."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from chukan.chance import SystemChance
from chukan.clock import SystemClock
from chukan.errors import Problem
from chukan.tenants.key_files import FileKeyStore
from chukan.tenants.key_port import Held, KeyStore, Name

ONE = {Name("data", 1): Held(b"\x01" * 32, confirmed=True), Name("index", 1): Held(b"\x02" * 32, confirmed=False)}
Make = Callable[..., KeyStore]


@pytest.fixture(params=["files", "token"])
def make(request: pytest.FixtureRequest, folders: dict[str, Path]) -> Make:
    """Open one centre's store anew, as another process would."""
    if request.param == "token":
        found: Any = request.getfixturevalue("make_token_store")
        return lambda environment="production": found("east", environment)
    return lambda environment="production": FileKeyStore(folders["east"], SystemChance(SystemClock()), environment)


@pytest.fixture
def store(make: Make) -> KeyStore:
    made = make()
    made.prepare()
    return made


@pytest.mark.requirement("SEC-01")
def test_what_was_written_is_read_by_any_process(store: KeyStore, make: Make) -> None:
    store.prepare()
    assert store.read(42) == {}
    store.write(42, ONE)
    assert make().read(42) == ONE
    assert store.agencies() == [42]
    more = ONE | {Name("data", 2): Held(b"\x03" * 32, confirmed=True)}
    store.write(42, more)
    assert make().read(42) == more


def test_the_mark_changes_with_the_keys_and_with_nothing_else(store: KeyStore) -> None:
    store.write(42, ONE)
    first = store.mark(42)
    store.read(42)
    store.write(43, ONE)
    assert store.mark(42) == first
    store.write(42, ONE)
    assert store.mark(42) != first
    store.destroy(42)
    assert store.mark(42) == b"destroyed"
    with pytest.raises(OSError, match="No such file"):
        store.mark(44)


def test_a_store_that_is_not_there_is_never_an_empty_one(make: Make, folders: dict[str, Path]) -> None:
    for attempt in (lambda: make().read(42), make().agencies, lambda: make().write(42, ONE), make().hold().__enter__):
        with pytest.raises(OSError, match=r"reached|No such file"):
            attempt()
    assert not folders["east"].exists()


@pytest.mark.requirement("SEC-04")
def test_destroyed_keys_are_gone_for_good_and_the_neighbours_stay(
    store: KeyStore, make: Make, folders: dict[str, Path]
) -> None:
    store.write(42, ONE)
    store.write(43, ONE)
    file = folders["east"] / "keys" / "00042.json"
    kept = file.read_bytes()
    store.destroy(42)
    store.destroy(42)
    for each in (store, make()):
        for attempt in (lambda each=each: each.read(42), lambda each=each: each.write(42, ONE)):
            with pytest.raises(Problem, match="agency_closed"):
                attempt()
        assert each.agencies() == [43]
        assert each.read(43) == ONE
    # A copy of the wrapped keys is of no use: not even when somebody takes the mark away.
    file.write_bytes(kept)
    (folders["east"] / "destroyed" / "00042").unlink()
    with pytest.raises(OSError, match=r"no master key|No such file"):
        make().read(42)


@pytest.mark.parametrize("damage", ["cut", "agency", "swap", "bit"])
def test_altered_and_moved_keys_are_refused(store: KeyStore, make: Make, folders: dict[str, Path], damage: str) -> None:
    store.write(42, ONE)
    store.write(43, ONE)
    path = folders["east"] / "keys" / "00042.json"
    file = json.loads(path.read_bytes())
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-10])
    elif damage == "agency":
        path.write_bytes((folders["east"] / "keys" / "00043.json").read_bytes().replace(b":43", b":42"))
    elif damage == "swap":
        first, second = file["keys"]
        first["wrapped"], second["wrapped"] = second["wrapped"], first["wrapped"]
        path.write_text(json.dumps(file))
    else:
        file["keys"][0]["wrapped"] = "AAAA" + file["keys"][0]["wrapped"][4:]
        path.write_text(json.dumps(file))
    for each in (store, make()):
        with pytest.raises(Problem, match="keys_unconfirmed"):
            each.read(42)
        assert each.read(43) == ONE


def test_neither_environment_uses_a_store_of_the_other(store: KeyStore, make: Make, folders: dict[str, Path]) -> None:
    store.write(42, ONE)
    other = make("sandbox")
    for attempt in (other.check, other.prepare, lambda: other.read(42), lambda: other.write(42, ONE)):
        with pytest.raises(Problem, match="other_environment"):
            attempt()
    # Nor when somebody writes another word over the stamp.
    (folders["east"] / "environment").write_text("sandbox")
    with pytest.raises((Problem, OSError), match=r"keys_unconfirmed|no master key"):
        make("sandbox").read(42)


def test_one_process_at_a_time_holds_a_store(store: KeyStore, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chukan.tenants.key_folder._HOLD_S", 0.1)
    other = make()
    with store.hold(), pytest.raises(OSError, match="unavailable"), other.hold():
        pass
    with other.hold():
        assert store.read(42) == {}


def test_no_file_of_a_store_is_open_to_others_or_holds_a_clear_key(store: KeyStore, folders: dict[str, Path]) -> None:
    store.write(42, ONE)
    with store.hold():
        pass
    for path in [folders["east"], *folders["east"].rglob("*")]:
        assert path.stat().st_mode & 0o077 == 0
        if path.is_file():
            assert b"\x01" * 32 not in path.read_bytes()
