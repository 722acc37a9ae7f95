"""``chukan agency order``: how an agency makes an order (指示書), and ``unpack``, how it opens what it was handed.

The agency does this on machines of its own. One officer prepares the order, two sign it with the keys of their client
certificates, and the document goes to the operator, who can do with it exactly what it says and write none himself. The
recipient's private key never leaves the agency.
"""

import datetime as dt
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal

import msgspec
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cyclopts import App

from chukan.chance import SystemChance
from chukan.clock import SystemClock
from chukan.errors import Problem
from chukan.ops import installation as acts
from chukan.ops.certificates import Issued, read_certificates, read_identity
from chukan.ops.installation import Installation
from chukan.ops.moments import read_moment
from chukan.ops.output import Json, create_file, replace_file, say, table
from chukan.ops.revoked_cards import revoked_cards
from chukan.settings import Environment
from chukan.tenants import orders
from chukan.tenants.changes import require_agency
from chukan.tenants.credentials import UntrustedError, name_of, read_chain
from chukan.tenants.directory import Directory
from chukan.tenants.export_file import Manifest, read_export
from chukan.tenants.handover import HANDED
from chukan.tenants.orders import DOCUMENT_BYTES_MAX, LIFE_MAX, SignedOrder, Target

app = App(name="order", help="Prepare, sign and check an agency's order to export, destroy, restore or retire keys.")

_DAYS = 3


@app.command
def prepare(
    *,
    agency: str,
    action: Literal["export", "destroy", "restore", "retire"],
    reason: str,
    out: Path,
    recipient: Path | None = None,
    cell: str | None = None,
    to: str | None = None,
    days: int = _DAYS,
) -> None:
    """Write an order that nobody has signed yet.

    Args:
        agency: Code of the agency, 16 digits.
        action: What the operator shall do.
        reason: Why, for the archive; nobody's number may stand in it.
        out: File to make.
        recipient: Public key (PEM, X25519) that an export is sealed to; see ``recipient``.
        cell: Cell whose backup a restore takes from: the one that the agency lived in at the moment.
        to: Moment that a restore goes back to, ISO 8601 with its zone.
        days: How long the order holds, 1 to 7.
    """
    if not 1 <= days <= LIFE_MAX.days:
        raise Problem("order_invalid", limit=LIFE_MAX.days, expected="--days from 1 to the limit")
    clock = SystemClock()
    document = orders.prepare(
        order=SystemChance(clock).uuid7(),
        action=action,
        agency=agency,
        reason=reason,
        at=clock.now(),
        life=dt.timedelta(days=days),
        recipient=None if recipient is None else _read_recipient(recipient),
        target=_target(cell, to),
    )
    create_file(out, orders.encode(document))
    say({}, f"{out}: {action} {agency}, until {document.order.expires_at:%Y-%m-%d %H:%M} UTC", as_json=False)


def _target(cell: str | None, to: str | None) -> Target | None:
    if cell is None and to is None:
        return None
    if cell is None or to is None:
        raise Problem("order_invalid", expected="--cell and --to together")
    return Target(cell, read_moment(to, "--to").astimezone(dt.UTC))


@app.command
def sign(file: Path, *, certificate: Path, key: Path) -> None:
    """Sign an order as an officer; two different officers must.

    Args:
        file: The order; the signature is added to it.
        certificate: The officer's certificate (PEM, with the chain).
        key: The certificate's private key (PEM).
    """
    document = read_order(file)
    identity = read_identity(Issued(certificate, key))
    replace_file(file, orders.encode(orders.sign(document, read_certificates(certificate), identity.key)))
    say({}, f"{file}: signed by {name_of(identity.certificate)}", as_json=False)


@app.command
def show(file: Path, *, config: Path | None = None, as_json: Json = False) -> int:
    """Show what an order says and who has signed; with ``--config``, whether it would be accepted (else exit code 1).

    Args:
        file: The order.
        config: Settings file of the installation.
        as_json: Print JSON.
    """
    document = read_order(file)
    order = document.order
    target = orders.target_of(order)
    told: dict[str, Any] = {
        "id": order.id,
        "action": order.action,
        "agency": order.agency,
        "reason": order.reason,
        "issued_at": order.issued_at,
        "expires_at": order.expires_at,
        "recipient": None if order.recipient is None else order.recipient.hex(),
        **({} if target is None else {"cell": target.cell, "moment": target.moment}),
        "signed_by": [_named(each) for each in document.signatures],
    }
    if config is not None:
        told["accepted"] = _verdict(document, config)
    say(told, table("", "", rows=[[name, str(value)] for name, value in told.items()]), as_json=as_json)
    return 0 if told.get("accepted", "yes") == "yes" else 1


