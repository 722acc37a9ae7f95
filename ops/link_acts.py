"""An operator's acts on links (団体の回線) as functions: for the command line, the demo and tests alike.

``invite`` draws a code and keeps its public half; ``enrol`` takes in a device's request; ``approve``, by another one,
makes the pre-shared keys and the grant; ``rotate`` makes new ones. What else there is (suspend, resume, revoke, drain)
are acts of ``tenants.links`` as they stand.

Invariant: a pre-shared key lives in memory between being drawn and being sealed, and leaves this module sealed alone:
for the gateway into the database, for the device into its grant. A file that travels is kept (``keep``) before the
commit that makes it true, for what it holds cannot be made a second time.
"""

import datetime as dt
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey

from chukan.errors import Problem
from chukan.ops.certificates import LEAF_DAYS, Authority
from chukan.ops.installation import Installation
from chukan.platform.tls import CLIENT_URN
from chukan.tenants import link_plan
from chukan.tenants.directory import Directory, key_id
from chukan.tenants.links import GatewayRow, Kind, LinkRow, LinkSteward, Mode, PeerRow, Requested, RequestedPeer
from chukan.vpn import enrolment, invitation
from chukan.vpn.enrolment import Grant, GrantedCentre, Request
from chukan.vpn.model import KEY_BYTES
from chukan.vpn.psk_sealing import DEVICE, seal_psk

Keep = Callable[[bytes], None]
"""Keeps a file before it counts; raises ``Problem`` where it cannot."""

GRANT_DAYS: Final = LEAF_DAYS
"""How long a link may be used unless told otherwise: as long as the certificate that is made with it."""
GRANT_DAYS_MAX: Final = 3_653
SERVICE: Final = "service"
"""The name of the one end that a device of one tunnel has."""


class Invited(NamedTuple):
    """An invitation; its ``code`` is to be told to one person, once, and is nowhere else.

    ``platform_key`` is the id of the key that grants are signed with: the device shows it when its folder is made, and
    two people compare it.
    """

    link: str
    code: str
    expires_at: dt.datetime
    platform_key: str

    def __repr__(self) -> str:
        return f"Invited({self.link})"


class Enrolled(NamedTuple):
    """A request that was taken in, and the digits by which two people compare its file."""

    link: str
    digits: str
    systems: list[str]
    """Ids of systems that a certificate is asked for."""


class Granted(NamedTuple):
    """A grant as a file, and which centres' tunnels it is about."""

    link: str
    file: bytes
    digits: str
    centres: list[str]
    valid_until: dt.datetime

    def __repr__(self) -> str:
        return f"Granted({self.link})"


def steward(installation: Installation) -> LinkSteward:
    """Return the door to the desired state of all links."""
    return LinkSteward(installation.cells, installation.settings.links_cell)


async def invite(installation: Installation, body: str, *, mode: Mode, kind: Kind, days: int, who: str) -> Invited:
    """Invite a body (6-digit code): a new link, and the code that ties a device to it. ``Problem`` as the steward's."""
    code = invitation.new_code(installation.chance)
    expires_at = installation.clock.now() + dt.timedelta(days=days)
    link = await steward(installation).invite(body, mode, kind, invitation.public_of(code), expires_at, who)
    return Invited(link, code, expires_at, key_id(installation.public))


async def enrol(installation: Installation, file: bytes, who: str) -> Enrolled:
    """Take in a device's request once every signature on it was verified.

    Raises ``Problem``: request_invalid, invitation_invalid, no_such_link; gateway_incomplete for a centre without a
    gateway; other as the steward's ``request``.
    """
    door = steward(installation)
    row, request = await _verified(installation, door, file)
    if request.platform_key != key_id(installation.public):
        raise Problem("request_invalid", pointer="/content/platform_key", expected=key_id(installation.public))
    gateways = await door.gateways()
    await door.request(
        row.link,
        Requested(
            invitation_key=row.invitation_key,
            device_key=request.signing_key,
            device_sealing_key=request.sealing_key,
            digest=enrolment.digest(file),
            peers=_peers(row, request, gateways),
        ),
        who,
    )
    return Enrolled(row.link, enrolment.digits(file), _systems(request))


async def _verified(installation: Installation, door: LinkSteward, file: bytes) -> tuple[LinkRow, Request]:
    signed = enrolment.read_request(file)
    row = await door.show(signed.content.link)
    return row, enrolment.verify_request(signed, row.invitation_key, installation.clock.now())


def _peers(row: LinkRow, request: Request, gateways: Mapping[str, GatewayRow]) -> dict[str, RequestedPeer]:
    """Return what each centre's gateway is to have; a device of one tunnel has one key for all of them."""
    if row.kind != "wireguard":
        raise Problem("request_invalid", pointer="/content/link", expected="a link of kind wireguard")
    if row.mode == "service":
        if len(request.keys) != 1:
            raise Problem("request_invalid", pointer="/content/keys", limit=1, expected="one key, for mode service")
        keys = dict.fromkeys(gateways, next(iter(request.keys.values())))
    else:
        keys = dict(request.keys)
    for centre in keys or {"": b""}:
        if centre not in gateways:
            raise Problem("gateway_incomplete", expected=centre or "chukan link gateway CENTRE")
    return {centre: RequestedPeer(public_key=key) for centre, key in keys.items()}


