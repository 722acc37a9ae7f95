"""What a simulated national agency does in its own store: every function is a job for ``Store``.

The same rules hold as on the platform: an effect, its record and the next message are one commit; a message has its
effect once, by its id; a permit is used once; a line has one final outcome, and what comes later is an amendment.
"""

import sqlite3
import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, Literal, NamedTuple

import msgspec

from chukan.ops.sandbox.admin import from_microseconds
from chukan.platform.wire.agency import Record

SEND_MAX: Final = 256
KEEP_MICROSECONDS: Final = 14 * 86_400 * 1_000_000
_record: Final = msgspec.json.Decoder(Record)
_encode: Final = msgspec.json.encode


class Given(NamedTuple):
    """What a notice leads to: a record, and an answer unless the permit had lapsed on arrival."""

    notice: uuid.UUID
    permit: uuid.UUID
    answer_id: uuid.UUID | None
    answer: bytes | None
    record: Record


class Asked(NamedTuple):
    """A line to ask: its request's exact bytes, and the record that it will have (outcome still open)."""

    id: uuid.UUID
    person: str
    request: bytes
    record: Record
    deadline: int


class View(NamedTuple):
    """A line that was asked, as it stands."""

    id: uuid.UUID
    person: str
    state: str
    outcome: str | None
    reason: str | None
    reference: str | None
    content: bytes | None


class Closing(NamedTuple):
    """What closes a line that was asked."""

    outcome: str
    reason: str | None
    reference: str | None
    content: bytes | None
    withheld: bool
    at: int


# ---------------------------------------------------------------- people and their codes


def add_people(connection: sqlite3.Connection, wanted: Mapping[str, uuid.UUID]) -> None:
    """Note the people whose codes are wanted, each with the id of its acquisition request; known ones stay."""
    connection.executemany(
        "INSERT INTO people (key, request, state) VALUES (?, ?, 'wanted') ON CONFLICT (key) DO NOTHING",
        [(key, request.bytes) for key, request in wanted.items()],
    )


def without_code(connection: sqlite3.Connection, limit: int) -> list[tuple[str, uuid.UUID, str | None]]:
    """People who have no code yet: key, request id, and the acquisition number where one is open."""
    rows = connection.execute(
        "SELECT key, request, number FROM people WHERE state IN ('wanted', 'numbered') ORDER BY key LIMIT ?", (limit,)
    )
    return [(key, uuid.UUID(bytes=request), number) for key, request, number in rows]


def put_numbers(connection: sqlite3.Connection, numbers: Iterable[tuple[uuid.UUID, str]]) -> None:
    """Keep the acquisition numbers that the network gave."""
    connection.executemany(
        "UPDATE people SET number = ?, state = 'numbered' WHERE request = ? AND state = 'wanted'",
        [(number, request.bytes) for request, number in numbers],
    )


def put_code(connection: sqlite3.Connection, message: uuid.UUID, number: str, code: bytes | None, now: int) -> str:
    """Take an acquired code, or the word that it was already acquired; the number goes in the same commit."""
    if not _first(connection, message, now):
        return "accepted"
    changed = connection.execute(
        "UPDATE people SET code = ?, number = NULL, state = ? WHERE number = ?",
        (code, "duplicate" if code is None else "active", number),
    ).rowcount
    return "accepted" if changed else "refused"


def keys_of(connection: sqlite3.Connection, codes: Iterable[bytes]) -> dict[bytes, str]:
    """The own number of each person whose code is known."""
    known = {}
    for code in codes:
        row = connection.execute("SELECT key FROM people WHERE code = ?", (code,)).fetchone()
        if row is not None:
            known[code] = str(row[0])
    return known


def codes_of(connection: sqlite3.Connection, keys: Iterable[str]) -> dict[str, bytes]:
    """The code of each person who has one."""
    known = {}
    for key in keys:
        row = connection.execute("SELECT code FROM people WHERE key = ? AND code IS NOT NULL", (key,)).fetchone()
        if row is not None:
            known[key] = bytes(row[0])
    return known


