"""Thaws a frozen process when its time is over, whoever has gone meanwhile: the dead man's switch of a freeze.

Started by ``host_hand`` before anything is frozen, in a session of its own: it outlives the call, the connection and
the operator's machine. Run as a script by its path (no site packages): standard library only.

Invariant: it sends SIGCONT and nothing else, to the very process that it was given by descriptor, never to a process
that has its number by now; and only while the token that the freeze left is still there.
"""

import json
import os
import select
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

ARMED = b"armed\n"


def children(pid: int) -> list[int]:
    """Return a process's children."""
    try:
        return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text("ascii").split()]
    except OSError:
        return []


def is_gone(descriptor: int) -> bool:
    """Tell whether the process of a descriptor has ended: only then it is readable."""
    return bool(select.select([descriptor], [], [], 0)[0])


def main(words: list[str]) -> int:
    """Wait, then thaw: seconds, process id, its descriptor, ``family`` or ``alone``, token file, token, log, name."""
    seconds, pid, descriptor, whose, path, token, log, name = words
    with os.fdopen(os.dup(1), "wb") as told:
        told.write(ARMED)
    # The other end is whoever froze: it must not wait for the end of this.
    os.dup2(os.open(os.devnull, os.O_RDWR), 1)
    select.select([], [], [], float(seconds))
    file = Path(path)
    try:
        mine = file.read_text("ascii") == token
    except OSError:
        mine = False
    if not mine or is_gone(int(descriptor)):
        return 0
    for child in children(int(pid)) if whose == "family" else ():
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGCONT)
    with suppress(ProcessLookupError):
        signal.pidfd_send_signal(int(descriptor), signal.SIGCONT)
    file.unlink(missing_ok=True)
    at = time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime())
    line = {"at": at, "action": "thaw", "process": name, "outcome": "its time was over", "user": "dead man"}
    with suppress(OSError), Path(log).open("a", encoding="utf-8") as written:
        written.write(json.dumps(line) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
