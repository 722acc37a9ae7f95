"""What every benchmark does around its measuring: alone in its place, told to end by a signal, its result told last.

Invariant: however it ends, by Ctrl-C, a signal or a failure, no data is left but the logs of a failure.
"""

import asyncio
import sys
from collections.abc import Callable
from typing import Final

import msgspec

from chukan import log
from chukan.errors import Problem
from chukan.ops.bench import machine
from chukan.ops.bench.figures import RUNS_MIN
from chukan.ops.demo.place import Lock, Place
from chukan.ops.interruption import Interruptible, until_told

EXIT_FAILED: Final = 1
EXIT_INTERRUPTED: Final = 130
SEED: Final = 20_261_123
LIMIT: Final = "pgbench"


class Measured(msgspec.Struct, frozen=True):
    """What ``--json`` prints of every benchmark, before its settings and figures."""

    bench: str
    at: str
    quick: bool
    machine: machine.Machine
    postgresql: str


def require_runs(runs: int, *, quick: bool) -> None:
    """Refuse what would be no measurement: ``Problem`` invalid_field for fewer than five runs unless ``quick``."""
    if runs < RUNS_MIN and not quick:
        raise Problem(
            "invalid_field", pointer="/runs", limit=RUNS_MIN, expected=f"--runs {RUNS_MIN} or more, or --quick"
        )


def measured(place: Place, bench: Callable[[], Interruptible]) -> int:
    """Run a benchmark alone in its place; return its exit status. Raises ``Problem``."""
    with Lock(place.root):
        place.clear()
        place.make()
        with (place.log / "bench.log").open("a", encoding="utf-8") as stream:
            log.configure(stream=stream)
            try:
                done = asyncio.run(until_told(bench()))
                status = EXIT_INTERRUPTED if done is None else done
            finally:
                log.configure()
        if status != EXIT_FAILED:
            place.clear()
        return status


def tell(result: Measured) -> None:
    """Print a result as one JSON object, last."""
    sys.stdout.write(msgspec.json.encode(result).decode() + "\n")
    sys.stdout.flush()
