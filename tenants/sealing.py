"""Sealing and digests: how an agency's values rest so that nobody else can read or join them (invariant 6, DESIGN §9).

A sealed value is ``0x01 ‖ key version u32 ‖ nonce 12 bytes ‖ AES-256-GCM``; what is authenticated beside it (AAD) binds
it to agency, table, row and key version, so that a ciphertext moved to another row, table or agency does not open. A
digest is HMAC-SHA-256 under the agency's index key, separated by domain: equal values of two agencies have unrelated
digests.

Invariant: every value is sealed with the newest confirmed key version and a fresh random nonce; opening either gives
back exactly what was sealed for the same place or raises ``SealError``, whose text never holds a value.
This module must never read or write files: where keys come from is ``keystore``'s business.
"""

from __future__ import annotations

import hmac
import struct
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256, Hash

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

KEY_BYTES: Final = 32
DIGEST_BYTES: Final = 32
OPENED_MAX: Final = 64
"""So many content keys of answers are kept for each agency."""

TABLES: Final = frozenset(
    {
        "request",
        "outbox",
        "permit",
        "answer",
        "notice",
        "copy",
        "code",
        "number",
        "addressee",
        "record",
        "operation",
        "officer",
        "officer_change",
        "officer_session",
        "stage",
        "file",
        "delegation",
        "correction",
        "message",
    }
)
"""What may be sealed: the table (or column family) names that go into the AAD."""

DOMAINS: Final = frozenset(
    {"addressee", "code", "number", "permit", "key", "body", "content", "label", "copy", "file", "officer"}
)
"""What may be digested; each is a space of its own. ``label`` is reached through ``AgencyKeys.label`` too."""

VERSIONS_MAX: Final = 256
"""Key versions that one agency may hold: with a rotation each month, more than 20 years."""

_FORMAT: Final = 1
_NONCE_BYTES: Final = 12
_TAG_BYTES: Final = 16
_HEAD: Final = struct.Struct(">BI")
HEAD_BYTES: Final = _HEAD.size
"""How many bytes of a sealed value tell which key version sealed it."""
_HEAD_BYTES: Final = _HEAD.size + _NONCE_BYTES
_AGENCY_MAX: Final = 99_999
_ID_DIGITS: Final = 16
_TABLE_BYTES: Final = {name: len(name).to_bytes(2, "big") + name.encode("ascii") for name in TABLES}
_DOMAIN_BYTES: Final = {name: len(name).to_bytes(1, "big") + name.encode("ascii") for name in DOMAINS}


class SealError(Exception):
    """A sealed value does not open here: altered, moved, of another agency, or its key is gone. Never holds a value."""


@dataclass(frozen=True, repr=False)
class KeySet:
    """The clear keys of one agency, confirmed versions only; lives in memory alone and shows nothing of itself."""

    agency: int
    data: Mapping[int, bytes]
    """Data keys (AES-256-GCM) by version; the newest seals, every one opens."""
    index: bytes
    """Index key (HMAC-SHA-256) for keyed digests; it has one version, for digests are looked up."""
    answer: Mapping[int, bytes]
    """Raw X25519 private keys to which answers are sealed, by version."""

    def __post_init__(self) -> None:
        if not 0 < self.agency <= _AGENCY_MAX:
            raise ValueError("an agency's number has one to five digits")
        secrets = (*self.data.values(), self.index, *self.answer.values())
        if any(len(secret) != KEY_BYTES for secret in secrets):
            raise ValueError("a key has 32 bytes")
        if not 0 < len(self.data) <= VERSIONS_MAX or not 0 < len(self.answer) <= VERSIONS_MAX:
            raise ValueError("an agency has at least one and a bounded number of key versions")

    def __repr__(self) -> str:
        return f"KeySet(agency={self.agency})"


@dataclass(slots=True, repr=False)
class _Loaded:
    """Key objects made once: a new AESGCM object costs more than the encryption itself."""

    version: int
    ciphers: dict[int, AESGCM]
    index: bytes
    answer_id: str
    answer_public: bytes
    answers: dict[str, X25519PrivateKey] = field(default_factory=dict)
    opened: OrderedDict[tuple[str, bytes], AESGCM] = field(default_factory=OrderedDict)


