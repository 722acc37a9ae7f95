"""Becomes a program of the lab that cannot outlive it: ``child.py PARENT NAMESPACE USER GROUP PROGRAM ARGUMENT…``.

Run as a file, with nothing of ours imported, for it is gone in a moment. The order matters: the namespace is entered
while still root, then the user is changed (which would take back what follows), then the kernel is told to kill this
process when its parent ends, then the program takes its place. So its id is the one that the lab knows.
"""

import ctypes
import os
import signal
import sys

_NEWNET = 0x40000000
_PR_SET_PDEATHSIG = 1


def main(arguments: list[str]) -> None:
    """Do it; returns never."""
    parent, namespace, user, group, *command = arguments
    libc = ctypes.CDLL(None, use_errno=True)
    if namespace:
        descriptor = os.open(f"/run/netns/{namespace}", os.O_RDONLY)
        if libc.setns(descriptor, _NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "setns")
        os.close(descriptor)
    if user:
        os.setgroups([])
        os.setgid(int(group))
        os.setuid(int(user))
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")
    # The parent may have ended before the kernel was told to watch it.
    if os.getppid() != int(parent):
        raise SystemExit(1)
    os.umask(0o077)
    os.execv(command[0], command)  # noqa: S606 - the lab's own command, and no shell is wanted


if __name__ == "__main__":
    main(sys.argv[1:])
