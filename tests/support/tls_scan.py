"""A small scanner of TLS listeners: which versions and suites they take, whom they let in, how their certificate is.

Most questions are a ClientHello written here byte by byte and the first record that comes back, so that what is asked
does not depend on what the OpenSSL of the day still offers. Whether somebody gets in is asked by a whole handshake and
a request: in TLS 1.3 a client's half is over before its certificate is judged, so only an answer tells.
"""

import contextlib
import socket
import ssl
import struct
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa, x25519

VERSIONS: Final = {0x0300: "SSL 3", 0x0301: "TLS 1.0", 0x0302: "TLS 1.1", 0x0303: "TLS 1.2"}
TLS13: Final = 0x0304
GOOD_13: Final = (0x1301, 0x1302, 0x1303)
WEAK_13: Final = (0x1304, 0x1305, 0xC0B4, 0xC0B5)
"""CCM, CCM with a short tag, and two that do not encrypt (RFC 9150)."""
GOOD_12: Final = (0xC02B, 0xC02C, 0xC02F, 0xC030, 0xCCA8, 0xCCA9)
"""Ephemeral ECDH and authenticated encryption, as 1.3 has."""
WEAK_12: Final = (
    *(0xC009, 0xC00A, 0xC013, 0xC014, 0xC023, 0xC024, 0xC027, 0xC028),  # ECDHE with CBC
    *(0x0033, 0x0039, 0x0067, 0x006B, 0x009E, 0x009F),  # DHE
    *(0x009C, 0x009D, 0x002F, 0x0035, 0x003C, 0x003D),  # RSA without forward secrecy
    *(0x000A, 0xC008, 0xC012, 0x0004, 0x0005, 0xC007, 0xC011),  # 3DES, RC4
    *(0x0001, 0x0002, 0x003B, 0xC006, 0xC010, 0x0003, 0x0008, 0x0034, 0x003A, 0x006D),  # none, export, anonymous
)
STRONG: Final = (0x0403, 0x0503, 0x0603, 0x0807, 0x0804, 0x0805, 0x0806, 0x0401, 0x0501, 0x0601)
WEAK_SIGNATURES: Final = (0x0203, 0x0201, 0x0202, 0x0101)
"""SHA-1 and MD5."""
RSA_BITS_MIN: Final = 3072
CURVE_BITS_MIN: Final = 256
_RECORD_MAX: Final = 1 << 14
_TIMEOUT_S: Final = 10.0
SSL_REQUEST: Final = struct.pack("!II", 8, 80877103)
"""What PostgreSQL is sent before TLS."""


class Door(NamedTuple):
    """What is scanned, and how somebody asks for something there."""

    port: int
    ask: tuple[bytes, ...]
    """Requests, each on a connection of its own."""
    refused: Callable[[bytes], bool] = lambda answer: answer == b""
    """Tells whether an answer's first bytes mean that nothing is given; by default any answer is one too many."""
    before: bytes = b""
    older: bool = False
    """Whether TLS 1.2 cannot be forbidden there; it must then be as good as 1.3."""


class Chosen(NamedTuple):
    """What a server took of a hello."""

    version: int
    suite: int


def scan(door: Door, foreign: ssl.SSLContext) -> list[str]:
    """Return everything that is wrong with a listener; ``foreign`` shows a certificate of an unknown authority."""
    return [*_versions(door), *_suites(door), *_signatures(door), *_certificate(door), *_entry(door, foreign)]


def _versions(door: Door) -> list[str]:
    found = []
    for version, name in VERSIONS.items():
        taken = _hello(door, version, (*GOOD_12, *WEAK_12))
        if taken is not None and not (door.older and version == max(VERSIONS) and taken.suite in GOOD_12):
            found.append(f"speaks {name} with suite {taken.suite:#06x}")
    if _hello(door, TLS13, GOOD_13) != (TLS13, GOOD_13[0]) and not any(
        _hello(door, TLS13, (suite,)) for suite in GOOD_13
    ):
        found.append("does not speak TLS 1.3")
    return found


def _suites(door: Door) -> list[str]:
    offers = [(TLS13, WEAK_13), *((version, WEAK_12) for version in VERSIONS)]
    taken = [_hello(door, version, suites) for version, suites in offers]
    return [f"takes weak suite {each.suite:#06x}" for each in taken if each is not None and each.suite not in GOOD_13]


def _signatures(door: Door) -> list[str]:
    offers = {"TLS 1.3": (TLS13, GOOD_13), "TLS 1.2": (max(VERSIONS), GOOD_12)}
    taken = {name: _hello(door, version, suites, WEAK_SIGNATURES) for name, (version, suites) in offers.items()}
    return [f"signs with SHA-1 or MD5 in {name}" for name, each in taken.items() if each is not None]


