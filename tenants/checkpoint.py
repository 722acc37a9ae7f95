"""Checkpoints (チェックポイント): signed statements of a log's size and root, in the C2SP forms.

``signed-note`` (text, blank line, signature lines ``— name base64(key id ‖ signature)``), ``tlog-checkpoint`` (origin,
size, root, extension lines) and ``tlog-cosignature`` (``cosignature/v1``: who signs says with the instant that it has
seen no other tree of this log). A key is known by name, type and public half together; its id is SHA-256 over them.

Pure. Invariant: there is one byte form of a note, and only it is read: what is parsed gives the same bytes again. A
text counts only once a known key's signature over it has verified, and one bad signature of a known key condemns the
note.
"""

import base64
import binascii
import hashlib
import re
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from chukan.tenants.merkle import HASH_BYTES, SIZE_MAX

LOG: Final = 0x01
"""Signature type of the log's own Ed25519 signature."""
COSIGNER: Final = 0x04
"""Signature type of a timestamped cosignature."""
NOTE_BYTES_MAX: Final = 65_536
SIGNATURES_MAX: Final = 64
TIME_MAX: Final = (1 << 63) - 1

_HEADER: Final = "cosignature/v1"
_KEY_ID_BYTES: Final = 4
_PUBLIC_BYTES: Final = 32
_SIGNATURE_BYTES: Final = 64
_TIMESTAMP_BYTES: Final = 8
_LINES_MIN: Final = 4
"""Origin, size and root, and nothing after the last line's end."""
_CONTROL: Final = re.compile(r"[\x00-\x09\x0b-\x1f]")
_NAME: Final = re.compile(r"[^\s+\x00-\x1f]+")
_SIZE: Final = re.compile(r"0|[1-9][0-9]{0,18}")
_LINE: Final = re.compile("\u2014 ([^ \n]+) ([A-Za-z0-9+/=]+)\n")


class CheckpointError(ValueError):
    """These bytes are no note, checkpoint or key, or nobody known has signed them. Its text quotes nothing of them."""


class Key(NamedTuple):
    """A key that verifies: name, signature type, and the raw Ed25519 public half (32 bytes)."""

    name: str
    type: int
    public: bytes

    @property
    def id(self) -> bytes:
        """Return the key id: the first four bytes of SHA-256(name ‖ 0x0A ‖ type ‖ public)."""
        return hashlib.sha256(self.name.encode() + b"\n" + bytes([self.type]) + self.public).digest()[:_KEY_ID_BYTES]

    def text(self) -> str:
        """Return the key as a verifier key (vkey): ``name+id+base64(type ‖ public)``."""
        return f"{self.name}+{self.id.hex()}+{to_base64(bytes([self.type]) + self.public)}"

    @classmethod
    def parse(cls, text: str) -> "Key":
        """Read a verifier key; ``CheckpointError`` unless it is one of ours whose id is right."""
        name, _, rest = text.partition("+")
        _, _, material = rest.partition("+")
        raw = from_base64(material)
        if len(raw) != 1 + _PUBLIC_BYTES or raw[0] not in {LOG, COSIGNER} or _NAME.fullmatch(name) is None:
            raise CheckpointError("not an Ed25519 verifier key")
        key = cls(name, raw[0], raw[1:])
        if key.text() != text:
            raise CheckpointError("a verifier key's id is not its own")
        return key

    @classmethod
    def of(cls, name: str, kind: int, key: Ed25519PrivateKey | Ed25519PublicKey) -> "Key":
        """Return the verifying key to a private or public one; ``CheckpointError`` for a name that is none."""
        if _NAME.fullmatch(name) is None:
            raise CheckpointError("not a key's name")
        public = key.public_key() if isinstance(key, Ed25519PrivateKey) else key
        return cls(name, kind, public.public_bytes_raw())


