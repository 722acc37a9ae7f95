"""Message evidence (電文の証跡): what a side of a provision received and sent, kept without content.

A list that the network signed rests once for each agency that had a line in it: signature, signature base and the
digests of its items. A line's part names its place, and what the record says about it (``Statement``): the digest of
the permit's entry, of the item received, of the item sent. The statement is bound to the record by the record's salt:
``salt`` = SHA-256(0x04 ‖ nonce ‖ statement), so that the leaf of the log commits to it, and a record has the same form
as one without. Who has only the record learns nothing of the statement: the nonce is 32 random bytes.

Invariant: no content of an answer, no linkage code and no person stands in it; a provider's permit is there by its
digest alone. Everything rests sealed under the agency's key and an id of its own, so that no two agencies' rows have a
value in common. This module must never judge a signature: ``message_check`` does.
"""

from __future__ import annotations

import hashlib
import uuid
from typing import TYPE_CHECKING, Annotated, Final, Literal

import msgspec

from chukan.tenants.rows import MessageRow

if TYPE_CHECKING:
    from collections.abc import Mapping

    from chukan.chance import Chance
    from chukan.tenants.partition import Partition, Record
    from chukan.tenants.sealing import AgencyKeys

NONCE_BYTES: Final = 32
LIST_MAX: Final = 1_000
OF_RECORDS_MAX: Final = 1_024
"""Records whose messages are read at once."""

_SALT_PREFIX: Final = b"\x04"
Digest = Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
What = Literal["notice", "decision", "answer", "receipt", "reply"]
"""Provider: notice received, decision of officers sent, receipt. Inquirer: answer received, reply that refuses."""


class _Form(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """Base of all forms here: they are read from an evidence file too."""


class Statement(_Form, frozen=True):
    """What a record commits to by its salt; each is SHA-256 (the permit's: of 0x00 ‖ entry, its leaf in the list)."""

    permit: Digest | None = None
    received: Digest | None = None
    sent: Digest | None = None


class PermitProof(_Form, frozen=True):
    """That the network signed a list of permits in which an entry of this leaf hash stands."""

    list_id: uuid.UUID
    index: Annotated[int, msgspec.Meta(ge=0, lt=LIST_MAX)]
    size: Annotated[int, msgspec.Meta(ge=1, le=LIST_MAX)]
    path: Annotated[list[Digest], msgspec.Meta(max_length=10)]
    key: str
    signature: bytes
    leaf: Digest
    body: bytes | None = None
    """The entry itself where it names no code: the inquirer's."""


class KeptList(_Form, frozen=True):
    """A list as the network signed it, by digests: see ``envelope.Evidence``."""

    base: bytes
    signature: bytes
    key: str
    digests: Annotated[bytes, msgspec.Meta(max_length=32 * LIST_MAX)]
    """The items' SHA-256, one after the other."""


class KeptMessage(_Form, frozen=True):
    """A line's part: its place in the list, and what binds it to the record."""

    what: What
    place: Annotated[int, msgspec.Meta(ge=0, lt=LIST_MAX)] | None = None
    nonce: Digest | None = None
    statement: Statement | None = None
    permit: PermitProof | None = None
    item: bytes | None = None
    """The item itself where it has no content: a receipt, a reply that refuses."""


_LIST: Final = msgspec.json.Decoder(KeptList)
_MESSAGE: Final = msgspec.json.Decoder(KeptMessage)


def salt_of(nonce: bytes, statement: Statement) -> bytes:
    """Return the salt by which a record commits to a statement; 32 bytes that tell nothing without the nonce."""
    return hashlib.sha256(_SALT_PREFIX + nonce + msgspec.json.encode(statement, order="sorted")).digest()


def list_name(keys: AgencyKeys, kept: KeptList) -> uuid.UUID:
    """Return the id of a list's row at one agency: the same for the same list, unrelated to any other agency's."""
    return uuid.UUID(bytes=keys.digest("content", kept.signature + kept.base)[:16])


def seal_message(
    keys: AgencyKeys, chance: Chance, line: uuid.UUID, message: KeptMessage, kept: KeptList | None
) -> MessageRow:
    """Return a line's part, with the list it stood in, ready to rest."""
    own = chance.uuid7()
    name = None if kept is None else list_name(keys, kept)
    return MessageRow(
        id=own,
        line=line,
        list=name,
        sealed=keys.seal("message", own.bytes, msgspec.json.encode(message)),
        list_sealed=None
        if kept is None or name is None
        else keys.seal("message", name.bytes, msgspec.json.encode(kept)),
    )


def open_message(keys: AgencyKeys, name: uuid.UUID, sealed: bytes) -> KeptMessage:
    """Open a line's part; raises SealError when row or key do not fit."""
    return _MESSAGE.decode(keys.open("message", name.bytes, sealed))


def open_list(keys: AgencyKeys, name: uuid.UUID, sealed: bytes) -> KeptList:
    """Open a list; raises SealError when row or key do not fit."""
    return _LIST.decode(keys.open("message", name.bytes, sealed))


async def read_messages(partition: Partition, lines: list[uuid.UUID]) -> tuple[list[Record], Mapping[uuid.UUID, bytes]]:
    """Return the rows of messages of these lines (at most 1,024), by list, and the sealed lists by their ids."""
    if len(lines) > OF_RECORDS_MAX:
        raise ValueError("messages are read for a bounded number of records")
    rows = await partition.fetch(
        f"SELECT id, line, list, sealed FROM {partition.table('messages')} WHERE line = ANY ($1)"
        " ORDER BY list NULLS FIRST, id",
        lines,
    )
    names = sorted({row["list"] for row in rows if row["list"] is not None})
    lists = await partition.fetch(
        f"SELECT id, sealed FROM {partition.table('messages')} WHERE id = ANY ($1) AND line IS NULL", names
    )
    return rows, {row["id"]: row["sealed"] for row in lists}
