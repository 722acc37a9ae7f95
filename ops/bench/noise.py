"""The handshake and the transport of WireGuard as pure functions: what a synthetic device (検証用の模擬装置) speaks.

Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s as the WireGuard paper (Donenfeld, NDSS 2017, section 5.4) lays it out: initiator,
responder, cookie replies, keepalives and data. It exists so that 2,500 devices fit into one process of a test or a
benchmark, without a tunnel interface and without root.

Invariant: nothing here does I/O, reads a clock or draws randomness other than ephemeral keys; a message that is not
exactly right raises ``NoiseError``, which says what kind of wrong and quotes nothing. It must never guard real traffic:
it keeps no timers, and drops what arrives out of order.
"""

import hashlib
import hmac
import struct
from typing import Final

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

INITIATION: Final = 1
RESPONSE: Final = 2
COOKIE: Final = 3
DATA: Final = 4
INITIATION_SIZE: Final = 148
RESPONSE_SIZE: Final = 92
COOKIE_SIZE: Final = 64
OVERHEAD: Final = 32
"""Bytes that a data message is longer than what it holds: type, receiver, counter, and the tag."""
KEY_SIZE: Final = 32
COOKIE_LIFE_S: Final = 120.0

_MAC_SIZE: Final = 16
_PAD: Final = 16
_ROUNDS: Final = 10
_WORD: Final = 0xFFFFFFFF
_NO_NONCE: Final = bytes(12)
_NO_MAC: Final = bytes(_MAC_SIZE)
_TAI64: Final = 0x400000000000000A
"""The label of 1970-01-01 in TAI64, ten leap seconds in: a fixed shift, as WireGuard takes it."""
_NS: Final = 1_000_000_000


def blake2s(*parts: bytes) -> bytes:
    """Return the 32-byte BLAKE2s of the parts together (RFC 7693)."""
    return hashlib.blake2s(b"".join(parts)).digest()


def mac(key: bytes, message: bytes) -> bytes:
    """Return the 16-byte keyed BLAKE2s of a message, which WireGuard calls Mac."""
    return hashlib.blake2s(message, digest_size=_MAC_SIZE, key=key).digest()


def kdf(chaining: bytes, material: bytes, count: int) -> list[bytes]:
    """Return ``count`` (1…3) keys of HKDF over HMAC-BLAKE2s (RFC 5869)."""
    secret = hmac.digest(chaining, material, "blake2s256")
    keys = [hmac.digest(secret, b"\x01", "blake2s256")]
    while len(keys) < count:
        keys.append(hmac.digest(secret, keys[-1] + bytes([len(keys) + 1]), "blake2s256"))
    return keys


_CHAINING: Final = blake2s(b"Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s")
_HASH: Final = blake2s(_CHAINING, b"WireGuard v1 zx2c4 Jason@zx2c4.com")


class NoiseError(Exception):
    """A message is not what it must be here."""


def hchacha20(key: bytes, nonce: bytes) -> bytes:
    """Return the 32-byte subkey of a 32-byte key and a 16-byte nonce (draft-irtf-cfrg-xchacha-03, section 2.2)."""
    s = [*struct.unpack("<4I", b"expand 32-byte k"), *struct.unpack("<8I", key), *struct.unpack("<4I", nonce)]
    quarters = [(i, i + 4, i + 8, i + 12) for i in range(4)]
    quarters += [(i, 4 + (i + 1) % 4, 8 + (i + 2) % 4, 12 + (i + 3) % 4) for i in range(4)]
    for _ in range(_ROUNDS):
        for a, b, c, d in quarters:
            for first, second in ((16, 12), (8, 7)):
                s[a] = (s[a] + s[b]) & _WORD
                s[d] = _rotated(s[d] ^ s[a], first)
                s[c] = (s[c] + s[d]) & _WORD
                s[b] = _rotated(s[b] ^ s[c], second)
    return struct.pack("<8I", *s[:4], *s[12:])


def _rotated(word: int, bits: int) -> int:
    return ((word << bits) | (word >> (32 - bits))) & _WORD


def xchacha_open(key: bytes, nonce: bytes, sealed: bytes, bound: bytes) -> bytes:
    """Open XChaCha20-Poly1305 (24-byte nonce); ``NoiseError`` where it was not sealed so."""
    return _opened(ChaCha20Poly1305(hchacha20(key, nonce[:16])), bytes(4) + nonce[16:], sealed, bound)


def xchacha_seal(key: bytes, nonce: bytes, plain: bytes, bound: bytes) -> bytes:
    """Seal with XChaCha20-Poly1305 (24-byte nonce)."""
    return ChaCha20Poly1305(hchacha20(key, nonce[:16])).encrypt(bytes(4) + nonce[16:], plain, bound)


