"""Standing in another network namespace of this machine: a thread for a while, or a single socket for its whole life.

A lab's clients reach an exchange from where their body's device is. A socket belongs to the namespace in which it was
made, so that one event loop may hold sockets of many bodies: the thread steps over, makes the socket, and steps back
before anything else of the loop can run.

Invariant: nobody is left standing elsewhere, whatever fails meanwhile.
"""

import ctypes
import os
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from chukan.errors import Problem
from chukan.ops.local.processes import wait_gone

NAMED: Final = Path("/run/netns")
_NEWNET: Final = 0x40000000
_IP_TIMEOUT_S: Final = 20
_KILL_TIMEOUT_S: Final = 20

AddressInfo = tuple[int | socket.AddressFamily, int | socket.SocketKind, int, str, tuple[Any, ...]]
"""What ``getaddrinfo`` says of one address."""


def enter(namespace: str) -> None:
    """Stand in a named network namespace from here on. Raises ``Problem`` not_possible_here."""
    try:
        descriptor = os.open(NAMED / namespace, os.O_RDONLY)
    except OSError:
        raise Problem("not_possible_here", expected=f"a running lab (namespace {namespace}) and root") from None
    try:
        _setns(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def standing(namespace: str) -> Iterator[None]:
    """Let this thread stand in a namespace for a block, in which nothing may be awaited. Raises as ``enter``."""
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        enter(namespace)
        try:
            yield
        finally:
            _setns(before)
    finally:
        os.close(before)


def sockets_in(namespace: str) -> Callable[[AddressInfo], socket.socket]:
    """Return what makes sockets in a namespace for an HTTP client; ``OSError`` where it is gone, as with any network.

    They do not block, as a socket of an event loop must not.
    """

    def make(info: AddressInfo) -> socket.socket:
        family, kind, protocol, _, _ = info
        try:
            with standing(namespace):
                made = socket.socket(family, kind, protocol)
        except Problem:
            raise OSError("the network namespace is gone") from None
        made.setblocking(False)  # noqa: FBT003 - the standard library's own form
        return made

    return make


def _setns(descriptor: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(descriptor, _NEWNET) != 0:
        raise Problem("not_possible_here", expected="the right to enter a network namespace (root)")


def batch(namespace: str, commands: Sequence[str]) -> None:
    """Carry out commands of ip(8) in a namespace, up to the first that fails. Raises as ``ip``."""
    ip(f"-n {namespace} -batch -", "\n".join(commands) + "\n")


def ip(words: str, text: str = "") -> str:
    """Call the command and return what it says. Raises ``Problem`` runtime_missing, process_failed."""
    try:
        done = subprocess.run(
            ["/usr/sbin/ip", *words.split()],
            check=False, capture_output=True, text=True, input=text, timeout=_IP_TIMEOUT_S,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        raise Problem("runtime_missing", expected="ip (Debian's iproute2)") from None
    if done.returncode != 0:
        raise Problem("process_failed", expected=f"ip {words}: {done.stderr.strip()[:200]}")
    return done.stdout


def kill_all(namespace: str) -> None:
    """Kill every process in a namespace but this one, and wait until they are gone. Raises ``Problem``."""
    pids = [int(pid) for pid in ip(f"netns pids {namespace}").split() if int(pid) != os.getpid()]
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    for pid in pids:
        wait_gone(pid, _KILL_TIMEOUT_S)
