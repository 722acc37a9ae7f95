"""Where a hostile network may be put in: a port that the simulated network passes every message through.

The shipped network uses ``NoFaults``. What a test or an operator orders by ``PUT /admin/faults`` (a ``FaultPlan``) is
carried out by ``hostility.PlannedFaults``: it may wait, lose, repeat, reorder, forge and re-sign, by call and by share.

Invariant: a fault changes what is on the wire and nothing that rests in the network's store; every fault that really
happened is counted.
"""

from collections.abc import Sequence
from typing import Annotated, Final, Literal, Protocol

import msgspec

from chukan.platform.envelope import Signed
from chukan.platform.wire.network import Message

Call = Literal[
    "permit-requests",
    "answers",
    "acquisitions",
    "answer-keys",
    "holders",
    "provider-keys",
    "acquisition-requests",
    "inventories",
    "redeliveries",
    "delegations",
    "corrections",
    "checkpoints",
    "resident-codes",
]
Channel = Literal["notices", "answers", "codes", "acquisition-requests", "corrections"]
Place = Literal[
    "call permit-requests",
    "call answers",
    "call acquisitions",
    "call answer-keys",
    "call holders",
    "call provider-keys",
    "call acquisition-requests",
    "call inventories",
    "call redeliveries",
    "call delegations",
    "call corrections",
    "call checkpoints",
    "call resident-codes",
    "push notices",
    "push answers",
    "push codes",
    "push acquisition-requests",
    "push corrections",
]
"""``call`` is what an exchange asks the network, ``push`` what the network tells an exchange."""

FaultName = Literal[
    "slow",
    "error_500",
    "error_503",
    "drop_before",
    "drop_after",
    "repeated",
    "reordered",
    "fewer_items",
    "extra_item",
    "wrong_ids",
    "malformed",
    "oversized",
    "wrong_key",
    "stale",
    "unsigned",
    "truncated",
    "forged_permit",
    "wrong_signature",
    "swapped_path",
    "expired_permit",
    "foreign_permit",
    "other_face",
    "replayed",
    "unreadable_answer",
]
"""What a network can do to a message:

- ``slow`` waits ``delay_s`` before the effect of a call or before a push;
- ``error_500`` and ``error_503`` refuse a call;
- ``drop_before`` and ``drop_after`` break the connection before or after the effect (of a push: it is not sent, or its
  acknowledgements are lost); ``repeated`` pushes a list twice;
- ``reordered``, ``fewer_items``, ``extra_item``, ``wrong_ids``, ``malformed`` (no JSON, well signed) and ``oversized``
  (beyond 16 MiB) change the list that is sent; a pushed item that was left out comes later;
- ``wrong_key``, ``stale`` (signed an hour ago), ``unsigned`` and ``truncated`` change the envelope;
- with a notice, one more is pushed under a new id: its permit altered (``forged_permit``), under another signature
  (``wrong_signature``), with a bent path (``swapped_path``), well signed but past its time (``expired_permit``), of an
  agency that is not there (``foreign_permit``), of the inquirer (``other_face``), or used before (``replayed``); the
  first three, ``foreign_permit`` and ``replayed`` stand in an answer as well;
- ``unreadable_answer`` spoils an answer's content on its way.
"""


class FaultRule(Message, frozen=True):
    """One fault: where (everywhere that it can happen, unless named), how often, and how many times at most."""

    fault: FaultName
    at: tuple[Place, ...] = ()
    share: Annotated[float, msgspec.Meta(gt=0, le=1)] = 1.0
    """Part of the messages that meet it, drawn from the plan's seed."""
    times: Annotated[int, msgspec.Meta(ge=1)] | None = None
    delay_s: Annotated[float, msgspec.Meta(gt=0, le=60)] = 1.0


class FaultPlan(Message, frozen=True):
    """``PUT /admin/faults``: all faults from now on; no rules means a network that works."""

    seed: int = 1
    rules: Annotated[tuple[FaultRule, ...], msgspec.Meta(max_length=100)] = ()


class FaultCount(Message, frozen=True):
    """How often a fault happened at a place since the plan came into force."""

    fault: FaultName
    at: Place
    times: int


class FaultCounts(Message, frozen=True):
    """``GET /admin/faults``."""

    seed: int
    counts: list[FaultCount]


PLACE_OF_CALL: Final[dict[Call, Place]] = {
    "permit-requests": "call permit-requests",
    "answers": "call answers",
    "acquisitions": "call acquisitions",
    "answer-keys": "call answer-keys",
    "holders": "call holders",
    "provider-keys": "call provider-keys",
    "acquisition-requests": "call acquisition-requests",
    "inventories": "call inventories",
    "redeliveries": "call redeliveries",
    "delegations": "call delegations",
    "corrections": "call corrections",
    "checkpoints": "call checkpoints",
    "resident-codes": "call resident-codes",
}
PLACE_OF_PUSH: Final[dict[Channel, Place]] = {
    "notices": "push notices",
    "answers": "push answers",
    "codes": "push codes",
    "acquisition-requests": "push acquisition-requests",
    "corrections": "push corrections",
}


class Lost(Exception):  # noqa: N818 - it says what became of the message
    """The message is lost here: the other side sees a broken connection."""


class Faults(Protocol):
    """Called around every message; each method may wait, change what is sent, or raise ``Lost`` or a ``Problem``."""

    async def request(self, call: Call) -> None:
        """A request has arrived and has had no effect yet."""
        ...

    async def reply(self, call: Call, items: Sequence[bytes]) -> Sequence[bytes]:
        """The effect is durable and the reply is about to leave; returns the items that really leave."""
        ...

    async def push(self, channel: Channel, items: Sequence[bytes]) -> Sequence[Sequence[bytes]]:
        """Items are about to be pushed; returns the lists (1…1,000 items) that are really sent, one after another."""
        ...

    async def pushed(self, channel: Channel, items: Sequence[bytes]) -> None:
        """An exchange has acknowledged these genuine items; what is lost now is lost after its effect."""
        ...

    def envelope(self, at: Place, signed: Signed) -> Signed:
        """A signed list is about to leave; returns what really does."""
        ...


class NoFaults:
    """A network that works."""

    async def request(self, call: Call) -> None:
        """Let it pass."""

    async def reply(self, call: Call, items: Sequence[bytes]) -> Sequence[bytes]:  # noqa: ARG002 - it spares all
        """Reply what was to be replied."""
        return items

    async def push(
        self,
        channel: Channel,  # noqa: ARG002 - it spares all
        items: Sequence[bytes],
    ) -> Sequence[Sequence[bytes]]:
        """Send what was to be sent."""
        return [items]

    async def pushed(self, channel: Channel, items: Sequence[bytes]) -> None:
        """Let it pass."""

    def envelope(self, at: Place, signed: Signed) -> Signed:  # noqa: ARG002 - it spares all
        """Send what was signed."""
        return signed
