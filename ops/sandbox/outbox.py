"""What the network still has to push: rows that are written with the effect and go when they are acknowledged.

A message is queued in the transaction that makes it true, with the exact bytes that are sent; a crash between the two
cannot happen. ``delivery`` takes rows from here in order. A row is never changed: it is deleted when the receiver
accepts or refuses it, or when its time is over. What was accepted is kept aside for a while (``redelivery``).
"""

import sqlite3
import uuid
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from chukan.ops.sandbox.faults import Channel

CHANNELS: Final[tuple[Channel, ...]] = ("notices", "answers", "codes", "acquisition-requests", "corrections")
_STAMPED: Final = {"notices": "notified_at", "answers": "delivered_at"}


class Push(NamedTuple):
    """A message to push over a route's channel until ``until`` (microseconds since 1970).

    ``position`` names the record that is stamped when the message has arrived.
    """

    route: str
    channel: Channel
    id: uuid.UUID
    body: bytes
    until: int
    position: int | None = None


class Parcel(NamedTuple):
    """A queued message, as ``Push`` put it in."""

    n: int
    id: bytes
    body: bytes
    until: int
    position: int | None


def put_out(connection: sqlite3.Connection, push: Push) -> None:
    """Queue a message in the running transaction."""
    connection.execute(
        "INSERT INTO outbox (route, channel, id, body, until, position) VALUES (?, ?, ?, ?, ?, ?)",
        (push.route, push.channel, push.id.bytes, push.body, push.until, push.position),
    )


def following(connection: sqlite3.Connection, route: str, channel: Channel, after: int, limit: int) -> list[Parcel]:
    """The next messages of a route's channel in the order in which they were queued."""
    rows = connection.execute(
        "SELECT n, id, body, until, position FROM outbox WHERE route = ? AND channel = ? AND n > ? ORDER BY n LIMIT ?",
        (route, channel, after, limit),
    )
    return [Parcel(*row) for row in rows]


def settle(
    connection: sqlite3.Connection, channel: Channel, accepted: Iterable[Parcel], dropped: Sequence[Parcel], now: int
) -> None:
    """Take settled messages out; what was accepted is kept aside and stamps its record with the instant of arrival."""
    arrived = list(accepted)
    # Of a code nothing is kept here: its message bears the number that is used up now (SYM-06); nor a person's facts.
    if channel in _STAMPED:
        connection.executemany(
            "INSERT INTO pushed (n, route, channel, id, body, until, position, at) "
            "SELECT n, route, channel, id, body, until, position, ? FROM outbox WHERE n = ?",
            [(now, parcel.n) for parcel in arrived],
        )
    connection.executemany("DELETE FROM outbox WHERE n = ?", [(parcel.n,) for parcel in (*arrived, *dropped)])
    column = _STAMPED.get(channel)
    if column is not None:
        connection.executemany(
            f"UPDATE exchanges SET {column} = ? WHERE position = ?",
            [(now, parcel.position) for parcel in arrived if parcel.position is not None],
        )


def waiting(connection: sqlite3.Connection) -> dict[str, int]:
    """How many messages wait, by ``route/channel``."""
    rows = connection.execute("SELECT route, channel, count(*) FROM outbox GROUP BY route, channel")
    return {f"{route}/{channel}": count for route, channel, count in rows}
