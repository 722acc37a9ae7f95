"""The network keeps the last checkpoint of every log it is told of (チェックポイントの保管): jobs for ``Store``.

It knows the centres' evidence keys from elsewhere than the exchanges' messages. What contradicts a kept checkpoint is
kept too, beside it: two signed notes of one log that do not continue one another prove who lied.

Invariant: a kept checkpoint goes only for one that continues it, or for a restored log whose leaf explains it, once in
each epoch; no message of an exchange makes the network forget.
"""

import sqlite3
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from chukan import log
from chukan.clock import Clock
from chukan.errors import Problem
from chukan.ops.sandbox.admin import to_microseconds
from chukan.ops.sandbox.checkpoint_book import continues, explained, read_note
from chukan.ops.sandbox.register import Register
from chukan.platform.wire.checkpoints import CheckpointReply, CheckpointTold
from chukan.tenants import checkpoint as forms
from chukan.tenants.evidence import CentreKeys

REFUSED_MAX: Final = 100
"""Contradicting notes that are kept of one log."""
_log = log.get("sandbox.checkpoints")
_encode: Final = msgspec.json.encode


class KeptCheckpoints:
    """Takes what exchanges tell; without keys it keeps nothing."""

    def __init__(self, name: str, public: Mapping[str, Ed25519PublicKey], clock: Clock) -> None:
        """Know the logs of a platform by the name that their origins begin with."""
        self._keys = CentreKeys(name, "sandbox", "", None, public)
        self._clock = clock

    def take(self, connection: sqlite3.Connection, route: str, told: Sequence[CheckpointTold]) -> list[bytes]:
        """Return a ``CheckpointReply``'s bytes for each message, in their order."""
        register = Register(connection)
        return [_encode(self._one(connection, register, route, each)) for each in told]

    def _one(
        self, connection: sqlite3.Connection, register: Register, route: str, told: CheckpointTold
    ) -> CheckpointReply:
        if not self._keys.public or not register.is_at(told.agency, route):
            return CheckpointReply(told.id, "unknown")
        origin = self._keys.origin(told.agency)
        try:
            new = read_note(told.note.encode(), self._keys.known(told.agency), origin).checkpoint
        except Problem:
            return CheckpointReply(told.id, "unknown")
        row = connection.execute(
            "SELECT size, root, epoch FROM checkpoints WHERE agency = ?", (told.agency,)
        ).fetchone()
        epoch = 1
        if row is not None:
            old, epoch = forms.Checkpoint(origin, row[0], row[1]), row[2]
            if new.size > old.size and told.first != old.size and told.restored is None:
                return CheckpointReply(told.id, "prove", old.size)
            if not continues(old, new, told.first, told.path):
                restored = explained(told.restored, old, new)
                if restored is None or restored.epoch <= epoch:
                    self._refuse(connection, told, new)
                    return CheckpointReply(told.id, "contradicted", old.size)
                _log.warning("a log goes on from a restore", epoch=restored.epoch)
                epoch = restored.epoch
        connection.execute(
            "INSERT INTO checkpoints (agency, size, root, note, epoch, at) VALUES (?, ?, ?, ?, ?, ?)"
            " ON CONFLICT (agency) DO UPDATE SET size = excluded.size, root = excluded.root, note = excluded.note,"
            " epoch = excluded.epoch, at = excluded.at",
            (told.agency, new.size, new.root, told.note, epoch, to_microseconds(self._clock.now())),
        )
        return CheckpointReply(told.id, "kept", new.size)

    def _refuse(self, connection: sqlite3.Connection, told: CheckpointTold, new: forms.Checkpoint) -> None:
        _log.critical("a log is not the one that was seen before")
        count = "SELECT count(*) FROM refused_checkpoints WHERE agency = ?"
        if connection.execute(count, (told.agency,)).fetchone()[0] < REFUSED_MAX:
            connection.execute(
                "INSERT INTO refused_checkpoints (agency, size, root, note, at) VALUES (?, ?, ?, ?, ?)"
                " ON CONFLICT DO NOTHING",
                (told.agency, new.size, new.root, told.note, to_microseconds(self._clock.now())),
            )