# ---------------------------------------------------------------- as a provider


def give(connection: sqlite3.Connection, lines: Sequence[Given]) -> list[Literal["accepted", "refused"]]:
    """Keep answers and records; a notice has its effect once, and a permit is used once (``refused`` otherwise)."""
    return [_give(connection, line) for line in lines]


def _give(connection: sqlite3.Connection, line: Given) -> Literal["accepted", "refused"]:
    used = connection.execute("SELECT notice FROM given WHERE permit = ?", (line.permit.bytes,)).fetchone()
    if used is not None:
        return "accepted" if used[0] == line.notice.bytes else "refused"
    connection.execute(
        "INSERT INTO given (permit, notice, answer_id, answer, record) VALUES (?, ?, ?, ?, ?)",
        (
            line.permit.bytes,
            line.notice.bytes,
            None if line.answer_id is None else line.answer_id.bytes,
            line.answer,
            _encode(line.record),
        ),
    )
    _put_record(connection, line.record)
    return "accepted"


def answers_waiting(connection: sqlite3.Connection) -> list[tuple[uuid.UUID, bytes]]:
    """Answers without a receipt, at most 256."""
    rows = connection.execute("SELECT answer_id, answer FROM given WHERE answer IS NOT NULL LIMIT ?", (SEND_MAX,))
    return [(uuid.UUID(bytes=answer_id), answer) for answer_id, answer in rows]


def put_receipt(connection: sqlite3.Connection, answer: uuid.UUID, amendment: Record | None) -> None:
    """An answer got its receipt; where it had lapsed, the record is amended once."""
    changed = connection.execute(
        "UPDATE given SET answer = NULL WHERE answer_id = ? AND answer IS NOT NULL", (answer.bytes,)
    ).rowcount
    if changed and amendment is not None:
        _put_record(connection, amendment)


def given_record(connection: sqlite3.Connection, answer: uuid.UUID) -> Record | None:
    """The record that belongs to an answer."""
    row = connection.execute("SELECT record FROM given WHERE answer_id = ?", (answer.bytes,)).fetchone()
    return None if row is None else _record.decode(row[0])


# ---------------------------------------------------------------- as an inquirer


def ask(connection: sqlite3.Connection, lines: Iterable[Asked]) -> None:
    """Keep requests until the network has replied."""
    connection.executemany(
        "INSERT INTO asked (id, person, request, record, state, deadline) VALUES (?, ?, ?, ?, 'asked', ?)",
        [(line.id.bytes, line.person, line.request, _encode(line.record), line.deadline) for line in lines],
    )


def requests_waiting(connection: sqlite3.Connection) -> list[tuple[uuid.UUID, bytes]]:
    """Requests without a reply, at most 256."""
    rows = connection.execute(
        "SELECT id, request FROM asked WHERE request IS NOT NULL AND outcome IS NULL LIMIT ?", (SEND_MAX,)
    )
    return [(uuid.UUID(bytes=line), request) for line, request in rows]


def put_permit(connection: sqlite3.Connection, line: uuid.UUID, reference: str, deadline: int) -> None:
    """A line was permitted; an answer may have overtaken the permit."""
    connection.execute(
        "UPDATE asked SET request = NULL, reference = ?, deadline = ?, "
        "state = CASE state WHEN 'asked' THEN 'permitted' ELSE state END WHERE id = ?",
        (reference, deadline, line.bytes),
    )


def hold(connection: sqlite3.Connection, message: uuid.UUID, line: uuid.UUID, now: int) -> bool:
    """A line is under review at the provider; returns whether it is ours."""
    if not _first(connection, message, now):
        return True
    connection.execute("UPDATE asked SET state = 'held' WHERE id = ? AND outcome IS NULL", (line.bytes,))
    return connection.execute("SELECT 1 FROM asked WHERE id = ?", (line.bytes,)).fetchone() is not None


