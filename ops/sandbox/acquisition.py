"""The network's part in acquiring linkage codes (符号取得, 番号法施行令27条): numbers out, codes out.

Every method is a job for ``Store``. An exchange asks for an acquisition number (取得番号) and learns nothing else; only
the registry network brings that number together with a resident code; the code that follows from it is pushed to the
agency, or the word that the agency has it already (命令85号44条2項). A resident code is turned into codes and forgotten
in the same call. A used number is deleted, here and from the outbox once its code arrived; a keyed digest stays
(SYM-06).
"""

import datetime as dt
import sqlite3
from collections.abc import Iterable, Sequence
from typing import Final, Literal

import msgspec

from chukan.chance import Chance
from chukan.clock import Clock
from chukan.errors import Problem
from chukan.ops.sandbox.admin import to_microseconds
from chukan.ops.sandbox.codes import CodeMaker, make_number
from chukan.ops.sandbox.outbox import Push, put_out
from chukan.ops.sandbox.register import Register
from chukan.platform.wire.network import AcquiredCode, AcquisitionReply, AcquisitionRequest, Message, ResidentCode
from chukan.tenants.numbers import in_synthetic_range

CODE_KEEP: Final = dt.timedelta(days=7)
"""How long the network tries to deliver a code."""
NUMBER_KEEP: Final = dt.timedelta(days=7)
"""How long an acquisition number stays open; a new one has to be asked for afterwards."""
DIGEST_KEEP: Final = dt.timedelta(days=30)
SWEEP_MAX: Final = 1000
_acquired: Final = msgspec.json.Decoder(AcquiredCode)


class RegistryReply(Message, frozen=True):
    """Reply to one ``ResidentCode``, by its place in the list: the number itself is not repeated."""

    index: int
    status: Literal["accepted", "unknown_number"]


def refuse_real_people(resident_codes: Iterable[str]) -> None:
    """Take synthetic people only; ``Problem`` number_not_synthetic, naming the line and never the number."""
    for line, code in enumerate(resident_codes, start=1):
        if not in_synthetic_range(code):
            raise Problem("number_not_synthetic", line=line)


