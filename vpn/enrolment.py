"""The files of an enrolment (回線の開設): a device's request, the platform's grant, and a device's wish for a new key.

They travel by any way that people have, and hold no secret: public keys, addresses, and pre-shared keys that only the
named device opens. The request is signed by the invitation's key and by the device's own, the grant by the key that
signs the common data (``tenants.directory``), a rotation by the device's key.

Each file is JSON in one byte form (members sorted, no spaces), with a version; what is not in exactly that form, is
larger than ``FILE_BYTES_MAX``, or has an unknown member, is refused.

Invariant: nothing of a file is used before every signature on it was verified, and a signature over one kind of file is
none over another. Pure: files, keys and the time are given.
"""

import datetime as dt
import hashlib
import ipaddress
from typing import Annotated, Final, Literal, TypeVar

import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from chukan.errors import Problem
from chukan.tenants import link_plan
from chukan.tenants.credentials import UNREADABLE
from chukan.tenants.directory import Instant, key_id
from chukan.vpn.model import KEY_BYTES

T = TypeVar("T")

_DIGITS: Final = 16
FILE_BYTES_MAX: Final = 64 * 1024
AGE_MAX: Final = dt.timedelta(days=31)
"""How old a request or a rotation may be; an invitation usually ends long before."""
SKEW_MAX: Final = dt.timedelta(minutes=10)
"""By how much a device's clock may be ahead."""
CENTRES_MAX: Final = 4
SEALED_BYTES: Final = 32 + KEY_BYTES + 16
"""A pre-shared key under HPKE: encapsulated key, key, tag (``psk_sealing``)."""

LinkName = Annotated[str, msgspec.Meta(pattern=r"^[0-9]{6}-[1-9][0-9]?$")]
Centre = Annotated[str, msgspec.Meta(pattern=r"^[a-z][a-z0-9-]{0,31}$")]
Key = Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
Signature = Annotated[bytes, msgspec.Meta(min_length=64, max_length=64)]
Pem = Annotated[str, msgspec.Meta(min_length=1, max_length=16 * 1024)]
Port = Annotated[int, msgspec.Meta(ge=1, le=65_535)]
Address = Annotated[str, msgspec.Meta(min_length=2, max_length=64)]
KeyId = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{16}$")]


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of everything in the files."""


class Request(_File, frozen=True, kw_only=True):
    """What a device asks for: its public keys, made on it, and the certificate request of the body's system."""

    kind: Literal["chukan-link-request"] = "chukan-link-request"
    version: Literal[1] = 1
    link: LinkName
    keys: Annotated[dict[Centre, Key], msgspec.Meta(min_length=1, max_length=CENTRES_MAX)]
    """WireGuard public keys by centre; each centre has its own."""
    signing_key: Key
    """Ed25519; signs what the device asks for later."""
    sealing_key: Key
    """X25519; what is sealed for the device is sealed to it."""
    platform_key: KeyId
    """Id of the platform's key that the device will believe, so that a wrong one shows before the grant."""
    certificate_request: Pem | None = None
    """PKCS#10 (RFC 2986), P-256, of the body's business system."""
    made_at: Instant


class GrantedCentre(_File, frozen=True, kw_only=True):
    """One of the two tunnels: whom to call, and for which of the device's keys."""

    address: Address
    """The centre's own service address inside the tunnel."""
    endpoint: Address
    """``address:port`` outside; no name, for nothing authenticates an answer of the DNS here."""
    gateway_key: Key
    device_key: Key
    """The device's public key that the gateway expects."""
    psk: Annotated[bytes, msgspec.Meta(min_length=SEALED_BYTES, max_length=SEALED_BYTES)]
    """Sealed for the device (``psk_sealing``, to ``DEVICE``)."""


class Grant(_File, frozen=True, kw_only=True):
    """Everything a device needs to know of the platform."""

    kind: Literal["chukan-link-grant"] = "chukan-link-grant"
    version: Literal[1] = 1
    link: LinkName
    signing_key: Key
    """The device that it is for."""
    addresses: Annotated[list[Address], msgspec.Meta(min_length=2, max_length=2)]
    """The link's inner IPv4 and IPv6, which follow from its name (``tenants.link_plan``)."""
    centres: Annotated[dict[Centre, GrantedCentre], msgspec.Meta(min_length=1, max_length=CENTRES_MAX)]
    service_address: Address = link_plan.SERVICE_ADDRESS
    service_port: Port
    health_port: Port
    mtu: Annotated[int, msgspec.Meta(ge=1280, le=1420)] = 1380
    keepalive_s: Annotated[int, msgspec.Meta(ge=1, le=120)] = 25
    certificate_chain: Pem | None = None
    made_at: Instant
    valid_until: Instant