# ---------------------------------------------------------------- approval and rotation


async def approve(
    installation: Installation,
    link: str,
    *,
    second: str,
    keep: Keep,
    request: bytes | None = None,
    authority: Path | None = None,
    days: int = GRANT_DAYS,
) -> Granted:
    """Approve a link as the second person: draw and seal its pre-shared keys, sign the grant, let traffic in.

    Args:
        installation: with the key that signs the common data.
        link: one whose request was taken in.
        second: who approves; not who invited.
        keep: keeps the grant, before anything is in force.
        request: the request's file once more, where a certificate is asked for.
        authority: folder of the authority that certifies the body's system; None for no certificate.
        days: how long the link may be used.

    Raises:
        Problem: link_state, second_person, setting_missing without the signing key, gateway_incomplete,
            request_invalid where a certificate is asked for a system that is not the body's.
    """
    door = steward(installation)
    row = await door.show(link)
    if row.state != "requested" or row.device_key is None or row.device_sealing_key is None:
        raise Problem("link_state", expected="requested")
    # Told before anything is made; the database holds to it whatever is said here.
    if second.casefold() == row.invited_by.casefold():
        raise Problem("second_person")
    chain = None if authority is None else await _certify(installation, row, request, authority)
    now = installation.clock.now().replace(microsecond=0)
    until = now + dt.timedelta(days=days)
    sealed, ends = _make_keys(installation, row, row.peers, await door.gateways())
    granted = _grant(installation, row, ends, now, until, chain)
    keep(granted.file)
    await door.approve(link, sealed, second=second, valid_from=now, valid_until=until)
    return granted


async def rotate(
    installation: Installation,
    link: str,
    *,
    who: str,
    keep: Keep,
    centre: str | None = None,
    wish: bytes | None = None,
    replace: bool = False,
) -> Granted:
    """Lay down new pre-shared keys, and a device's new key where it wishes for one; the present ones hold meanwhile.

    Args:
        installation: with the key that signs the common data.
        link: an active or suspended one.
        who: who rotates; one person may.
        keep: keeps the grant, before anything is in force.
        centre: the one whose tunnel gets new keys; all unless given. One at a time loses nothing.
        wish: the file by which the device asks for a new key at a centre.
        replace: also in the place of next keys that the device has not turned to yet.

    Raises:
        Problem: link_state (other next keys lie there already), request_invalid, link_key_taken, no_such_link.
    """
    door = steward(installation)
    row = await door.show(link)
    if row.state not in ("active", "suspended") or row.valid_until is None:
        raise Problem("link_state", expected="active")
    following: bytes | None = None
    if wish is not None:
        centre, following = _wished(installation, row, wish)
    peers = {name: peer for name, peer in row.peers.items() if centre in (None, name) or row.mode == "service"}
    if not peers:
        raise Problem("invalid_field", pointer="/centre", expected=", ".join(row.peers))
    require_free(peers, replace=replace)
    sealed, ends = _make_keys(installation, row, peers, await door.gateways(), following)
    granted = _grant(installation, row, ends, installation.clock.now().replace(microsecond=0), row.valid_until, None)
    keep(granted.file)
    for name, psk in sealed.items():
        await door.put_next_key(link, name, public_key=following, psk=psk, who=who, replace=replace)
    return granted


def require_free(peers: Mapping[str, PeerRow], *, replace: bool) -> None:
    """Refuse before the first commit what the database would refuse at a later centre; ``Problem`` link_state.

    There is a commit for each centre and one file for all: taken away at a refusal, it would take along the keys that
    lie at the centres before.
    """
    waiting = [name for name, peer in peers.items() if peer.next_public_key is not None or peer.next_psk is not None]
    if waiting and not replace:
        raise Problem("link_state", expected=f"--replace, or --centre without {', '.join(sorted(waiting))}")


def link_of_wish(file: bytes) -> str:
    """Return the link that a rotation file says it is of. Raises ``Problem`` request_invalid."""
    return enrolment.read_rotation(file).content.link


def _wished(installation: Installation, row: LinkRow, file: bytes) -> tuple[str, bytes]:
    signed = enrolment.read_rotation(file)
    if signed.content.link != row.link or row.device_key is None:
        raise Problem("request_invalid", pointer="/content/link", expected=row.link)
    wish = enrolment.verify_rotation(signed, row.device_key, installation.clock.now())
    return wish.centre, wish.key


