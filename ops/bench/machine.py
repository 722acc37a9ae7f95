"""The machine that a benchmark ran on, as far as the figures depend on it; read before anything is started."""

import os
from pathlib import Path
from typing import Final

import msgspec

_KIB: Final = 1024
_MIB: Final = 1024 * 1024


class Machine(msgspec.Struct, frozen=True):
    """What was found; ``load_before`` are the load averages of 1, 5 and 15 minutes."""

    cores: int
    memory_mib: int
    kernel: str
    load_before: list[float]


def look() -> Machine:
    """Return what this machine is and how busy it is already."""
    return Machine(
        cores=len(os.sched_getaffinity(0)),
        memory_mib=memory_bytes(Path("/proc/meminfo").read_text(encoding="ascii")) // _MIB,
        kernel=os.uname().release,
        load_before=[round(load, 2) for load in os.getloadavg()],
    )


def memory_bytes(meminfo: str) -> int:
    """Return the total of the text of ``/proc/meminfo``; ``ValueError`` where it is not told."""
    for line in meminfo.splitlines():
        words = line.split()
        if words[:1] == ["MemTotal:"]:
            return int(words[1]) * _KIB
    raise ValueError("the kernel does not tell its memory")