class Rotation(_File, frozen=True, kw_only=True):
    """A device's wish for a new key at one centre, with a new pre-shared key."""

    kind: Literal["chukan-link-rotation"] = "chukan-link-rotation"
    version: Literal[1] = 1
    link: LinkName
    centre: Centre
    key: Key
    made_at: Instant


class _RequestSignatures(_File, frozen=True, kw_only=True):
    device: Signature
    invitation: Signature


class SignedRequest(_File, frozen=True, kw_only=True):
    """A request file; its content is to be believed only after ``verify_request``."""

    content: Request
    signatures: _RequestSignatures


class _GrantSignatures(_File, frozen=True, kw_only=True):
    key: KeyId
    platform: Signature


class SignedGrant(_File, frozen=True, kw_only=True):
    """A grant file; see ``verify_grant``."""

    content: Grant
    signatures: _GrantSignatures


class _RotationSignatures(_File, frozen=True, kw_only=True):
    device: Signature


class SignedRotation(_File, frozen=True, kw_only=True):
    """A rotation file; see ``verify_rotation``."""

    content: Rotation
    signatures: _RotationSignatures


# ---------------------------------------------------------------- the request


def sign_request(request: Request, *, invitation: Ed25519PrivateKey, device: Ed25519PrivateKey) -> bytes:
    """Return the file of a request."""
    body = _body(request)
    signatures = _RequestSignatures(device=device.sign(body), invitation=invitation.sign(body))
    return _encode(SignedRequest(content=request, signatures=signatures)) + b"\n"


def read_request(file: bytes) -> SignedRequest:
    """Return a request file as it says it is: its link tells whose invitation to verify it with.

    Raises ``Problem`` request_invalid.
    """
    return _read(file, SignedRequest, "request_invalid")


def verify_request(signed: SignedRequest, invitation: bytes, now: dt.datetime) -> Request:
    """Return what was asked for, if whoever has the invitation's code and the device's key asked it.

    Args:
        signed: as ``read_request`` returned it.
        invitation: the public half of the invitation of the link that the request names, 32 bytes.
        now: aware.

    Raises:
        Problem: invitation_invalid when another code, or none, signed it; request_invalid for anything else: the
            device's signature, keys that cannot be used or are used twice, its age, the certificate request.
    """
    request = signed.content
    body = _body(request)
    if not _signed_by(invitation, signed.signatures.invitation, body):
        raise Problem("invitation_invalid")
    wireguard = list(request.keys.values())
    usable = all(map(is_public, [*wireguard, request.sealing_key]))
    if (
        not _signed_by(request.signing_key, signed.signatures.device, body)
        or not usable
        or len({*wireguard, request.sealing_key}) != len(wireguard) + 1
        or not _is_link(request.link)
        or not _is_fresh(request.made_at, now)
    ):
        raise Problem("request_invalid")
    if request.certificate_request is not None:
        requested_names(request.certificate_request)
    return request


def requested_names(pem: str) -> list[str]:
    """Return the SAN URIs that a certificate request asks for, after checking its own signature and its key (P-256).

    Whether the body may have them is for whoever certifies. Raises ``Problem`` request_invalid.
    """
    try:
        asked = x509.load_pem_x509_csr(pem.encode())
        key = asked.public_key()
        names = asked.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        proven = asked.is_signature_valid
    except UNREADABLE:
        raise Problem("request_invalid", pointer="/content/certificate_request") from None
    if not proven or not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise Problem("request_invalid", pointer="/content/certificate_request")
    return names.get_values_for_type(x509.UniformResourceIdentifier)


# ---------------------------------------------------------------- the grant


def sign_grant(grant: Grant, platform: Ed25519PrivateKey) -> bytes:
    """Return the file of a grant, signed by the key that signs the common data."""
    signatures = _GrantSignatures(key=key_id(platform.public_key()), platform=platform.sign(_body(grant)))
    return _encode(SignedGrant(content=grant, signatures=signatures)) + b"\n"


