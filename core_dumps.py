"""Keeps what a process has in its memory out of core dumps (コアダンプ): no key, PIN or person is written by a crash.

Invariant: both the limit and the kernel's filter are set, because a core that is piped to a program heeds no limit.
Children inherit both. Nothing here reads memory.
"""

import resource
from pathlib import Path

_FILTER = Path("/proc/self/coredump_filter")


def forbid() -> None:
    """Let this process and its children leave no core, and no memory in one that is piped to a program (core(5))."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        _FILTER.write_text("0", encoding="ascii")
    except OSError:
        # A kernel without the filter, or a container that hides it: the limit stands, and a scan tells of the rest.
        return
