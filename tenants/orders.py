"""Orders (指示書): an agency's export, destruction, restore or end of keys, told by two of its officers (invariant 14).

An order is a JSON document with two signatures, each made with the private key of an officer's client certificate
(ECDSA P-256, SHA-256) over a prefix and the order's canonical bytes; the certificates come along. The officers make it
on machines of their own: no operator ever holds their keys, and none can write an order.

Invariant: ``demand`` returns only what two different officers of that agency, registered for the function ``order``,
have signed for exactly this act, within a week of its making, with cards that nobody revoked. Everything else is
refused and audited: nothing given is ``order_required``, anything wrong is ``order_invalid``. That an order serves once
is kept by ``order_book``.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import uuid
from collections.abc import Callable, Sequence
from typing import Annotated, Final, Literal, NamedTuple

import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding

from chukan import log
from chukan.errors import Problem
from chukan.tenants.credentials import CHAIN_MAX, Credential, UntrustedError, name_of, read_chain, verify_chain
from chukan.tenants.directory import AgencyCode, AgencyRow, Directory, Instant
from chukan.tenants.numbers import find_forbidden

Action = Literal["export", "destroy", "restore", "retire"]
"""``retire`` destroys the agency's data keys of before the newest, and with them what older backups hold."""

LIFE_MAX: Final = dt.timedelta(days=7)
DOCUMENT_BYTES_MAX: Final = 64 * 1024
OFFICERS: Final = 2
"""How many different officers must sign."""

_SIGNED_PREFIX: Final = b"chukan agency order 1\0"
_SIGNATURES_MAX: Final = 4
_PLAIN: Final = r"^[^\x00-\x1f\x7f-\x9f]*[^\s\x00-\x1f\x7f-\x9f][^\x00-\x1f\x7f-\x9f]*$"
"""Text in one line, without anything that a terminal would obey."""
_CELL: Final = r"^[a-z][a-z0-9_-]*$"
_CLOCKS_APART: Final = dt.timedelta(minutes=5)
"""By how much an officer's machine may be ahead of ours."""

_log = log.get("orders")


Revoked = Callable[[x509.Certificate], bool]
"""Tells whether a certificate is on a revocation list (失効リスト) in force."""


def none_revoked(_: x509.Certificate) -> bool:
    """Tell that none is: where no list is kept."""
    return False


class Order(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What an agency orders. ``reason`` is for the archive; it must hold nobody's number."""

    id: uuid.UUID
    action: Action
    agency: AgencyCode
    reason: Annotated[str, msgspec.Meta(min_length=1, max_length=500, pattern=_PLAIN)]
    issued_at: Instant
    expires_at: Instant
    recipient: Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)] | None = None
    """X25519 public key that an export is sealed to; no other order has one."""
    cell: Annotated[str, msgspec.Meta(min_length=1, max_length=32, pattern=_CELL)] | msgspec.UnsetType = msgspec.UNSET
    """Cell (セル) whose backup a restore takes from; left out of every other order, and of what is signed there."""
    moment: Instant | msgspec.UnsetType = msgspec.UNSET
    """Moment that a restore goes back to; likewise."""


