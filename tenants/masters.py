"""Master data (配信マスター情報) as versions: what two different persons signed, under the digest of its bytes.

A version holds the files of the law's data (照合リスト, 機関一覧, レイアウト) and of the calendar, the version that it
was made from, and the instant at which it shall take effect. Its proposer signs it with the private key of their
certificate of this installation's authority, and another person approves it in the same way. Which version is in force
is said by the common data, which names it (``name_in_force``): so it changes with that, in every cell at one instant.

Invariant: ``verify`` returns only what two different masters' officers have signed, for this environment, and whose
bytes have the digest that was asked for. Here nothing is judged of what the files say; no file holds personal data.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Final, Literal, NamedTuple

import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from chukan.errors import Problem
from chukan.settings import Environment
from chukan.tenants.credentials import CHAIN_MAX, UntrustedError, name_of, read_chain, verify_chain
from chukan.tenants.directory import Instant

Act = Literal["propose", "approve"]
FileName = Annotated[str, msgspec.Meta(pattern=r"^[a-z][a-z0-9_]{0,60}\.(csv|toml)$")]
Note = Annotated[str, msgspec.Meta(min_length=1, max_length=500, pattern=r"^[^\x00-\x1f\x7f-\x9f]+$")]

RevokedAt = Callable[[x509.Certificate, dt.datetime], bool]
"""Tells whether a certificate was on a revocation list (失効リスト) already at a time."""

PERSON_PREFIX: Final = "operator."
"""What the certificates of those who may change masters are named with; no agency's system or officer is named so."""
BYTES_MAX: Final = 8 * 1024 * 1024
"""Of a version, as it rests and unpacked: all lists of the law together have a quarter of a million bytes."""
FILES_MAX: Final = 64

_SIGNED_PREFIX: Final = b"chukan master data 1\0"
_NAMED: Final = "master"


