"""Buries postmasters at once: the lab is the parent of what its Patronis leave behind, and waits for it.

A postmaster is no child of its Patroni but an orphan, and an orphan that was killed stays in the table of processes
until its new parent has waited for it. On a machine whose first process does that lazily (some containers, small
virtual machines: a second or two) Patroni takes the dead one for alive and loses a round of its loop, which no server
with a service manager does. So the lab asks the kernel for its orphans (PR_SET_CHILD_SUBREAPER).

Invariant: only what is called postgres is waited for here; every other child belongs to whoever started it.
"""

import asyncio
import ctypes
import os
import signal
import threading
from contextlib import suppress
from pathlib import Path
from typing import Final

from chukan import log

_PR_SET_CHILD_SUBREAPER: Final = 36
_NAME: Final = "(postgres) Z "

_log = log.get("ops.centres")


def begin() -> None:
    """Bury from now on, in the running loop of the main thread; elsewhere, or where the kernel refuses, nobody does."""
    if threading.current_thread() is not threading.main_thread():
        return  # signals reach the main thread's loop alone, and orphans that nobody buries are worse than none
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        _log.warning("the kernel gives no orphans to the lab")
        return
    asyncio.get_running_loop().add_signal_handler(signal.SIGCHLD, bury)


def bury() -> None:
    """Wait for every dead postmaster or backend that is ours."""
    own = os.getpid()
    try:
        children = Path(f"/proc/{own}/task/{own}/children").read_text(encoding="ascii").split()
    except OSError:
        return
    for child in children:
        with suppress(OSError):
            if _NAME in Path(f"/proc/{child}/stat").read_text(encoding="ascii"):
                os.waitpid(int(child), os.WNOHANG)