class Acquisitions:
    """Issues numbers and makes codes."""

    def __init__(self, maker: CodeMaker, clock: Clock, chance: Chance) -> None:
        self._maker = maker
        self._clock = clock
        self._chance = chance

    def numbers(
        self, connection: sqlite3.Connection, route: str, requests: Sequence[AcquisitionRequest]
    ) -> list[bytes]:
        """Give one open number for each (agency, request id); the same again while it is open (SYM-02).

        Raises ``Problem`` wrong_agency for the whole list when an agency is not reached over this route.
        """
        register = Register(connection)
        for line, request in enumerate(requests, start=1):
            if not register.is_at(request.agency, route):
                raise Problem("wrong_agency", line=line)
        now = to_microseconds(self._clock.now())
        return [self._number(connection, request, now) for request in requests]

    def _number(self, connection: sqlite3.Connection, request: AcquisitionRequest, now: int) -> bytes:
        rows = connection.execute(
            "INSERT INTO acquisitions (agency, request, number, at) VALUES (?, ?, ?, ?) "
            "ON CONFLICT (agency, request) DO UPDATE SET at = at RETURNING number",
            (request.agency, request.id.bytes, make_number(self._chance), now),
        ).fetchall()
        return msgspec.json.encode(AcquisitionReply(id=request.id, number=rows[0][0]))

    def resident_codes(self, connection: sqlite3.Connection, lines: Sequence[ResidentCode]) -> list[bytes]:
        """Make the code of each (number, resident code) and queue it for its agency; returns a status for each.

        A repeat of a line whose number was used is ``accepted`` without another effect. ``Problem``
        number_not_synthetic for the whole list, before any effect, when one may be a real person's (TST-01).
        """
        refuse_real_people(line.resident_code for line in lines)
        register = Register(connection)
        replies = []
        for index, line in enumerate(lines):
            status = self._resident_code(connection, register, line)
            replies.append(msgspec.json.encode(RegistryReply(index=index, status=status)))
        return replies

    def _resident_code(
        self, connection: sqlite3.Connection, register: Register, line: ResidentCode
    ) -> Literal["accepted", "unknown_number"]:
        if not line.number.isascii():
            return "unknown_number"
        digest = self._maker.number_digest(line.number)
        held = connection.execute(
            "DELETE FROM acquisitions WHERE number = ? RETURNING agency", (line.number,)
        ).fetchall()
        if not held:
            # A used number of a code that its agency lost may come once more.
            held = connection.execute("DELETE FROM reopened WHERE digest = ? RETURNING agency", (digest,)).fetchall()
        if not held:
            used = connection.execute("SELECT 1 FROM numbers_used WHERE digest = ?", (digest,)).fetchone()
            return "unknown_number" if used is None else "accepted"
        agency = str(held[0][0])
        known = register.agency(agency)
        if known is None:
            raise ValueError("a number was given to an agency that is not in the register")
        now = self._clock.now()
        acquired = self._acquire(connection, agency, line, to_microseconds(now))
        until = to_microseconds(now + CODE_KEEP)
        put_out(connection, Push(known.route, "codes", acquired.id, msgspec.json.encode(acquired), until))
        connection.execute(
            "INSERT INTO numbers_used (digest, at) VALUES (?, ?) ON CONFLICT DO NOTHING", (digest, to_microseconds(now))
        )
        if acquired.code is not None:
            connection.execute(
                "INSERT INTO told (id, agency, code, digest, at) VALUES (?, ?, ?, ?, ?)",
                (acquired.id.bytes, agency, acquired.code, digest, to_microseconds(now)),
            )
        return "accepted"

    def _acquire(self, connection: sqlite3.Connection, agency: str, line: ResidentCode, at: int) -> AcquiredCode:
        """Make the code, or find that the agency has it already: then no second one exists (SYM-05)."""
        management = self._maker.management(line.resident_code)
        held = connection.execute(
            "SELECT 1 FROM codes WHERE management = ? AND agency = ?", (management, agency)
        ).fetchone()
        message = self._chance.uuid7()
        if held is not None and not _was_untold(connection, agency, self._maker.linkage(agency, line.resident_code)):
            return AcquiredCode(id=message, agency=agency, number=line.number, status="already_acquired")
        code = self._maker.linkage(agency, line.resident_code)
        connection.execute(
            "INSERT INTO codes (agency, code, management, at) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
            (agency, code, management, at),
        )
        return AcquiredCode(id=message, agency=agency, number=line.number, status="acquired", code=code)

    @staticmethod
    def refused(connection: sqlite3.Connection, body: bytes) -> None:
        """Note that an agency did not know the number of a code (``AcquiredCode``'s bytes): it has not been told it."""
        line = _acquired.decode(body)
        if line.code is not None:
            connection.execute(
                "INSERT INTO untold (agency, code) VALUES (?, ?) ON CONFLICT DO NOTHING", (line.agency, line.code)
            )

    def sweep(self, connection: sqlite3.Connection) -> int:
        """Forget numbers that nobody used, and old digests of used ones; returns how many numbers went."""
        now = self._clock.now()
        gone = connection.execute(
            "DELETE FROM acquisitions WHERE number IN (SELECT number FROM acquisitions WHERE at < ? LIMIT ?)",
            (to_microseconds(now - NUMBER_KEEP), SWEEP_MAX),
        ).rowcount
        connection.execute(
            "DELETE FROM numbers_used WHERE digest IN (SELECT digest FROM numbers_used WHERE at < ? LIMIT ?)",
            (to_microseconds(now - DIGEST_KEEP), SWEEP_MAX),
        )
        return gone


def _was_untold(connection: sqlite3.Connection, agency: str, code: bytes) -> bool:
    """Whether an agency that holds a code never learnt it, or lost it in a restore; it will be told now."""
    gone = connection.execute("DELETE FROM untold WHERE agency = ? AND code = ? RETURNING 1", (agency, code)).fetchall()
    return bool(gone)
