"""``chukan demo``: the whole platform on this machine, and the main job through it, on synthetic people.

Two cells (a PostgreSQL server each), two exchanges, a sandbox network with a store of its own, national counterparts
outside the platform, and fourteen real agencies with their systems and officers. Who plays and what is asked is pure
(``cast``, ``population``, ``questions``); ``bring_up`` makes it stand; ``run`` runs the main job and shows it.

It is a sandbox: both centres stand on one machine and one disk, master keys lie in files, source addresses are not
checked, and nothing here takes part in a real site.
"""

from typing import Annotated, Final

from cyclopts import App, Parameter
from cyclopts.validators import Number

from chukan.errors import Problem
from chukan.ops.demo.model import PEOPLE_MAX, PEOPLE_MIN, QUERIES_MAX, QUERIES_MIN
from chukan.ops.demo.run import Options, run
from chukan.replication.site import Topology

app = App(name="demo", help="Run the whole thing on this machine: two cells, two exchanges, a sandbox network.")

_PEOPLE = 3000
_QUERIES = 1000
DELAY_MAX_MS: Final = 1000.0
SEED: Final = 20_261_123


@app.default
def demo(
    *,
    once: Annotated[bool, Parameter(negative="")] = False,
    as_json: Annotated[bool, Parameter(name="--json", negative="")] = False,
    reset: Annotated[bool, Parameter(negative="")] = False,
    people: Annotated[int, Parameter(validator=Number(gte=PEOPLE_MIN, lte=PEOPLE_MAX))] = _PEOPLE,
    queries: Annotated[int, Parameter(validator=Number(gte=QUERIES_MIN, lte=QUERIES_MAX))] = _QUERIES,
    centres: Annotated[bool, Parameter(negative="")] = False,
    topology: Topology = "2+2",
    delay: Annotated[float | None, Parameter(validator=Number(gte=0, lte=DELAY_MAX_MS))] = None,
    links: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Bring everything up, run the main job, and stay up until Ctrl-C. A second start goes on from the data.

    Args:
        once: End after the run.
        as_json: Print the result as one JSON object, last on standard output.
        reset: Begin anew: throw the demo's data away first.
        people: Synthetic residents; of the first start, until a reset.
        queries: Queries of this run.
        centres: On two centres and a witness: etcd, PostgreSQL under Patroni, links that can be cut.
        topology: Nodes of each cell at home and in the other centre; with --centres.
        delay: Milliseconds each way between the two centres, for everything; with --centres, as root.
        links: Every municipality in a network of its own, behind its own device: nothing is asked but through its
            tunnels to the two centres. As root; --centres goes without saying.
    """
    centres = centres or links
    options = Options(once=once, as_json=as_json, reset=reset, people=people, queries=queries, seed=SEED)
    if delay is not None and not centres:
        raise Problem("invalid_field", pointer="/delay", expected="--centres")
    if not centres:
        return run(options)
    from chukan.ops.centres.run import run_centres  # noqa: PLC0415 - it stands on the demo: not the other way round

    return run_centres(options, topology, delay_ms=delay, links=links)
