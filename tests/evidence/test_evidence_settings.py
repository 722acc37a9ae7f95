"""The evidence keys of an exchange: read once, and only as a pair that the settings publish."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from chukan.errors import Problem
from chukan.ops.demo.config import SigningKey
from chukan.platform.exchange.evidence import memory_cell, read_centre_keys
from chukan.settings import Cell, Evidence, Exchange, Network, Settings, Site


def settings_of(folder: Path, evidence: Evidence, cells: tuple[str, ...] = ("east", "west")) -> Settings:
    file = folder / "unused"
    return Settings(
        site=Site(centre="east", sandbox=True),
        cells={name: Cell(host="x", port=1) for name in cells},
        exchange=Exchange(
            name="e",
            tls_certificate_file=file,
            tls_key_file=file,
            tls_ca_file=file,
            signing_key_file=file,
            directory_key_file=file,
        ),
        network=Network(url="https://x", ca_file=file, verify_key_file=file),
        keystores={},
        evidence=evidence,
    )


@pytest.fixture
def evidence(tmp_path: Path) -> Evidence:
    keys = {centre: SigningKey(tmp_path, f"evidence-{centre}") for centre in ("east", "west")}
    return Evidence(
        name="log.example",
        signing_key_file=keys["east"].private_file,
        public_key_files={centre: key.public_file for centre, key in keys.items()},
    )


def test_a_centre_knows_all_keys_and_has_its_own(tmp_path: Path, evidence: Evidence) -> None:
    keys = read_centre_keys(settings_of(tmp_path, evidence))
    assert (keys.origin("9901131016000001"), keys.signer("west")) == (
        "log.example/sandbox/9901131016000001",
        "log.example/sandbox/west",
    )
    assert [key.name for key in keys.known("1")] == [
        "log.example/sandbox/1", "log.example/sandbox/east", "log.example/sandbox/1", "log.example/sandbox/west",
    ]  # fmt: skip
    assert {keys.centre_of(key) for key in keys.known("1")} == {"east", "west"}


def test_without_keys_nothing_is_signed(tmp_path: Path) -> None:
    assert read_centre_keys(settings_of(tmp_path, Evidence())).private is None


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"public_key_files": {}}, "setting_invalid"),
        ({"public_key_files": {"east": "evidence-west.public.pem"}}, "setting_invalid"),
        ({"signing_key_file": "nowhere"}, "certificate_unreadable"),
        ({"signing_key_file": "evidence-east.public.pem"}, "certificate_unreadable"),
        ({"public_key_files": {"east": "evidence-east.pem"}}, "certificate_unreadable"),
        ({"memory_cell": "south"}, "setting_invalid"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path: Path, evidence: Evidence, changes: dict[str, Any], code: str) -> None:
    for name, value in changes.items():
        if name == "signing_key_file":
            changes = {name: tmp_path / value}
        elif name == "public_key_files":
            changes = {name: {centre: tmp_path / file for centre, file in value.items()}}
    with pytest.raises(Problem, match=code):
        read_centre_keys(settings_of(tmp_path, msgspec.structs.replace(evidence, **changes)))


def test_a_centre_remembers_in_its_own_cell(tmp_path: Path, evidence: Evidence) -> None:
    assert memory_cell(settings_of(tmp_path, evidence)) == "east"
    assert memory_cell(settings_of(tmp_path, evidence, ("one", "two"))) == "one"
    named = msgspec.structs.replace(evidence, memory_cell="west")
    assert memory_cell(settings_of(tmp_path, named)) == "west"
