"""``chukan simulate``: runs seeded worlds and says which of them broke a promise (DESIGN §11).

Each seed is one world of agencies, exchanges, cells and a network in which everything goes wrong that can; the checkers
judge what is left. A seed that fails is printed with the command that replays it, step by step.
"""

import os
import time
from typing import Annotated

import cyclopts
from cyclopts import Parameter
from rich.console import Console

from chukan.errors import Problem
from chukan.ops.output import Json, say
from chukan.ops.simulation.many import run_many
from chukan.ops.simulation.run import Verdict, run_seed

app = cyclopts.App(name="simulate", help="Run seeded worlds of crashes, losses and late messages, and judge them.")
SHOWN_MAX = 20
PROGRESS_S = 30.0
EXIT_BROKEN = 1
SEED_MAX = 2**63


@app.default
def simulate(
    *,
    seeds: Annotated[int, Parameter(validator=cyclopts.validators.Number(gte=1, lte=10_000_000))] = 1000,
    first: Annotated[int, Parameter(name="--from", validator=cyclopts.validators.Number(gte=0, lt=SEED_MAX))] = 0,
    jobs: Annotated[int | None, Parameter(validator=cyclopts.validators.Number(gte=1, lte=256))] = None,
    seed: Annotated[int | None, Parameter(validator=cyclopts.validators.Number(gte=0, lt=SEED_MAX))] = None,
    trace: Annotated[bool, Parameter(negative="")] = False,
    as_json: Json = False,
) -> int:
    """Run many seeds, or one of them again.

    Parameters
    ----------
    seeds
        How many seeds to run.
    first
        The first of them.
    jobs
        How many processes to use; as many as there are processors unless told otherwise.
    seed
        Run this seed only.
    trace
        With --seed: print what happened, step by step.
    """
    if seed is not None:
        return _one(seed, trace=trace, as_json=as_json)
    if trace:
        raise Problem("invalid_field", pointer="/trace", expected="--seed N --trace")
    return _many(first, seeds, jobs or os.cpu_count() or 1, as_json=as_json)


def _one(seed: int, *, trace: bool, as_json: bool) -> int:
    verdict = run_seed(seed, trace=trace)
    lines = [f"{at_s:10.3f}  {actor:<22} {text}" for at_s, actor, text in verdict.trace]
    lines += _failure(verdict) if verdict.complaints else [f"seed {seed}: {verdict.lines} lines, no complaint"]
    say(_document(verdict), "\n".join(lines), as_json=as_json)
    return EXIT_BROKEN if verdict.complaints else 0


def _many(first: int, count: int, jobs: int, *, as_json: bool) -> int:
    began_s = told_s = time.monotonic()
    broken: list[Verdict] = []
    done = lines = commits = 0
    console = Console(stderr=True, highlight=False)
    for verdicts in run_many(first, count, jobs):
        done += len(verdicts)
        lines += sum(verdict.lines for verdict in verdicts)
        commits += sum(verdict.commits for verdict in verdicts)
        for verdict in verdicts:
            if verdict.complaints:
                broken.append(verdict)
                if len(broken) <= SHOWN_MAX:
                    console.print("\n".join(_failure(verdict)), markup=False, soft_wrap=True)
        if time.monotonic() - told_s >= PROGRESS_S:
            told_s = time.monotonic()
            console.print(f"{done:,} of {count:,} seeds, {len(broken)} broken", markup=False)
    took_s = time.monotonic() - began_s
    summary = {
        "first": first,
        "seeds": done,
        "broken": [_document(verdict) for verdict in sorted(broken, key=lambda verdict: verdict.seed)],
        "lines": lines,
        "commits": commits,
        "seconds": round(took_s, 1),
        "seeds_per_s": round(done / took_s, 1),
        "jobs": jobs,
    }
    text = (
        f"{done} seeds from {first}, {lines} lines, {commits} commits, {took_s:.0f} s "
        f"({done / took_s:.1f}/s with {jobs} processes): {len(broken)} broken"
    )
    say(summary, text, as_json=as_json)
    return EXIT_BROKEN if broken else 0


def _failure(verdict: Verdict) -> list[str]:
    complaints = [f"  {checker}: {text}" for checker, text in verdict.complaints[:SHOWN_MAX]]
    return [
        f"seed {verdict.seed} is broken:",
        *complaints,
        f"  replay it: chukan simulate --seed {verdict.seed} --trace",
    ]


def _document(verdict: Verdict) -> dict[str, object]:
    return {
        "seed": verdict.seed,
        "complaints": [{"checker": checker, "text": text} for checker, text in verdict.complaints],
        "lines": verdict.lines,
        "commits": verdict.commits,
        "virtual_s": round(verdict.virtual_s, 3),
    }
