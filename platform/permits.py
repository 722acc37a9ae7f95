"""Permit lists (情報提供許可証の一覧): the network signs one list, every entry proves by itself that it stands in it.

A list is a Merkle tree (RFC 9162 §2.1) of the entries' exact bytes: leaf ``SHA-256(0x00 ‖ body)``, node
``SHA-256(0x01 ‖ left ‖ right)``. The network signs the root once, so a thousand permits cost one Ed25519 signature and
each entry brings its inclusion path. Receivers keep the entry, the path and the signature as evidence (PRV-01).

Invariant: a permit leaves this module only after its path led to a root that a known key signed together with the
list's id and size. Everything else (a foreign key, a bent path, an entry of the other face, nonsense that was signed)
is ``permit_forged`` and nothing more: a forger learns nothing from the answer. Single use is not decided here: that is
a unique key in the provider's own partition.
"""

from __future__ import annotations

import datetime as dt
from collections import OrderedDict
from typing import TYPE_CHECKING, Final, TypeVar

import msgspec
from cryptography.exceptions import InvalidSignature

from chukan.errors import Problem
from chukan.platform.sealed import is_answer_key
from chukan.platform.wire.network import LINES_MAX, InquirerPermit, ProviderPermit, SignedPermit
from chukan.tenants.merkle import inclusion_root, leaf_hash, node_hash

if TYPE_CHECKING:
    import uuid
    from collections.abc import Mapping, Sequence

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

    from chukan.clock import Clock

DOMAIN: Final = b"chukan-permit-list-v1\n"
_REMEMBERED_MAX: Final = 4096

Permit = InquirerPermit | ProviderPermit
_decoder: Final[msgspec.json.Decoder[Permit]] = msgspec.json.Decoder(Permit)
_Face = TypeVar("_Face", InquirerPermit, ProviderPermit)


def sign_list(
    bodies: Sequence[bytes], *, list_id: uuid.UUID, key_id: str, key: Ed25519PrivateKey
) -> list[SignedPermit]:
    """Sign 1…1,000 permit bodies as one list and return its entries in order (the network's half).

    ``ValueError`` for an empty or longer list: the caller makes the lists.
    """
    size = len(bodies)
    if not 1 <= size <= LINES_MAX:
        raise ValueError("a permit list has 1 to 1,000 entries")
    levels = _levels([leaf_hash(body) for body in bodies])
    signature = key.sign(signed_bytes(list_id, size, levels[-1][0]))
    return [
        SignedPermit(
            body=body,
            list_id=list_id,
            index=index,
            size=size,
            path=_path(levels, index),
            key=key_id,
            signature=signature,
        )
        for index, body in enumerate(bodies)
    ]


def signed_bytes(list_id: uuid.UUID, size: int, root: bytes) -> bytes:
    """Return the bytes under the list's signature: domain ‖ list id ‖ size (u32 big endian) ‖ root (32 bytes)."""
    return DOMAIN + list_id.bytes + size.to_bytes(4, "big") + root


class PermitVerifier:
    """Verifies permits under the network's permit-signing keys (by key id) and judges their validity.

    ``skew_s`` is the stated allowance between the network's clock and ours: a permit counts as lapsed that much early.
    The signature of a list is checked once for all entries; the last 4,096 verified lists are remembered.
    """

    def __init__(self, keys: Mapping[str, Ed25519PublicKey], clock: Clock, skew_s: float) -> None:
        self._keys = keys
        self._clock = clock
        self._skew = dt.timedelta(seconds=skew_s)
        self._verified: OrderedDict[tuple[str, bytes, bytes], None] = OrderedDict()

    def verify(self, signed: SignedPermit) -> Permit:
        """Return the permit in a signed entry, whichever face it has.

        Raises ``Problem`` permit_forged. Says nothing about time or use.
        """
        self._check_signature(signed)
        try:
            permit = _decoder.decode(signed.body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise Problem("permit_forged") from None
        if permit.issued_at >= permit.expires_at:
            raise Problem("permit_forged")
        if isinstance(permit, ProviderPermit) and not (permit.code and is_answer_key(permit.answer_key_public)):
            # Nothing could be sealed to such a key, and the whole batch that it is in would fail.
            raise Problem("permit_forged")
        return permit

    def verify_inquirer(self, signed: SignedPermit) -> InquirerPermit:
        """Return the inquirer's face; ``Problem`` permit_forged also where the entry is the provider's."""
        return self._face(signed, InquirerPermit)

    def verify_provider(self, signed: SignedPermit) -> ProviderPermit:
        """Return the provider's face (施行令26条1項); ``Problem`` permit_forged also where it is the inquirer's."""
        return self._face(signed, ProviderPermit)

    def check_current(self, permit: Permit) -> None:
        """Raise ``Problem`` permit_expired from ``expires_at`` − skew on (命令85号41条3項)."""
        if self._clock.now() + self._skew >= permit.expires_at:
            raise Problem("permit_expired")

    def _face(self, signed: SignedPermit, face: type[_Face]) -> _Face:
        permit = self.verify(signed)
        if not isinstance(permit, face):
            raise Problem("permit_forged")
        return permit

    def _check_signature(self, signed: SignedPermit) -> None:
        key = self._keys.get(signed.key)
        root = _root(leaf_hash(signed.body), signed.index, signed.size, signed.path)
        if key is None or root is None:
            raise Problem("permit_forged")
        message = signed_bytes(signed.list_id, signed.size, root)
        known = (signed.key, message, signed.signature)
        if known in self._verified:
            self._verified.move_to_end(known)
            return
        try:
            key.verify(signed.signature, message)
        except InvalidSignature:
            raise Problem("permit_forged") from None
        self._verified[known] = None
        if len(self._verified) > _REMEMBERED_MAX:
            self._verified.popitem(last=False)


def _levels(leaves: list[bytes]) -> list[list[bytes]]:
    """Return the tree from the leaves to the root; a node without a sibling rises unchanged, as in RFC 9162."""
    levels = [leaves]
    while len(levels[-1]) > 1:
        below = levels[-1]
        above = [node_hash(below[i], below[i + 1]) for i in range(0, len(below) - 1, 2)]
        levels.append(above + below[-1:] if len(below) % 2 else above)
    return levels


def _path(levels: list[list[bytes]], index: int) -> list[bytes]:
    path: list[bytes] = []
    for level in levels[:-1]:
        sibling = index ^ 1
        if sibling < len(level):
            path.append(level[sibling])
        index >>= 1
    return path


def _root(leaf: bytes, index: int, size: int, path: Sequence[bytes]) -> bytes | None:
    """Return the root that a path leads to, in a list that is no longer than one may be; None where it fits none."""
    return inclusion_root(leaf, index, size, path) if size <= LINES_MAX else None
