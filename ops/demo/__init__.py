"""``chukan demo``: the whole platform on this machine, and the main job through it, on synthetic people.

Two cells (a PostgreSQL server each), two exchanges, a sandbox network with a store of its own, national counterparts
outside the platform, and fourteen real agencies with their systems and officers. Who plays and what is asked is pure
(``cast``, ``population``, ``questions``); ``bring_up`` makes it stand; ``run`` runs the main job and shows it.

It is a sandbox: both centres stand on one machine and one disk, master keys lie in files, source addresses are not
checked, and nothing here takes part in a real site.
"""

from typing import Annotated

from cyclopts import App, Parameter
from cyclopts.validators import Number

from chukan.ops.demo.run import Options, run

app = App(name="demo", help="Run the whole thing on this machine: two cells, two exchanges, a sandbox network.")

_PEOPLE = 3000
_QUERIES = 1000
_SEED = 20_261_123


@app.default
def demo(
    *,
    once: Annotated[bool, Parameter(negative="")] = False,
    as_json: Annotated[bool, Parameter(name="--json", negative="")] = False,
    reset: Annotated[bool, Parameter(negative="")] = False,
    people: Annotated[int, Parameter(validator=Number(gte=400, lte=50_000))] = _PEOPLE,
    queries: Annotated[int, Parameter(validator=Number(gte=100, lte=100_000))] = _QUERIES,
) -> int:
    """Bring everything up, run the main job, and stay up until Ctrl-C. A second start goes on from the data.

    Args:
        once: End after the run.
        as_json: Print the result as one JSON object, last on standard output.
        reset: Begin anew: throw the demo's data away first.
        people: Synthetic residents; of the first start, until a reset.
        queries: Queries of this run.
    """
    return run(Options(once=once, as_json=as_json, reset=reset, people=people, queries=queries, seed=_SEED))
