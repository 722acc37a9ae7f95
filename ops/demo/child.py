"""Runs a module as a process that cannot outlive the demo: ``python -m chukan.ops.demo.child PARENT MODULE ARGUMENTS``.

The kernel sends SIGTERM to this process when its parent has ended, however that ended (PR_SET_PDEATHSIG, Linux). It
is asked for here, by the process itself, because code between fork and exec may hang in a parent that has threads.
The module runs in this very process: its id is the one that the demo knows.
"""

import ctypes
import os
import runpy
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main(arguments: list[str]) -> None:
    """Bind this process to the parent whose id is given first, then become the module."""
    parent, module = int(arguments[0]), arguments[1]
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")
    # The parent may have ended before the kernel was told to watch it.
    if os.getppid() != parent:
        raise SystemExit(1)
    sys.argv = [module, *arguments[2:]]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main(sys.argv[1:])
