"""What is known of the links of bodies (団体の回線): the rows that ``tenants.links`` reads and writes, as structures.

Invariant: nothing here is a secret that could be used. Pre-shared keys are sealed for one reader (``tenants.sealing``'s
form, HPKE), private keys are never among it; still no structure shows keys, sealed bytes or endpoints when it is
printed, because a log line is read by more people than a link concerns.
"""

import datetime as dt
from collections.abc import Mapping
from typing import Any, Final, Literal

import msgspec

State = Literal["invited", "requested", "active", "suspended", "revoked"]
"""``revoked`` is final; a link in it stays for ever, as the tombstone of its name and keys."""
Mode = Literal["pair", "service"]
"""``pair``: a tunnel to each centre and an agent; ``service``: one tunnel, which the centres take over by lease."""
Kind = Literal["wireguard", "ipsec"]

CHANNEL: Final = "chukan_links"
"""Where a hint is sent after each act; it says only that something changed."""
KEY_BYTES: Final = 32
SEALED_BYTES_MAX: Final = 1024
REASON_LENGTH_MAX: Final = 200
OPEN_INVITATIONS_MAX: Final = 3
"""How many invitations and requests of a body may be open at a time."""
INVITATION_DAYS_MAX: Final = 14
SEEN_MAX: Final = 5_000
"""How many sightings are written in one set; more are written in several."""
DRIFT_MAX: Final = 1_000
HISTORY_MAX: Final = 1_000


class _Quiet(msgspec.Struct, frozen=True, kw_only=True):
    """A structure that prints its name and what it belongs to, and nothing of its content."""

    def __repr__(self) -> str:
        of = getattr(self, "link", None) or getattr(self, "centre", None)
        return f"{type(self).__name__}({'' if of is None else of})"


class PeerRow(_Quiet, frozen=True, kw_only=True):
    """One end of a link at one centre (拠点)."""

    public_key: bytes | None
    """The device's WireGuard key there (32 octets); None for IPsec."""
    next_public_key: bytes | None = None
    psk: bytes | None = None
    """The pre-shared key, sealed for that centre's gateway; None until the link is approved, and once it is revoked."""
    next_psk: bytes | None = None
    config: Mapping[str, Any] | None = None
    """What IPsec needs to know of the device; holds no secret."""
    endpoint: str | None = None
    """From where it was seen last."""
    handshake_at: dt.datetime | None = None


class LinkRow(_Quiet, frozen=True, kw_only=True):
    """A link, with its ends by centre."""

    link: str
    body: str
    mode: Mode
    kind: Kind
    state: State
    prefixes: tuple[str, str]
    """Its inner IPv4 and IPv6, by the rule of ``link_plan``."""
    valid_from: dt.datetime | None
    valid_until: dt.datetime | None
    generation: int
    """Of the last act that changed it."""
    invited_by: str
    suspended_by: str | None
    invitation_key: bytes
    """Public half (Ed25519) of the key that the one-time code makes."""
    invitation_expires_at: dt.datetime
    requested_at: dt.datetime | None
    request_digest: bytes | None = None
    """SHA-256 of the request's file: who approves compares its beginning with the device's, over the telephone."""
    device_key: bytes | None
    """The device's own Ed25519 key, by which it signs what it asks for later."""
    device_sealing_key: bytes | None
    """The device's X25519 key, for which its grant is sealed."""
    peers: Mapping[str, PeerRow]


class RequestedPeer(_Quiet, frozen=True, kw_only=True):
    """What a device asks for at one centre."""

    public_key: bytes | None
    config: Mapping[str, Any] | None = None


class Requested(_Quiet, frozen=True, kw_only=True):
    """A device's request, its signatures verified by the caller; public halves only."""

    invitation_key: bytes
    """The key by which the request's signature was verified; it must be the invitation's."""
    device_key: bytes
    device_sealing_key: bytes
    digest: bytes
    """SHA-256 of the request file: the same one may be handed in again, another one may not."""
    peers: Mapping[str, RequestedPeer]


class GatewayRow(_Quiet, frozen=True, kw_only=True):
    """A centre's gateway, as devices must know it."""

    centre: str
    endpoint: str
    public_key: bytes
    sealing_key: bytes
    """X25519, for which pre-shared keys are sealed."""
    next_public_key: bytes | None = None
    next_endpoint: str | None = None
    service_public_key: bytes | None = None
    """The key that both centres have for links in mode ``service``."""
    draining: bool = False
    generation: int = 0


class GatewayPart(_Quiet, frozen=True, kw_only=True):
    """What is to be changed of a gateway; None leaves it as it is.

    The first time ``endpoint``, ``public_key`` and ``sealing_key`` are needed.
    """

    endpoint: str | None = None
    public_key: bytes | None = None
    sealing_key: bytes | None = None
    next_public_key: bytes | None = None
    next_endpoint: str | None = None
    service_public_key: bytes | None = None


class DesiredPeer(_Quiet, frozen=True, kw_only=True):
    """A link as one centre's gateway must have it; suspended and revoked ones so that it must not."""

    link: str
    body: str
    mode: Mode
    kind: Kind
    state: State
    public_key: bytes | None
    next_public_key: bytes | None
    psk: bytes | None
    next_psk: bytes | None
    prefixes: tuple[str, str]
    valid_from: dt.datetime | None
    valid_until: dt.datetime | None
    generation: int
    endpoint: str | None
    """From where the device was seen last at this centre; in mode ``service`` at either."""
    config: Mapping[str, Any] | None = None


class Desired(_Quiet, frozen=True, kw_only=True):
    """All that one centre's gateway must have. ``number`` is the highest generation that any act has given."""

    number: int
    gateway: GatewayRow | None
    """None while the centre's gateway is not known."""
    peers: tuple[DesiredPeer, ...]


class Seen(_Quiet, frozen=True, kw_only=True):
    """From where a device was seen, and when it last shook hands."""

    link: str
    endpoint: str
    handshake_at: dt.datetime


class Drifted(_Quiet, frozen=True, kw_only=True):
    """A difference that was found on a gateway; ``link`` is None for what belongs to none."""

    link: str | None
    kind: str
    repaired: bool


class Change(_Quiet, frozen=True, kw_only=True):
    """One line of the audit: who did what, before and after. Keys are named by the first 8 hex digits of SHA-256."""

    n: int
    at: dt.datetime
    link: str | None
    centre: str | None
    act: str
    who: str
    second: str | None
    reason: str | None
    before: Mapping[str, Any] | None
    after: Mapping[str, Any] | None
    generation: int
