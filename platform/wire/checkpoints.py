"""What an exchange tells the network of its agencies' logs (チェックポイントの通知), and what the network says to it.

The network keeps the last checkpoint of each log, and takes another one only where it continues that one. A note names
sizes and roots; no record, no person, no counterpart.
"""

from __future__ import annotations

import uuid
from typing import Annotated, Literal

import msgspec

from chukan.platform.wire.network import AgencyCode, Message

NOTE_MAX = 65_536
PATH_MAX = 128
Hash = Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
Path = Annotated[list[Hash], msgspec.Meta(max_length=PATH_MAX)]


class RestoredLeaf(Message, frozen=True):
    """The leaf of a restore (復元の葉) that names the tree which the network keeps, and its path in the new tree."""

    position: Annotated[int, msgspec.Meta(ge=1)]
    data: Annotated[bytes, msgspec.Meta(min_length=105, max_length=105)]
    path: Path


class CheckpointTold(Message, frozen=True):
    """The newest checkpoint of an agency's log, with the proof that it continues the one of ``first`` leaves."""

    id: uuid.UUID
    agency: AgencyCode
    note: Annotated[str, msgspec.Meta(max_length=NOTE_MAX)]
    first: Annotated[int, msgspec.Meta(ge=0)] = 0
    """The size that the network keeps, as it said last; 0 where that is not known."""
    path: Path = msgspec.field(default_factory=list)
    restored: RestoredLeaf | None = None


class CheckpointReply(Message, frozen=True):
    """What the network made of it."""

    id: uuid.UUID
    status: Literal["kept", "prove", "contradicted", "unknown"]
    """``prove``: it keeps one of ``size`` leaves, and wants the proof from there; ``contradicted``: the log is not the
    one that it saw; ``unknown``: not this route's agency, or no log whose keys it has."""
    size: Annotated[int, msgspec.Meta(ge=0)] = 0
    """The size of the checkpoint that it keeps now."""
