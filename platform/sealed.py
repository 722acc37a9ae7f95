"""Answers that only the inquirer can open (TXR-02): HPKE for the key, AES-GCM for the lines.

For each (provider, inquirer, batch) one fresh 32-byte content key is HPKE-sealed once (RFC 9180 base mode:
DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, AES-256-GCM; info ``chukan-answer-v1``, empty AAD) to the answer key that the
permit names. Each line is AES-256-GCM under the content key: nonce = its counter (12 bytes, big endian), AAD = the 16
bytes of its permit id, so that an answer cannot be moved to another permit.

Invariant: a content key is drawn anew at every call and never seals two lines under one counter; a line that is retried
alone therefore gets a new key. Nothing here keeps a key or puts one into an exception.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

from chukan.platform.wire.network import LINES_MAX, SealedAnswer

if TYPE_CHECKING:
    import uuid
    from collections.abc import Callable, Mapping, Sequence

    from chukan.chance import Chance

INFO: Final = b"chukan-answer-v1"
FACTS_INFO: Final = b"chukan-acquisition-facts-v1\n"
_SUITE: Final = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
_KEY_BYTES: Final = 32
_NONCE_BYTES: Final = 12
_ENCAPSULATION_BYTES: Final = 32 + _KEY_BYTES + 16


# The u-coordinates of small order (RFC 7748 §6.1, §7): with them the shared secret would be known to everybody.
_SMALL_ORDER: Final = frozenset(
    bytes.fromhex(point)
    for point in (
        "00" * 32,
        "01" + "00" * 31,
        "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
        "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
        "ec" + "ff" * 30 + "7f",
        "ed" + "ff" * 30 + "7f",
        "ee" + "ff" * 30 + "7f",
    )
)


class KeptKeys(Protocol):
    """An agency's keys, which keep what they opened lately (``AgencyKeys``)."""

    def opened(self, key_id: str, encapsulation: bytes, open_it: Callable[[X25519PrivateKey], AESGCM]) -> AESGCM:
        """Return the cipher of a content key, by ``open_it`` where it is not kept."""
        ...


class UnreadableAnswerError(Exception):
    """An answer that this key does not open, or that was sealed for another permit; the text holds no value."""

    def __init__(self) -> None:
        super().__init__("the answer cannot be opened")


def is_answer_key(public: bytes) -> bool:
    """Tell whether an announced answer key can be sealed to: 32 bytes, not of small order.

    Whoever takes a key in asks this, so that one bad key can never fail a whole batch at the provider.
    """
    if len(public) != _KEY_BYTES:
        return False
    # X25519 ignores the highest bit.
    return public[:-1] + bytes([public[-1] & 0x7F]) not in _SMALL_ORDER


def seal_batch(
    public: bytes, key_id: str, lines: Sequence[tuple[uuid.UUID, bytes]], chance: Chance
) -> list[SealedAnswer]:
    """Seal (permit id, content) lines of one provider to one inquirer's answer key; at most 1,000.

    ``public`` is the inquirer's X25519 key (32 bytes) from the permit, ``key_id`` its id. ``ValueError`` for a key of
    another length or of small order, for no lines, and for too many.
    """
    if not 1 <= len(lines) <= LINES_MAX:
        raise ValueError("a sealed batch has 1 to 1,000 lines")
    content_key = chance.token(_KEY_BYTES)
    encapsulation = _SUITE.encrypt(content_key, X25519PublicKey.from_public_bytes(public), INFO)
    cipher = AESGCM(content_key)
    return [
        SealedAnswer(
            key=key_id,
            encapsulation=encapsulation,
            counter=counter,
            ciphertext=cipher.encrypt(_nonce(counter), content, permit.bytes),
        )
        for counter, (permit, content) in enumerate(lines)
    ]


def open_answer(sealed: SealedAnswer, permit: uuid.UUID, private: X25519PrivateKey) -> bytes:
    """Return the content that was sealed for ``permit``; ``UnreadableAnswerError`` otherwise."""
    return _open_line(_open_key(sealed.encapsulation, private), sealed, permit)


def open_with_kept(sealed: SealedAnswer, permit: uuid.UUID, keys: KeptKeys) -> bytes:
    """Like ``open_answer``, by whoever keeps the content keys that several lines share."""

    def open_it(private: X25519PrivateKey) -> AESGCM:
        return _open_key(sealed.encapsulation, private)

    return _open_line(keys.opened(sealed.key, sealed.encapsulation, open_it), sealed, permit)


def open_batch(
    answers: Sequence[tuple[SealedAnswer, uuid.UUID]], private: Mapping[str, X25519PrivateKey]
) -> list[bytes | None]:
    """Open many answers of one inquirer, each (sealed, permit id); None stands where one cannot be opened.

    ``private`` maps answer-key ids to keys. An encapsulation that several lines share is opened once in this call.
    """
    ciphers: dict[tuple[str, bytes], AESGCM | None] = {}
    contents: list[bytes | None] = []
    for sealed, permit in answers:
        shared = (sealed.key, sealed.encapsulation)
        if shared not in ciphers:
            ciphers[shared] = _try_key(sealed, private)
        cipher = ciphers[shared]
        try:
            contents.append(None if cipher is None else _open_line(cipher, sealed, permit))
        except UnreadableAnswerError:
            contents.append(None)
    return contents


def seal_facts(public: bytes, inquirer: str, provider: str, facts: bytes) -> bytes:
    """Return facts of a person, HPKE-sealed to a provider's answer key and bound to both agencies (codes of 16 digits).

    ``ValueError`` for a key that cannot be sealed to.
    """
    if not is_answer_key(public):
        raise ValueError("no key to seal to")
    return _SUITE.encrypt(facts, X25519PublicKey.from_public_bytes(public), _facts_info(inquirer, provider))


def open_facts(sealed: bytes, inquirer: str, provider: str, private: X25519PrivateKey) -> bytes:
    """Return facts that this inquirer sealed for this provider; ``UnreadableAnswerError`` otherwise."""
    try:
        return _SUITE.decrypt(sealed, private, _facts_info(inquirer, provider))
    except (InvalidTag, ValueError):
        raise UnreadableAnswerError from None


def _facts_info(inquirer: str, provider: str) -> bytes:
    return FACTS_INFO + inquirer.encode("ascii") + b"\n" + provider.encode("ascii")


def _try_key(sealed: SealedAnswer, private: Mapping[str, X25519PrivateKey]) -> AESGCM | None:
    key = private.get(sealed.key)
    try:
        return None if key is None else _open_key(sealed.encapsulation, key)
    except UnreadableAnswerError:
        return None


def _open_key(encapsulation: bytes, private: X25519PrivateKey) -> AESGCM:
    if len(encapsulation) != _ENCAPSULATION_BYTES:
        raise UnreadableAnswerError
    try:
        return AESGCM(_SUITE.decrypt(encapsulation, private, INFO))
    except InvalidTag:
        raise UnreadableAnswerError from None


def _open_line(cipher: AESGCM, sealed: SealedAnswer, permit: uuid.UUID) -> bytes:
    try:
        return cipher.decrypt(_nonce(sealed.counter), sealed.ciphertext, permit.bytes)
    except InvalidTag:
        raise UnreadableAnswerError from None


def _nonce(counter: int) -> bytes:
    return counter.to_bytes(_NONCE_BYTES, "big")
