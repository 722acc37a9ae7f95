"""Where the lab's sites stand on the network, and the links between them: namespaces on a bridge, or loopback.

Each clone has namespaces of its own (``chukan-<hash>-east`` …), so that two never meet; the bridge stands in ``wan``.
Links are cut on the bridge, where nobody at either end is told: a cut cable sends no error. Where the link between the
centres shall be long, they have a cable of their own beside the bridge, into which ``delay`` is put.

Invariant: nothing outside these namespaces is changed. What an earlier start left is taken away by the next.
"""

import hashlib
import os
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from chukan.errors import Problem
from chukan.ops import namespaces
from chukan.ops.namespaces import NAMED, standing

SITES: Final = ("east", "west", "witness")
CENTRES: Final = ("east", "west")
WAN: Final = "wan"
_SUBNET: Final = {"east": 1, "west": 2, "witness": 3, WAN: 9}
_TUNNEL_SOCKETS: Final = Path("/var/run/wireguard")
_DEVICE_MAX: Final = 15
"""Linux takes no longer name of a device."""
_HASH_LEN: Final = 6
_LOOPBACK_NETS: Final = 200
_CLOSED_PORT: Final = 9


def _digest(root: Path) -> str:
    return hashlib.sha256(os.fsencode(root)).hexdigest()


class Namespaces:
    """Four network namespaces; needs root."""

    apart: Final = True
    """Whether a site can be cut off."""

    def __init__(self, root: Path) -> None:
        """Name them by a hash of the lab's folder; nothing is made."""
        self._prefix = f"chukan-{_digest(root)[:_HASH_LEN]}"
        self._cut: tuple[str, str] | None = None
        self._isolated: set[str] = set()
        self.cabled = False
        """Whether the centres have a cable of their own beside the bridge."""
        self._ports = {site: [f"to-{site}"] for site in SITES}

    def name(self, site: str) -> str:
        """Return the name of a site's namespace."""
        return f"{self._prefix}-{site}"

    @staticmethod
    def address(site: str, number: int) -> str:
        """Return an address in a site; those of ``number`` 1 to 40 are there."""
        return f"198.18.{_SUBNET[site]}.{number}"

    def device(self, name: str) -> str:
        """Return a name for a tunnel's device that no other lab on this machine has; ``name`` has 7 letters at most."""
        return f"ck{self._prefix[-_HASH_LEN:]}{name}"

    @staticmethod
    def cable_end(site: str) -> str:
        """Return the device in ``wan`` at which a centre's end of the cable comes out."""
        return f"cable-{site}"

    def build(self, numbers: Sequence[int], *, cable: bool = False) -> None:
        """Make everything anew. Raises ``Problem`` process_failed.

        With a ``cable`` nothing passes between the centres but what somebody carries from one of its ends to the other.
        """
        self.remove()
        self._cut, self.cabled = None, cable
        self._isolated.clear()
        self._ports = {site: [f"to-{site}"] for site in SITES}
        for site in (WAN, *SITES):
            namespaces.ip(f"netns add {self.name(site)}")
        commands = [
            "link set lo up",
            "link add centres type bridge",
            f"addr add {self.address(WAN, 1)}/16 dev centres",
            "link set centres up",
        ]
        for site in SITES:
            commands += [
                f"link add to-{site} type veth peer name uplink netns {self.name(site)}",
                f"link set to-{site} master centres",
                f"link set to-{site} up",
            ]
        namespaces.batch(self.name(WAN), commands)
        for site in SITES:
            addresses = [f"addr add {self.address(site, number)}/16 dev uplink" for number in numbers]
            namespaces.batch(self.name(site), ["link set lo up", *addresses, "link set uplink up"])
        if cable:
            self._lay_cable()

    def _lay_cable(self) -> None:
        for site, other in (CENTRES, CENTRES[::-1]):
            end = self.cable_end(site)
            namespaces.batch(
                self.name(WAN),
                [f"link add {end} type veth peer name cable netns {self.name(site)}", f"link set {end} up"],
            )
            # Narrower than the bridge's route, and it stays where nobody carries: then nothing comes through at all.
            route = f"route add {self.address(other, 0)}/24 dev cable src {self.address(site, 1)}"
            namespaces.batch(self.name(site), ["link set cable up", route])

    def round_trip_s(self, a: str, b: str, timeout_s: float) -> float:
        """Return how long a packet takes from one site to another and back: the kernel there refuses a connection.

        Raises ``TimeoutError`` when nothing comes back.
        """
        with self.standing(a), socket.socket() as probe:
            probe.settimeout(timeout_s)
            begun = time.monotonic()
            try:
                probe.connect((self.address(b, 1), _CLOSED_PORT))
            except ConnectionRefusedError:
                return time.monotonic() - begun
            except OSError:
                raise TimeoutError from None
            raise Problem("process_failed", expected=f"nobody at port {_CLOSED_PORT} of {b}")

    def remove(self) -> None:
        """End whatever runs at the sites, and take the namespaces away; there may be none.

        Those who stand in ``wan`` are let be: the lab itself, and others who look. What the lab has there dies with it.
        """
        # Whatever bears this lab's name, also what an earlier start attached and this one does not know.
        named = {path.name.removeprefix(f"{self._prefix}-") for path in NAMED.glob(f"{self._prefix}-*")}
        for site in sorted(named, key=lambda name: name == WAN):
            if site != WAN:
                self.kill_all(site)
            with suppress(Problem):
                namespaces.ip(f"netns delete {self.name(site)}")
        # A tunnel that was killed leaves its socket where all namespaces of a machine see it.
        for file in _TUNNEL_SOCKETS.glob(f"{self.device('')}*.sock"):
            file.unlink(missing_ok=True)

    def kill_all(self, site: str) -> None:
        """Kill every process in a site's namespace but this one, and wait until they are gone."""
        namespaces.kill_all(self.name(site))

    @contextmanager
    def inside(self) -> Iterator[None]:
        """Stand in ``wan``: connections of this thread, and of threads that it starts, go out from there."""
        with self.standing(WAN):
            yield

    @contextmanager
    def standing(self, site: str) -> Iterator[None]:
        """Stand at a site, or in an attached namespace, for a block."""
        with standing(self.name(site)):
            yield

    def attach(self, name: str, device: str, address: str, *, of: str | None = None) -> None:
        """Put one more namespace on the bridge, with one address; ``of`` is the site whose fate its cable shares.

        Raises ``Problem`` process_failed.
        """
        port = f"to-{name}"[:_DEVICE_MAX]
        namespaces.ip(f"netns add {self.name(name)}")
        self.batch(
            WAN,
            [
                f"link add {port} type veth peer name {device} netns {self.name(name)}",
                f"link set {port} master centres",
                f"link set {port} up",
            ],
        )
        self.batch(name, ["link set lo up", f"addr add {address}/16 dev {device}", f"link set {device} up"])
        if of is not None:
            self._ports[of].append(port)

    def batch(self, site: str, commands: Sequence[str]) -> None:
        """Carry out commands of ``ip`` at a site. Raises ``Problem`` process_failed."""
        namespaces.batch(self.name(site), commands)

    def cut(self, a: str, b: str) -> None:
        """Let nothing pass between two sites; both still see everybody else. ``Problem`` not_possible_here."""
        if self._cut not in {None, (a, b)}:
            raise Problem("not_possible_here", expected="one cut link at a time")
        self.batch(
            WAN, [f"link set {port} type bridge_slave isolated on" for port in (*self._ports[a], *self._ports[b])]
        )
        self._cut = (a, b)
        self._switch_cable()

    def mend(self) -> None:
        """Let everything pass again."""
        ports = [port for ports in self._ports.values() for port in ports]
        self.batch(WAN, [f"link set {port} type bridge_slave isolated off" for port in ports])
        self._cut = None
        self._switch_cable()

    def isolate(self, site: str) -> None:
        """Cut a site off from everybody."""
        self.batch(WAN, [f"link set {port} down" for port in self._ports[site]])
        self._isolated.add(site)
        self._switch_cable()

    def rejoin(self, site: str) -> None:
        """Let it back."""
        self.batch(WAN, [f"link set {port} up" for port in self._ports[site]])
        self._isolated.discard(site)
        self._switch_cable()

    def _switch_cable(self) -> None:
        """Take down the ends that are cut, with what is on its way to them, and bring up the others."""
        if not self.cabled:
            return
        parted = self._cut is not None and set(self._cut) == set(CENTRES)
        states = {site: "down" if parted or site in self._isolated else "up" for site in CENTRES}
        namespaces.batch(self.name(WAN), [f"link set {self.cable_end(site)} {state}" for site, state in states.items()])


