"""``chukan pki renew|revoke|list|crl``: what an authority does with certificates after their issue.

Every command says what it did, as text or with ``--json``, and prints no key. What it does stands in
``certificate_life``; this module only talks to people.
"""

import datetime as dt
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Final

from cyclopts import Parameter
from prometheus_client import CollectorRegistry, Gauge, write_to_textfile
from rich.console import Console
from rich.table import Table

from chukan.clock import SystemClock
from chukan.errors import Problem
from chukan.ops import certificate_life as life
from chukan.ops.certificate_register import Entry, Reason, State, Usage
from chukan.ops.certificates import LEAF_DAYS, Authority, describe, read_certificates
from chukan.platform.tls import CLIENT_URN, PEER_URN

SOONEST: Final = "chukan_site_pki_soonest_expiry_timestamp_seconds"
COUNTED: Final = "chukan_site_pki_certificates"
_SERIAL_DIGITS_MAX: Final = 40

AsJson = Annotated[bool, Parameter(name="--json", negative="")]
Copies = Annotated[tuple[Path, ...], Parameter(consume_multiple=True)]


def renew(
    *,
    directory: Path,
    client: str | None = None,
    peer: str | None = None,
    serial: str | None = None,
    certificate: Path | None = None,
    out: Path | None = None,
    days: int = LEAF_DAYS,
    as_json: AsJson = False,
) -> None:
    """Certify the same identity with a new key; the old certificate stays good until you revoke it, or it ends.

    Args:
        directory: Folder of the authority.
        client: Id of a client system or officer.
        peer: Name of a peer (an exchange, the network, Patroni, etcd, PostgreSQL).
        serial: Serial number, as ``list`` shows it.
        certificate: A certificate of this authority from before it kept a register.
        out: Folder to create; one below ``renewed/`` in the authority's folder unless given.
        days: Lifetime; it never exceeds the issuing authority's own.
        as_json: Print JSON.
    """
    if not 1 <= days <= LEAF_DAYS:
        raise Problem("certificate_name_invalid", limit=LEAF_DAYS, expected="--days from 1 to the limit")
    authority = Authority(directory, SystemClock())
    # Of several that are good the newest is followed: nothing is taken from anybody by that.
    made = life.renew(authority, _chosen(authority, client, peer, serial, certificate)[-1], out, days=days)
    entry = authority.register.read().entries[made.serial]
    told = {
        **as_told(authority, entry),
        "certificate": str(made.issued.certificate),
        "key": str(made.issued.key),
    }
    text = f"{entry.begun.subject} until {entry.begun.until:%Y-%m-%d}, renews {made.renews}, which stays good"
    _say(told, f"{text}\ncertificate: {made.issued.certificate}\nkey:         {made.issued.key}", as_json=as_json)


def revoke(
    *,
    directory: Path,
    reason: Reason,
    client: str | None = None,
    peer: str | None = None,
    serial: str | None = None,
    certificate: Path | None = None,
    every: Annotated[bool, Parameter(name="--all", negative="")] = False,
    days: int = life.LIST_DAYS,
    copy: Copies = (),
    as_json: AsJson = False,
) -> None:
    """Revoke a certificate for good, and sign a new revocation list (``crl.pem`` in the authority's folder).

    Args:
        directory: Folder of the authority.
        reason: Why, by RFC 5280.
        client: Id of a client system or officer.
        peer: Name of a peer.
        serial: Serial number, as ``list`` shows it.
        certificate: The certificate itself.
        every: Revoke all of this client or peer, where several are good.
        days: When the next list is due.
        copy: Further files to write the list into, where exchanges watch them.
        as_json: Print JSON.
    """
    _check_days(days)
    authority = Authority(directory, SystemClock())
    found = _chosen(authority, client, peer, serial, certificate)
    if len(found) > 1 and not every:
        raise Problem("certificate_ambiguous", limit=len(found))
    revoked = life.revoke(authority, [each.begun.serial for each in found], reason)
    file, number = life.write_list(authority, days=days, copies=copy)
    told = {"revoked": [as_told(authority, each) for each in revoked], "list": str(file), "number": number}
    lines = "\n".join(f"{each.begun.subject} {each.begun.serial}: revoked" for each in revoked)
    _say(told, f"{lines}\nlist {number}: {file}", as_json=as_json)


def crl(*, directory: Path, days: int = life.LIST_DAYS, copy: Copies = (), as_json: AsJson = False) -> None:
    """Sign a new revocation list; do it daily, long before the next one is due.

    Args:
        directory: Folder of the authority.
        days: When the next list is due.
        copy: Further files to write the list into, where exchanges watch them.
        as_json: Print JSON.
    """
    _check_days(days)
    authority = Authority(directory, SystemClock())
    file, number = life.write_list(authority, days=days, copies=copy)
    told = {"list": str(file), "number": number, "copies": [str(path) for path in copy]}
    _say(told, f"list {number}: {file}", as_json=as_json)


