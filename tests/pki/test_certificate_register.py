"""The register of what was issued: first on disk, then signed; and certificates after their issue."""

import datetime as dt
import json
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from prometheus_client.parser import text_string_to_metric_families

from chukan.clock import ManualClock
from chukan.errors import Problem
from chukan.ops import certificate_life as life
from chukan.ops import certificates, pki_life
from chukan.ops.certificate_forms import Identity
from chukan.ops.certificate_register import REGISTER_FILE, Entry, IssuedLine
from chukan.ops.certificates import Authority, read_certificates, read_identity
from chukan.ops.pki import app
from chukan.platform import revocation

NOW = dt.datetime(2026, 11, 23, 3, 0, tzinfo=dt.UTC)
DAY_S = 86400.0


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(NOW)


@pytest.fixture
def authority(tmp_path: Path, clock: ManualClock) -> Authority:
    return Authority.create(tmp_path / "pki", "Example", clock)


def _entries(authority: Authority) -> list[Entry]:
    return list(authority.register.read().entries.values())


def _states(authority: Authority) -> list[str]:
    return [each.state(authority.clock.now()) for each in _entries(authority)]


def _listed(authority: Authority) -> revocation.RevocationList:
    content = (authority.folder / life.REVOCATION_FILE).read_bytes()
    return revocation.parse(content, read_certificates(authority.trusted), authority.clock.now())


class _CrashError(BaseException):
    """The process ends here."""


# ---------------------------------------------------------------- the register


def test_everything_that_is_issued_stands_in_the_register_and_no_key_does(authority: Authority) -> None:
    client = authority.issue_client("town-system")
    peer = authority.issue_peer("etcd-1", hosts=("localhost", "DNS:192.0.2.1"))
    authority.certify_client("card", read_identity(client).key.public_key())
    entries = _entries(authority)
    serials = [read_certificates(issued.certificate)[0].serial_number for issued in (client, peer)]
    assert [int(each.begun.serial, 16) for each in entries[:2]] == serials
    assert [each.begun.subject.removeprefix("urn:chukan:") for each in entries] == [
        "client:town-system", "peer:etcd-1", "client:card",
    ]  # fmt: skip
    assert entries[0].begun.until == read_certificates(client.certificate)[0].not_valid_after_utc
    assert entries[1].begun.hosts == ["localhost", "DNS:192.0.2.1"]
    assert _states(authority) == ["valid"] * 3
    register = authority.folder / REGISTER_FILE
    assert "PRIVATE" not in register.read_text("utf-8")
    assert stat.S_IMODE(register.stat().st_mode) == 0o600


