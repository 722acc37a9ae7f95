"""Standing in another network namespace of this machine: a thread for a while, or a single socket for its whole life.

A lab's clients reach an exchange from where their body's device is. A socket belongs to the namespace in which it was
made, so that one event loop may hold sockets of many bodies: the thread steps over, makes the socket, and steps back
before anything else of the loop can run.

Invariant: nobody is left standing elsewhere, whatever fails meanwhile.
"""

import ctypes
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from chukan.errors import Problem

NAMED: Final = Path("/run/netns")
_NEWNET: Final = 0x40000000

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