def verify_grant(file: bytes, platform: Ed25519PublicKey, now: dt.datetime | None) -> Grant:
    """Return what the platform granted; ``now`` is None for a grant that was accepted in its time.

    Raises ``Problem`` grant_invalid: forged, altered, not yet or no longer valid, or against the plan of addresses.
    """
    signed = _read(file, SignedGrant, "grant_invalid")
    grant = signed.content
    if (
        signed.signatures.key != key_id(platform)
        or not _signed_by(platform.public_bytes_raw(), signed.signatures.platform, _body(grant))
        or not _is_link(grant.link)
        or grant.addresses != [link_plan.inner_v4(grant.link), link_plan.inner_v6(grant.link)]
        or (now is not None and not grant.made_at - SKEW_MAX <= now < grant.valid_until)
    ):
        raise Problem("grant_invalid")
    inside = ipaddress.IPv4Network(link_plan.SERVICE_RANGE)
    for address in (grant.service_address, *(centre.address for centre in grant.centres.values())):
        if not _is_inside(address, inside):
            raise Problem("grant_invalid")
    if not all(is_endpoint(centre.endpoint) and is_public(centre.gateway_key) for centre in grant.centres.values()):
        raise Problem("grant_invalid")
    return grant


def is_endpoint(text: str) -> bool:
    """Tell whether a text is ``address:port``, IPv6 in brackets; no names."""
    host, _, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    try:
        address = ipaddress.ip_address(host[1:-1] if bracketed else host)
    except ValueError:
        return False
    right_form = (address.version == 6) == bracketed  # noqa: PLR2004 - the version of the protocol
    return right_form and port.isascii() and port.isdigit() and 0 < int(port) <= 65_535  # noqa: PLR2004 - 16 bits


# ---------------------------------------------------------------- the rotation


def sign_rotation(rotation: Rotation, device: Ed25519PrivateKey) -> bytes:
    """Return the file of a rotation, signed by the device."""
    signatures = _RotationSignatures(device=device.sign(_body(rotation)))
    return _encode(SignedRotation(content=rotation, signatures=signatures)) + b"\n"


def read_rotation(file: bytes) -> SignedRotation:
    """Return a rotation file as it says it is: its link tells which device must have signed it.

    Raises ``Problem`` request_invalid.
    """
    return _read(file, SignedRotation, "request_invalid")


def verify_rotation(signed: SignedRotation, device: bytes, now: dt.datetime) -> Rotation:
    """Return the rotation if the link's device (its Ed25519 key, 32 bytes) asks for it; ``Problem`` request_invalid."""
    rotation = signed.content
    if (
        not _signed_by(device, signed.signatures.device, _body(rotation))
        or not is_public(rotation.key)
        or not _is_link(rotation.link)
        or not _is_fresh(rotation.made_at, now)
    ):
        raise Problem("request_invalid")
    return rotation


# ---------------------------------------------------------------- what they share


def digest(file: bytes) -> bytes:
    """Return a file's SHA-256; two people compare its first 16 hexadecimal digits over the telephone."""
    return hashlib.sha256(file.strip()).digest()


def digits(file: bytes) -> str:
    """Return what two people compare of a file over the telephone: 16 digits in groups of four."""
    return grouped(digest(file))


def grouped(digest: bytes) -> str:
    """Return the beginning of a digest as people compare it."""
    text = digest.hex()[:_DIGITS]
    return " ".join(text[at : at + 4] for at in range(0, _DIGITS, 4))


def _body(content: Request | Grant | Rotation) -> bytes:
    """Return the bytes that are signed: what kind of file it is stands in front, so that no kind passes for another."""
    return content.kind.encode() + b"\0" + _encode(content)


def _encode(content: _File) -> bytes:
    return msgspec.json.encode(content, order="sorted")


def _read(file: bytes, kind: type[T], code: str) -> T:
    if len(file) > FILE_BYTES_MAX:
        raise Problem("too_large", limit=FILE_BYTES_MAX)
    try:
        found = msgspec.json.decode(file, type=kind)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        raise Problem(code) from None
    # A member that stands twice, a number written in another way: what two readers could read differently is refused.
    if msgspec.json.encode(found, order="sorted") != file.strip():
        raise Problem(code)
    return found


def _signed_by(public: bytes, signature: bytes, body: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, body)
    except (InvalidSignature, ValueError):
        return False
    return True


def is_public(public: bytes) -> bool:
    """Tell whether X25519 bytes can be used at all: 32 of them, and not of small order (RFC 7748 §6.1)."""
    if len(public) != KEY_BYTES:
        return False
    try:
        X25519PrivateKey.generate().exchange(X25519PublicKey.from_public_bytes(public))
    except ValueError:
        return False
    return True


def _is_fresh(made_at: dt.datetime, now: dt.datetime) -> bool:
    return -SKEW_MAX <= now - made_at <= AGE_MAX


def _is_link(text: str) -> bool:
    try:
        link_plan.parse_link(text)
    except ValueError:
        return False
    return True


def _is_inside(address: str, network: ipaddress.IPv4Network) -> bool:
    try:
        return ipaddress.ip_address(address) in network
    except ValueError:
        return False
