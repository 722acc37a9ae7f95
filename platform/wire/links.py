"""Links (団体の回線) as a body's own systems and officers see them: ``/links`` of the agency API.

No key, no address outside the tunnel and no name of an operator stands in these messages.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec

from chukan.platform.wire.agency import PLAIN
from chukan.platform.wire.network import END, Instant, Message

LINK_FORM: Final = r"^[0-9]{6}-[1-9][0-9]?" + END

LinkName = Annotated[str, msgspec.Meta(pattern=LINK_FORM, description="回線の名前", examples=["131016-1"])]
LinkState = Literal["invited", "requested", "active", "suspended", "revoked"]


class LinkEnd(Message, frozen=True):
    """One end of a link: at the gateway of one centre (拠点)."""

    centre: str
    last_handshake: Instant | None = None
    """When device and gateway last agreed on a session key; none while they never did."""


class LinkView(Message, frozen=True):
    """A link of the body, and how it stands."""

    link: LinkName
    kind: Literal["wireguard", "ipsec"]
    mode: Literal["pair", "service"]
    """``pair``: a tunnel to each centre; ``service``: one tunnel, which the centres take over from each other."""
    state: LinkState
    generation: int
    """Raised by every act; of two answers the one with the higher number is the newer."""
    addresses: list[str]
    """What the device may send from inside the tunnel: an IPv4 and an IPv6 prefix."""
    ends: list[LinkEnd]
    valid_from: Instant | None = None
    valid_until: Instant | None = None
    suspended_by: Literal["operator", "officer"] | None = None
    """Who suspended it; what an operator suspended only an operator resumes."""


class LinkViews(Message, frozen=True):
    """All links of the body of the agency, also those that are revoked, by their names."""

    links: list[LinkView]


class LinkAct(Message, frozen=True):
    """Why, for the history of the link; nobody's number may stand in it."""

    reason: Annotated[str, msgspec.Meta(max_length=200, pattern=PLAIN)] = ""
