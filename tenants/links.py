"""The desired state of all links (団体の回線): who may have one, how it stands, and what a gateway must have.

It lies in one cell, the first by name (``links_cell``). ``LinkSteward`` is for those who decide, operators and officers
of the body; ``LinkController`` for a centre's gateway process, whose login may execute its few functions and read no
table. After each act a hint goes out on ``CHANNEL``, alone: nothing depends on its arrival.

Invariant: a link changes only by an act that stands in the audit (``link_change``) in the same commit, and each act
gives the next generation, one counter for all. Approval and resumption need another person than whoever invited or
suspended. A revoked link never comes back, and neither its serial nor its keys are ever another link's.
"""

from chukan.tenants.link_acts import LinkSteward
from chukan.tenants.link_calls import links_cell
from chukan.tenants.link_reads import LinkController
from chukan.tenants.link_rows import (
    CHANNEL,
    Change,
    Desired,
    DesiredPeer,
    Drifted,
    GatewayPart,
    GatewayRow,
    Kind,
    LinkRow,
    Mode,
    PeerRow,
    Requested,
    RequestedPeer,
    Seen,
    State,
)

__all__ = [
    "CHANNEL",
    "Change",
    "Desired",
    "DesiredPeer",
    "Drifted",
    "GatewayPart",
    "GatewayRow",
    "Kind",
    "LinkController",
    "LinkRow",
    "LinkSteward",
    "Mode",
    "PeerRow",
    "Requested",
    "RequestedPeer",
    "Seen",
    "State",
    "links_cell",
]