class Signature(NamedTuple):
    """One signature line, unverified."""

    name: str
    id: bytes
    bytes: bytes

    def line(self) -> str:
        """Return the line, with its end."""
        return f"\u2014 {self.name} {to_base64(self.id + self.bytes)}\n"


class Note(NamedTuple):
    """A text with its signature lines, unverified."""

    text: str
    signatures: tuple[Signature, ...]

    def encode(self) -> bytes:
        """Return the one byte form."""
        return (self.text + "\n" + "".join(each.line() for each in self.signatures)).encode()

    def signed_too(self, others: Iterable[Signature]) -> "Note":
        """Return it with further signatures; one that is there already is not added again."""
        return Note(self.text, tuple(dict.fromkeys((*self.signatures, *others))))


class Checkpoint(NamedTuple):
    """What a checkpoint says: the log, how many leaves it has, and their root."""

    origin: str
    size: int
    root: bytes
    extensions: tuple[str, ...] = ()

    def text(self) -> str:
        """Return the note text."""
        lines = (self.origin, str(self.size), to_base64(self.root), *self.extensions)
        return "".join(f"{line}\n" for line in lines)


class Cosigned(NamedTuple):
    """A verified cosignature: whose, and at which instant (POSIX seconds)."""

    key: Key
    at: int


class Verified(NamedTuple):
    """A checkpoint that a log key signed, and the cosignatures beside it."""

    checkpoint: Checkpoint
    log_key: Key
    cosigned: tuple[Cosigned, ...]


# ------------------------------------------------------------ reading


def parse_note(raw: bytes) -> Note:
    """Read a signed note.

    Raises:
        CheckpointError: more than 64 KiB or 64 signatures, not UTF-8, control characters, no signature, a line of
            another form, base64 that is not canonical.
    """
    if len(raw) > NOTE_BYTES_MAX:
        raise CheckpointError("a note of more than 64 KiB")
    try:
        whole = raw.decode("utf-8")
    except UnicodeDecodeError:
        raise CheckpointError("a note that is not UTF-8") from None
    split = whole.rfind("\n\n")
    if split < 0 or _CONTROL.search(whole) is not None:
        raise CheckpointError("not a signed note")
    text, lines = whole[: split + 1], whole[split + 2 :]
    if lines.count("\n") > SIGNATURES_MAX:
        raise CheckpointError("a note with more than 64 signatures")
    signatures = tuple(_parse_line(line) for line in lines.splitlines(keepends=True))
    if not signatures or not text.strip("\n"):
        raise CheckpointError("a note without text or signature")
    return Note(text, signatures)


def _parse_line(line: str) -> Signature:
    found = _LINE.fullmatch(line)
    if found is None or _NAME.fullmatch(found[1]) is None:
        raise CheckpointError("not a signature line")
    raw = from_base64(found[2])
    if len(raw) <= _KEY_ID_BYTES:
        raise CheckpointError("a signature line without a signature")
    return Signature(found[1], raw[:_KEY_ID_BYTES], raw[_KEY_ID_BYTES:])


def parse_checkpoint(text: str) -> Checkpoint:
    """Read a note's text as a checkpoint; ``CheckpointError`` for any other form."""
    lines = text.split("\n")
    if len(lines) < _LINES_MIN or lines.pop() != "" or not all(lines):
        raise CheckpointError("not a checkpoint")
    origin, size, root, *extensions = lines
    # The header of a cosigned message: as an origin it would make a log's signature pass for something else.
    if origin == _HEADER or _SIZE.fullmatch(size) is None or int(size) > SIZE_MAX:
        raise CheckpointError("not a checkpoint")
    raw = from_base64(root)
    if len(raw) != HASH_BYTES:
        raise CheckpointError("not a checkpoint")
    return Checkpoint(origin, int(size), raw, tuple(extensions))