class AgencyKeys:
    """One agency's keys at work. ``token(n)`` gives n unpredictable bytes; ``reload`` looks for versions not held yet.

    ``forget`` ends it: after an agency's keys were destroyed nothing can be sealed, opened or digested any more.
    """

    def __init__(self, keys: KeySet, token: Callable[[int], bytes], reload: Callable[[], KeySet] | None = None) -> None:
        self.agency = keys.agency
        self._agency = struct.pack(">I", keys.agency)
        self._token = token
        self._reload = reload
        self._missed: set[int] = set()
        self._gone = False
        self._loaded: _Loaded | None = _prepare(keys)

    def __repr__(self) -> str:
        return f"AgencyKeys(agency={self.agency})"

    def seal(self, table: str, row: bytes, plaintext: bytes) -> bytes:
        """Return ``plaintext`` sealed for this agency, table and row; 33 bytes longer.

        Raises:
            ValueError: an unknown table or an empty row id.
            SealError: the keys are gone.
        """
        loaded = self._keys()
        nonce = self._token(_NONCE_BYTES)
        if len(nonce) != _NONCE_BYTES:
            raise ValueError("a nonce has 12 bytes")
        aad = self._aad(table, row, loaded.version)
        return (
            _HEAD.pack(_FORMAT, loaded.version) + nonce + loaded.ciphers[loaded.version].encrypt(nonce, plaintext, aad)
        )

    def open(self, table: str, row: bytes, sealed: bytes) -> bytes:
        """Return what was sealed for this agency, table and row, with whichever key version the value names.

        Raises:
            ValueError: an unknown table or an empty row id.
            SealError: anything else.
        """
        if len(sealed) < _HEAD_BYTES + _TAG_BYTES:
            raise SealError("a sealed value is too short")
        form, version = _HEAD.unpack_from(sealed)
        if form != _FORMAT:
            raise SealError("a sealed value has an unknown format")
        aad = self._aad(table, row, version)
        try:
            return self._cipher(version).decrypt(sealed[_HEAD.size : _HEAD_BYTES], sealed[_HEAD_BYTES:], aad)
        except InvalidTag:
            raise SealError("a sealed value does not belong here") from None

    def newest(self) -> int:
        """Return the number of the data key that seals now; ``SealError`` when the keys are gone."""
        return self._keys().version

    def holds(self, sealed: bytes) -> bool:
        """Tell whether the key version that a sealed value names is held; its first ``HEAD_BYTES`` are enough."""
        if len(sealed) < HEAD_BYTES:
            return False
        form, version = _HEAD.unpack_from(sealed)
        try:
            return form == _FORMAT and self._cipher(version) is not None
        except SealError:
            return False

    def digest(self, domain: str, value: bytes) -> bytes:
        """Return the keyed digest of a value, 32 bytes, the same at every call; unrelated to any other agency's.

        Raises:
            ValueError: an unknown domain.
            SealError: the keys are gone.
        """
        if domain not in DOMAINS:
            raise ValueError("an unknown digest domain")
        message = _DOMAIN_BYTES[domain] + len(value).to_bytes(4, "big") + value
        return hmac.digest(self._keys().index, message, "sha256")

    def label(self, person: bytes) -> bytes:
        """Return the label under which a person's records rest (32 bytes), from the person's addressee digest.

        A management code that is no individual number (命令47条3項). Raises ``ValueError`` unless given 32 bytes.
        """
        if len(person) != DIGEST_BYTES:
            raise ValueError("a person digest has 32 bytes")
        return self.digest("label", person)

    def answer_key_id(self) -> str:
        """Return the id of the newest answer key, by which a permit names it."""
        return self._keys().answer_id

    def answer_public(self) -> bytes:
        """Return the newest answer key's X25519 public key, 32 bytes."""
        return self._keys().answer_public

    def answer_private(self, key_id: str) -> X25519PrivateKey:
        """Return the private key of an answer key id, also of an older one; ``SealError`` when it is not ours."""
        found = self._keys().answers.get(key_id)
        if found is None and self._reload is not None:
            self._loaded = _prepare(self._reload())
            found = self._loaded.answers.get(key_id)
        if found is None:
            raise SealError("no such answer key")
        return found

    def opened(self, key_id: str, encapsulation: bytes, open_it: Callable[[X25519PrivateKey], AESGCM]) -> AESGCM:
        """Return the cipher of a content key that ``open_it`` finds in what was sealed to an answer key of ours.

        A batch of answers has one, so the newest are kept; they go when the keys go. Raises what ``open_it`` raises,
        and ``SealError`` when the answer key is not ours.
        """
        private = self.answer_private(key_id)
        kept = self._keys().opened
        cipher = kept.get((key_id, encapsulation))
        if cipher is None:
            cipher = open_it(private)
            kept[key_id, encapsulation] = cipher
            if len(kept) > OPENED_MAX:
                kept.popitem(last=False)
        return cipher

    def renew(self, keys: KeySet) -> None:
        """Take over newer versions (after a rotation), unless forgotten; ``ValueError`` for another agency's keys."""
        if keys.agency != self.agency:
            raise ValueError("keys of another agency")
        self._loaded = _prepare(keys)
        if self._gone:  # looked at last: another thread may have forgotten it meanwhile
            self._loaded = None

    def forget(self) -> None:
        """Let go of every key; nothing works any more."""
        self._gone = True
        self._loaded = None
        self._reload = None

    def _keys(self) -> _Loaded:
        if self._loaded is None:
            raise SealError("the keys of this agency are gone")
        return self._loaded

    def _cipher(self, version: int) -> AESGCM:
        found = self._keys().ciphers.get(version)
        if found is None and self._reload is not None and version not in self._missed:
            # Another process has rotated. A version is asked for once, so that bad data cannot cause a flood of reads.
            if len(self._missed) < VERSIONS_MAX:
                self._missed.add(version)
                self._loaded = _prepare(self._reload())
            found = self._keys().ciphers.get(version)
        if found is None:
            raise SealError("a sealed value names a key version that is not held")
        return found

    def _aad(self, table: str, row: bytes, version: int) -> bytes:
        if table not in TABLES or not row:
            raise ValueError("a value is sealed for a known table and a row")
        return b"".join(
            (self._agency, _TABLE_BYTES[table], len(row).to_bytes(2, "big"), row, version.to_bytes(4, "big"))
        )


def answer_id(public: bytes) -> str:
    """Return the id of an answer key: 16 hexadecimal digits of its public key's SHA-256, which tell nothing else."""
    digest = Hash(SHA256())
    digest.update(b"chukan answer key" + public)
    return "ak-" + digest.finalize().hex()[:_ID_DIGITS]


def _prepare(keys: KeySet) -> _Loaded:
    newest = X25519PrivateKey.from_private_bytes(keys.answer[max(keys.answer)]).public_key().public_bytes_raw()
    loaded = _Loaded(
        version=max(keys.data),
        ciphers={version: AESGCM(secret) for version, secret in keys.data.items()},
        index=keys.index,
        answer_id=answer_id(newest),
        answer_public=newest,
    )
    for secret in keys.answer.values():
        private = X25519PrivateKey.from_private_bytes(secret)
        loaded.answers[answer_id(private.public_key().public_bytes_raw())] = private
    return loaded