def test_nothing_is_signed_when_the_register_cannot_be_written(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    signed: list[Any] = []
    monkeypatch.setattr(x509.CertificateBuilder, "sign", lambda *args: signed.append(args))
    (authority.folder / REGISTER_FILE).mkdir()
    with pytest.raises(Problem) as refused:
        authority.issue_client("town-system")
    assert refused.value.code == "register_unreadable"
    assert signed == []
    assert not (authority.folder / "clients").exists()


def test_the_register_knows_a_certificate_before_it_is_signed(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    known: list[list[str]] = []

    def sign(*_: Any) -> None:
        known.append(_states(authority))
        raise _CrashError

    monkeypatch.setattr(x509.CertificateBuilder, "sign", sign)
    with pytest.raises(_CrashError):
        authority.issue_client("town-system")
    assert known == [["begun"]]
    assert _states(authority) == ["begun"]


def test_after_a_crash_between_signing_and_the_files_the_list_shows_it_and_it_can_be_revoked(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost: list[x509.Certificate] = []

    def write(_folder: Path, identity: Identity, _chain: Any) -> None:
        lost.append(identity.certificate)
        raise _CrashError

    with monkeypatch.context() as patched:
        patched.setattr(certificates, "_write_pair", write)
        with pytest.raises(_CrashError):
            authority.issue_client("town-system")
    again = Authority(authority.folder, authority.clock)
    (entry,) = _entries(again)
    assert (int(entry.begun.serial, 16), entry.state(NOW)) == (lost[0].serial_number, "begun")
    life.revoke(again, [entry.begun.serial], "superseded")
    life.write_list(again)
    assert _listed(again).serials == {lost[0].serial_number}
    again.issue_client("town-system")
    assert _states(again) == ["revoked", "valid"]


def test_what_a_crash_left_of_a_line_is_cut_off_and_damage_in_the_middle_is_told(authority: Authority) -> None:
    authority.issue_client("first")
    register = authority.folder / REGISTER_FILE
    whole = register.read_bytes()
    register.write_bytes(whole + whole[:200])
    assert len(_entries(authority)) == 1
    # A line that is shorter than what the crash left.
    authority.register.add(IssuedLine(at=NOW, serial=_entries(authority)[0].begun.serial))
    assert register.read_bytes().endswith(b"}\n")
    authority.issue_client("second")
    assert _states(authority) == ["valid", "valid"]
    register.write_bytes(register.read_bytes().replace(b"issued", b"is\xff\xffed", 1))
    with pytest.raises(Problem) as damaged:
        authority.register.read()
    assert damaged.value.code == "register_unreadable"


# ---------------------------------------------------------------- renewed, revoked, listed


def test_renewed_is_the_same_identity_with_a_new_key_and_the_old_one_goes_on(
    authority: Authority, clock: ManualClock
) -> None:
    old = authority.issue_peer("exchange", hosts=("localhost", "127.0.0.1", "DNS:192.0.2.7"))
    clock.advance(360 * DAY_S)
    (entry,) = _entries(authority)
    made = life.renew(authority, entry)
    before, after = read_identity(old).certificate, read_identity(made.issued).certificate
    for extension in (x509.SubjectAlternativeName, x509.ExtendedKeyUsage):
        assert after.extensions.get_extension_for_class(extension) == before.extensions.get_extension_for_class(
            extension
        )
    assert after.public_key() != before.public_key()
    assert after.not_valid_after_utc > before.not_valid_after_utc
    assert _states(authority) == ["valid", "valid"]
    assert _entries(authority)[1].begun.renews == entry.begun.serial


def test_a_revoked_certificate_is_not_renewed(authority: Authority) -> None:
    authority.issue_client("town-system")
    (entry,) = life.revoke(authority, [_entries(authority)[0].begun.serial], "keyCompromise")
    with pytest.raises(Problem) as refused:
        life.renew(authority, entry)
    assert refused.value.code == "certificate_revoked"


def test_a_list_is_signed_numbered_dated_and_gives_reasons(authority: Authority) -> None:
    for name in ("one", "two", "three"):
        authority.issue_client(name)
    first, second, _ = (each.begun.serial for each in _entries(authority))
    life.revoke(authority, [first], "keyCompromise")
    life.revoke(authority, [second], "unspecified")
    assert life.write_list(authority)[1] == 1
    assert life.write_list(authority, days=3)[1] == 2
    found = x509.load_pem_x509_crl((authority.folder / life.REVOCATION_FILE).read_bytes())
    reasons = {f"{each.serial_number:x}": list(each.extensions) for each in found}
    assert reasons.keys() == {first, second}
    assert reasons[second] == []
    assert reasons[first][0].value == x509.CRLReason(x509.ReasonFlags.key_compromise)
    listed = _listed(authority)
    assert (listed.number, listed.next_update) == (2, NOW + dt.timedelta(days=3))


def test_revoked_twice_keeps_its_first_reason(authority: Authority, clock: ManualClock) -> None:
    authority.issue_client("one")
    serial = _entries(authority)[0].begun.serial
    life.revoke(authority, [serial], "keyCompromise")
    clock.advance(5)
    (entry,) = life.revoke(authority, [serial], "superseded")
    assert entry.revoked is not None
    assert (entry.revoked.reason, entry.revoked.at) == ("keyCompromise", NOW)
    assert authority.register.read().entries[serial].revoked == entry.revoked


def test_a_list_names_an_ended_certificate_for_a_while_and_then_no_longer(
    authority: Authority, clock: ManualClock
) -> None:
    authority.issue_client("one", days=1)
    life.revoke(authority, [_entries(authority)[0].begun.serial], "superseded")
    clock.advance(2 * DAY_S)
    life.write_list(authority)
    assert len(_listed(authority).serials) == 1
    clock.advance(40 * DAY_S)
    life.write_list(authority)
    assert _listed(authority).serials == set()


def test_a_certificate_from_before_the_register_is_revoked_by_its_file(authority: Authority, tmp_path: Path) -> None:
    issued = authority.issue_peer("postgresql", hosts=("localhost", "DNS:192.0.2.7"))
    (authority.folder / REGISTER_FILE).unlink()
    (certificate,) = read_certificates(issued.certificate)[:1]
    entry = life.adopt(authority, certificate)
    assert (entry.begun.usage, entry.begun.hosts) == ("peer", ["localhost", "DNS:192.0.2.7"])
    assert len(_entries(authority)) == len([life.adopt(authority, certificate)]) == 1
    foreign = Authority.create(tmp_path / "foreign", "Example", authority.clock).issue_client("town-system")
    with pytest.raises(Problem) as refused:
        life.adopt(authority, read_certificates(foreign.certificate)[0])
    assert refused.value.code == "certificate_unknown"


def test_revoked_at_once_by_several_the_list_with_the_highest_number_knows_them_all(authority: Authority) -> None:
    for number in range(8):
        authority.issue_client(f"c{number}")
    serials = [each.begun.serial for each in _entries(authority)]

    def revoke(serial: str) -> int:
        life.revoke(authority, [serial], "superseded")
        return life.write_list(authority)[1]

    with ThreadPoolExecutor(4) as pool:
        numbers = list(pool.map(revoke, serials))
    assert sorted(numbers) == list(range(1, 9))
    assert (_listed(authority).number, len(_listed(authority).serials)) == (8, 8)


# ---------------------------------------------------------------- the command


def _run(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    app([*arguments, "--json"], exit_on_error=False, result_action="return_value")
    said = capsys.readouterr().out
    assert "PRIVATE" not in said
    return json.loads(said)


def test_every_command_says_what_it_did(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = str(tmp_path / "pki")
    app(["init", "--directory", folder, "--name", "T"], exit_on_error=False, result_action="return_value")
    capsys.readouterr()
    issued = _run(capsys, "issue", "--directory", folder, "--client", "town")
    renewed = _run(capsys, "renew", "--directory", folder, "--client", "town")
    assert (renewed["renews"], renewed["state"], issued["state"]) == (issued["serial"], "valid", "valid")
    with pytest.raises(Problem) as ambiguous:
        _run(capsys, "revoke", "--directory", folder, "--client", "town", "--reason", "superseded")
    assert ambiguous.value.code == "certificate_ambiguous"
    copy = tmp_path / "copy.pem"
    told = _run(
        capsys, "revoke", "--directory", folder, "--serial", issued["serial"].upper(), "--reason", "superseded",
        "--copy", str(copy),
    )  # fmt: skip
    assert [(each["serial"], each["reason"]) for each in told["revoked"]] == [(issued["serial"], "superseded")]
    assert copy.read_bytes() == Path(told["list"]).read_bytes()
    assert _run(capsys, "crl", "--directory", folder)["number"] == told["number"] + 1
    listed = _run(capsys, "list", "--directory", folder)
    assert [each["state"] for each in listed] == ["revoked", "valid"]
    revoked = _run(capsys, "list", "--directory", folder, "--state", "revoked")
    assert [each["serial"] for each in revoked] == [issued["serial"]]


@pytest.mark.requirement("OPS-02")
def test_the_soonest_end_is_told_by_usage_and_not_of_who_was_renewed(
    authority: Authority, clock: ManualClock, tmp_path: Path
) -> None:
    authority.issue_client("town", days=30)
    authority.issue_client("city", days=90)
    authority.issue_peer("etcd-1", days=60)
    clock.advance(1)
    life.renew(authority, _entries(authority)[0], days=200)
    path = tmp_path / "pki.prom"
    pki_life.write_textfile(path, authority, _entries(authority))
    told = {
        (sample.name, sample.labels["usage"]): sample.value
        for family in text_string_to_metric_families(path.read_text("utf-8"))
        for sample in family.samples
    }
    assert told[pki_life.SOONEST, "client"] == (NOW + dt.timedelta(days=90)).timestamp()
    assert told[pki_life.SOONEST, "peer"] == (NOW + dt.timedelta(days=60)).timestamp()
    assert told[pki_life.COUNTED, "client"] == 3
