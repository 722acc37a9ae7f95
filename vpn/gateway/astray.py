"""Bytes that came into a link's tunnel and never came out of it (差出アドレスの詐称): what WireGuard itself refused.

A peer may send from its own addresses only; what a device sends under another one, as behind a wrong translation of
addresses, ends inside WireGuard, before the packet filter could count it, and the back end keeps no count of its own.
But it counts each peer's bytes, and the filter counts what came out. What is missing between the two, beyond what the
tunnel itself needs, was refused.

Invariant: nothing is counted that may have come out. Both are read at their own moments, a peer's bytes perhaps in the
pass before; so what came in between two passes is held against all that came out from two passes before until the pass
after: much honest traffic hides a little that went astray, never the other way round. A counter that began anew begins
anew here.
"""

from collections import deque
from collections.abc import Mapping
from typing import Final, NamedTuple

_OVERHEAD_BYTES: Final = 47
"""Of a packet in WireGuard: 32 of header and tag, up to 15 of padding."""
_IDLE_BYTES_PER_S: Final = 40
"""Handshakes with their repeats, and keepalives."""
_IDLE_BYTES: Final = 512
"""Of a window, however short: a handshake and what goes with it."""
_WINDOW: Final = 5


class Passed(NamedTuple):
    """What came out of a link's tunnel since the filter was loaded."""

    packets: int = 0
    bytes: int = 0


class _Reading(NamedTuple):
    at_s: float
    came_in: Mapping[str, int]
    came_out: Mapping[str, Passed]


class Astray:
    """Counts, by link, over the passes of one controller."""

    def __init__(self) -> None:
        self._readings: deque[_Reading] = deque(maxlen=_WINDOW)
        self._counted: dict[str, int] = {}

    @property
    def counted(self) -> Mapping[str, int]:
        """Bytes that were refused at least; a link of which none were is absent."""
        return dict(self._counted)

    def add(self, at_s: float, came_in: Mapping[str, int], came_out: Mapping[str, Passed]) -> None:
        """Take one pass's readings: monotonic seconds, bytes of each peer, and what the filter saw of each link."""
        self._readings.append(_Reading(at_s, dict(came_in), dict(came_out)))
        if len(self._readings) < _WINDOW:
            return
        before, _, first, second, after = self._readings
        for link in first.came_in.keys() & second.came_in.keys():
            arrived = second.came_in[link] - first.came_in[link]
            passed = _grown(before.came_out.get(link, Passed()), after.came_out.get(link, Passed()))
            if arrived <= 0 or passed is None:
                continue
            needed = _IDLE_BYTES + _IDLE_BYTES_PER_S * (second.at_s - first.at_s)
            missing = arrived - passed.bytes - _OVERHEAD_BYTES * passed.packets - int(needed)
            if missing > 0:
                self._counted[link] = self._counted.get(link, 0) + missing


def _grown(before: Passed, after: Passed) -> Passed | None:
    """Return what was added; None where the counter began anew."""
    if after.packets < before.packets or after.bytes < before.bytes:
        return None
    return Passed(after.packets - before.packets, after.bytes - before.bytes)
