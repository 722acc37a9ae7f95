"""The three acts by which a device comes to its tunnels: it asks, it takes in what was granted, it changes a key.

Invariant: a grant is taken in whole or not at all: every check and every pre-shared key comes before the first file is
written. A tunnel that is in use is never replaced here but by an explicit word; the new one lies beside it until it has
shaken hands (``agent``). Every act can be done again with the same result.
"""

import datetime as dt
from typing import NamedTuple

from chukan.errors import Problem
from chukan.tenants.directory import key_id
from chukan.vpn import invitation
from chukan.vpn.device import keys, settings, wgquick
from chukan.vpn.device.folder import DeviceFolder, Tunnel
from chukan.vpn.enrolment import (
    Grant,
    GrantedCentre,
    Request,
    Rotation,
    sign_request,
    sign_rotation,
    verify_grant,
)
from chukan.vpn.psk_sealing import DEVICE, PskSealError, open_psk


class Accepted(NamedTuple):
    """What a grant changed, by centre: tunnels that are new, that wait for their first handshake, and the same ones."""

    fresh: list[str]
    waiting: list[str]
    same: list[str]


def request(folder: DeviceFolder, code: str, now: dt.datetime, *, system: tuple[str, str] | None = None) -> bytes:
    """Return the file that asks for the link, and keep a copy.

    Args:
        folder: the device's.
        code: the invitation's, as it was told.
        now: aware, UTC.
        system: name and SAN URI of the body's business system, for its certificate request; None for none.

    Raises:
        Problem: invitation_mistyped, device_damaged.
    """
    signer = invitation.key_of(code)
    asked = Request(
        link=folder.identity.link,
        keys={centre: _current_key(folder, centre) for centre in folder.centres},
        signing_key=folder.signing().public_key().public_bytes_raw(),
        sealing_key=folder.sealing().public_key().public_bytes_raw(),
        platform_key=key_id(folder.platform()),
        certificate_request=None if system is None else keys.certificate_request(folder.system(), *system),
        made_at=now.replace(microsecond=0),
    )
    file = sign_request(asked, invitation=signer, device=folder.signing())
    folder.keep("request.json", file)
    return file


def accept(folder: DeviceFolder, file: bytes, now: dt.datetime, *, at_once: bool = False) -> Accepted:
    """Take in a grant; with ``at_once`` a tunnel in use is replaced at once, for devices without an agent.

    A later grant may be of some centres only; the others stay as they are. Raises ``Problem`` grant_invalid (also for
    another device, an older grant than the last, or a key or certificate that is not this device's), device_damaged.
    """
    grant = verify_grant(file, folder.platform(), now)
    _require_ours(folder, grant)
    _require_newest(folder, grant)
    tunnels = [_open(folder, grant.link, centre, part) for centre, part in sorted(grant.centres.items())]
    accepted = Accepted([], [], [])
    for tunnel in tunnels:
        _place(folder, tunnel, accepted, at_once=at_once)
    if grant.certificate_chain is not None:
        folder.keep("system-certificate.pem", grant.certificate_chain.encode())
    folder.keep("grant.json", file)
    write_configurations(folder, grant)
    settings.write_first(folder)
    return accepted


def rotate(folder: DeviceFolder, centre: str, now: dt.datetime) -> bytes:
    """Return the file that asks for a new key at a centre; the same key again until it was granted.

    Raises ``Problem`` setting_invalid for no centre of this device, device_not_ready before the first grant.
    """
    if centre not in folder.centres:
        raise Problem("setting_invalid", pointer="/centre", expected=" or ".join(folder.centres))
    if folder.tunnel(centre) is None:
        raise Problem("device_not_ready", expected="chukan device accept")
    wish = Rotation(
        link=folder.identity.link, centre=centre, key=folder.waiting_key(centre), made_at=now.replace(microsecond=0)
    )
    file = sign_rotation(wish, folder.signing())
    folder.keep(f"rotation-{centre}.json", file)
    return file


def write_configurations(folder: DeviceFolder, grant: Grant) -> None:
    """Write the tunnels in use as wg-quick reads them."""
    for place, (centre, interface) in enumerate(folder.identity.interfaces.items()):
        tunnel = folder.tunnel(centre)
        if tunnel is not None:
            text = wgquick.render(grant, tunnel, folder.private(centre, tunnel.public_key), place)
            folder.keep(f"{interface}.conf", text.encode())


def _current_key(folder: DeviceFolder, centre: str) -> bytes:
    tunnel = folder.tunnel(centre)
    return folder.waiting_key(centre) if tunnel is None else tunnel.public_key


def _require_ours(folder: DeviceFolder, grant: Grant) -> None:
    """Refuse a grant that is not for this device; ``Problem`` grant_invalid."""
    ours = (
        grant.link == folder.identity.link
        and grant.signing_key == folder.signing().public_key().public_bytes_raw()
        and set(grant.centres) <= set(folder.centres)
        and all(part.device_key in folder.publics(centre) for centre, part in grant.centres.items())
        and (grant.certificate_chain is None or keys.certifies(grant.certificate_chain, folder.system()))
    )
    if not ours:
        raise Problem("grant_invalid", expected="a grant for this device")


def _require_newest(folder: DeviceFolder, grant: Grant) -> None:
    """Refuse the first grant unless it is of all centres, and a later one that is older than the last."""
    lacking = [centre for centre in folder.centres if centre not in grant.centres and folder.tunnel(centre) is None]
    if lacking:
        raise Problem("grant_invalid", expected="a grant of all centres")
    if (folder.path / "grant.json").exists() and grant.made_at < folder.grant().made_at:
        raise Problem("grant_invalid", expected="a grant that is newer than the last one")


def _open(folder: DeviceFolder, link: str, centre: str, part: GrantedCentre) -> Tunnel:
    try:
        psk = open_psk(folder.sealing(), part.psk, link=link, to=DEVICE)
        return Tunnel(
            centre=centre,
            address=part.address,
            public_key=part.device_key,
            psk=psk,
            gateway_key=part.gateway_key,
            endpoint=part.endpoint,
        )
    except PskSealError:
        raise Problem("grant_invalid", expected="a pre-shared key for this device") from None


def _place(folder: DeviceFolder, tunnel: Tunnel, accepted: Accepted, *, at_once: bool) -> None:
    used = folder.tunnel(tunnel.centre)
    if tunnel == used:
        accepted.same.append(tunnel.centre)
        folder.forget_next(tunnel.centre)
    elif used is None:
        accepted.fresh.append(tunnel.centre)
        folder.put_tunnel(tunnel, as_next=False)
    else:
        folder.put_tunnel(tunnel, as_next=True)
        accepted.waiting.append(tunnel.centre)
        if at_once:
            folder.promote(tunnel.centre)
