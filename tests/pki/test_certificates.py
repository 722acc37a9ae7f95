"""Certificates: what they say, who trusts them, and that nothing is overwritten."""

import datetime as dt
import os
import ssl
import stat
from pathlib import Path

import pytest
from cryptography import x509

from chukan.clock import ManualClock, SystemClock
from chukan.errors import Problem
from chukan.ops.certificates import Authority, describe, read_certificates, read_identity

NOW = dt.datetime(2026, 11, 23, 3, 0, tzinfo=dt.UTC)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(NOW)


@pytest.fixture
def authority(tmp_path: Path, clock: ManualClock) -> Authority:
    return Authority.create(tmp_path / "pki", "Example", clock)


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_keys_are_private_whatever_the_umask_says(tmp_path: Path, clock: ManualClock) -> None:
    before = os.umask(0)
    try:
        authority = Authority.create(tmp_path / "pki", "Example", clock)
        issued = authority.issue_client("town-system")
    finally:
        os.umask(before)
    keys = sorted((tmp_path / "pki").rglob("key.pem"))
    assert len(keys) == 3
    assert {_mode(key) for key in keys} == {0o600}
    assert {_mode(key.parent) for key in keys} == {0o700}
    assert issued.key in keys


def test_a_client_certificate_says_who_and_is_good_for_nothing_else(authority: Authority) -> None:
    certificate = read_identity(authority.issue_client("town-system")).certificate
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    usages = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert [name.value for name in names] == ["urn:chukan:client:town-system"]
    assert list(usages) == [x509.ExtendedKeyUsageOID.CLIENT_AUTH]
    assert not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca


def test_a_peer_certificate_serves_and_calls_under_its_hosts(authority: Authority) -> None:
    issued = authority.issue_peer("exchange-east", hosts=("localhost", "127.0.0.1", "fd00::1"))
    certificate = read_identity(issued).certificate
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == ["urn:chukan:peer:exchange-east"]
    assert names.get_values_for_type(x509.DNSName) == ["localhost"]
    assert [str(address) for address in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1", "fd00::1"]
    assert describe(certificate).usage == "peer"


def test_each_certificate_is_signed_by_the_one_above_it(authority: Authority, tmp_path: Path) -> None:
    leaf, issuing = read_certificates(authority.issue_client("town-system").certificate)
    (root,) = read_certificates(tmp_path / "pki" / "ca.pem")
    leaf.verify_directly_issued_by(issuing)
    issuing.verify_directly_issued_by(root)
    root.verify_directly_issued_by(root)
    assert issuing.extensions.get_extension_for_class(x509.BasicConstraints).value.path_length == 0


def test_lifetimes_are_the_stated_ones_and_end_with_the_issuer(authority: Authority, clock: ManualClock) -> None:
    leaf, issuing = read_certificates(authority.issue_client("first").certificate)
    assert leaf.not_valid_after_utc == NOW + dt.timedelta(days=397)
    assert leaf.not_valid_before_utc < NOW
    clock.advance(1700 * 86400)
    late = read_certificates(authority.issue_client("late").certificate)[0]
    assert late.not_valid_after_utc == issuing.not_valid_after_utc < clock.now() + dt.timedelta(days=397)


def test_nothing_is_overwritten(authority: Authority, tmp_path: Path, clock: ManualClock) -> None:
    before = authority.issue_client("town-system").key.read_bytes()
    with pytest.raises(Problem) as refused:
        authority.issue_client("town-system")
    assert refused.value.code == "certificate_exists"
    assert (tmp_path / "pki" / "clients" / "town-system" / "key.pem").read_bytes() == before
    with pytest.raises(Problem) as again:
        Authority.create(tmp_path / "pki", "Example", clock)
    assert again.value.code == "certificate_exists"
    assert not [path for path in (tmp_path / "pki").rglob("*") if path.name.startswith(".")]


@pytest.mark.parametrize("name", ["", ".hidden", "../up", "a b", "x" * 65, "-leading", "名前"])
def test_a_name_that_could_be_a_path_or_a_text_is_refused(authority: Authority, name: str) -> None:
    with pytest.raises(Problem) as refused:
        authority.issue_client(name)
    assert refused.value.code == "certificate_name_invalid"


def test_a_key_of_another_certificate_is_not_accepted(authority: Authority) -> None:
    first, second = authority.issue_client("first"), authority.issue_client("second")
    with pytest.raises(Problem) as refused:
        read_identity(first._replace(key=second.key))
    assert refused.value.code == "certificate_unreadable"


def _handshake(server: ssl.SSLContext, client: ssl.SSLContext) -> ssl.SSLObject:
    """Shake hands in memory and return the server's end; raises ``ssl.SSLError`` where one end refuses."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    theirs = client.wrap_bio(to_client, to_server, server_hostname="localhost")
    ours = server.wrap_bio(to_server, to_client, server_side=True)
    pending = [theirs, ours]
    for _ in range(10):
        for end in list(pending):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
            pending.remove(end)
    assert not pending
    return ours


def _contexts(authority: Authority, trusted: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    peer = authority.issue_peer("exchange")
    server.load_cert_chain(peer.certificate, peer.key)
    server.load_verify_locations(trusted)
    server.verify_mode = ssl.CERT_REQUIRED
    server.verify_flags |= ssl.VERIFY_X509_STRICT
    client = ssl.create_default_context(cafile=str(authority.trusted))
    client.verify_flags |= ssl.VERIFY_X509_STRICT
    for context in (server, client):
        context.minimum_version = ssl.TLSVersion.TLSv1_3
    return server, client


@pytest.fixture
def real(tmp_path: Path) -> Authority:
    """An authority of today: OpenSSL asks the machine's clock."""
    return Authority.create(tmp_path / "real", "Example", SystemClock())


def test_both_ends_of_a_strict_tls13_connection_accept_each_other(real: Authority) -> None:
    server, client = _contexts(real, real.trusted)
    issued = real.issue_client("town-system")
    client.load_cert_chain(issued.certificate, issued.key)
    connection = _handshake(server, client)
    assert connection.version() == "TLSv1.3"
    names = dict(connection.getpeercert() or {})["subjectAltName"]
    assert names == (("URI", "urn:chukan:client:town-system"),)


def test_a_certificate_of_a_foreign_authority_is_refused(real: Authority, tmp_path: Path) -> None:
    foreign = Authority.create(tmp_path / "foreign", "Foreign", SystemClock())
    server, client = _contexts(real, real.trusted)
    issued = foreign.issue_client("town-system")
    client.load_cert_chain(issued.certificate, issued.key)
    with pytest.raises(ssl.SSLError):
        _handshake(server, client)


def test_a_client_certificate_cannot_stand_for_a_server(real: Authority) -> None:
    _, client = _contexts(real, real.trusted)
    issued = real.issue_client("localhost")
    client.load_cert_chain(issued.certificate, issued.key)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(issued.certificate, issued.key)
    with pytest.raises(ssl.SSLError):
        _handshake(server, client)