class Content(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A version: its files as texts, what it was made from, why, and when it takes effect."""

    version: Annotated[int, msgspec.Meta(ge=1, le=999_999)]
    base: Annotated[int, msgspec.Meta(ge=0, le=999_999)]
    """The version before it; 0 is the data that the release brings."""
    environment: Environment
    note: Note
    effective_at: Instant
    files: Annotated[dict[FileName, str], msgspec.Meta(min_length=1, max_length=FILES_MAX)]


class Signature(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a person signed: the act, when, and the chain of certificates (DER, their own first, without the root)."""

    act: Act
    at: Instant
    certificates: Annotated[list[bytes], msgspec.Meta(min_length=1, max_length=CHAIN_MAX)]
    signature: Annotated[bytes, msgspec.Meta(min_length=8, max_length=256)]

    @property
    def by(self) -> str:
        """The name in the certificate; not verified. ``?`` where there is none."""
        try:
            return name_of(read_chain(self.certificates)[0])
        except UntrustedError:
            return "?"


class Named(NamedTuple):
    """The version that the common data names."""

    version: int
    digest: bytes


class Master(NamedTuple):
    """A version as it rests: its bytes, and the two signatures (the second one once it is approved)."""

    digest: bytes
    version: int
    body: bytes
    proposal: bytes
    approval: bytes | None


class Verified(NamedTuple):
    """A version that two persons signed."""

    content: Content
    proposed_by: str
    approved_by: str


def pack(content: Content) -> bytes:
    """Return the bytes of a version, by which it is signed and named; ``Problem`` too_large."""
    at = content.effective_at.astimezone(dt.UTC)
    plain = msgspec.json.encode(msgspec.structs.replace(content, effective_at=at), order="sorted")
    if len(plain) > BYTES_MAX:
        raise Problem("too_large", limit=BYTES_MAX)
    return zlib.compress(plain, 9)


def unpack(body: bytes) -> Content:
    """Return the version that these bytes are; ``Problem`` master_invalid."""
    try:
        unpacking = zlib.decompressobj()
        plain = unpacking.decompress(body, BYTES_MAX)
        if unpacking.unconsumed_tail or unpacking.unused_data or not unpacking.eof:
            raise Problem("master_invalid", expected="a version of the master data")
        return msgspec.json.decode(plain, type=Content)
    except (zlib.error, msgspec.MsgspecError, UnicodeDecodeError):
        raise Problem("master_invalid", expected="a version of the master data") from None


def none_revoked_at(_: x509.Certificate, __: dt.datetime) -> bool:
    """Tell that none is: where no list is kept."""
    return False


def digest_of(body: bytes) -> bytes:
    """Return the digest by which these bytes are named: SHA-256, 32 bytes."""
    return hashlib.sha256(body).digest()


def name_in_force(version: int, digest: bytes) -> str:
    """Return what the common data calls this version: ``law_number`` of its snapshot."""
    return f"{_NAMED}:{version}:{digest.hex()}"


def named(law_number: int | str) -> Named | None:
    """Return the version that the common data names; None where it names the data that the release brings.

    ``Problem`` master_invalid for a name that is half of one: nobody may go by other data than what was named.
    """
    if not isinstance(law_number, str) or not law_number.startswith(_NAMED + ":"):
        return None
    _, _, rest = law_number.partition(":")
    number, _, digest = rest.partition(":")
    try:
        found = Named(int(number), bytes.fromhex(digest))
    except ValueError:
        raise Problem("master_invalid", expected="the name of a version") from None
    if name_in_force(*found) != law_number or len(found.digest) != hashlib.sha256().digest_size:
        raise Problem("master_invalid", expected="the name of a version")
    return found


# ---------------------------------------------------------------- two persons


def sign(
    act: Act, digest: bytes, chain: Sequence[x509.Certificate], key: ec.EllipticCurvePrivateKey, at: dt.datetime
) -> bytes:
    """Return a person's signature for an act on a version; ``chain`` is their certificate and those above it.

    ``Problem`` master_invalid when the certificate is not of somebody who changes masters, or not the key's.
    """
    try:
        by = name_of(chain[0]) if chain else ""
    except UntrustedError:
        by = ""
    if not by.startswith(PERSON_PREFIX) or chain[0].public_key() != key.public_key():
        raise Problem("master_invalid", expected=f"a certificate named {PERSON_PREFIX}… and its private key")
    at = at.astimezone(dt.UTC)
    made = Signature(
        act=act,
        at=at,
        certificates=[each.public_bytes(Encoding.DER) for each in chain[:CHAIN_MAX]],
        signature=key.sign(_signed(act, digest, at), ec.ECDSA(hashes.SHA256())),
    )
    return msgspec.json.encode(made)


def read_signature(content: bytes) -> Signature:
    """Return a signature that rests; ``Problem`` master_invalid."""
    try:
        return msgspec.json.decode(content, type=Signature)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise Problem("master_invalid", expected="a person's signature") from None


def check_signature(
    content: bytes,
    act: Act,
    digest: bytes,
    trusted: Sequence[x509.Certificate],
    revoked: RevokedAt = none_revoked_at,
) -> str:
    """Return who signed this act on this version; the certificate must have been good when it was signed.

    ``Problem`` master_invalid for anything else.
    """
    made = read_signature(content)
    try:
        chain = read_chain(made.certificates)
        if any(revoked(each, made.at) for each in chain):
            raise Problem("master_invalid", expected="a signature with a certificate that is not revoked")
        credential = verify_chain(chain, trusted, made.at)
        credential.public.verify(made.signature, _signed(made.act, digest, made.at), ec.ECDSA(hashes.SHA256()))
    except (UntrustedError, InvalidSignature):
        raise Problem("master_invalid", expected="a signature of this installation's authority") from None
    if made.act != act or not credential.client.startswith(PERSON_PREFIX):
        raise Problem("master_invalid", expected=f"a certificate named {PERSON_PREFIX}…, for this act")
    return credential.client


def verify(
    master: Master,
    wanted: bytes,
    *,
    trusted: Sequence[x509.Certificate],
    environment: Environment,
    revoked: RevokedAt = none_revoked_at,
) -> Verified:
    """Return what a version says if it is the one that was wanted and two different persons signed it.

    ``revoked`` is asked of every certificate of both, with the time that its signature names.

    Raises:
        Problem: master_invalid; second_person when there is no second one; other_environment.
    """
    if digest_of(master.body) != wanted:
        raise Problem("master_invalid", expected="the version that was named")
    content = unpack(master.body)
    if content.environment != environment:
        raise Problem("other_environment", expected=environment)
    first = check_signature(master.proposal, "propose", wanted, trusted, revoked)
    if master.approval is None:
        raise Problem("second_person")
    second = check_signature(master.approval, "approve", wanted, trusted, revoked)
    if first == second:
        raise Problem("second_person")
    return Verified(content, first, second)


def _signed(act: Act, digest: bytes, at: dt.datetime) -> bytes:
    return b"".join((_SIGNED_PREFIX, act.encode(), b"\0", digest, at.astimezone(dt.UTC).isoformat().encode()))


# ---------------------------------------------------------------- the difference


class FileDifference(NamedTuple):
    """What is otherwise in one file; rows are whole lines as they stand there."""

    file: str
    added: list[str]
    removed: list[str]
    changed: list[tuple[str, str]]
    """Rows with the same key, before and after."""


def compare(before: Mapping[str, str], after: Mapping[str, str]) -> list[FileDifference]:
    """Return what one version says otherwise than another, file by file, for people to look at.

    Rows that are gone and rows that are new count as changed where they begin with the same value, in their order.
    """
    found = []
    for file in sorted({*before, *after}):
        old, new = _rows(before.get(file, "")), _rows(after.get(file, ""))
        gone, come = _without(old, new), _without(new, old)
        changed = []
        for row in list(gone):
            match = next((other for other in come if other.partition(",")[0] == row.partition(",")[0]), None)
            if match is not None and "," in row:
                changed.append((row, match))
                gone.remove(row)
                come.remove(match)
        if gone or come or changed:
            found.append(FileDifference(file, come, gone, changed))
    return found


def _rows(text: str) -> list[str]:
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def _without(rows: Sequence[str], others: Sequence[str]) -> list[str]:
    left: dict[str, int] = {}
    for row in others:
        left[row] = left.get(row, 0) + 1
    out = []
    for row in rows:
        if left.get(row, 0):
            left[row] -= 1
        else:
            out.append(row)
    return out
