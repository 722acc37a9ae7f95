"""Lists joined for PostgreSQL and etcd: complete, of today, verified, not older than before, or nothing is changed."""

import datetime as dt
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from chukan.clock import ManualClock, SystemClock
from chukan.errors import Problem
from chukan.ops import certificate_life as life
from chukan.ops import pki
from chukan.ops import revocation_joining as joining
from chukan.ops.certificates import Authority, read_certificates
from chukan.tests.support.tls_world import World

WEEK = dt.timedelta(days=8)


def numbers_of(town: World) -> set[int]:
    found = x509.load_der_x509_crl((town.lists / "joined.crl").read_bytes())
    return {entry.serial_number for entry in found}


@pytest.mark.requirement("CON-01")
def test_every_authoritys_list_is_in_it_and_every_revoked_serial_number(town: World) -> None:
    for name in ("exchange-east", "exchange-west"):
        town.revoke(name)
    serials = {
        read_certificates(town.issued[name].certificate)[0].serial_number for name in ("exchange-east", "exchange-west")
    }
    assert numbers_of(town) == serials
    pem = (town.lists / "joined.pem").read_bytes()
    assert pem.count(b"BEGIN X509 CRL") == 6
    assert b"CERTIFICATE" not in pem  # a certificate there would be one more that PostgreSQL might trust


def without(name: str) -> Callable[[World], None]:
    return lambda town: (town.lists / f"{name}.pem").unlink()


def forged(town: World) -> None:
    """Another authority of the same name signs a list."""
    other = Authority.create(town.folder / "other", "town west", SystemClock())
    life.write_list(other, copies=[town.lists / "west.pem"])


def twice(town: World) -> None:
    shutil.copy(town.lists / "east.pem", town.lists / "west.pem")


def older(town: World) -> None:
    before = (town.lists / "east.pem").read_bytes()
    town.hand_out()
    (town.lists / "east.pem").write_bytes(before)


def overdue(town: World) -> None:
    long_ago = ManualClock(SystemClock().now() - WEEK)
    life.write_list(Authority(town.authorities["west"].folder, long_ago), copies=[town.lists / "west.pem"])


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (without("east-root"), "a list of each trusted root"),
        (without("witness"), "a list of an issuing authority below each"),
        (forged, "below a trusted root"),
        (twice, "one list of each authority"),
        (older, "no list older"),
        (overdue, "no list past its next update"),
    ],
)
def test_what_would_shut_somebody_out_or_bring_somebody_back_changes_nothing(
    town: World, spoil: Callable[[World], None], expected: str
) -> None:
    spoil(town)
    before = [(town.lists / name).read_bytes() for name in ("joined.pem", "joined.crl")]
    files = [file for file in town.files if file.exists()]
    with pytest.raises(Problem) as refused:
        joining.join(files, read_certificates(town.trusted), town.lists, SystemClock())
    assert refused.value.code == "revocation_list_invalid"
    assert expected in str(refused.value.expected)
    assert [(town.lists / name).read_bytes() for name in ("joined.pem", "joined.crl")] == before


def run(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    pki.app(list(words), result_action="return_value")
    told: dict[str, Any] = json.loads(capsys.readouterr().out)
    return told


def test_the_commands_do_it(town: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, copy = town.authorities["east"].folder, town.lists / "east-root.pem"
    told = run(capsys, "root-crl", "--directory", str(folder), "--days", "30", "--copy", str(copy), "--json")
    made = x509.load_pem_x509_crl(copy.read_bytes())
    assert told["list"] == str(folder / "root-crl.pem")
    assert made.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number == 2
    into = tmp_path / "lists"
    into.mkdir()
    words = ["--trusted", str(town.trusted), "--into", str(into), "--json"]
    told = run(capsys, "join", *map(str, town.files), *words)
    assert (told["revoked"], told["pem"]) == (0, str(into / "joined.pem"))
    # The first that is due is an issuing authority's, of seven days.
    left = dt.datetime.fromisoformat(told["due"]) - SystemClock().now()
    assert dt.timedelta(days=6) < left <= dt.timedelta(days=7)
    assert (into / "joined.crl").exists()


def test_a_root_that_lies_offline_signs_nothing(town: World) -> None:
    authority = town.authorities["east"]
    shutil.rmtree(authority.folder / "root")
    with pytest.raises(Problem, match="certificate_unreadable"):
        joining.write_root_list(authority)
