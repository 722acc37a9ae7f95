"""How links (団体の回線) are shown to operators: tables for people, documents for programs.

No key, nothing sealed and no outer address is shown but in ``document`` and ``gateway``, which say where a device was
seen last and which public keys a gateway has: an operator looks for a device by that.
"""

import datetime as dt
import hashlib
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from rich.table import Table

from chukan.clock import JST
from chukan.errors import Problem
from chukan.ops.output import table
from chukan.tenants import bodies
from chukan.tenants.links import Change, GatewayRow, LinkRow
from chukan.vpn.enrolment import grouped
from chukan.vpn.wireguard.keys import to_base64

_HEADINGS: Final = ("link", "body", "kind", "mode", "state", "until", "last handshake")
_CODE_DIGITS: Final = 2


def document(row: LinkRow) -> dict[str, Any]:
    """Return a link as a program is told of it; keys by the first digits of their digest."""
    return {
        "link": row.link,
        "body": row.body,
        "name": _name(row.body),
        "kind": row.kind,
        "mode": row.mode,
        "state": row.state,
        "addresses": row.prefixes,
        "generation": row.generation,
        "valid_from": row.valid_from,
        "valid_until": row.valid_until,
        "invited_by": row.invited_by,
        "invitation_expires_at": row.invitation_expires_at,
        "requested_at": row.requested_at,
        "digits": grouped(row.request_digest) if row.request_digest and row.kind == "wireguard" else None,
        "suspended_by": row.suspended_by,
        "centres": {
            centre: {
                "key": _short(peer.public_key),
                "next_key": _short(peer.next_public_key),
                "next_psk": peer.next_psk is not None,
                "endpoint": peer.endpoint,
                "last_handshake": peer.handshake_at,
            }
            for centre, peer in row.peers.items()
        },
    }


def shown(row: LinkRow) -> Table:
    """Return a link for a person."""
    told = document(row)
    centres: Mapping[str, Mapping[str, Any]] = told.pop("centres")
    rows = {name: value for name, value in told.items() if value is not None}
    rows["addresses"] = " ".join(row.prefixes)
    for centre, end in centres.items():
        rows[f"{centre}: last handshake"] = end["last_handshake"] or "never"
        rows[f"{centre}: seen at"] = end["endpoint"] or "-"
        rows[f"{centre}: key"] = f"{end['key'] or '-'}{_following(end)}"
    return pairs(rows)


def pairs(told: Mapping[str, Any]) -> Table:
    """Return names and values under each other."""
    return table("", "", rows=[[name, _text(value)] for name, value in told.items()])


def _following(end: Mapping[str, Any]) -> str:
    if end["next_key"] is not None:
        return f", next {end['next_key']}"
    return ", next pre-shared key" if end["next_psk"] else ""


def listed(rows: Sequence[LinkRow]) -> str:
    """Return links as lines of columns. Written by hand: a table library takes seconds for 2,500 of them."""
    lines = [_HEADINGS, *(_line(row) for row in rows)]
    widths = [max(map(_width, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell + " " * (width - _width(cell)) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def _line(row: LinkRow) -> tuple[str, ...]:
    seen = " ".join(f"{centre} {_text(peer.handshake_at) or 'never'}" for centre, peer in row.peers.items())
    until = row.invitation_expires_at if row.state == "invited" else row.valid_until
    return (row.link, _name(row.body), row.kind, row.mode, row.state, _text(until), seen)


def _width(text: str) -> int:
    return len(text) if text.isascii() else sum(2 if unicodedata.east_asian_width(sign) in "WF" else 1 for sign in text)


def told(changes: Iterable[Change]) -> Table:
    """Return lines of the audit for a person: what changed, from what to what."""
    rows = [
        [
            _text(change.at),
            change.link or change.centre or "-",
            change.act if change.link is None or change.centre is None else f"{change.act} ({change.centre})",
            change.who,
            change.second or "",
            "; ".join(_differences(change.before or {}, change.after or {})),
            change.reason or "",
        ]
        for change in changes
    ]
    return table("at", "what", "act", "who", "second", "changed", "reason", rows=rows)


def _differences(before: Mapping[str, Any], after: Mapping[str, Any], prefix: str = "") -> Iterable[str]:
    for name in sorted({*before, *after}):
        old, new = before.get(name), after.get(name)
        if isinstance(old, dict) or isinstance(new, dict):
            yield from _differences(old or {}, new or {}, f"{prefix}{name} ")
        elif old != new:
            yield f"{prefix}{name}: {'-' if old is None else old} → {'-' if new is None else new}"


def gateway(row: GatewayRow) -> dict[str, object]:
    """Return a gateway as everybody may know it."""
    keys = {
        "key": row.public_key,
        "next_key": row.next_public_key,
        "sealing_key": row.sealing_key,
        "service_key": row.service_public_key,
    }
    told: dict[str, object] = {"centre": row.centre, "endpoint": row.endpoint, "next_endpoint": row.next_endpoint}
    told |= {name: None if key is None else to_base64(key) for name, key in keys.items()}
    return told | {"draining": row.draining, "generation": row.generation}


def within(prefecture: str | None) -> Callable[[str], bool]:
    """Return what tells whether a body (6-digit code) is of a prefecture, given by name or two digits; None: any.

    Raises ``Problem`` invalid_field for what is none.
    """
    if prefecture is None:
        return lambda _body: True
    known = {each.code[:_CODE_DIGITS]: each.prefecture for each in bodies.bodies()}
    codes = {code for code, name in known.items() if prefecture in (code, name)}
    if not codes:
        raise Problem("invalid_field", pointer="/prefecture", expected="a prefecture's name, or its two digits")
    return lambda body: body[:_CODE_DIGITS] in codes


def _name(body: str) -> str:
    known = bodies.body(body)
    return "" if known is None else known.name


def _short(key: bytes | None) -> str | None:
    return None if key is None else hashlib.sha256(key).hexdigest()[:8]


def _text(value: object) -> str:
    if value is None:
        return ""
    return f"{value.astimezone(JST):%Y-%m-%d %H:%M:%S}" if isinstance(value, dt.datetime) else str(value)
