"""Network namespaces for tests of the links: made, wired, entered, and taken away whatever happens.

Names bear this process's id, so that tests beside each other never meet; interface names too, for all wireguard-go
sockets of a machine lie in one folder.
"""

import itertools
import os
import socket
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

from chukan.ops.namespaces import enter

T = TypeVar("T")
_COMMAND_TIMEOUT_S = 20
_numbers = itertools.count(1)


class Spaces:
    """Namespaces by short names of a test's own."""

    def __init__(self) -> None:
        self._number = next(_numbers)
        self._names: list[str] = []

    def name(self, short: str) -> str:
        """Return the namespace's name on this machine."""
        return f"ckl-{os.getpid()}-{self._number}-{short}"

    def interface(self, short: str) -> str:
        """Return a name for a WireGuard interface that is unique on this machine; ``short`` is one letter."""
        return f"ck{os.getpid()}{short}{self._number}"[:15]

    def make(self, *shorts: str) -> None:
        """Make namespaces, their loopback up."""
        for short in shorts:
            ip(f"netns add {self.name(short)}")
            self._names.append(self.name(short))
            self.do(short, "link set lo up")

    def wire(self, a: str, device_a: str, b: str, device_b: str) -> None:
        """Lay a cable between two namespaces; both ends are up."""
        self.do(a, f"link add {device_a} type veth peer name {device_b} netns {self.name(b)}")
        self.do(a, f"link set {device_a} up")
        self.do(b, f"link set {device_b} up")

    def do(self, short: str, *commands: str) -> None:
        """Run ``ip`` commands inside."""
        ip(f"-n {self.name(short)} -batch -", "\n".join(commands) + "\n")

    def run(self, short: str, *argv: str, text: str = "") -> str:
        """Run a program inside and return what it says; a failure raises."""
        done = subprocess.run(
            ["/usr/sbin/ip", "netns", "exec", self.name(short), *argv],
            check=True,
            capture_output=True,
            text=True,
            input=text,
            timeout=_COMMAND_TIMEOUT_S,
        )
        return done.stdout

    def inside(self, short: str, call: Callable[[], T]) -> T:
        """Call something inside, in a thread that ends with it. A socket that it makes stays inside for good."""

        def enter_and_call() -> T:
            enter(self.name(short))
            return call()

        with ThreadPoolExecutor(1) as pool:
            return pool.submit(enter_and_call).result(_COMMAND_TIMEOUT_S)

    def socket(
        self, short: str, kind: int = socket.SOCK_STREAM, family: int = socket.AF_INET, proto: int = 0
    ) -> socket.socket:
        """Make a socket inside, for an event loop."""
        made = self.inside(short, lambda: socket.socket(family, kind, proto))
        made.setblocking(False)  # noqa: FBT003 - the standard library's call
        return made

    def remove(self) -> None:
        """Take all namespaces away; what stands in them goes too."""
        for name in self._names:
            subprocess.run(["/usr/sbin/ip", "netns", "del", name], check=False, timeout=_COMMAND_TIMEOUT_S)
        self._names.clear()


@contextmanager
def spaces() -> Iterator[Spaces]:
    """Lend namespaces."""
    made = Spaces()
    try:
        yield made
    finally:
        made.remove()


def ip(words: str, text: str = "") -> None:
    """Run ``ip``; a failure raises."""
    subprocess.run(
        ["/usr/sbin/ip", *words.split()],
        check=True,
        capture_output=True,
        text=True,
        input=text,
        timeout=_COMMAND_TIMEOUT_S,
    )
