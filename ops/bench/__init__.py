"""``chukan bench``: how fast it is on this machine, always beside a limit that is measured in the same run.

A figure without its limit says more about the machine than about the code; so every benchmark here reports a ratio,
of medians of five or more runs in which the limit and ours took turns. No test asserts a figure.

``exchange``: brokered round trips through the HTTP API, beside pgbench that runs the same statements on the same
servers. ``stand`` brings the installation up, ``questions`` and ``driving`` ask, ``statements`` (pure) and ``limit``
are the limit, ``figures`` (pure) counts, ``run`` puts it together.

``commit``: acknowledged commits that wait for the other centre, by the length of the link between the centres, beside
pgbench with the same statement on the same primary. ``commits`` are both write paths.

``links``: one gateway with 2,500 links (回線), beside ``wg syncconf`` of the same peers. ``noise`` (pure) and ``swarm``
are the synthetic devices, ``country`` says who they are, ``ground`` where they stand; ``links_stand`` is the gateway
before them, ``links_limit`` the limit.

``breach``: whom an incident affects (影響を受けた本人), from the records of several agencies, beside a plain scan.
"""

from typing import Annotated

from cyclopts import App, Parameter
from cyclopts.validators import Number

from chukan.ops.bench.figures import RUNS_MIN
from chukan.ops.bench.run import Options, run

app = App(name="bench", help="Measure this machine, beside a limit that is measured in the same run.")

_QUICK_RUNS = 1
_SECONDS = 6.0
_COMMIT_SECONDS = 3.0
_QUICK_SECONDS = 1.0


@app.command
def exchange(
    *,
    runs: Annotated[int | None, Parameter(validator=Number(gte=1, lte=1000))] = None,
    quick: Annotated[bool, Parameter(negative="")] = False,
    seconds: Annotated[float | None, Parameter(validator=Number(gte=1, lte=600))] = None,
    clients: Annotated[int, Parameter(validator=Number(gte=1, lte=128))] = 32,
    lists: Annotated[int, Parameter(validator=Number(gte=1, lte=16))] = 4,
    lines: Annotated[int, Parameter(validator=Number(gte=1, lte=1000))] = 1000,
    people: Annotated[int, Parameter(validator=Number(gte=400, lte=50_000))] = 3000,
    as_json: Annotated[bool, Parameter(name="--json", negative="")] = False,
) -> int:
    """Measure brokered round trips per second, single and in lists, beside pgbench running the same statements.

    Brings up an installation of its own (two cells, two exchanges, the sandbox network), and takes it down again.

    Args:
        runs: How often the limit and the exchanges are measured in turn; at least 5.
        quick: Fewer and shorter runs, to see that it works; the result is marked, for it is no measurement.
        seconds: How long one run lasts.
        clients: Clients that ask single lines, each the next one when it has its answer.
        lists: Clients that send lists.
        lines: Lines in a list.
        people: Synthetic residents.
        as_json: Print the result as one JSON object, last on standard output.
    """
    return run(
        Options(
            runs=runs or (_QUICK_RUNS if quick else RUNS_MIN),
            quick=quick,
            seconds=seconds or (_QUICK_SECONDS if quick else _SECONDS),
            clients=clients,
            lists=lists,
            lines=lines,
            people=people,
            as_json=as_json,
        )
    )


@app.command
def commit(
    *,
    runs: Annotated[int | None, Parameter(validator=Number(gte=1, lte=1000))] = None,
    quick: Annotated[bool, Parameter(negative="")] = False,
    seconds: Annotated[float | None, Parameter(validator=Number(gte=1, lte=600))] = None,
    as_json: Annotated[bool, Parameter(name="--json", negative="")] = False,
) -> int:
    """Measure acknowledged commits at 0, 5 and 10 ms one way between the centres, with 1, 16 and 64 clients.

    Beside pgbench running the same statement on the same primary. Brings up the cells of a lab of its own; needs root.

    Args:
        runs: How often pgbench and ours are measured in turn, for each length and number of clients; at least 5.
        quick: Fewer and shorter runs, to see that it works; the result is marked, for it is no measurement.
        seconds: How long one run lasts.
        as_json: Print the result as one JSON object, last on standard output.
    """
    from chukan.ops.bench import commit_bench as bench  # noqa: PLC0415 - the lab is not needed for the other benchmarks

    return bench.run(
        bench.Options(
            runs=runs or (_QUICK_RUNS if quick else RUNS_MIN),
            quick=quick,
            seconds=seconds or (_QUICK_SECONDS if quick else _COMMIT_SECONDS),
            as_json=as_json,
        )
    )


@app.command
def links(
    *,
    runs: Annotated[int | None, Parameter(validator=Number(gte=1, lte=1000))] = None,
    quick: Annotated[bool, Parameter(negative="")] = False,
    number: Annotated[int, Parameter(name="--links", validator=Number(gte=10, lte=10_000))] = 2_500,
    as_json: Annotated[bool, Parameter(name="--json", negative="")] = False,
) -> int:
    """Measure one gateway with 2,500 links: all configured, one changed, all sessions back after its restart.

    Beside ``wg syncconf`` of the same peers. Brings up a gateway of its own with synthetic devices; needs root.

    Args:
        runs: How often the limit and the gateway are measured in turn; at least 5.
        quick: Fewer runs and changes, to see that it works; the result is marked, for it is no measurement.
        number: How many links.
        as_json: Print the result as one JSON object, last on standard output.
    """
    from chukan.ops.bench import links_bench as bench  # noqa: PLC0415 - the gateway is not needed for the others

    runs = runs or (_QUICK_RUNS if quick else RUNS_MIN)
    return bench.run(bench.Options(runs=runs, quick=quick, as_json=as_json, links=number))


@app.command
def breach(
    *,
    runs: Annotated[int | None, Parameter(validator=Number(gte=1, lte=1000))] = None,
    quick: Annotated[bool, Parameter(negative="")] = False,
    records: Annotated[int | None, Parameter(validator=Number(gte=100, lte=1_000_000))] = None,
    agencies: Annotated[int, Parameter(validator=Number(gte=1, lte=50))] = 4,
    as_json: Annotated[bool, Parameter(name="--json", negative="")] = False,
) -> int:
    """Measure how long it takes to say whom an incident affects, from 200,000 records of four agencies.

    Beside COPY of the same rows as they rest. Brings up a database of its own, and takes it down again.

    Args:
        runs: How often the limit and ours are measured in turn; at least 5.
        quick: Fewer runs and records, to see that it works; the result is marked, for it is no measurement.
        records: How many records, of all agencies together.
        agencies: How many agencies; at most 200,000 records of each are looked at.
        as_json: Print the result as one JSON object, last on standard output.
    """
    from chukan.ops.bench import breach_bench as bench  # noqa: PLC0415 - not needed for the other benchmarks

    return bench.run(
        bench.Options(
            runs=runs or (_QUICK_RUNS if quick else RUNS_MIN),
            quick=quick,
            as_json=as_json,
            records=records or (bench.QUICK_RECORDS if quick else bench.RECORDS),
            agencies=agencies,
        )
    )
