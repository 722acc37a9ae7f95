"""How the functions of links are called: one statement with a deadline, and what its row or its refusal means here.

Invariant: an act is asked for once. Where a connection breaks in the middle nobody knows whether it happened, and a
second try could refuse what the first one did; so the caller is told ``unavailable``, and looks.
"""

import datetime as dt
from collections.abc import Iterable
from functools import lru_cache
from typing import Any, Final

import asyncpg
import msgspec

from chukan.errors import Problem
from chukan.replication.primary import DRIVER_ERRORS, Connection, Pool, Proxy, bounded, translate
from chukan.tenants import link_plan
from chukan.tenants.link_rows import Change, Desired, DesiredPeer, GatewayRow, LinkRow, PeerRow

Record = asyncpg.Record

CALL_TIMEOUT_S: Final = 30.0
"""A commit waits 2-12 s while a dying standby is dropped."""

_REFUSED: Final = "CK010"
_MISTAKES: Final = frozenset({"CK003", "23502", "23505", "23514", "22P02"})
"""A caller's mistake, found by a function or by a constraint: the act is not possible in this form."""
_PLANNED_MAX: Final = 16_384


def links_cell(names: Iterable[str]) -> str:
    """Return the cell in which the desired state of all links lies: the first by name. ``ValueError`` for none."""
    return min(names)


async def fetch(connection: Connection | Proxy, sql: str, *values: object) -> list[Record]:
    """Run one statement on a connection. Raises ``Problem``: what the function refused, or as ``translate``."""
    try:
        return await bounded(connection, connection.fetch(sql, *values), CALL_TIMEOUT_S)
    except DRIVER_ERRORS as error:
        raise refusal(error) from None


async def fetch_from(pool: Pool, sql: str, *values: object) -> list[Record]:
    """Run one statement on a connection of a pool. Raises ``Problem`` as ``fetch``, and busy."""
    try:
        async with pool.acquire(timeout=CALL_TIMEOUT_S) as connection:
            return await fetch(connection, sql, *values)
    except TimeoutError:
        raise Problem("busy", retry_after_s=1) from None
    except DRIVER_ERRORS as error:
        raise translate(error) from None


def refusal(error: Exception) -> Problem:
    """Return the problem that an error of a function of links stands for."""
    sqlstate = getattr(error, "sqlstate", None)
    if sqlstate == _REFUSED:
        return Problem(str(error))
    if sqlstate in _MISTAKES:
        return Problem("invalid_field")
    return translate(error)


@lru_cache(maxsize=_PLANNED_MAX)
def _prefixes(link: str) -> tuple[str, str]:
    return link_plan.prefixes(link)


def link_rows(rows: Iterable[Record]) -> tuple[LinkRow, ...]:
    """Return links of the rows of ``link_rows()``, which come in the order of the links."""
    found: dict[str, tuple[Record, dict[str, PeerRow]]] = {}
    for row in rows:
        _, peers = found.setdefault(row["link"], (row, {}))
        if row["centre"] is not None:
            peers[row["centre"]] = _peer(row)
    return tuple(_link(row, peers) for row, peers in found.values())


def _peer(row: Record) -> PeerRow:
    return PeerRow(
        public_key=row["public_key"],
        next_public_key=row["next_public_key"],
        psk=row["psk"],
        next_psk=row["next_psk"],
        config=_json(row["config"]),
        endpoint=row["endpoint"],
        handshake_at=row["handshake_at"],
    )


def _link(row: Record, peers: dict[str, PeerRow]) -> LinkRow:
    return LinkRow(
        link=row["link"],
        body=row["body"],
        mode=row["mode"],
        kind=row["kind"],
        state=row["state"],
        prefixes=_prefixes(row["link"]),
        valid_from=row["valid_from"],
        valid_until=row["valid_until"],
        generation=row["generation"],
        invited_by=row["invited_by"],
        suspended_by=row["suspended_by"],
        invitation_key=row["invitation_key"],
        invitation_expires_at=row["invitation_expires_at"],
        requested_at=row["requested_at"],
        request_digest=row["request_digest"],
        device_key=row["device_key"],
        device_sealing_key=row["device_sealing_key"],
        peers=peers,
    )


def gateway_row(row: Record) -> GatewayRow:
    """Return a gateway of a row of ``link_gateways``."""
    return GatewayRow(**{name: row[name] for name in GatewayRow.__struct_fields__})


def desired(rows: list[Record]) -> Desired:
    """Return what a gateway must have of the rows of ``SQL_DESIRED``, of which there is one at least."""
    first = rows[0]
    gateway = None
    if first["g_centre"] is not None:
        gateway = GatewayRow(**{name: first[f"g_{name}"] for name in GatewayRow.__struct_fields__})
    return Desired(
        number=first["number"],
        gateway=gateway,
        peers=tuple(_desired_peer(row) for row in rows if row["link"] is not None),
    )


SQL_DESIRED: Final = (
    # One statement is one state of the database: the number belongs to exactly these rows.
    "SELECT chukan.link_number() AS number, "
    + ", ".join(f"g.{name} AS g_{name}" for name in GatewayRow.__struct_fields__)
    + ", d.* FROM (SELECT 1) one LEFT JOIN chukan.link_gateway($1) g ON true"
    " LEFT JOIN chukan.link_desired($1) d ON true"
)


def _desired_peer(row: Record) -> DesiredPeer:
    return DesiredPeer(
        link=row["link"],
        body=row["body"],
        mode=row["mode"],
        kind=row["kind"],
        state=row["state"],
        public_key=row["public_key"],
        next_public_key=row["next_public_key"],
        psk=row["psk"],
        next_psk=row["next_psk"],
        prefixes=_prefixes(row["link"]),
        valid_from=row["valid_from"],
        valid_until=row["valid_until"],
        generation=row["generation"],
        endpoint=row["endpoint"],
        config=_json(row["config"]),
    )


def change(row: Record) -> Change:
    """Return a line of the audit of a row of ``link_change``."""
    told = {name: row[name] for name in Change.__struct_fields__ if name not in ("before", "after")}
    return Change(**told, before=_json(row["before"]), after=_json(row["after"]))


def zoned(at: dt.datetime) -> dt.datetime:
    """Return an instant that the driver may be given. ``Problem`` invalid_field for one without a zone."""
    if at.tzinfo is None:
        raise Problem("invalid_field", expected="an instant with its zone")
    return at


def _json(text: str | None) -> Any:  # noqa: ANN401 - an object of JSON, or None
    return None if text is None else msgspec.json.decode(text)
