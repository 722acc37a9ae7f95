"""Where a hostile network may be put in: a port that the simulated network passes every message through.

The shipped network uses ``NoFaults``. An implementation may wait, raise ``Lost`` or change what is sent; it sees bytes
and counts, and decides nothing about their meaning.
"""

from collections.abc import Sequence
from typing import Literal, Protocol

Call = Literal["permit-requests", "answers", "acquisitions", "answer-keys", "resident-codes"]
Channel = Literal["notices", "answers", "codes"]


class Lost(Exception):  # noqa: N818 - it says what became of the message
    """The message is lost here: the other side sees a broken connection."""


class Faults(Protocol):
    """Called around every message; each method may wait or raise ``Lost``."""

    async def request(self, call: Call) -> None:
        """A request has arrived and has had no effect yet."""
        ...

    async def reply(self, call: Call) -> None:
        """The effect is durable and the reply is about to leave."""
        ...

    async def push(self, channel: Channel, items: Sequence[bytes]) -> Sequence[bytes]:
        """Items are about to be pushed; returns what is really sent (1…1,000 items)."""
        ...


class NoFaults:
    """A network that works."""

    async def request(self, call: Call) -> None:
        """Let it pass."""

    async def reply(self, call: Call) -> None:
        """Let it pass."""

    async def push(self, channel: Channel, items: Sequence[bytes]) -> Sequence[bytes]:  # noqa: ARG002 - it spares all
        """Send what was to be sent."""
        return items