def _named(signature: orders.OfficerSignature) -> str:
    """Return whom a signature's certificate names, as it claims; whether that is true is for ``demand`` to say."""
    try:
        return name_of(read_chain(signature.certificates)[0])
    except UntrustedError:
        return "?"


def _verdict(document: SignedOrder, config: Path) -> str:
    async def act(installation: Installation) -> str:
        snapshot = await installation.snapshot()
        order = document.order
        try:
            orders.verify(
                document,
                action=order.action,
                agency=require_agency(snapshot, order.agency),
                directory=Directory(snapshot),
                trusted=read_certificates(installation.settings.exchange.tls_ca_file),
                at=installation.clock.now(),
                target=orders.target_of(order),
                revoked=revoked_cards(installation.settings, installation.clock.now()),
            )
        except Problem as problem:
            return problem.expected or problem.code
        return "yes"

    return acts.run(config, act)


@app.command
def recipient(*, out: Path) -> None:
    """Make the key pair that an export is sealed to: the private half stays with the agency.

    Args:
        out: Folder that exists; ``export-key.pem`` and ``export-recipient.pem`` are made in it.
    """
    private = X25519PrivateKey.generate()
    secret = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public = private.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    create_file(out / "export-key.pem", secret, 0o600)
    create_file(out / "export-recipient.pem", public)
    text = f"private, keep it:  {out / 'export-key.pem'}\nfor the order:     {out / 'export-recipient.pem'}"
    say({}, text, as_json=False)


def unpack(file: Path, *, key: Path, out: Path, into: Environment | None = None, as_json: Json = False) -> None:
    """Open an export as its recipient: one file of JSON lines a table, and the manifest that they were held against.

    Args:
        file: The export.
        key: The recipient's private key (PEM, X25519).
        out: Folder to make.
        into: Environment that the data is meant for; an export of another one is not opened.
        as_json: Print JSON.
    """
    private = _read_private(key)
    try:
        out.mkdir(mode=0o700)
    except FileExistsError:
        raise Problem("file_exists", expected=str(out)) from None
    except OSError:
        raise Problem("file_unwritable", expected=str(out)) from None
    manifest = _write_tables(file, private, out, into)
    create_file(out / "manifest.json", msgspec.json.encode(manifest) + b"\n")
    rows = [[name, str(each.rows), str(each.unreadable), each.sha256] for name, each in manifest.tables.items()]
    say(manifest, table("table", "rows", "unreadable", "sha256", rows=rows), as_json=as_json)


def _write_tables(file: Path, private: X25519PrivateKey, out: Path, into: Environment | None) -> Manifest:
    """Write the tables' rows; files of an export that turns out not to be whole stay, without a manifest."""
    with ExitStack() as stack:
        files = {name: stack.enter_context((out / f"{name}.jsonl").open("xb")) for name in HANDED}
        for each in read_export(file, private, into):
            if isinstance(each, Manifest):
                return each
            name, row = each
            # Anybody may seal something to a public key: what is not ours is not written under a name from inside.
            if name not in files:
                break
            files[name].write(row + b"\n")
    raise Problem("export_unreadable", expected=str(file))


def read_order(path: Path) -> SignedOrder:
    """Return the order in a file; ``Problem`` order_invalid."""
    try:
        with path.open("rb") as file:
            return orders.decode(file.read(DOCUMENT_BYTES_MAX + 1))
    except OSError:
        raise Problem("order_invalid", expected=f"a readable file {path}") from None


def _read_recipient(path: Path) -> bytes:
    try:
        public = serialization.load_pem_public_key(path.read_bytes())
    except (OSError, ValueError):
        raise Problem("certificate_unreadable", expected=str(path)) from None
    if not isinstance(public, X25519PublicKey):
        raise Problem("certificate_unreadable", expected=str(path))
    return public.public_bytes_raw()


def _read_private(path: Path) -> X25519PrivateKey:
    try:
        private = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except (OSError, ValueError, TypeError):
        raise Problem("certificate_unreadable", expected=str(path)) from None
    if not isinstance(private, X25519PrivateKey):
        raise Problem("certificate_unreadable", expected=str(path))
    return private
