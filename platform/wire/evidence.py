"""Evidence on the agency API (証跡): checkpoints, and proofs that a record is in the log and that the log only grew.

Notes are C2SP signed notes, hashes those of RFC 9162; binary values are base64. docs/decisions says how it is checked.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from chukan.platform.wire.checkpoints import RestoredLeaf
from chukan.platform.wire.network import Message

Size = Annotated[int, msgspec.Meta(ge=1, le=(1 << 53) - 1)]


class CheckpointView(Message, frozen=True):
    """The newest checkpoint of the agency's log; its note is kept by the client, who holds the next one against it."""

    note: str
    size: int
    cosigned: bool
    """Whether the other centre has cosigned it yet."""


class RecordProof(Message, frozen=True):
    """A record with all that is needed to compute its leaf and the checkpoint's root.

    ``data`` is the leaf's: 0x01 ‖ commitment ‖ label ‖ ordinal ‖ previous leaf of the label; its place in the tree is
    ``position`` − 1. The commitment is SHA-256(0x02 ‖ salt ‖ record).
    """

    checkpoint: CheckpointView
    position: int
    data: bytes
    path: list[bytes]
    salt: bytes
    record: bytes
    """The record's canonical bytes, UTF-8 JSON."""


class ConsistencyProof(Message, frozen=True):
    """That the tree of the checkpoint begins with the first ``first`` leaves as they were.

    Where a restore may have lost those, ``restored`` has the leaf that says so; ``path`` is empty where the log is
    shorter than ``first``. It explains a kept checkpoint only if it names it, or a tree that it is a part of.
    """

    checkpoint: CheckpointView
    first: int
    path: list[bytes]
    restored: RestoredLeaf | None = None


class ConsistencyParams(Message, frozen=True, kw_only=True):
    """``?from=``: the size of a checkpoint that the client has kept."""

    first: Size = msgspec.field(name="from")