class OfficerSignature(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """An officer's signature (DER) and certificate chain (DER each, the officer's own first, without the root)."""

    certificates: Annotated[list[bytes], msgspec.Meta(min_length=1, max_length=CHAIN_MAX)]
    signature: Annotated[bytes, msgspec.Meta(min_length=8, max_length=256)]


class SignedOrder(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The document: an order and the signatures that it has so far."""

    format: Literal["chukan-order-1"] = "chukan-order-1"
    order: Order
    signatures: Annotated[list[OfficerSignature], msgspec.Meta(max_length=_SIGNATURES_MAX)] = []


class Target(NamedTuple):
    """What a restore goes back to: a cell as it was at a moment."""

    cell: str
    moment: dt.datetime


class Approved(NamedTuple):
    """An order that was verified by ``demand``."""

    order: Order
    digest: bytes
    """SHA-256 of what was signed, 32 bytes: under one id there is one order."""
    officers: tuple[str, ...]
    """Registered ids of those who signed."""


# ---------------------------------------------------------------- making one


def prepare(
    *,
    order: uuid.UUID,
    action: Action,
    agency: str,
    reason: str,
    at: dt.datetime,
    life: dt.timedelta,
    recipient: bytes | None = None,
    target: Target | None = None,
) -> SignedOrder:
    """Return an order that nobody has signed yet; ``target`` is for a restore, ``recipient`` for an export.

    Raises:
        Problem: order_invalid with the form that was expected; individual_number_present, resident_code_present when
            the reason holds such a number.
    """
    begun = at.astimezone(dt.UTC).replace(microsecond=0)
    members = {
        "id": order,
        "action": action,
        "agency": agency,
        "reason": reason,
        "issued_at": begun,
        "expires_at": begun + life,
        "recipient": recipient,
    }
    if target is not None:
        members |= {"cell": target.cell, "moment": target.moment.astimezone(dt.UTC)}
    try:
        made = msgspec.convert(members, Order)
    except msgspec.ValidationError:
        raise Problem(
            "order_invalid", expected="an agency code of 16 digits, a reason of 1-500 characters, a cell's name if any"
        ) from None
    _check_form(made)
    return SignedOrder(order=made)


def sign(document: SignedOrder, chain: Sequence[x509.Certificate], key: ec.EllipticCurvePrivateKey) -> SignedOrder:
    """Return the document with one more signature; ``chain`` is the officer's certificate and those above it.

    Raises:
        Problem: order_invalid when this officer has signed it already, or the key is not the certificate's.
    """
    _check_form(document.order)
    if not chain or chain[0].public_key() != key.public_key():
        raise Problem("order_invalid", expected="the private key of the certificate")
    try:
        signed_before = {name_of(read_chain(each.certificates)[0]) for each in document.signatures}
        officer = name_of(chain[0])
    except UntrustedError:
        raise Problem("order_invalid", expected="client certificates") from None
    if officer in signed_before or len(document.signatures) >= _SIGNATURES_MAX:
        raise Problem("order_invalid", expected="a signature of another officer")
    signature = OfficerSignature(
        certificates=[each.public_bytes(Encoding.DER) for each in chain[:CHAIN_MAX]],
        signature=key.sign(signed_bytes(document.order), ec.ECDSA(hashes.SHA256())),
    )
    return msgspec.structs.replace(document, signatures=[*document.signatures, signature])


def signed_bytes(order: Order) -> bytes:
    """Return the exact bytes that are signed: a prefix, then JSON with members by name and instants in UTC."""
    in_utc = msgspec.structs.replace(
        order, issued_at=order.issued_at.astimezone(dt.UTC), expires_at=order.expires_at.astimezone(dt.UTC)
    )
    if isinstance(in_utc.moment, dt.datetime):
        in_utc = msgspec.structs.replace(in_utc, moment=in_utc.moment.astimezone(dt.UTC))
    return _SIGNED_PREFIX + msgspec.json.encode(in_utc, order="sorted")


def encode(document: SignedOrder) -> bytes:
    """Return the document as JSON for a file."""
    return msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n"


def decode(content: bytes) -> SignedOrder:
    """Return the document of a file; ``Problem`` order_invalid when it is none or too long."""
    try:
        if len(content) > DOCUMENT_BYTES_MAX:
            raise Problem("order_invalid", limit=DOCUMENT_BYTES_MAX)
        return msgspec.json.decode(content, type=SignedOrder)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise Problem("order_invalid", expected="an order document (JSON)") from None


# ---------------------------------------------------------------- demanding one


def demand(
    document: SignedOrder | None,
    *,
    action: Action,
    agency: AgencyRow,
    directory: Directory,
    trusted: Sequence[x509.Certificate],
    at: dt.datetime,
    target: Target | None = None,
    revoked: Revoked = none_revoked,
) -> Approved:
    """Return the order if it is for this act at this agency now; every other try is refused and logged for audit.

    Args:
        document: what was handed in, None for nothing.
        action: what is about to be done.
        agency: the agency that it would be done to.
        directory: the common data in force, which says who the agency's officers are.
        trusted: the roots of the authority that certifies officers.
        at: now.
        target: what a restore would go back to.
        revoked: asked of every certificate of every signature: a stolen card orders nothing.

    Raises:
        Problem: order_required, order_invalid (with the condition that was not met).
    """
    if document is None:
        _log.warning("order missing", agency=agency.number, stage=action, code="order_required")
        raise Problem("order_required")
    given = document.order.id
    try:
        approved = verify(
            document,
            action=action,
            agency=agency,
            directory=directory,
            trusted=trusted,
            at=at,
            target=target,
            revoked=revoked,
        )
    except Problem as problem:
        reason = problem.expected
        _log.warning(
            "order refused", agency=agency.number, stage=action, request_id=given, code=problem.code, reason=reason
        )
        raise
    for officer in approved.officers:
        _log.warning("order accepted", agency=agency.number, stage=action, request_id=given, peer=officer)
    return approved


def verify(
    document: SignedOrder,
    *,
    action: Action,
    agency: AgencyRow,
    directory: Directory,
    trusted: Sequence[x509.Certificate],
    at: dt.datetime,
    target: Target | None = None,
    revoked: Revoked = none_revoked,
) -> Approved:
    """Judge an order as ``demand`` does, without a line for audit: for looking only, nothing may be done on it."""
    order = document.order
    _check_form(order)
    _check_subject(order, action, agency, at)
    if target_of(order) != target:
        raise Problem("order_invalid", expected="an order for this cell and this moment")
    officers = _signers(document, agency, directory, trusted, at, revoked)
    return Approved(order, hashlib.sha256(signed_bytes(order)).digest(), officers)


def target_of(order: Order) -> Target | None:
    """Return what a restore goes back to, None for every other order."""
    if isinstance(order.cell, str) and isinstance(order.moment, dt.datetime):
        return Target(order.cell, order.moment.astimezone(dt.UTC))
    return None


def _check_form(order: Order) -> None:
    """Refuse what no signature could make right."""
    found = find_forbidden(order.reason)
    if found is not None:
        raise Problem(f"{found}_present", pointer="/order/reason")
    if not dt.timedelta(0) < order.expires_at - order.issued_at <= LIFE_MAX:
        raise Problem("order_invalid", limit=LIFE_MAX.days, expected="a life of at most this many days")
    if (order.recipient is not None) != (order.action == "export"):
        raise Problem("order_invalid", expected="a recipient for an export, and for nothing else")
    given = {isinstance(order.cell, str), isinstance(order.moment, dt.datetime)}
    if given != {order.action == "restore"}:
        raise Problem("order_invalid", expected="a cell and a moment for a restore, and for nothing else")
    if isinstance(order.moment, dt.datetime) and order.moment >= order.issued_at:
        raise Problem("order_invalid", expected="a moment before the order was made")
    if order.recipient is not None:
        try:
            X25519PrivateKey.generate().exchange(X25519PublicKey.from_public_bytes(order.recipient))
        except ValueError:
            raise Problem("order_invalid", expected="an X25519 public key that keeps a secret") from None


def _check_subject(order: Order, action: Action, agency: AgencyRow, at: dt.datetime) -> None:
    if order.action != action:
        raise Problem("order_invalid", expected="an order for this act")
    if order.agency != agency.code:
        raise Problem("order_invalid", expected="an order of this agency")
    if not order.issued_at <= at + _CLOCKS_APART or not at < order.expires_at:
        raise Problem("order_invalid", expected="an order that is valid now")


def _signers(
    document: SignedOrder,
    agency: AgencyRow,
    directory: Directory,
    trusted: Sequence[x509.Certificate],
    at: dt.datetime,
    revoked: Revoked,
) -> tuple[str, ...]:
    """Return who signed, once every signature is right: one that is wrong spoils the order."""
    content = signed_bytes(document.order)
    signers = [_signer(each, content, trusted, at, revoked) for each in document.signatures]
    for signer in signers:
        _check_officer(signer.client, agency, directory)
    # One person with two registrations has one card; two people do not share a key.
    keys = {signer.public.public_numbers() for signer in signers}
    if min(len({signer.client for signer in signers}), len(keys)) < OFFICERS:
        raise Problem("order_invalid", limit=OFFICERS, expected="signatures of this many different officers")
    return tuple(signer.client for signer in signers)


def _signer(
    given: OfficerSignature, content: bytes, trusted: Sequence[x509.Certificate], at: dt.datetime, revoked: Revoked
) -> Credential:
    try:
        chain = read_chain(given.certificates)
        credential = verify_chain(chain, trusted, at)
    except UntrustedError:
        raise Problem("order_invalid", expected="client certificates of this authority, valid now") from None
    if any(revoked(certificate) for certificate in chain):
        raise Problem("order_invalid", expected="certificates that are not revoked")
    try:
        credential.public.verify(given.signature, content, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        raise Problem("order_invalid", expected="signatures over exactly this order") from None
    return credential


def _check_officer(client: str, agency: AgencyRow, directory: Directory) -> None:
    try:
        # A closed agency's officers may still order: its destruction is ordered after it was closed.
        directory.allow(client, agency.code, "order", closed=True)
    except Problem:
        raise Problem("order_invalid", expected="officers of this agency with the function order") from None