class Loopback:
    """Addresses of 127.0.0.0/8, of which any may be bound without rights; sites cannot be cut off."""

    apart: Final = False

    def __init__(self, root: Path) -> None:
        """Choose the second byte by a hash of the lab's folder, so that two clones rarely meet."""
        self._net = 10 + int(_digest(root), 16) % _LOOPBACK_NETS

    @staticmethod
    def name(site: str) -> str:  # noqa: ARG004 - the same call as with namespaces
        """Return nothing: there is no namespace."""
        return ""

    def address(self, site: str, number: int) -> str:
        """Return an address in a site."""
        return f"127.{self._net}.{_SUBNET[site]}.{number}"

    @staticmethod
    def device(name: str) -> str:
        """Return the name as it is: there is no tunnel on loopback."""
        return name

    @staticmethod
    def cable_end(site: str) -> str:  # noqa: ARG004 - the same call as with namespaces
        """Return nothing: there is no cable."""
        return ""

    def build(self, numbers: Sequence[int], *, cable: bool = False) -> None:  # noqa: ARG002 - as with namespaces
        """Every address is there already. Raises ``Problem`` not_possible_here for a cable."""
        if cable:
            raise Problem("not_possible_here", expected="network namespaces: run it as root")

    def round_trip_s(self, a: str, b: str, timeout_s: float) -> float:  # noqa: ARG002 - as with namespaces
        """Return nothing that counts: everybody stands in the same place."""
        return 0.0

    def remove(self) -> None:
        """There is nothing to take away."""

    @contextmanager
    def inside(self) -> Iterator[None]:
        """Everybody stands in the same place."""
        yield

    def cut(self, a: str, b: str) -> None:  # noqa: ARG002 - the same call as with namespaces
        """Raise ``Problem`` not_possible_here."""
        raise Problem("not_possible_here", expected="network namespaces: run it as root")

    def mend(self) -> None:
        """Nothing was cut."""

    def isolate(self, site: str) -> None:  # noqa: ARG002 - the same call as with namespaces
        """Raise ``Problem`` not_possible_here."""
        raise Problem("not_possible_here", expected="network namespaces: run it as root")

    def rejoin(self, site: str) -> None:
        """Nothing was cut off."""


Wires = Namespaces | Loopback
