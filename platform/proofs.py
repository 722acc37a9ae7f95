"""Lists of messages that know what proves them: each item's place in a list that its sender signed (電文の証跡).

What arrives over the wire is handed on as ``Proven``, an ordinary list; whoever keeps evidence asks ``proof_of``. A
list that was made here has no proofs, and everything works without them.

Invariant: a proof names a list whose signature was verified before anything in it was read. It holds no content.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from chukan.platform.wire.network import InquirerPermit, ProviderPermit, SignedPermit
from chukan.tenants.merkle import leaf_hash
from chukan.tenants.messages import NONCE_BYTES, KeptList, KeptMessage, PermitProof, Statement, salt_of, seal_message

if TYPE_CHECKING:
    from chukan.chance import Chance
    from chukan.platform.envelope import Opened
    from chukan.tenants.messages import What
    from chukan.tenants.rows import MessageRow
    from chukan.tenants.sealing import AgencyKeys

T = TypeVar("T")


class Proof(NamedTuple):
    """Where an item stood, in which signed list."""

    kept: KeptList
    place: int
    item: bytes
    """Its exact bytes; only a receipt or a refusal is kept whole."""

    @property
    def digest(self) -> bytes:
        """The item's SHA-256."""
        return self.kept.digests[32 * self.place : 32 * self.place + 32]


class Proven(list[T]):
    """A list whose items have proofs by their ids."""

    def __init__(self, items: Iterable[T], proofs: Mapping[uuid.UUID | str, Proof]) -> None:
        super().__init__(items)
        self.proofs = proofs


def proofs(opened: Opened, names: Sequence[uuid.UUID | str]) -> dict[uuid.UUID | str, Proof]:
    """Return the proofs of a verified list whose items have these ids, in their order."""
    evidence = opened.evidence
    kept = KeptList(
        base=evidence.base, signature=evidence.signature, key=evidence.key, digests=b"".join(evidence.digests)
    )
    items = zip(names, opened.items, strict=True)
    return {name: Proof(kept, place, item) for place, (name, item) in enumerate(items)}


def proof_of(items: Sequence[T], name: uuid.UUID | str) -> Proof | None:
    """Return what proves an item of a list, None where the list was not signed by anybody."""
    return items.proofs.get(name) if isinstance(items, Proven) else None


class Binding:
    """Makes a line's message and the salt of its record, which belong together."""

    def __init__(
        self,
        chance: Chance,
        what: What,
        proof: Proof | None,
        signed: SignedPermit | None = None,
        permit: InquirerPermit | ProviderPermit | None = None,
        *,
        sent: bytes | None = None,
        whole: bool = False,
    ) -> None:
        """``sent`` are the exact bytes of what was sent; ``whole``: what was received has no content, and is kept."""
        self._chance = chance
        self._proof = proof
        nonce = chance.token(NONCE_BYTES)
        statement = Statement(
            permit=None if signed is None else leaf_hash(signed.body),
            received=None if proof is None else proof.digest,
            sent=None if sent is None else hashlib.sha256(sent).digest(),
        )
        self.salt = salt_of(nonce, statement)
        self._message = KeptMessage(
            what=what,
            place=None if proof is None else proof.place,
            nonce=nonce,
            statement=statement,
            permit=None if signed is None else permit_proof(signed, whole=isinstance(permit, InquirerPermit)),
            item=proof.item if whole and proof is not None else None,
        )

    def row(self, keys: AgencyKeys, line: uuid.UUID) -> MessageRow:
        """Return the message, ready to rest in the commit of the record that has ``salt``."""
        return seal_message(keys, self._chance, line, self._message, None if self._proof is None else self._proof.kept)


def held_notice(keys: AgencyKeys, chance: Chance, line: uuid.UUID, proof: Proof) -> MessageRow:
    """Return the message of a notice whose line gets no record yet, since officers decide about it."""
    return seal_message(keys, chance, line, KeptMessage(what="notice", place=proof.place), proof.kept)


def receipt(keys: AgencyKeys, chance: Chance, line: uuid.UUID, proof: Proof) -> MessageRow:
    """Return the message of a receipt: it names the line itself, and has no content."""
    kept = KeptMessage(what="receipt", place=proof.place, item=proof.item)
    return seal_message(keys, chance, line, kept, proof.kept)


def permit_proof(signed: SignedPermit, *, whole: bool) -> PermitProof:
    """Return the proof that the network signed a permit; with its entry only where that names no code (``whole``)."""
    return PermitProof(
        list_id=signed.list_id,
        index=signed.index,
        size=signed.size,
        path=signed.path,
        key=signed.key,
        signature=signed.signature,
        leaf=leaf_hash(signed.body),
        body=signed.body if whole else None,
    )
