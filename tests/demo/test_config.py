"""What the demo writes for its processes: settings, signing keys, passwords."""

import stat
import tomllib
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from chukan import settings
from chukan.chance import SystemChance
from chukan.clock import SystemClock
from chukan.ops.certificates import Issued
from chukan.ops.demo.config import SigningKey, exchange_tables, keep_password, write_settings
from chukan.replication.plain_toml import to_toml


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("text", ['a "quoted" name', "back\\slash", "改行\nとタブ\t", "𠮷", "/plain/path"])
def test_any_text_survives_the_settings_file(text: str) -> None:
    tables = [
        ("", {"top": text}),
        ("a.b", {"text": text, "path": Path("/x"), "number": 3, "share": 0.5, "yes": True}),
        ("[c]", {"list": [text, "x"]}),
        ("c.inner", {"n": 1}),
        ("[c]", {"list": []}),
    ]
    assert tomllib.loads(to_toml(tables)) == {
        "top": text,
        "a": {"b": {"text": text, "path": "/x", "number": 3, "share": 0.5, "yes": True}},
        "c": [{"list": [text, "x"], "inner": {"n": 1}}, {"list": []}],
    }


def test_a_password_is_made_once_and_read_by_nobody_else(tmp_path: Path) -> None:
    chance = SystemChance(SystemClock())
    first = keep_password(tmp_path / "broker", chance)
    assert keep_password(tmp_path / "broker", chance) == first != keep_password(tmp_path / "app", chance)
    assert len(first) >= 32
    assert _mode(tmp_path / "broker") == 0o600


def test_a_signing_key_is_kept_with_its_public_half_beside_it(tmp_path: Path) -> None:
    key = SigningKey(tmp_path, "directory")
    again = SigningKey(tmp_path, "directory")
    assert again.private.private_bytes_raw() == key.private.private_bytes_raw()
    assert _mode(key.private_file) == 0o600
    public = serialization.load_pem_public_key(key.public_file.read_bytes())
    assert public == key.private.public_key()


def test_what_the_demo_writes_is_what_an_exchange_reads(tmp_path: Path) -> None:
    key = SigningKey(tmp_path, "exchange-west")
    tables = exchange_tables(
        name="exchange-west",
        centre="west",
        ports={"agency": 1001, "network": 1002, "health": 1003},
        sockets={"east": ("/tmp/chk-a", 5432), "west": ("/tmp/chk-b", 5432)},  # noqa: S108 - only names
        passwords={cell: {"broker": tmp_path / "b", "app": tmp_path / "a"} for cell in ("east", "west")},
        certificate=Issued(tmp_path / "certificate.pem", tmp_path / "key.pem"),
        trusted=tmp_path / "ca.pem",
        signing=key,
        directory=key,
        network_url="https://127.0.0.1:1004",
        network_verify=key.public_file,
        keystores={"east": tmp_path / "east", "west": tmp_path / "west"},
    )
    write_settings(tmp_path / "west.toml", [*tables, ("operator", {"directory_signing_key_file": key.private_file})])
    read = settings.load(tmp_path / "west.toml", {})
    assert read.exchange.agency_port == 1001
    assert read.exchange.directory_key_file == key.public_file
    assert read.cells["east"].host == "/tmp/chk-a"  # noqa: S108 - only a name
    assert read.cells["west"].app_password_file == tmp_path / "a"
    assert read.cells["west"].steward_password_file is None
    assert read.operator.directory_signing_key_file == key.private_file
    assert read.keystores["west"] == tmp_path / "west"
    assert read.site.sandbox
    assert _mode(tmp_path / "west.toml") == 0o600