def close(
    connection: sqlite3.Connection, line: uuid.UUID, closing: Closing, amended: uuid.UUID, message: uuid.UUID | None
) -> bool:
    """Close a line with its record, or amend the record of one that is closed; returns whether the line is ours.

    ``message`` is the id of the message that says so, where one does; ``amended`` is the id that an amendment gets.
    """
    if message is not None and not _first(connection, message, closing.at):
        return True
    row = connection.execute("SELECT record, outcome FROM asked WHERE id = ?", (line.bytes,)).fetchone()
    if row is None:
        return False
    record = _closed(_record.decode(row[0]), closing)
    if row[1] is not None:
        if message is not None:
            _put_record(connection, msgspec.structs.replace(record, id=amended, amends=line))
        return True
    connection.execute(
        "UPDATE asked SET state = 'closed', request = NULL, outcome = ?, reason = ?, content = ?, "
        "reference = coalesce(?, reference) WHERE id = ?",
        (closing.outcome, closing.reason, closing.content, closing.reference, line.bytes),
    )
    _put_record(connection, record)
    return True


def overdue(connection: sqlite3.Connection, now: int) -> list[tuple[uuid.UUID, str | None]]:
    """Lines whose time is over, with the reference where one is known; at most 256."""
    rows = connection.execute(
        "SELECT id, reference FROM asked WHERE outcome IS NULL AND deadline < ? LIMIT ?", (now, SEND_MAX)
    )
    return [(uuid.UUID(bytes=line), reference) for line, reference in rows]


def views(connection: sqlite3.Connection, lines: Iterable[uuid.UUID]) -> list[View]:
    """The lines as they stand; unknown ids are left out."""
    found = []
    for line in lines:
        row = connection.execute(
            "SELECT person, state, outcome, reason, reference, content FROM asked WHERE id = ?", (line.bytes,)
        ).fetchone()
        if row is not None:
            found.append(View(line, *row))
    return found


# ---------------------------------------------------------------- records


def records(connection: sqlite3.Connection, after: int, limit: int) -> list[tuple[int, Record]]:
    """A page of the agency's own records, in their order."""
    rows = connection.execute("SELECT n, body FROM records WHERE n > ? ORDER BY n LIMIT ?", (after, limit))
    return [(n, msgspec.structs.replace(_record.decode(body), position=n)) for n, body in rows]


def counts(connection: sqlite3.Connection) -> dict[str, int]:
    """How many people, codes, answers without receipt, open lines and records there are."""
    queries = {
        "people": "SELECT count(*) FROM people",
        "codes": "SELECT count(*) FROM people WHERE code IS NOT NULL",
        "answers_waiting": "SELECT count(*) FROM given WHERE answer IS NOT NULL",
        "given": "SELECT count(*) FROM given",
        "asked": "SELECT count(*) FROM asked",
        "asked_open": "SELECT count(*) FROM asked WHERE outcome IS NULL",
        "records": "SELECT count(*) FROM records",
    }
    return {name: int(connection.execute(query).fetchone()[0]) for name, query in queries.items()}


def forget(connection: sqlite3.Connection, now: int) -> None:
    """Forget inbox keys past their time."""
    connection.execute(
        "DELETE FROM inbox WHERE id IN (SELECT id FROM inbox WHERE at < ? LIMIT 1000)", (now - KEEP_MICROSECONDS,)
    )


def _first(connection: sqlite3.Connection, message: uuid.UUID, now: int) -> bool:
    rows = connection.execute(
        "INSERT INTO inbox (id, at) VALUES (?, ?) ON CONFLICT (id) DO NOTHING", (message.bytes, now)
    ).rowcount
    return rows == 1


def _put_record(connection: sqlite3.Connection, record: Record) -> None:
    connection.execute("INSERT INTO records (id, body) VALUES (?, ?)", (record.id.bytes, _encode(record)))


def _closed(record: Record, closing: Closing) -> Record:
    at = from_microseconds(closing.at)
    return msgspec.structs.replace(
        record,
        outcome=closing.outcome,
        reason=closing.reason,
        reference=closing.reference,
        closed_at=at,
        provided_at=at if closing.content is not None else None,
        withheld=record.withheld or closing.withheld,
        pia_refusal=closing.reason == "pia_unpublished",
    )