def verify(note: Note, keys: Iterable[Key], *, origin: str) -> Verified:
    """Return what a note says of the log ``origin``, once a log key of this name signed it.

    Signatures of unknown keys are passed over; ``keys`` may hold keys of other logs.

    Raises:
        CheckpointError: no checkpoint of this log; no signature by a log key whose name is the origin; a signature by a
            known key that is wrong.
    """
    checkpoint = parse_checkpoint(note.text)
    if checkpoint.origin != origin:
        raise CheckpointError("a checkpoint of another log")
    known = {(key.name, key.id): key for key in keys}
    by_log: Key | None = None
    cosigned: list[Cosigned] = []
    for signature in note.signatures:
        key = known.get((signature.name, signature.id))
        if key is None or (key.type == LOG and key.name != origin):
            continue
        if key.type == LOG:
            _check(key, signature.bytes, note.text.encode())
            by_log = by_log or key
        else:
            cosigned.append(Cosigned(key, _check_cosignature(key, signature.bytes, note.text)))
    if by_log is None:
        raise CheckpointError("no known key of the log has signed it")
    return Verified(checkpoint, by_log, tuple(cosigned))


def _check(key: Key, signature: bytes, message: bytes) -> None:
    try:
        Ed25519PublicKey.from_public_bytes(key.public).verify(signature, message)
    except (InvalidSignature, ValueError):
        raise CheckpointError("a known key's signature is wrong") from None


def _check_cosignature(key: Key, raw: bytes, text: str) -> int:
    if len(raw) != _TIMESTAMP_BYTES + _SIGNATURE_BYTES:
        raise CheckpointError("a known key's signature is wrong")
    at = int.from_bytes(raw[:_TIMESTAMP_BYTES])
    if at > TIME_MAX:
        raise CheckpointError("a known key's signature is wrong")
    _check(key, raw[_TIMESTAMP_BYTES:], _cosigned_message(text, at))
    return at


# ------------------------------------------------------------ signing


def sign(checkpoint: Checkpoint, key: Ed25519PrivateKey) -> Note:
    """Return the note of a log, signed under its own origin as the key's name."""
    text = checkpoint.text()
    if parse_checkpoint(text) != checkpoint:
        raise CheckpointError("not a checkpoint")
    public = Key.of(checkpoint.origin, LOG, key)
    return Note(text, (Signature(public.name, public.id, key.sign(text.encode())),))


def cosign(text: str, name: str, key: Ed25519PrivateKey, at: int) -> Signature:
    """Return a cosignature of a checkpoint's text by ``name``, at ``at`` (POSIX seconds).

    Whoever calls this has verified that the tree continues every tree of this log that it cosigned before, and has made
    that durable. ``CheckpointError`` for a text that is no checkpoint, or an instant out of range.
    """
    parse_checkpoint(text)
    if not 0 < at <= TIME_MAX:
        raise CheckpointError("not an instant")
    public = Key.of(name, COSIGNER, key)
    signature = key.sign(_cosigned_message(text, at))
    return Signature(name, public.id, at.to_bytes(_TIMESTAMP_BYTES) + signature)


def _cosigned_message(text: str, at: int) -> bytes:
    return f"{_HEADER}\ntime {at}\n{text}".encode()


# ------------------------------------------------------------ base64


def to_base64(raw: bytes) -> str:
    """Return the one base64 form of bytes."""
    return base64.b64encode(raw).decode("ascii")


def from_base64(text: str) -> bytes:
    """Decode canonical base64; ``CheckpointError`` for any other form of the same bytes."""
    try:
        raw = base64.b64decode(text.encode("ascii"), validate=True)
    except (ValueError, binascii.Error):
        raise CheckpointError("not base64") from None
    if to_base64(raw) != text:
        raise CheckpointError("not base64")
    return raw


def read_keys(lines: Sequence[str]) -> list[Key]:
    """Read verifier keys, one a line; empty lines and those that begin with ``#`` are passed over."""
    return [Key.parse(line.strip()) for line in lines if line.strip() and not line.startswith("#")]
