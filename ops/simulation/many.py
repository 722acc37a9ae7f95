"""Many seeds over several processes: each runs its own share, and what goes wrong is told as soon as it is known.

A seed needs nothing of another, so a worker is a process without any state but the law; it gives back verdicts only.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from itertools import islice
from typing import Final

from chukan.ops.simulation.run import Verdict, run_seed

PORTION: Final = 25
"""Seeds that a process is given at a time."""


def run_many(first: int, count: int, jobs: int) -> Iterator[list[Verdict]]:
    """Run seeds ``first`` … ``first + count - 1`` and yield the verdicts portion by portion, in no order."""
    portions = ((start, min(PORTION, first + count - start)) for start in range(first, first + count, PORTION))
    if jobs == 1:
        yield from (run_portion(*portion) for portion in portions)
        return
    with ProcessPoolExecutor(jobs) as pool:
        under_way: set[Future[list[Verdict]]] = set()
        while True:
            under_way.update(
                pool.submit(run_portion, *portion) for portion in islice(portions, 2 * jobs - len(under_way))
            )
            if not under_way:
                return
            done, under_way = wait(under_way, return_when=FIRST_COMPLETED)
            yield from (portion.result() for portion in done)


def run_portion(first: int, count: int) -> list[Verdict]:
    """Run some seeds one after the other; what they left is collected between the portions, not during a run."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        return [run_seed(seed) for seed in range(first, first + count)]
    finally:
        if collecting:
            gc.enable()
        gc.collect()