def _make_keys(
    installation: Installation,
    row: LinkRow,
    peers: Mapping[str, PeerRow],
    gateways: Mapping[str, GatewayRow],
    following: bytes | None = None,
) -> tuple[dict[str, bytes], dict[str, GrantedCentre]]:
    """Draw pre-shared keys; return them sealed for the gateways, and the tunnels as the device is to have them.

    A device of one tunnel has one pre-shared key, which both gateways must have, and one end.
    """
    if row.device_sealing_key is None:
        raise Problem("link_state")
    shared = installation.chance.token(KEY_BYTES)
    sealed: dict[str, bytes] = {}
    ends: dict[str, GrantedCentre] = {}
    for centre, peer in peers.items():
        gateway = gateways.get(centre)
        if gateway is None:
            raise Problem("gateway_incomplete", expected=centre)
        psk = shared if row.mode == "service" else installation.chance.token(KEY_BYTES)
        sealed[centre] = seal_psk(gateway.sealing_key, psk, link=row.link, to=centre)
        mine = seal_psk(row.device_sealing_key, psk, link=row.link, to=DEVICE)
        ends[centre] = _end(installation, row, gateway, following or peer.public_key, mine)
    if row.mode == "service":
        home = installation.settings.site.centre if installation.settings.site.centre in ends else min(ends)
        return sealed, {SERVICE: ends[home]}
    return sealed, ends


def _end(
    installation: Installation, row: LinkRow, gateway: GatewayRow, device_key: bytes | None, psk: bytes
) -> GrantedCentre:
    """Return one tunnel. A gateway's next key and endpoint count already where they are laid down."""
    links = installation.settings.links
    endpoint = gateway.next_endpoint or gateway.endpoint
    key = gateway.next_public_key or gateway.public_key
    if device_key is None:
        raise Problem("link_state", expected="a link of kind wireguard")
    address = centre_address(installation, gateway.centre)
    if row.mode == "service":
        if gateway.service_public_key is None:
            raise Problem("gateway_incomplete", pointer="/service_key", expected=gateway.centre)
        key, address = gateway.service_public_key, links.service_address
        endpoint = f"{endpoint.rpartition(':')[0]}:{links.service_tunnel_port}"
    return GrantedCentre(
        address=address,
        endpoint=endpoint,
        gateway_key=key,
        device_key=device_key,
        psk=psk,
    )


def centre_address(installation: Installation, centre: str) -> str:
    """Return a centre's own service address: the settings', or that of its place in the plan."""
    given = installation.settings.links.addresses
    if centre in given:
        return given[centre]
    places = dict(zip(sorted(installation.settings.keystores), link_plan.CENTRE_ADDRESSES, strict=False))
    if centre not in places:
        raise Problem("setting_missing", pointer=f"/links/addresses/{centre}")
    return places[centre]


def _grant(
    installation: Installation,
    row: LinkRow,
    ends: Mapping[str, GrantedCentre],
    now: dt.datetime,
    until: dt.datetime,
    chain: str | None,
) -> Granted:
    settings = installation.settings
    if row.device_key is None:
        raise Problem("link_state")
    grant = Grant(
        link=row.link,
        signing_key=row.device_key,
        addresses=[link_plan.inner_v4(row.link), link_plan.inner_v6(row.link)],
        centres=dict(ends),
        service_address=settings.links.service_address,
        service_port=settings.links.service_port or settings.exchange.agency_port,
        health_port=settings.links.health_port or settings.exchange.health_port,
        certificate_chain=chain,
        made_at=now,
        valid_until=until,
    )
    file = enrolment.sign_grant(grant, installation.signing_key)
    try:
        # As the device will: a name in an endpoint or an address beside the plan would be found there, too late.
        enrolment.verify_grant(file, installation.public, now)
    except Problem:
        expected = "address:port of each gateway (chukan link gateway), and [links] as the plan of addresses has it"
        raise Problem("gateway_incomplete", expected=expected) from None
    return Granted(row.link, file, enrolment.digits(file), sorted(ends), until)


# ---------------------------------------------------------------- the certificate of the body's system


def _systems(request: Request) -> list[str]:
    """Return the ids of the systems that a request asks a certificate for."""
    if request.certificate_request is None:
        return []
    names = enrolment.requested_names(request.certificate_request)
    return [name.removeprefix(CLIENT_URN) for name in names if name.startswith(CLIENT_URN)]


async def _certify(installation: Installation, row: LinkRow, file: bytes | None, authority: Path) -> str:
    """Certify the one system that the request names; it must be registered, and the body's."""
    if file is None:
        raise Problem("invalid_field", pointer="/request", expected="--request FILE, to certify what it asks for")
    signed = enrolment.read_request(file)
    request = enrolment.verify_request(signed, row.invitation_key, installation.clock.now())
    systems = _systems(request)
    if request.link != row.link or request.signing_key != row.device_key or len(systems) != 1:
        raise Problem("request_invalid", pointer="/content/certificate_request", expected="one system of this link")
    registered = Directory(await installation.coming()).client(systems[0])
    if registered.body != row.body or registered.kind != "system":
        raise Problem("request_invalid", pointer="/content/certificate_request", expected="a system of the link's body")
    asked = x509.load_pem_x509_csr((request.certificate_request or "").encode()).public_key()
    if not isinstance(asked, EllipticCurvePublicKey):
        raise Problem("request_invalid", pointer="/content/certificate_request")
    return Authority(authority, installation.clock).certify_client(systems[0], asked).decode("ascii")