def _certificate(door: Door) -> list[str]:
    context = _anonymous()
    with contextlib.suppress(OSError), _plain(door) as plain, context.wrap_socket(plain) as connection:
        shown = x509.load_der_x509_certificate(connection.getpeercert(binary_form=True) or b"")
        key, hashed = shown.public_key(), shown.signature_hash_algorithm
        found = [] if hashed is None or hashed.digest_size >= 32 else [f"certificate signed with {hashed.name}"]
        match key:
            case rsa.RSAPublicKey() if key.key_size >= RSA_BITS_MIN:
                return found
            case ec.EllipticCurvePublicKey() if key.key_size >= CURVE_BITS_MIN:
                return found
            case ed25519.Ed25519PublicKey():
                return found
        return [*found, "certificate with a short key"]
    return ["shows no certificate"]


def _entry(door: Door, foreign: ssl.SSLContext) -> list[str]:
    callers = {"without a certificate": _anonymous(), "with somebody else's certificate": foreign}
    return [
        f"lets in {how}"
        for how, context in callers.items()
        if not all(door.refused(told(door, context, ask)) for ask in door.ask)
    ]


def told(door: Door, context: ssl.SSLContext, ask: bytes) -> bytes:
    """Return the first bytes of the answer to a request; none where the connection ends without one."""
    host = "127.0.0.1" if context.check_hostname else None
    with (
        contextlib.suppress(ConnectionError, ssl.SSLError),
        _plain(door) as plain,
        context.wrap_socket(plain, server_hostname=host) as connection,
    ):
        connection.sendall(ask)
        return connection.recv(64)
    return b""


def _anonymous() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_ciphers("ALL:@SECLEVEL=0")  # what is weak is found, not avoided
    return context


def _plain(door: Door) -> socket.socket:
    plain = socket.create_connection(("127.0.0.1", door.port), timeout=_TIMEOUT_S)
    if door.before:
        plain.sendall(door.before)
        assert plain.recv(1) == b"S"
    return plain


# ---------------------------------------------------------------- hellos


def _hello(
    door: Door, version: int, suites: Sequence[int], signatures: Sequence[int] = STRONG + WEAK_SIGNATURES
) -> Chosen | None:
    """Offer this version (up to 1.2 that means older ones too), and return what the server took of it, or None."""
    with contextlib.suppress(ConnectionError), _plain(door) as plain:
        plain.sendall(client_hello(version, suites, signatures))
        taken = _server_hello(plain)
        # A server that goes on with another version has refused this one, and is asked for that one by itself.
        return taken if taken is not None and taken.version == version else None
    return None


def client_hello(version: int, suites: Sequence[int], signatures: Sequence[int]) -> bytes:
    """Return the record of a ClientHello (RFC 8446, 4.1.2; RFC 5246, 7.4.1.2)."""
    extensions = _extension(0x000A, _list("!H", (0x001D, 0x0017))) + _extension(0x000B, b"\x01\x00")
    extensions += _extension(0x000D, _list("!H", signatures))
    if version == TLS13:
        extensions += _extension(0x002B, b"\x02" + struct.pack("!H", TLS13))
        share = x25519.X25519PrivateKey.generate().public_key().public_bytes_raw()
        extensions += _extension(0x0033, _block(struct.pack("!H", 0x001D) + _block(share)))
    body = struct.pack("!H", min(version, max(VERSIONS))) + bytes(range(32)) + b"\0" + _list("!H", suites) + b"\x01\x00"
    if version > min(VERSIONS):  # SSL 3 has no extensions
        body += _block(extensions)
    handshake = b"\x01" + len(body).to_bytes(3, "big") + body
    return struct.pack("!BHH", 0x16, min(version, 0x0301), len(handshake)) + handshake


def _block(content: bytes) -> bytes:
    return struct.pack("!H", len(content)) + content


def _list(form: str, values: Sequence[int]) -> bytes:
    return _block(b"".join(struct.pack(form, value) for value in values))


def _extension(kind: int, content: bytes) -> bytes:
    return struct.pack("!H", kind) + _block(content)


def _server_hello(plain: socket.socket) -> Chosen | None:
    """Return what a ServerHello says; None for an alert, and for a connection that was closed."""
    head = _exactly(plain, 5)
    if head[:1] != b"\x16":
        return None
    content = _exactly(plain, min(_RECORD_MAX, int.from_bytes(head[3:5], "big")))
    if content[:1] != b"\x02":
        return None
    version, at = int.from_bytes(content[4:6], "big"), 38
    at += 1 + content[at]
    suite, at = int.from_bytes(content[at : at + 2], "big"), at + 3
    end = at + 2 + int.from_bytes(content[at : at + 2], "big")
    at += 2
    while at + 4 <= min(end, len(content)):
        kind, size = struct.unpack("!HH", content[at : at + 4])
        if kind == 0x002B:
            version = int.from_bytes(content[at + 4 : at + 6], "big")
        at += 4 + size
    return Chosen(version, suite)


def _exactly(plain: socket.socket, size: int) -> bytes:
    content = b""
    while len(content) < size:
        piece = plain.recv(size - len(content))
        if not piece:
            return b""
        content += piece
    return content