def list_issued(
    *, directory: Path, state: State | None = None, textfile: Path | None = None, as_json: AsJson = False
) -> None:
    """List everything that the authority issued, as its register has it.

    Args:
        directory: Folder of the authority.
        state: Only these; *begun* are those whose issue a crash cut off.
        textfile: Write counts and the soonest ends for Prometheus there.
        as_json: Print JSON.
    """
    authority = Authority(directory, SystemClock())
    now = authority.clock.now()
    entries = list(authority.register.read().entries.values())
    if textfile is not None:
        write_textfile(textfile, authority, entries)
    shown = [each for each in entries if state is None or each.state(now) == state]
    if as_json:
        Console().print_json(json.dumps([as_told(authority, each) for each in shown]))
    else:
        Console().print(_table(shown, now))


def as_told(authority: Authority, entry: Entry) -> dict[str, Any]:
    """Return what a command tells of a certificate."""
    begun, revoked = entry.begun, entry.revoked
    return {
        "serial": begun.serial,
        "subject": begun.subject,
        "usage": begun.usage,
        "until": begun.until.isoformat(),
        "state": entry.state(authority.clock.now()),
        "renews": begun.renews,
        "revoked_at": None if revoked is None else revoked.at.isoformat(),
        "reason": None if revoked is None else revoked.reason,
    }


def write_textfile(path: Path, authority: Authority, entries: Iterable[Entry]) -> None:
    """Write counts by usage and state, and by usage the soonest end of anybody's *last* certificate.

    Who was renewed is not told of the old one. Raises ``Problem`` file_unwritable.
    """
    registry, now = CollectorRegistry(), authority.clock.now()
    name = describe(authority.issuing.certificate).name
    counted = Gauge(COUNTED, "Certificates in the register.", ["authority", "usage", "state"], registry=registry)
    soonest = Gauge(SOONEST, "Soonest end of anybody's last certificate.", ["authority", "usage"], registry=registry)
    last: dict[tuple[Usage, str], dt.datetime] = {}
    for entry in entries:
        state, whose = entry.state(now), (entry.begun.usage, entry.begun.subject)
        counted.labels(name, entry.begun.usage, state).inc()
        if state in {"valid", "expired"}:
            last[whose] = max(entry.begun.until, last.get(whose, entry.begun.until))
    for usage in {usage for usage, _ in last}:
        soonest.labels(name, usage).set(min(until for (of, _), until in last.items() if of == usage).timestamp())
    try:
        write_to_textfile(str(path), registry)
    except OSError:
        raise Problem("file_unwritable", expected=str(path)) from None


def _chosen(
    authority: Authority, client: str | None, peer: str | None, serial: str | None, certificate: Path | None
) -> list[Entry]:
    """Return the certificates that are meant, at least one. Raises ``Problem`` certificate_unknown."""
    if sum(each is not None for each in (client, peer, serial, certificate)) != 1:
        raise Problem("certificate_name_invalid", expected="one of --client, --peer, --serial, --certificate")
    if certificate is not None:
        return [life.adopt(authority, read_certificates(certificate)[0])]
    if serial is not None:
        wanted = serial.lower().replace(":", "").lstrip("0")
        entries = authority.register.read().entries
        if len(wanted) > _SERIAL_DIGITS_MAX or wanted not in entries:
            raise Problem("certificate_unknown")
        return [entries[wanted]]
    found = life.named(authority, f"{PEER_URN}{peer}" if client is None else f"{CLIENT_URN}{client}")
    if not found:
        raise Problem("certificate_unknown")
    return found


def _check_days(days: int) -> None:
    if not 1 <= days <= life.LIST_DAYS_MAX:
        raise Problem("certificate_name_invalid", limit=life.LIST_DAYS_MAX, expected="--days from 1 to the limit")


def _table(entries: Iterable[Entry], now: dt.datetime) -> Table:
    table = Table("usage", "state", "until")
    for title in ("subject", "serial"):
        table.add_column(title, overflow="fold")
    colours = {"valid": "green", "begun": "yellow", "expired": "red", "revoked": "red"}
    for each in entries:
        begun, state = each.begun, each.state(now)
        told = state if each.revoked is None else f"{state}: {each.revoked.reason}"
        table.add_row(
            begun.usage, f"[{colours[state]}]{told}[/]", f"{begun.until:%Y-%m-%d}", begun.subject, begun.serial
        )
    return table


def _say(told: dict[str, Any], text: str, *, as_json: bool) -> None:
    if as_json:
        Console().print_json(json.dumps(told))
    else:
        Console().print(text, soft_wrap=True)
