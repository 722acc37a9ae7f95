"""Key stores whose master keys live in PKCS#11 tokens: lost and back, hanging, a wrong PIN, failover, rotation."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import pkcs11
import pytest

from chukan import settings
from chukan.chance import SystemChance
from chukan.clock import SystemClock
from chukan.errors import Problem
from chukan.tenants import key_token
from chukan.tenants.key_files import FileKeyStore
from chukan.tenants.key_port import Held, Name
from chukan.tenants.key_token import TokenAwayError, TokenKeyStore
from chukan.tenants.keystore import KeyStores
from chukan.tenants.sealing import SealError
from chukan.tests.support.tokens import MODULE, PIN, Tokens

ONE = {Name("data", 1): Held(b"\x01" * 32, confirmed=True)}
BACK_S = 10.0
T = TypeVar("T")
MakeStore = Callable[..., TokenKeyStore]


@pytest.fixture
def make_pair(make_token_store: MakeStore) -> Callable[..., KeyStores]:
    """Open both centres' stores, as each process would for itself."""

    def make(*, degraded: bool = False) -> KeyStores:
        return KeyStores({centre: make_token_store(centre) for centre in ("east", "west")}, degraded=degraded)

    return make


@pytest.fixture
def pair(make_pair: Callable[..., KeyStores]) -> KeyStores:
    made = make_pair()
    made.prepare()
    made.create(42)
    return made


def _child(store: TokenKeyStore) -> Any:
    assert store._token._process is not None
    return store._token._process._child


