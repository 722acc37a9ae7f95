"""Ending processes that may not be our children, with a deadline, and knowing that they are gone."""

import os
import select
import signal
from pathlib import Path

_KILL_TIMEOUT_S = 20


def _children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()]
    except OSError:
        return []


def kill_tree(pid: int) -> None:
    """Kill a postmaster and its children, and wait until they hold no shared memory any more."""
    everyone = [pid, *_children(pid)]
    for each in everyone:
        try:
            os.kill(each, signal.SIGKILL)
        except ProcessLookupError:
            continue
    for each in everyone:
        wait_gone(each, _KILL_TIMEOUT_S)


def wait_gone(pid: int, timeout_s: float) -> bool:
    """Wait until a process that may not be our child has ended; its descriptor becomes readable then."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([descriptor], [], [], timeout_s)[0])
    finally:
        os.close(descriptor)
