"""The scanner of TLS listeners finds what is wrong with a bad one, each fault by itself, and nothing at a good one."""

import contextlib
import datetime as dt
import socket
import ssl
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from chukan.clock import SystemClock
from chukan.ops.certificates import Authority, Issued
from chukan.platform.tls import client_context, server_context
from chukan.tests.support import tls_scan

ASK = b"GET / HTTP/1.1\r\n\r\n"
Spoil = Callable[[ssl.SSLContext, Path], ssl.SSLContext | None]
"""Spoils a good context, or returns another one."""


@contextlib.contextmanager
def answering(context: ssl.SSLContext) -> Iterator[int]:
    """Serve one connection after the other: whoever asks something is answered; yields the port."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                plain, _ = listener.accept()
            except OSError:
                return  # closed: the test is over
            plain.settimeout(10)
            with contextlib.suppress(OSError), plain, context.wrap_socket(plain, server_side=True) as connection:
                if connection.recv(64):
                    connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(10)


def nothing(_context: ssl.SSLContext, _folder: Path) -> None:
    """Leave it as it is."""


def tls_1_2(context: ssl.SSLContext, _folder: Path) -> None:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("ECDHE+AESGCM")


def weak_suites(context: ssl.SSLContext, _folder: Path) -> None:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("ECDHE+AES:@SECLEVEL=0")


def tls_1_0(context: ssl.SSLContext, _folder: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # it is old: that is what is tried
        context.minimum_version = ssl.TLSVersion.TLSv1
    context.set_ciphers("ALL:@SECLEVEL=0")


def asks_for_none(context: ssl.SSLContext, _folder: Path) -> None:
    context.verify_mode = ssl.CERT_NONE


def asks_without_demanding(context: ssl.SSLContext, _folder: Path) -> None:
    context.verify_mode = ssl.CERT_OPTIONAL


def short_key(_context: ssl.SSLContext, folder: Path) -> ssl.SSLContext:
    key = rsa.generate_private_key(65537, 2048)
    name, now = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "short")]), SystemClock().now()
    made = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    made = made.serial_number(1).not_valid_before(now).not_valid_after(now + dt.timedelta(days=1))
    pem = serialization.Encoding.PEM
    secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "short.pem").write_bytes(made.sign(key, hashes.SHA256()).public_bytes(pem) + secret)
    short = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    short.minimum_version, short.verify_mode = ssl.TLSVersion.TLSv1_3, ssl.CERT_REQUIRED
    short.load_cert_chain(folder / "short.pem")
    return short


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (nothing, []),
        (tls_1_2, ["speaks TLS 1.2"]),
        (weak_suites, ["takes weak suite", "speaks TLS 1.2"]),
        (tls_1_0, ["speaks TLS 1.0", "takes weak suite", "signs with SHA-1 or MD5 in TLS 1.2"]),
        (asks_for_none, ["lets in without a certificate", "lets in with somebody else's certificate"]),
        (asks_without_demanding, ["lets in without a certificate"]),
        (short_key, ["certificate with a short key"]),
    ],
)
def test_each_fault_is_found_and_a_good_listener_has_none(tmp_path: Path, spoil: Spoil, told: list[str]) -> None:
    authority = Authority.create(tmp_path / "ca", "test", SystemClock())
    elsewhere = Authority.create(tmp_path / "elsewhere", "elsewhere", SystemClock())
    mine, other = authority.issue_peer("x1"), elsewhere.issue_peer("x1")
    context = server_context(mine.certificate, mine.key, authority.trusted)
    context = spoil(context, tmp_path) or context
    foreign = _context(authority, other)
    with answering(context) as port:
        door = tls_scan.Door(port, (ASK,))
        found = tls_scan.scan(door, foreign)
        for each in told:
            assert any(line.startswith(each) for line in found), found
        assert bool(found) is bool(told), found
        if spoil is nothing:
            assert (
                tls_scan.told(door, _context(authority, authority.issue_client("tax")), ASK)
                == b"HTTP/1.1 200 OK\r\n\r\n"
            )


def _context(authority: Authority, issued: Issued) -> ssl.SSLContext:
    return client_context(issued.certificate, issued.key, authority.trusted)
