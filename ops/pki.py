"""``chukan pki``: an authority of one's own for installations that have none (DESIGN §9).

``init`` makes a root and an issuing authority, ``issue`` certifies a client system, an officer or a peer, ``show`` says
who is certified by files and until when; ``renew``, ``revoke``, ``list`` and ``crl`` stand in ``pki_life``,
``root-crl`` and ``join`` in ``pki_lists``. What is
certified, for how long and how files are written stands in ``certificates``;
this module only talks to people. It never prints a key, and never writes over one.
"""

import datetime as dt
import json
import math
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter
from rich.console import Console
from rich.table import Table

from chukan.clock import Clock, SystemClock
from chukan.errors import Problem
from chukan.ops import certificates, pki_life, pki_lists
from chukan.ops.certificates import CERTIFICATE_FILE, LEAF_DAYS, TRUSTED_FILE, Authority, Described, Issued

app = App(name="pki", help="Make an authority; issue, renew, revoke certificates; see when they end.")
for _command in (pki_life.renew, pki_life.revoke, pki_life.crl, pki_lists.root_crl, pki_lists.join):
    app.command(_command)
app.command(pki_life.list_issued, name="list")

_DAYS_MIN = 1
_SOON_DAYS = 30


@app.command
def init(*, directory: Path, name: str, sandbox: Annotated[bool, Parameter(negative="")] = False) -> None:
    """Make a root and an issuing authority below it. Carry ``root/`` away afterwards: nothing daily needs it.

    Args:
        directory: A folder that does not exist yet, or is empty.
        name: Name of the authority as it stands in its certificates.
        sandbox: For a test environment; production refuses this root, and a test environment every other.
    """
    authority = Authority.create(directory, name, SystemClock(), "sandbox" if sandbox else "production")
    console = Console()
    console.print(f"Trusted by clients and servers: {authority.trusted}", soft_wrap=True)
    console.print(f"Keep offline:                   {directory / 'root'}", soft_wrap=True)


@app.command
def issue(
    *,
    directory: Path,
    client: str | None = None,
    peer: str | None = None,
    host: Annotated[tuple[str, ...], Parameter(consume_multiple=True)] = ("localhost", "127.0.0.1"),
    out: Path | None = None,
    days: int = LEAF_DAYS,
    as_json: pki_life.AsJson = False,
) -> None:
    """Certify a client system or officer, or a peer (an exchange, the network, Patroni, etcd), with a new key.

    Args:
        directory: Folder of the authority.
        client: Id of a client system or officer, as the directory of agencies registers it.
        peer: Name of a peer.
        host: Host names and addresses of a peer; an address that is to stand as a name (pgBackRest): DNS:192.0.2.11.
        out: Folder to create for the key and the certificate; one inside the authority's folder unless given.
        days: Lifetime; it never exceeds the issuing authority's own.
        as_json: Print JSON.
    """
    if (client is None) == (peer is None):
        raise Problem("certificate_name_invalid", expected="either --client or --peer")
    if not _DAYS_MIN <= days <= LEAF_DAYS:
        raise Problem("certificate_name_invalid", limit=LEAF_DAYS, expected="--days from 1 to the limit")
    authority = Authority(directory, SystemClock())
    if client is not None:
        issued = authority.issue_client(client, out, days=days)
    else:
        issued = authority.issue_peer(peer or "", out, hosts=host, days=days)
    _tell(authority, issued, as_json=as_json)


def _tell(authority: Authority, issued: Issued, *, as_json: bool) -> None:
    certificate = certificates.read_certificates(issued.certificate)[0]
    described = certificates.describe(certificate)
    console = Console()
    if as_json:
        entry = authority.register.read().entries[f"{certificate.serial_number:x}"]
        files = {"certificate": str(issued.certificate), "key": str(issued.key)}
        console.print_json(json.dumps({**pki_life.as_told(authority, entry), **files}))
        return
    console.print(f"{described.name} until {described.not_after:%Y-%m-%d}", soft_wrap=True)
    console.print(f"certificate: {issued.certificate}\nkey:         {issued.key}", soft_wrap=True)


@app.command
def show(*paths: Path, as_json: Annotated[bool, Parameter(name="--json")] = False) -> None:
    """List certificates and when they end; exit code 1 when one has ended.

    Args:
        paths: Certificate files, or folders to be searched for ``certificate.pem`` and ``ca.pem``.
        as_json: Print one JSON list instead of a table.
    """
    clock = SystemClock()
    found = [(file, described) for path in paths for file, described in survey(path)]
    if as_json:
        Console().print_json(json.dumps([_as_json(file, described, clock) for file, described in found]))
    else:
        Console().print(_table(found, clock))
    if any(_days_left(described, clock) < 0 for _, described in found):
        raise SystemExit(1)


def survey(path: Path) -> list[tuple[Path, Described]]:
    """Return the first certificate of each file below ``path``, soonest end first. Raises ``Problem``."""
    names = {CERTIFICATE_FILE, TRUSTED_FILE}
    files = [path] if path.is_file() else sorted(each for each in path.rglob("*.pem") if each.name in names)
    if not files:
        raise Problem("certificate_unreadable", expected=str(path))
    found = [(file, certificates.describe(certificates.read_certificates(file)[0])) for file in files]
    return sorted(found, key=lambda each: each[1].not_after)


def _days_left(described: Described, clock: Clock) -> int:
    return math.floor((described.not_after - clock.now()) / dt.timedelta(days=1))


def _as_json(file: Path, described: Described, clock: Clock) -> dict[str, Any]:
    return {
        "file": str(file),
        "name": described.name,
        "usage": described.usage,
        "issuer": described.issuer,
        "not_before": described.not_before.isoformat(),
        "not_after": described.not_after.isoformat(),
        "days_left": _days_left(described, clock),
    }


def _table(found: list[tuple[Path, Described]], clock: Clock) -> Table:
    table = Table("usage", "issuer", "until", "days left")
    table.add_column("name", overflow="fold")
    for _, described in found:
        left = _days_left(described, clock)
        colour = "red" if left < 0 else "yellow" if left < _SOON_DAYS else "green"
        until = f"{described.not_after:%Y-%m-%d}"
        table.add_row(described.usage, described.issuer, until, f"[{colour}]{left}[/]", described.name)
    return table
