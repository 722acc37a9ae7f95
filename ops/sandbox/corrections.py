"""The network's part in corrections of records (訂正の通知): it keeps what was corrected, and tells the counterpart.

Jobs for ``Store``. The network's own record of the exchange is not changed: what an agency corrected stands beside it,
and ``register.records`` shows both as one, so that the three parties can be compared. A correction has no content.
"""

import hashlib
import sqlite3
import uuid
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

import msgspec

from chukan.chance import Chance
from chukan.clock import Clock
from chukan.ops.sandbox.admin import to_microseconds
from chukan.ops.sandbox.outbox import Push, put_out
from chukan.ops.sandbox.register import Register
from chukan.platform.wire.registrations import Correction, CorrectionNotice, CorrectionReply

_encode: Final = msgspec.json.encode
_KEEP_US: Final = 28 * 24 * 3600 * 1_000_000
"""How long a counterpart that cannot be reached is tried."""


class Corrections:
    """Takes corrections and passes them on."""

    def __init__(self, clock: Clock, chance: Chance) -> None:
        self._clock = clock
        self._chance = chance

    def take(
        self, connection: sqlite3.Connection, route: str, items: Sequence[tuple[Correction, bytes]]
    ) -> list[bytes]:
        """A ``CorrectionReply``'s bytes for each correction (with its exact bytes), in their order."""
        register = Register(connection)
        return [_encode(self._take(connection, register, route, item, raw)) for item, raw in items]

    def _take(
        self, connection: sqlite3.Connection, register: Register, route: str, item: Correction, raw: bytes
    ) -> CorrectionReply:
        def no(reason: str) -> CorrectionReply:
            return CorrectionReply(id=item.id, status="refused", reason=reason)

        if not register.is_at(item.agency, route):
            return no("not_your_agency")
        row = _exchange(connection, item)
        if row is None:
            return no("unknown_exchange")
        position, counterpart, management = row
        digest = hashlib.sha256(raw).digest()
        at = to_microseconds(self._clock.now())
        kept = connection.execute(
            "INSERT INTO corrections (agency, id, digest, position, body, at) VALUES (?, ?, ?, ?, ?, ?) "
            "ON CONFLICT (agency, id) DO UPDATE SET tries = tries + 1 RETURNING digest, tries",
            (item.agency, item.id.bytes, digest, position, _encode(item.corrected), at),
        ).fetchall()[0]
        if kept[0] != digest:
            return no("id_reused")
        if kept[1] == 1:
            self._tell(connection, register, item, counterpart, management)
        return CorrectionReply(id=item.id, status="accepted")

    def _tell(
        self,
        connection: sqlite3.Connection,
        register: Register,
        item: Correction,
        counterpart: str,
        management: bytes | None,
    ) -> None:
        """Queue the notice; a counterpart without a code of the person was never told of the exchange."""
        known = register.agency(counterpart)
        code = connection.execute(
            "SELECT code FROM codes WHERE management = ? AND agency = ?", (management, counterpart)
        ).fetchone()
        if known is None or code is None:
            return
        notice = CorrectionNotice(
            id=self._chance.uuid7(),
            agency=counterpart,
            side="provider" if item.side == "inquirer" else "inquirer",
            reference=item.reference,
            code=code[0],
            corrected=item.corrected,
            corrected_at=item.corrected_at,
        )
        until = to_microseconds(self._clock.now()) + _KEEP_US
        put_out(connection, Push(known.route, "corrections", notice.id, _encode(notice), until))


def _exchange(connection: sqlite3.Connection, item: Correction) -> tuple[int, str, bytes | None] | None:
    """Position, counterpart and person of an exchange in which the agency had this side."""
    with suppress(ValueError):
        mine, other = ("inquirer", "provider") if item.side == "inquirer" else ("provider", "inquirer")
        row = connection.execute(
            f"SELECT position, {other}, management FROM exchanges WHERE reference = ? AND {mine} = ?",
            (uuid.UUID(item.reference).bytes, item.agency),
        ).fetchone()
        return None if row is None else (row[0], row[1], row[2])
    return None
