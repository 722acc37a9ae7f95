"""Decoders of kept messages (電文の証跡) in an evidence file (rows of ``decoders``): whole files that verify as seeds.

Where a row's name ends in ``behind a signature``, the network's key signs whatever is given, so that what lies behind
signature, place and binding is tried too.
"""

import datetime as dt
import hashlib
import io
import uuid
from collections.abc import Iterator
from typing import Final

import msgspec

from chukan.chance import SystemChance
from chukan.platform import envelope, permits
from chukan.platform.message_check import MessageReport, check_messages
from chukan.platform.wire.network import InquirerPermit, PermitReply, Receipt
from chukan.tenants import evidence_file, merkle
from chukan.tenants.evidence_file import LeafLine, Line, ListLine, MessageLine
from chukan.tenants.messages import KeptList, KeptMessage, PermitProof, Statement, salt_of
from chukan.tenants.records import RecordFields
from chukan.tests.support.decoder_forms import AGENCY, CLOCK, KEY, NOW, Decoder

RECORD: Final = uuid.UUID("0199d8d4-0000-7000-8000-000000000001")
PERMIT: Final = uuid.UUID(int=7)
NONCE: Final = bytes(range(32))
_TERMS: Final = {
    "inquirer": AGENCY,
    "provider": AGENCY,
    "affair": "JM01000000121000",
    "procedure": "JT01010000000214",
    "kind": "TM00000000000002",
    "items": ["TK0001"],
}
_LATER: Final = NOW + dt.timedelta(minutes=30)
INQUIRER_PERMIT: Final = msgspec.json.encode(
    InquirerPermit(permit=PERMIT, request=RECORD, issued_at=NOW, expires_at=_LATER, **_TERMS)
)
RECEIPT: Final = msgspec.json.encode(Receipt(RECORD, "accepted", NOW))
REPLY: Final = msgspec.json.encode(
    PermitReply(id=RECORD, outcome="not_permitted", reference=str(PERMIT), decided_at=NOW)
)


def record_of(side: str) -> bytes:
    """A record of one side whose permit and line are the ones here."""
    fields = RecordFields(
        id=RECORD, side=side, department="", outcome="answered", asked_at=NOW, closed_at=NOW, reference=str(PERMIT),
        **_TERMS,
    )  # fmt: skip
    return msgspec.json.encode(fields)


def _example() -> envelope.Evidence:
    sent = envelope.Signer("network", KEY, CLOCK, SystemChance(CLOCK)).request("POST", "/v1/notices", [b"{}"])
    opener = envelope.Opener({"network": KEY.public_key()}, CLOCK)
    return opener.request("POST", "/v1/notices", sent.headers, sent.body).evidence


EXAMPLE: Final = _example()


def signed_list(*items: bytes) -> KeptList:
    """A list as the network signed it, of whatever bytes: a signer would refuse to send what is no JSON object."""
    digests = [hashlib.sha256(item).digest() for item in items]
    said, new = (envelope._digest_field(envelope._over(each)).encode() for each in (EXAMPLE.digests, digests))
    base = EXAMPLE.base.replace(said, new)
    return KeptList(base=base, signature=KEY.sign(base), key=EXAMPLE.key, digests=b"".join(digests))


def signed_permit(body: bytes, *, shown: bool) -> PermitProof:
    """A permit that is alone in its list, as the network signed it."""
    leaf = merkle.leaf_hash(body)
    signature = KEY.sign(permits.signed_bytes(uuid.UUID(int=1), 1, leaf))
    return PermitProof(
        list_id=uuid.UUID(int=1), index=0, size=1, path=[], key="network", signature=signature, leaf=leaf,
        body=body if shown else None,
    )  # fmt: skip


def bound(side: str, received: bytes, permit: PermitProof, item: bytes | None = None) -> list[Line]:
    """A record, the list that its message stood in, and that message; with ``item`` another one, kept whole."""
    said = Statement(permit=permit.leaf, received=hashlib.sha256(received).digest())
    items = [received] if item is None else [received, item]
    message = KeptMessage(
        what="notice" if side == "provider" else "answer", place=0, nonce=NONCE, statement=said, permit=permit
    )
    lines: list[Line] = [
        LeafLine(position=1, data=b"", hash=b"", salt=salt_of(NONCE, said), record=record_of(side)),
        ListLine(signed_list(*items)),
        MessageLine(record=RECORD, message=message),
    ]
    if item is not None:
        lines.append(MessageLine(record=RECORD, message=KeptMessage(what="receipt", place=1, item=item)))
    return lines


def refused(item: bytes) -> list[Line]:
    """A record of an inquirer that the network refused a permit, and that reply."""
    said = Statement(received=hashlib.sha256(item).digest())
    message = KeptMessage(what="reply", place=0, nonce=NONCE, statement=said, item=item)
    return [
        LeafLine(position=1, data=b"", hash=b"", salt=salt_of(NONCE, said), record=record_of("inquirer")),
        ListLine(signed_list(item)),
        MessageLine(record=RECORD, message=message),
    ]


def check(lines: list[Line]) -> MessageReport:
    """Check lines as ``records verify`` does."""
    return check_messages(lines, [KEY.public_key()], need_messages=True)


def message_decoders() -> Iterator[Decoder]:
    """Yield every decoder of kept messages."""
    mine = bound("inquirer", b"{}", signed_permit(INQUIRER_PERMIT, shown=True))
    theirs = bound("provider", b"{}", signed_permit(b"{}", shown=False), RECEIPT)
    head = evidence_file.Header(origin="chukan.example/log/1", of="log", records=True)
    files = tuple(
        b"".join(evidence_file.encode([head, *lines])) for lines in (mine, theirs, refused(REPLY), mine + theirs)
    )

    def messages(raw: bytes) -> object:
        return check_messages(evidence_file.decode(io.BytesIO(raw)), [KEY.public_key()], need_messages=True)

    def record(raw: bytes) -> object:
        return check([msgspec.structs.replace(theirs[0], record=raw), *theirs[1:]])

    yield Decoder("messages in evidence", messages, files, ())
    yield Decoder("record before its messages", record, (record_of("provider"), record_of("inquirer")), ())
    yield Decoder(
        "kept permit behind a signature",
        lambda raw: check(bound("inquirer", b"{}", signed_permit(raw, shown=True))),
        (INQUIRER_PERMIT,),
        (),
    )
    yield Decoder(
        "kept receipt behind a signature",
        lambda raw: check(bound("provider", b"{}", signed_permit(b"{}", shown=False), raw)),
        (RECEIPT,),
        (),
    )
    yield Decoder("kept reply behind a signature", lambda raw: check(refused(raw)), (REPLY,), ())
