"""Buries postmasters at once: the lab is the parent of what its Patronis leave behind, and waits for it.

A postmaster is no child of its Patroni but an orphan, and an orphan that was killed stays in the table of processes
until its new parent has waited for it. On a machine whose first process does that lazily (some containers, small
virtual machines: a second or two) Patroni takes the dead one for alive and loses a round of its loop, which no server
with a service manager does. So the lab asks the kernel for its orphans (PR_SET_CHILD_SUBREAPER).

Tunnels in user space are orphans too, for they outlive their controller.

Invariant: only what is called postgres or wireguard-go is waited for here; every other child belongs to whoever started
it.
"""

import asyncio
import ctypes
import os
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from chukan import log

_PR_SET_CHILD_SUBREAPER: Final = 36
_NAMES: Final = ("(postgres) Z ", "(wireguard-go) Z ")

_log = log.get("ops.centres")


def begin() -> Callable[[], None]:
    """Bury from now on, in the running loop of the main thread; returns what ends it.

    Elsewhere, or where the kernel refuses, nobody buries: orphans go where they always go. Ending it matters where the
    process outlives its lab: one that still asked for orphans and buried none would hide every later death.
    """
    if threading.current_thread() is not threading.main_thread():
        return _nothing  # signals reach the main thread's loop alone
    if not _ask_for_orphans(1):
        _log.warning("the kernel gives no orphans to the lab")
        return _nothing
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGCHLD, bury)

    def end() -> None:
        _ask_for_orphans(0)
        loop.remove_signal_handler(signal.SIGCHLD)
        bury()

    return end


def _ask_for_orphans(wanted: int) -> bool:
    return bool(ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, wanted, 0, 0, 0) == 0)


def _nothing() -> None:
    """What is left to end where nothing began."""


def bury() -> None:
    """Wait for every dead postmaster, backend or tunnel that is ours."""
    own = os.getpid()
    try:
        children = Path(f"/proc/{own}/task/{own}/children").read_text(encoding="ascii").split()
    except OSError:
        return
    for child in children:
        with suppress(OSError):
            stat = Path(f"/proc/{child}/stat").read_text(encoding="ascii")
            if any(name in stat for name in _NAMES):
                os.waitpid(int(child), os.WNOHANG)
