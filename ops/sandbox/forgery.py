"""What a hostile network makes out of honest messages: permits and answers that are wrong in one respect each.

Every function takes a genuine item (its bytes) and returns another, under a new id. The sandbox's own permit-signing
key signs what must look genuine but for its content (``expired_permit``, ``foreign_permit``, ``other_face``); the rest
is signed by nobody that an exchange knows. Tests only: an exchange must refuse every one of these (PRV-01, TXR-04).
"""

import datetime as dt
import uuid
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from chukan.chance import Chance
from chukan.clock import Clock
from chukan.ops.sandbox.faults import FaultName
from chukan.platform.permits import sign_list
from chukan.platform.wire.network import AnswerDelivery, InquirerPermit, Notice, ProviderPermit, SignedPermit

NOBODY: Final = "9999999999999999"
"""An agency code that no directory knows."""
_AGO: Final = dt.timedelta(hours=1)
_HASH_BYTES: Final = 32

_Carrier = Notice | AnswerDelivery
_Permit = InquirerPermit | ProviderPermit
_notice: Final = msgspec.json.Decoder(Notice)
_answer: Final = msgspec.json.Decoder(AnswerDelivery)
_permit: Final[msgspec.json.Decoder[_Permit]] = msgspec.json.Decoder(_Permit)


class Means(NamedTuple):
    """What forging needs; ``sign`` signs permit bodies as the network does."""

    sign: Callable[[Sequence[bytes]], list[SignedPermit]]
    clock: Clock
    chance: Chance


class Forger:
    """Makes one wrong item out of a genuine one."""

    def __init__(self, means: Means) -> None:
        self._means = means
        self._foreign_key = Ed25519PrivateKey.generate()

    def notice(self, fault: FaultName, item: bytes) -> bytes:
        """Return a notice that is wrong as ``fault`` says, under a new id."""
        genuine = _notice.decode(item)
        made = msgspec.structs.replace(genuine, permit=self._bent(fault, genuine.permit))
        return self._renamed(made)

    def answer(self, fault: FaultName, item: bytes) -> bytes:
        """Return an answer that is wrong as ``fault`` says, under a new id."""
        genuine = _answer.decode(item)
        made = msgspec.structs.replace(genuine, permit=self._bent(fault, genuine.permit))
        if fault == "foreign_permit":
            # The answer is brought to another agency, which never asked: permit and message agree on it.
            made = msgspec.structs.replace(made, inquirer=_permit.decode(made.permit.body).inquirer)
        return self._renamed(made)

    def _renamed(self, made: _Carrier) -> bytes:
        return msgspec.json.encode(msgspec.structs.replace(made, id=self._means.chance.uuid7()))

    def _bent(self, fault: FaultName, signed: SignedPermit) -> SignedPermit:
        if fault in {"forged_permit", "wrong_signature", "swapped_path"}:
            return self._unsigned(fault, signed)
        permit, now = _permit.decode(signed.body), self._means.clock.now()
        if fault == "expired_permit":
            fresh = self._means.chance.uuid7()
            past = msgspec.structs.replace(permit, permit=fresh, issued_at=now - 2 * _AGO, expires_at=now - _AGO)
            return self._signed(past)
        return self._signed(_inquirer_face(permit) if fault == "other_face" else self._foreign(permit))

    def _unsigned(self, fault: FaultName, signed: SignedPermit) -> SignedPermit:
        """Return an entry that the network's key did not sign like this."""
        replace, chance = msgspec.structs.replace, self._means.chance
        if fault == "forged_permit":
            permit = _permit.decode(signed.body)
            longer = replace(permit, permit=chance.uuid7(), expires_at=permit.expires_at + _AGO)
            return replace(signed, body=msgspec.json.encode(longer))
        if fault == "wrong_signature":
            (entry,) = sign_list([signed.body], list_id=chance.uuid7(), key_id=signed.key, key=self._foreign_key)
            return entry
        if signed.size > 1:
            return replace(signed, index=(signed.index + 1) % signed.size)
        return replace(signed, size=2, path=[chance.token(_HASH_BYTES)])

    def _foreign(self, permit: _Permit) -> _Permit:
        fresh = self._means.chance.uuid7()
        if isinstance(permit, ProviderPermit):
            return msgspec.structs.replace(permit, permit=fresh, provider=NOBODY)
        return msgspec.structs.replace(permit, permit=fresh, inquirer=permit.provider)

    def _signed(self, permit: _Permit) -> SignedPermit:
        (entry,) = self._means.sign([msgspec.json.encode(permit)])
        return entry


def _inquirer_face(permit: _Permit) -> InquirerPermit:
    if isinstance(permit, InquirerPermit):
        return permit
    return InquirerPermit(
        permit=permit.permit,
        request=uuid.uuid5(permit.permit, "request"),
        inquirer=permit.inquirer,
        provider=permit.provider,
        affair=permit.affair,
        procedure=permit.procedure,
        kind=permit.kind,
        items=permit.items,
        issued_at=permit.issued_at,
        expires_at=permit.expires_at,
    )


def has_content(item: bytes) -> bool:
    """Whether an answer on its way carries sealed content."""
    return _answer.decode(item).sealed is not None


def spoiled(item: bytes) -> bytes:
    """Return the same answer, under its own id, with content that nobody can open."""
    genuine = _answer.decode(item)
    if genuine.sealed is None:
        return item
    text = genuine.sealed.ciphertext
    sealed = msgspec.structs.replace(genuine.sealed, ciphertext=text[:-1] + bytes([text[-1] ^ 1]))
    return msgspec.json.encode(msgspec.structs.replace(genuine, sealed=sealed))


def renamed(item: bytes, name: uuid.UUID) -> bytes:
    """Return an item under another id; one without an id as it is."""
    fields = msgspec.json.decode(item, type=dict[str, msgspec.Raw])
    if "id" not in fields:
        return item
    return msgspec.json.encode({**fields, "id": msgspec.Raw(msgspec.json.encode(name))})
