"""The operations log (操作記録): what officers and operators did, and what they were refused, one entry an act.

An act of an agency's officers belongs to the agency's own log: it rests sealed under the agency's key, and nobody else
can read it. An act of an operator belongs to the operators' log of the cell in which it was done; it names no person
and rests in the clear. Both are Merkle logs like the provision records', signed and cosigned in the same forms: an
entry's salted commitment stands in its leaf, so that an entry that was altered, moved or taken away shows.

An act that writes through door 1 enters its entry in the same transaction (``append``); a set function calls
``chukan.operations_append`` in its own; whoever has nothing else to write (a login, a refusal) uses a ``Journal``.

Invariant: an entry names the actor by a registered id, the act by a dotted word, and what it was about by a class and
at most an id; never a name, a number, a code or any other value (安全管理措置: 職員・時刻・操作内容の記録). Entries
are never changed or deleted by anything here.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import uuid
from collections.abc import Callable, Sequence
from typing import Annotated, Final, Literal, NamedTuple, Protocol

import msgspec

from chukan.chance import Chance
from chukan.errors import Problem
from chukan.tenants.partition import Partition
from chukan.tenants.records import SALT_BYTES, commit
from chukan.tenants.sealing import AgencyKeys

OPERATORS: Final = 100_000
"""The number under which a cell's operators stand where agencies stand by theirs: beyond the last of these."""
SET_MAX: Final = 200
"""Entries of one call."""
_LABEL_PREFIX: Final = b"operation:"

Outcome = Literal["done", "refused", "failed"]
"""``refused``: the actor had no right, or a check said no; ``failed``: it was begun and did not come to its end."""

Word = Annotated[str, msgspec.Meta(pattern=r"^[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)*$", max_length=64)]
"""A dotted word, as ``session.login``, ``review.approve``, ``account.retire``."""
ActorId = Annotated[str, msgspec.Meta(pattern=r"^[!-~]{1,200}$")]
"""A registered id: of a certificate, an officer's account or an operator. Printable ASCII without blanks, no name."""
Instant = Annotated[dt.datetime, msgspec.Meta(tz=True)]


class Operation(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One act, as whoever carries it out tells it."""

    agency: int | None
    """Whose log: an agency's number; None for the operators'."""
    actor: str
    """Who did it: a registered id (``ActorId``)."""
    kind: str
    """What was done (``Word``)."""
    subject_class: str
    """What kind of thing it was done to (``Word``), as ``session``, ``account``, ``provision``, ``record``."""
    outcome: Outcome
    at: dt.datetime
    """When, aware."""
    code: str | None = None
    """The registered problem code of what was refused or failed (``Word``)."""
    subject: uuid.UUID | None = None
    """The row it was done to, by its own id at this agency."""
    second: str | None = None
    """The second person, where it took two."""
    times: int = 1
    """How often, where the same refusal was counted together."""


class OperationFields(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What an entry says, as it is committed to."""

    id: uuid.UUID
    at: Instant
    actor: ActorId
    kind: Word
    subject_class: Word
    outcome: Outcome
    code: Word | None = None
    subject: uuid.UUID | None = None
    second: ActorId | None = None
    times: Annotated[int, msgspec.Meta(ge=1)] = 1


class OperationRow(NamedTuple):
    """An entry ready to rest. ``body`` is salt and canonical bytes: sealed for an agency, clear for operators."""

    agency: int
    id: uuid.UUID
    label: bytes
    """The actor's label in this log, 32 bytes: entries of one actor are a chain."""
    body: bytes
    commitment: bytes


class OperationLog(Protocol):
    """The port through which officers' and operators' acts are entered by whoever has no transaction of his own."""

    async def append(self, operation: Operation) -> None:
        """Enter one act; returns once it is durable. Raises ``Problem`` as the cell does."""
        ...


class AppendSets(Protocol):
    """What a journal needs of a cell's set functions."""

    async def operations_append(self, rows: Sequence[OperationRow]) -> int:
        """Enter at most 200 entries in one commit; one that is there already is not entered again."""
        ...


def make_operation(keys: AgencyKeys | None, chance: Chance, operation: Operation) -> OperationRow:
    """Return an entry ready to rest; ``keys`` are the agency's, None for the operators' log.

    Raises ``ValueError`` for a field of a wrong form (its text names no value), or for another agency's keys.
    """
    number = OPERATORS if operation.agency is None else operation.agency
    if (keys is None) != (number == OPERATORS) or (keys is not None and keys.agency != number):
        raise ValueError("the keys are not those of the log")
    given = {name: getattr(operation, name) for name in OperationFields.__struct_fields__ if name != "id"}
    fields = OperationFields(id=chance.uuid7(), **given | {"at": operation.at.astimezone(dt.UTC)})
    canonical = msgspec.json.encode(fields, order="sorted")
    try:
        decode_operation(canonical)
    except msgspec.ValidationError:
        raise ValueError("an entry of the operations log has a field of a wrong form") from None
    salt = chance.token(SALT_BYTES)
    body = salt + canonical
    return OperationRow(
        agency=number,
        id=fields.id,
        label=actor_label(keys, operation.actor),
        body=body if keys is None else keys.seal("operation", fields.id.bytes, body),
        commitment=commit(salt, canonical),
    )


def actor_label(keys: AgencyKeys | None, actor: str) -> bytes:
    """Return the label (32 bytes) of an actor in an agency's log, or, without keys, in the operators'."""
    named = _LABEL_PREFIX + actor.encode()
    return hashlib.sha256(named).digest() if keys is None else keys.digest("label", named)


def decode_operation(canonical: bytes) -> OperationFields:
    """Return what canonical bytes say; ``msgspec.DecodeError`` for any other form."""
    return msgspec.json.decode(canonical, type=OperationFields)


async def append(partition: Partition, keys: AgencyKeys, chance: Chance, operation: Operation) -> None:
    """Enter an act of an agency's officers in the transaction of the act itself: both become durable, or neither.

    Raises ``ValueError`` as ``make_operation``; ``Problem`` as the cell does.
    """
    row = make_operation(keys, chance, operation)
    if row.agency != partition.agency:
        raise ValueError("the keys are not those of the log")
    await partition.fetch("SELECT chukan.operate($1, $2, $3, $4, $5)", *row)


class Journal:
    """Enters single acts, each in a commit of its own; one for a process.

    ``sets_of`` gives the set functions of an agency's cell, and for None of the cell where operators act.
    """

    def __init__(
        self,
        keys_of: Callable[[int], AgencyKeys],
        sets_of: Callable[[int | None], AppendSets],
        chance: Chance,
    ) -> None:
        self._keys_of = keys_of
        self._sets_of = sets_of
        self._chance = chance

    async def append(self, operation: Operation) -> None:
        """Enter one act; returns once it is durable.

        Raises ``Problem``: keys_unconfirmed, agency_moved, as the cell does; ``ValueError`` as ``make_operation``.
        """
        keys = None if operation.agency is None else self._keys_of(operation.agency)
        row = make_operation(keys, self._chance, operation)
        if await self._sets_of(operation.agency).operations_append([row]) != 1:
            raise Problem("internal")