def _opened(cipher: ChaCha20Poly1305, nonce: bytes, sealed: bytes, bound: bytes) -> bytes:
    try:
        return cipher.decrypt(nonce, sealed, bound)
    except InvalidTag:
        raise NoiseError("a seal does not hold") from None


def tai64n(unix_ns: int) -> bytes:
    """Return the 12-byte TAI64N label of an instant in nanoseconds since 1970."""
    return struct.pack(">QI", _TAI64 + unix_ns // _NS, unix_ns % _NS)


class Session:
    """A pair of transport keys: numbers what it sends, takes every number once and in order."""

    def __init__(self, send: bytes, receive: bytes, peer: int) -> None:
        self._send, self._receive = ChaCha20Poly1305(send), ChaCha20Poly1305(receive)
        self._peer = peer
        self._sent, self._received = 0, -1

    def seal(self, payload: bytes = b"") -> bytes:
        """Return the data message of a packet, padded to 16 bytes; without one it is a keepalive."""
        head = struct.pack("<IIQ", DATA, self._peer, self._sent)
        nonce = struct.pack("<IQ", 0, self._sent)
        self._sent += 1
        return head + self._send.encrypt(nonce, payload + bytes(-len(payload) % _PAD), None)

    def open(self, message: bytes) -> bytes:
        """Return the packet of a data message, padding included; ``NoiseError`` where it is false or came before."""
        if len(message) < OVERHEAD:
            raise NoiseError("a data message is cut short")
        (counter,) = struct.unpack_from("<Q", message, 8)
        if counter <= self._received:
            raise NoiseError("a data message came before")
        plain = _opened(self._receive, struct.pack("<IQ", 0, counter), message[16:], b"")
        self._received = counter
        return plain


class Waiting(msgspec.Struct, frozen=True):
    """What an initiator keeps until the response is there."""

    sender: int
    ephemeral: X25519PrivateKey
    chaining: bytes
    hashed: bytes
    mac1: bytes

    def __repr__(self) -> str:
        """Tell its number alone."""
        return f"Waiting({self.sender})"


class Party:
    """One end of a link: its own static key, the other's public key, and their pre-shared key (32 zero bytes: none)."""

    def __init__(self, private: X25519PrivateKey, peer: bytes, preshared: bytes = bytes(KEY_SIZE)) -> None:
        self._private, self._peer_public, self._preshared = private, X25519PublicKey.from_public_bytes(peer), preshared
        self.peer = peer
        self.public = private.public_key().public_bytes_raw()
        self._both = private.exchange(self._peer_public)
        self._mac_out, self._mac_in = blake2s(b"mac1----", peer), blake2s(b"mac1----", self.public)
        self._cookie_key = blake2s(b"cookie--", peer)
        self._cookie, self._cookie_until = b"", 0.0
        self._newest = b""
        self._started = blake2s(_HASH, peer), blake2s(_HASH, self.public)

    def initiate(self, sender: int, unix_ns: int, now_s: float = 0.0) -> tuple[bytes, Waiting]:
        """Return an initiation and what to keep for its response.

        Args:
            sender: A number by which the other end will name this handshake and its session.
            unix_ns: The instant that it bears; the other end takes only later ones than it has seen.
            now_s: The monotonic clock, against which a cookie ages.
        """
        ephemeral = X25519PrivateKey.generate()
        shown = ephemeral.public_key().public_bytes_raw()
        (chaining,) = kdf(_CHAINING, shown, 1)
        hashed = blake2s(self._started[0], shown)
        chaining, key = kdf(chaining, ephemeral.exchange(self._peer_public), 2)
        static = ChaCha20Poly1305(key).encrypt(_NO_NONCE, self.public, hashed)
        hashed = blake2s(hashed, static)
        chaining, key = kdf(chaining, self._both, 2)
        stamp = ChaCha20Poly1305(key).encrypt(_NO_NONCE, tai64n(unix_ns), hashed)
        message, mac1 = self._closed(struct.pack("<II", INITIATION, sender) + shown + static + stamp, now_s)
        return message, Waiting(sender, ephemeral, chaining, blake2s(hashed, stamp), mac1)

    def finish(self, waiting: Waiting, response: bytes) -> Session:
        """Return the session that a response opens; ``NoiseError`` where it is not the answer to that initiation."""
        if len(response) != RESPONSE_SIZE or struct.unpack_from("<II", response, 0)[0] != RESPONSE:
            raise NoiseError("this is no response")
        peer, receiver = struct.unpack_from("<II", response, 4)
        self._check(response)
        if receiver != waiting.sender:
            raise NoiseError("a response to somebody else")
        shown = response[12:44]
        chaining, hashed = self._mixed(waiting.chaining, waiting.hashed, shown)
        other = X25519PublicKey.from_public_bytes(shown)
        (chaining,) = kdf(chaining, waiting.ephemeral.exchange(other), 1)
        (chaining,) = kdf(chaining, self._private.exchange(other), 1)
        chaining, temporary, key = kdf(chaining, self._preshared, 3)
        _opened(ChaCha20Poly1305(key), _NO_NONCE, response[44:60], blake2s(hashed, temporary))
        send, receive = kdf(chaining, b"", 2)
        return Session(send, receive, peer)

    def answer(self, initiation: bytes, sender: int, now_s: float = 0.0) -> tuple[bytes, Session]:
        """Return the response to the other end's initiation, and the session that is open when it has arrived.

        Raises:
            NoiseError: The message is false, from somebody else, or not newer than one before.
        """
        if len(initiation) != INITIATION_SIZE or struct.unpack_from("<I", initiation, 0)[0] != INITIATION:
            raise NoiseError("this is no initiation")
        self._check(initiation)
        peer, shown = struct.unpack_from("<I32s", initiation, 4)
        other = X25519PublicKey.from_public_bytes(shown)
        chaining, hashed = self._mixed(_CHAINING, self._started[1], shown)
        chaining, key = kdf(chaining, self._private.exchange(other), 2)
        if _opened(ChaCha20Poly1305(key), _NO_NONCE, initiation[40:88], hashed) != self.peer:
            raise NoiseError("an initiation by somebody else")
        hashed = blake2s(hashed, initiation[40:88])
        chaining, key = kdf(chaining, self._both, 2)
        stamp = _opened(ChaCha20Poly1305(key), _NO_NONCE, initiation[88:116], hashed)
        if stamp <= self._newest:
            raise NoiseError("an initiation came before")
        self._newest = stamp
        return self._responded(chaining, blake2s(hashed, initiation[88:116]), other, (sender, peer), now_s)

    def _responded(
        self, chaining: bytes, hashed: bytes, other: X25519PublicKey, numbers: tuple[int, int], now_s: float
    ) -> tuple[bytes, Session]:
        ephemeral = X25519PrivateKey.generate()
        shown = ephemeral.public_key().public_bytes_raw()
        chaining, hashed = self._mixed(chaining, hashed, shown)
        (chaining,) = kdf(chaining, ephemeral.exchange(other), 1)
        (chaining,) = kdf(chaining, ephemeral.exchange(self._peer_public), 1)
        chaining, temporary, key = kdf(chaining, self._preshared, 3)
        empty = ChaCha20Poly1305(key).encrypt(_NO_NONCE, b"", blake2s(hashed, temporary))
        receive, send = kdf(chaining, b"", 2)
        message, _ = self._closed(struct.pack("<III", RESPONSE, *numbers) + shown + empty, now_s)
        return message, Session(send, receive, numbers[1])

    def learn(self, waiting: Waiting, reply: bytes, now_s: float) -> None:
        """Take a cookie, which the next messages of the following two minutes bear; ``NoiseError`` for a false one."""
        if len(reply) != COOKIE_SIZE or struct.unpack_from("<II", reply, 0) != (COOKIE, waiting.sender):
            raise NoiseError("this is no cookie reply to that message")
        self._cookie = xchacha_open(self._cookie_key, reply[8:32], reply[32:], waiting.mac1)
        self._cookie_until = now_s + COOKIE_LIFE_S

    def _mixed(self, chaining: bytes, hashed: bytes, shown: bytes) -> tuple[bytes, bytes]:
        return kdf(chaining, shown, 1)[0], blake2s(hashed, shown)

    def _check(self, message: bytes) -> None:
        if not hmac.compare_digest(mac(self._mac_in, message[:-32]), message[-32:-16]):
            raise NoiseError("a message for somebody else")

    def _closed(self, message: bytes, now_s: float) -> tuple[bytes, bytes]:
        """Return a message with both of its macs, and the first, to which a cookie reply is bound."""
        mac1 = mac(self._mac_out, message)
        message += mac1
        return message + (mac(self._cookie, message) if self._cookie and now_s < self._cookie_until else _NO_MAC), mac1


def cookie_reply(public: bytes, nonce: bytes, cookie: bytes, received: bytes) -> bytes:
    """Return what an end under load says instead of answering a handshake message: a cookie for its sender.

    Args:
        public: The public key of the end that says it.
        nonce: 24 bytes.
        cookie: 16 bytes, which the sender must be able to show next time.
        received: The message.
    """
    key = blake2s(b"cookie--", public)
    return struct.pack("<I", COOKIE) + received[4:8] + nonce + xchacha_seal(key, nonce, cookie, received[-32:-16])
