"""Links of kind ``ipsec`` as functions: an appliance makes no request and opens no grant, so it gets a sheet.

The second operator's approval takes in what a device would have asked for, draws the pre-shared keys, and keeps the
sheet (``vpn.ipsec.sheet``) that the body's engineer types into the appliance. The link's device keys in the database
are those of nobody: their private halves are never kept, so nothing can be signed or opened in the appliance's name.

Invariant: a pre-shared key stands on the sheet and, sealed, in the database, and nowhere else; the sheet is a private
file that is kept before anything is in force, and it is to be handed over as a key is.
"""

import datetime as dt
import hashlib
from collections.abc import Iterable
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from chukan.errors import Problem
from chukan.ops.installation import Installation
from chukan.ops.link_acts import GRANT_DAYS, Granted, Keep, centre_address, require_free, steward
from chukan.tenants.links import GatewayRow, LinkRow, LinkSteward, Requested, RequestedPeer
from chukan.vpn import enrolment
from chukan.vpn.ipsec.sheet import ipsec_sheet
from chukan.vpn.model import KEY_BYTES
from chukan.vpn.psk_sealing import seal_psk

_CONFIG: Final = {"auth": "psk"}
"""What the gateway needs to know of an appliance: it has a pre-shared key, and the identity that follows from it."""


async def approve(installation: Installation, link: str, *, second: str, keep: Keep, days: int = GRANT_DAYS) -> Granted:
    """Approve a link of kind ``ipsec`` as the second person; ``keep`` gets the sheet, which holds keys in the clear.

    Raises ``Problem``: link_state, second_person, gateway_incomplete, invitation_invalid, as the steward's.
    """
    door = steward(installation)
    row = await door.show(link)
    if row.kind != "ipsec" or row.state not in ("invited", "requested"):
        raise Problem("link_state", expected="a link of kind ipsec that was invited")
    # Told before anything is made; the database holds to it whatever is said here.
    if second.casefold() == row.invited_by.casefold():
        raise Problem("second_person")
    gateways = await door.gateways()
    if row.state == "invited":
        await _request(door, row, gateways, second)
    now = installation.clock.now().replace(microsecond=0)
    until = now + dt.timedelta(days=days)
    sealed, granted = _draw(installation, row, gateways, sorted(gateways), until)
    keep(granted.file)
    await door.approve(link, sealed, second=second, valid_from=now, valid_until=until)
    return granted


async def rotate(
    installation: Installation,
    link: str,
    *,
    who: str | None,
    second: str,
    keep: Keep,
    centre: str | None = None,
    replace: bool = False,
) -> Granted:
    """Lay down new pre-shared keys and keep their sheet; the present ones hold until the appliance uses the new ones.

    Who has the sheet can come in with it, so it takes two people: ``who`` asks, ``second`` does it. Raises ``Problem``:
    second_person, link_state, no_such_link, invalid_field for a centre that the link has not.
    """
    if who is None or second.casefold() == who.casefold():
        raise Problem("second_person", expected="--asked-by")
    door = steward(installation)
    row = await door.show(link)
    if row.kind != "ipsec" or row.state not in ("active", "suspended") or row.valid_until is None:
        raise Problem("link_state", expected="an active link of kind ipsec")
    centres = sorted(name for name in row.peers if centre in (None, name))
    if not centres:
        raise Problem("invalid_field", pointer="/centre", expected=", ".join(sorted(row.peers)))
    require_free({name: row.peers[name] for name in centres}, replace=replace)
    sealed, granted = _draw(installation, row, await door.gateways(), centres, row.valid_until)
    keep(granted.file)
    for name, psk in sealed.items():
        await door.put_next_key(link, name, psk=psk, who=who, second=second, replace=replace)
    return granted


async def _request(door: LinkSteward, row: LinkRow, gateways: Iterable[str], who: str) -> None:
    device = Ed25519PrivateKey.generate().public_key().public_bytes_raw()
    sealing = X25519PrivateKey.generate().public_key().public_bytes_raw()
    requested = Requested(
        invitation_key=row.invitation_key,
        device_key=device,
        device_sealing_key=sealing,
        digest=hashlib.sha256(device + sealing).digest(),
        peers={centre: RequestedPeer(public_key=None, config=_CONFIG) for centre in gateways},
    )
    await door.request(row.link, requested, who)


def _draw(
    installation: Installation, row: LinkRow, gateways: dict[str, GatewayRow], centres: list[str], until: dt.datetime
) -> tuple[dict[str, bytes], Granted]:
    """Draw a pre-shared key for each centre; return them sealed for the gateways, and the sheet."""
    missing = [centre for centre in centres if centre not in gateways]
    if missing or not centres:
        raise Problem("gateway_incomplete", expected=", ".join(missing) or "chukan link gateway CENTRE")
    psks = {centre: installation.chance.token(KEY_BYTES) for centre in centres}
    sealed = {
        centre: seal_psk(gateways[centre].sealing_key, psk, link=row.link, to=centre) for centre, psk in psks.items()
    }
    shared = installation.settings.links.service_address
    sheet = ipsec_sheet(
        row.link,
        {centre: gateways[centre].endpoint for centre in centres},
        psks,
        {centre: [centre_address(installation, centre), shared] for centre in centres},
    )
    file = sheet.encode("utf-8")
    return sealed, Granted(row.link, file, enrolment.digits(file), centres, until)
