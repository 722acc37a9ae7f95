"""One direction of the link between the centres, made longer: ``delay.py FROM TO MILLISECONDS``.

Every frame that comes in at the device FROM goes out at TO so many milliseconds later, in the order of its coming:
whatever the two centres say to each other, TCP's own acknowledgements too, with nothing to be told to any program. The
kernel's frames are taken as they are, long ones and those without a checksum yet (PACKET_VNET_HDR), so that the link
costs little. What does not fit into the cable, or finds the far end down, is lost, as on any cable: TCP sends it again.

Run as a file, with nothing of ours imported, by root in the namespace of both devices. Each direction is a process of
the centre that sends: it dies with the centre, and what was on its way dies with it.

Invariant: no frame leaves before its time or before an earlier one, and none is held beyond the cable's measure.
"""

import collections
import select
import socket
import sys
import time
from collections.abc import Callable

LINK_BYTES_MAX = 64 * 1024 * 1024
"""What may be on its way at once: 10 ms of more than 50 Gbit/s."""
_FRAMES_MAX = 200_000
_FRAME_BYTES_MAX = 65_536 + 64
_TAKE_MAX = 64
"""Frames that are taken before those that are due go on."""
_BUFFER_BYTES = 16 * 1024 * 1024
_ETH_P_ALL = 3
_SOL_PACKET = 263
_PACKET_VNET_HDR = 15
_PACKET_IGNORE_OUTGOING = 23
_SO_RCVBUFFORCE = 33
_SO_SNDBUFFORCE = 32
_MS = 1000.0


class Cable:
    """Frames on their way, each with the moment when it comes out. Pure but for the clock that it is given."""

    def __init__(self, delay_s: float, clock: Callable[[], float], bytes_max: int = LINK_BYTES_MAX) -> None:
        self._delay_s, self._clock, self._bytes_max = delay_s, clock, bytes_max
        self._frames: collections.deque[tuple[float, bytes]] = collections.deque()
        self._held = 0

    def put(self, frame: bytes) -> bool:
        """Send a frame on its way; False when the cable is full and the frame is lost."""
        if self._held + len(frame) > self._bytes_max or len(self._frames) >= _FRAMES_MAX:
            return False
        self._frames.append((self._clock() + self._delay_s, frame))
        self._held += len(frame)
        return True

    def wait_s(self) -> float | None:
        """Return how long nothing comes out for, at least 0; None when nothing is on its way."""
        return max(0.0, self._frames[0][0] - self._clock()) if self._frames else None

    def take(self) -> bytes | None:
        """Return the next frame whose time has come."""
        if not self._frames or self._frames[0][0] > self._clock():
            return None
        frame = self._frames.popleft()[1]
        self._held -= len(frame)
        return frame


def main(arguments: list[str]) -> None:
    """Carry frames until the end of the process."""
    source, target, delay_ms = arguments
    carry(_tap(source), _tap(target), Cable(float(delay_ms) / _MS, time.monotonic))


def carry(source: socket.socket, target: socket.socket, cable: Cable) -> None:
    """Move frames from one socket into the cable and out of it at the other; returns never."""
    while True:
        if select.select([source], [], [], cable.wait_s())[0]:
            _fill(source, cable)
        while (frame := cable.take()) is not None:
            # Down (a cut), or full: the frame is lost, and this is not the place to tell anybody.
            try:
                target.send(frame)
            except OSError:
                continue


def _fill(source: socket.socket, cable: Cable) -> None:
    for _ in range(_TAKE_MAX):
        try:
            frame = source.recv(_FRAME_BYTES_MAX)
        except OSError:
            # Nothing more; or the device went down, which is told once.
            return
        cable.put(frame)


def _tap(device: str) -> socket.socket:
    """Return a socket that sees all that comes in at a device, and sends at it."""
    tap = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    tap.setsockopt(_SOL_PACKET, _PACKET_VNET_HDR, 1)
    # What the other direction sends at the same device is not ours to send back.
    tap.setsockopt(_SOL_PACKET, _PACKET_IGNORE_OUTGOING, 1)
    for option in (_SO_RCVBUFFORCE, _SO_SNDBUFFORCE):
        tap.setsockopt(socket.SOL_SOCKET, option, _BUFFER_BYTES)
    tap.settimeout(0)
    tap.bind((device, _ETH_P_ALL))
    return tap


if __name__ == "__main__":
    main(sys.argv[1:])
