"""``chukan agency order``: an agency makes an order with files alone, on machines that have no installation."""

import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization

from chukan.clock import SystemClock
from chukan.errors import Problem
from chukan.ops.certificates import Authority
from chukan.ops.cli import run
from chukan.tenants import orders

SAPPORO = "9901011002000001"


@pytest.fixture
def desk(tmp_path: Path) -> Path:
    """A folder with two officers' cards and a recipient's key."""
    authority = Authority.create(tmp_path / "pki", "Example", SystemClock())
    for name in ("head-1", "head-2"):
        authority.issue_client(name)
    assert run(["agency", "order", "recipient", "--out", str(tmp_path)]) == 0
    return tmp_path


def prepare(desk: Path, *more: str, action: str = "destroy") -> int:
    words = [
        "--agency",
        SAPPORO,
        "--action",
        action,
        "--reason",
        "移行のため",
        "--out",
        str(desk / "order.json"),
        *more,
    ]
    return run(["agency", "order", "prepare", *words])


def sign(desk: Path, name: str) -> int:
    card = desk / "pki" / "clients" / name
    files = ["--certificate", str(card / "certificate.pem"), "--key", str(card / "key.pem")]
    return run(["agency", "order", "sign", str(desk / "order.json"), *files])


def shown(desk: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    capsys.readouterr()
    assert run(["agency", "order", "show", str(desk / "order.json"), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_an_order_is_prepared_signed_twice_and_shown(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert prepare(desk, "--recipient", str(desk / "export-recipient.pem"), action="export") == 0
    assert shown(desk, capsys)["signed_by"] == []
    assert sign(desk, "head-1") == sign(desk, "head-2") == 0
    told = shown(desk, capsys)
    assert told["signed_by"] == ["head-1", "head-2"]
    assert told["agency"] == SAPPORO
    public = serialization.load_pem_public_key((desk / "export-recipient.pem").read_bytes())
    assert told["recipient"] == public.public_bytes_raw().hex()
    assert run(["agency", "order", "show", str(desk / "order.json")]) == 0
    assert "移行のため" in capsys.readouterr().out


def test_the_second_signature_must_be_anothers(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prepare(desk)
    sign(desk, "head-1")
    capsys.readouterr()
    assert sign(desk, "head-1") == 2
    assert "order_invalid" in capsys.readouterr().err
    assert shown(desk, capsys)["signed_by"] == ["head-1"]


def test_keys_are_for_the_agency_alone_and_nothing_is_written_over(
    desk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (desk / "export-key.pem").stat().st_mode & 0o777 == 0o600
    before = (desk / "export-key.pem").read_bytes()
    assert run(["agency", "order", "recipient", "--out", str(desk)]) == 2
    assert (desk / "export-key.pem").read_bytes() == before
    prepare(desk)
    assert prepare(desk) == 2
    said = capsys.readouterr()
    assert said.err.count("file_exists") == 2
    assert "PRIVATE" not in said.out


@pytest.mark.parametrize("days", ["0", "8"])
def test_an_order_holds_for_one_to_seven_days(desk: Path, days: str) -> None:
    assert prepare(desk, "--days", days) == 2
    assert not (desk / "order.json").exists()


def test_an_export_needs_a_recipient_of_the_right_kind(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert prepare(desk, action="export") == 2
    assert prepare(desk, "--recipient", str(desk / "pki" / "ca.pem"), action="export") == 2
    assert "certificate_unreadable" in capsys.readouterr().err


def test_what_is_no_order_is_said_in_both_languages(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (desk / "order.json").write_text("{}")
    assert run(["agency", "order", "show", str(desk / "order.json")]) == 2
    said = capsys.readouterr().err
    assert "指示書を検証できません" in said
    assert "The order cannot be verified" in said
    assert run(["agency", "order", "show", str(desk / "none.json"), "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["code"] == "order_invalid"


def test_a_key_of_another_card_signs_nothing(desk: Path) -> None:
    prepare(desk)
    cards = desk / "pki" / "clients"
    files = ["--certificate", str(cards / "head-1/certificate.pem"), "--key", str(cards / "head-2/key.pem")]
    assert run(["agency", "order", "sign", str(desk / "order.json"), *files]) == 2
    with pytest.raises(Problem, match="order_invalid"):
        orders.decode((desk / "order.json").read_bytes() + b"}")