def _within(limit_s: float, work: Callable[[], T]) -> T:
    """Return what comes of it before the deadline; ``TimeoutError`` after it."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(work).result(limit_s)


def _until_it_reads(store: TokenKeyStore, agency: int) -> float:
    """Wait for a token to be back; return the seconds that it took."""
    begun = time.monotonic()
    while time.monotonic() < begun + BACK_S:
        try:
            store.read(agency)
        except OSError:
            threading.Event().wait(0.05)
        else:
            return time.monotonic() - begun
    raise AssertionError


def _master(tokens: Tokens, centre: str) -> Iterator[Any]:
    """Look into a token as somebody with its PIN would."""
    library = pkcs11.lib(str(MODULE))
    library.reinitialize()
    try:
        with library.get_token(token_label=centre).open(user_pin=PIN) as session:
            yield from session.get_objects({pkcs11.Attribute.CLASS: pkcs11.ObjectClass.SECRET_KEY})
    finally:
        library.finalize()


# ---------------------------------------------------------------- where the keys are


@pytest.mark.requirement("SEC-01")
def test_master_keys_are_the_agencies_own_and_cannot_be_taken_out(
    tokens: Tokens, pair: KeyStores, folders: dict[str, Path]
) -> None:
    pair.create(43)
    for centre in ("east", "west"):
        labels = []
        for key in _master(tokens, centre):
            labels.append(key[pkcs11.Attribute.LABEL])
            assert key[pkcs11.Attribute.SENSITIVE]
            assert key[pkcs11.Attribute.NEVER_EXTRACTABLE]
            assert key[pkcs11.Attribute.LOCAL]
            with pytest.raises(pkcs11.AttributeSensitive):
                key[pkcs11.Attribute.VALUE]
        assert sorted(labels) == ["chukan production 00042", "chukan production 00043"]
        assert not (folders[centre] / "master").exists()


def test_a_master_key_that_could_be_taken_out_is_not_used(tokens: Tokens, make_token_store: MakeStore) -> None:
    store = make_token_store("east")
    store.prepare()
    place = "east"
    library = pkcs11.lib(str(MODULE))
    library.reinitialize()
    with library.get_token(token_label=place).open(rw=True, user_pin=PIN) as session:
        weak = {pkcs11.Attribute.EXTRACTABLE: True, pkcs11.Attribute.SENSITIVE: False}
        session.generate_key(pkcs11.KeyType.AES, 256, label="chukan production 00042", store=True, template=weak)
    library.finalize()
    with pytest.raises(TokenAwayError, match="can be taken out"):
        make_token_store("east").write(42, ONE)


def test_a_folder_of_one_make_is_never_gone_on_with_by_the_other(
    folders: dict[str, Path], make_token_store: MakeStore
) -> None:
    chance = SystemChance(SystemClock())
    make_token_store("east").prepare()
    FileKeyStore(folders["west"], chance).prepare()
    for store in (FileKeyStore(folders["east"], chance), make_token_store("west")):
        for attempt in (store.check, store.prepare, lambda store=store: store.write(42, ONE)):
            with pytest.raises(Problem, match="key_store_mismatch"):
                attempt()


# ---------------------------------------------------------------- lost and back


@pytest.mark.requirement("SEC-01")
def test_a_token_that_was_lost_is_back_in_seconds(tokens: Tokens, make_token_store: MakeStore) -> None:
    store = make_token_store("east")
    store.prepare()
    store.write(42, ONE)
    tokens.take("east")
    with pytest.raises(TokenAwayError, match="token"):
        store.read(42)
    # Nobody waits for a token that is known to be away: none of these takes as long as one call to it.
    for attempt in (lambda: store.read(42), lambda: store.write(42, ONE), lambda: store.destroy(43)):
        with pytest.raises(TokenAwayError):
            _within(key_token.CALL_TIMEOUT_S, attempt)
    tokens.give_back("east")
    _until_it_reads(store, 42)
    assert store.read(42) == ONE


def test_a_process_that_died_is_replaced_within_the_same_call(make_token_store: MakeStore) -> None:
    store = make_token_store("east")
    store.prepare()
    store.write(42, ONE)
    child = _child(store)
    child.kill()
    child.wait(5)
    assert store.read(42) == ONE


def test_a_destruction_that_found_no_token_is_repeated_until_it_reaches_the_master_key(
    tokens: Tokens, pair: KeyStores
) -> None:
    tokens.take("east")
    with pytest.raises(Problem, match="keys_unconfirmed"):
        pair.destroy(42)
    tokens.give_back("east")
    deadline = time.monotonic() + BACK_S
    while time.monotonic() < deadline:
        try:
            pair.destroy(42)
            break
        except Problem:
            threading.Event().wait(0.05)
    assert [*_master(tokens, "east"), *_master(tokens, "west")] == []


@pytest.mark.requirement("SEC-01")
@pytest.mark.parametrize("how", ["hangs", "is gone"])
def test_keys_load_from_the_other_centre_within_ten_seconds_when_a_token(
    tokens: Tokens, pair: KeyStores, make_pair: Callable[..., KeyStores], monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    assert key_token.PATIENCE_S + key_token.START_TIMEOUT_S + key_token.CALL_TIMEOUT_S < BACK_S
    monkeypatch.setattr(key_token, "CALL_TIMEOUT_S", 1.0)
    sealed = pair.load(42).seal("copy", b"row", b"value")
    pair.create(43)
    exchange = make_pair(degraded=True)
    exchange.load(42)
    child = _child(exchange.stores["east"])  # type: ignore[arg-type]
    if how == "hangs":
        os.kill(child.pid, signal.SIGSTOP)
    else:
        tokens.take("east")
    assert _within(BACK_S, lambda: exchange.load(43)).agency == 43
    assert child.poll() is not None  # the session's process was ended
    assert exchange.load(42).open("copy", b"row", sealed) == b"value"
    with pytest.raises(Problem, match="keys_unconfirmed"):
        exchange.rotate(99)
    if how == "is gone":
        tokens.give_back("east")
    _until_it_reads(exchange.stores["east"], 43)  # type: ignore[arg-type]


# ---------------------------------------------------------------- the PIN


@pytest.mark.requirement("SEC-01")
def test_a_wrong_pin_is_tried_once_by_everybody_together(
    tokens: Tokens,
    make_token_store: MakeStore,
    monkeypatch: pytest.MonkeyPatch,
    folders: dict[str, Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(key_token, "AGAIN_S", 0.05)
    make_token_store("east").prepare()
    tokens.set_pin("east", "wrong-24680")
    starts: list[str] = []
    real = key_token._Process
    monkeypatch.setattr(key_token, "_Process", lambda token: starts.append("start") or real(token))
    for _ in range(3):
        with pytest.raises(TokenAwayError, match="not tried again until the PIN file changes") as caught:
            make_token_store("east").write(42, ONE)
        assert "24680" not in f"{caught.value!r}{caught.value.__dict__}{caught.value.__context__!r}"
    threading.Event().wait(0.3)  # the threads that look for the token have looked
    assert starts == ["start"]
    assert "24680" not in capsys.readouterr().err
    assert not any(b"24680" in path.read_bytes() for path in folders["east"].rglob("*") if path.is_file())

    tokens.set_pin("east", PIN)
    again = make_token_store("east")
    again.write(42, ONE)
    assert again.read(42) == ONE


def test_a_pin_file_that_others_may_read_is_refused(tokens: Tokens, make_token_store: MakeStore) -> None:
    tokens.pin_file("east").chmod(0o640)
    with pytest.raises(TokenAwayError, match="0600"):
        make_token_store("east").prepare()


def test_the_pin_is_in_no_argument_and_no_environment(make_token_store: MakeStore) -> None:
    store = make_token_store("east")
    store.prepare()
    place = Path("/proc") / str(_child(store).pid)
    assert PIN.encode() not in (place / "cmdline").read_bytes() + (place / "environ").read_bytes()


# ---------------------------------------------------------------- rotation and destruction, both centres


@pytest.mark.requirement("SEC-01")
def test_a_rotation_reaches_other_processes_and_what_the_old_version_sealed_stays_readable(
    pair: KeyStores, make_pair: Callable[..., KeyStores]
) -> None:
    exchange = make_pair(degraded=True)
    assert exchange.follow([42]) == 0
    keys = exchange.load(42)
    old, old_answer = keys.seal("copy", b"row", b"old"), keys.answer_key_id()
    assert pair.rotate(42) == 2
    assert pair.rotate(42, "answer") == 2
    assert exchange.follow([42]) == 0
    new = keys.seal("copy", b"row", b"new")
    assert new[1:5] == b"\0\0\0\x02"
    assert (keys.open("copy", b"row", old), keys.open("copy", b"row", new)) == (b"old", b"new")
    assert keys.answer_key_id() != old_answer
    assert keys.answer_private(old_answer)


@pytest.mark.requirement("SEC-04")
def test_destroyed_keys_leave_running_processes_and_neighbours_stay(
    pair: KeyStores, make_pair: Callable[..., KeyStores]
) -> None:
    pair.create(43)
    exchange = make_pair(degraded=True)
    exchange.follow([42, 43])
    gone, stays = exchange.load(42), exchange.load(43)
    sealed = [keys.seal("copy", b"row", b"value") for keys in (gone, stays)]
    pair.destroy(42)
    assert exchange.follow([42, 43]) == 1
    with pytest.raises(SealError):
        gone.open("copy", b"row", sealed[0])
    assert stays.open("copy", b"row", sealed[1]) == b"value"
    with pytest.raises(Problem, match="agency_closed"):
        make_pair().load(42)


def test_what_does_not_change_asks_no_token(
    pair: KeyStores, make_pair: Callable[..., KeyStores], tokens: Tokens
) -> None:
    exchange = make_pair()
    exchange.follow([42])
    tokens.take("east")
    tokens.take("west")
    assert exchange.follow([42]) == 0
    assert exchange.load(42).seal("copy", b"row", b"value")


@pytest.mark.requirement("SEC-01")
def test_two_rotations_at_once_both_count(make_pair: Callable[..., KeyStores], pair: KeyStores) -> None:
    done: list[int] = []
    threads = [threading.Thread(target=lambda: done.append(make_pair().rotate(42))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(done) == [2, 3, 4]
    assert make_pair().load(42).seal("copy", b"row", b"value")[1:5] == b"\0\0\0\x04"


# ---------------------------------------------------------------- settings


def _settings(tokens: Tokens, folders: dict[str, Path], **changes: str) -> str:
    lines = ["[site]", 'centre = "east"', "[exchange]", 'name = "e"']
    files = ("tls_certificate_file", "tls_key_file", "tls_ca_file", "signing_key_file", "directory_key_file")
    lines += [f'{name} = "none.pem"' for name in files]
    lines += ["[cells]", "[network]", 'url = "https://n.invalid"', 'ca_file = "n"', 'verify_key_file = "n"']
    lines += ["[keystores]", *(f'{centre} = "{folder}"' for centre, folder in folders.items())]
    for centre in changes.get("centres", "east west").split():
        token = changes.get("token", centre)
        lines += [f"[key_tokens.{centre}]", f'module = "{MODULE}"', f'token = "{token}"']
        lines += [f'pin_file = "softhsm/pin-{centre}"']
    return "\n".join(lines)


def test_stores_of_settings_with_tokens_are_of_tokens(tokens: Tokens, folders: dict[str, Path], tmp_path: Path) -> None:
    path = tmp_path / "chukan.toml"
    path.write_text(_settings(tokens, folders))
    loaded = settings.load(path, {})
    assert loaded.key_tokens["west"] == tokens.settings("west")
    stores = KeyStores.of(loaded, chance=SystemChance(SystemClock()))
    try:
        stores.prepare()
        stores.create(42)
        assert stores.load(42).agency == 42
        assert {type(store) for store in stores.stores.values()} == {TokenKeyStore}
    finally:
        stores.close()
    assert "key_tokens.west.pin_file" in {entry.key for entry in settings.explain(path, {})}


@pytest.mark.parametrize(
    ("changes", "code"), [({"centres": "east"}, "setting_missing"), ({"token": "east"}, "setting_invalid")]
)
def test_tokens_for_one_centre_only_or_one_for_two_are_refused(
    tokens: Tokens, folders: dict[str, Path], tmp_path: Path, changes: dict[str, str], code: str
) -> None:
    path = tmp_path / "chukan.toml"
    path.write_text(_settings(tokens, folders, **changes))
    with pytest.raises(Problem, match=code):
        settings.load(path, {})
