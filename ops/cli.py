"""The command line ``chukan``: one table of commands, each imported only when it is used.

A problem that a command raises is shown with its title and what to do, and ends the process with status 2; with
``--json`` among the arguments it is printed as the problem document instead. An exception that is no problem ends it
with status 1 and a log line that names its type and place, never its text.
"""

import difflib
import json
import os
import sys
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated

import cyclopts
from rich.console import Console
from rich.panel import Panel
from rich.table import Table

from chukan import core_dumps, log, settings
from chukan.errors import Problem
from chukan.ops import operator_roles

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

EXIT_PROBLEM = 2
EXIT_INTERRUPTED = 130

# Where each command lives. Help must not import them: starting up stays quick however many there are.
COMMANDS: "Mapping[str, str]" = MappingProxyType(
    {
        "demo": "chukan.ops.demo:app",
        "agency": "chukan.ops.agency:app",
        "backup": "chukan.ops.backup:app",
        "bench": "chukan.ops.bench:app",
        "client": "chukan.ops.client:app",
        "common": "chukan.ops.common:app",
        "db": "chukan.ops.db:app",
        "device": "chukan.ops.device:app",
        "environment": "chukan.ops.environment:app",
        "drill": "chukan.ops.drill:app",
        "exchange": "chukan.ops.serve:app",
        "switchover": "chukan.ops.failover:switchover_app",
        "failover": "chukan.ops.failover:failover_app",
        "failback": "chukan.ops.failover:failback_app",
        "drain": "chukan.ops.failover:drain_app",
        "fence": "chukan.ops.failover:fence_app",
        "gateway": "chukan.ops.gateway:app",
        "incident": "chukan.ops.incident:app",
        "keys": "chukan.ops.keys:app",
        "law": "chukan.ops.law:app",
        "link": "chukan.ops.link:app",
        "master": "chukan.ops.master:app",
        "notice": "chukan.ops.notice:app",
        "officer": "chukan.ops.client_officer:app",
        "operations": "chukan.ops.operations:app",
        "operators": "chukan.ops.operators:app",
        "pia": "chukan.ops.pia:app",
        "pki": "chukan.ops.pki:app",
        "reconcile": "chukan.ops.reconcile:app",
        "records": "chukan.ops.records:app",
        "sandbox": "chukan.ops.sandbox.serve:app",
        "site": "chukan.ops.site:app",
        "specs": "chukan.ops.specs:app",
        "scan": "chukan.ops.scan:app",
        "simulate": "chukan.ops.simulate:app",
        "status": "chukan.ops.status:app",
        "stop": "chukan.ops.stop:app",
        "trace": "chukan.ops.trace:app",
    }
)

SUMMARIES: "Mapping[str, str]" = MappingProxyType(
    {
        "demo": "Run the whole thing on this machine: two cells, two exchanges, a sandbox network.",
        "agency": "Add, list, show, move, close, export or destroy an agency.",
        "backup": "Make, list, verify and restore backups of the cells.",
        "bench": "Measure brokered round trips beside pgbench running the same statements.",
        "client": "Act as an agency's system: register, acquire, query, collect.",
        "common": "Show the common data of all cells: in force, and waiting for their time.",
        "db": "Create and migrate a cell's database.",
        "device": "Set up and run the municipal side of a link: keys, enrolment, agent.",
        "environment": "Plan and run a test environment that is 1/N of production.",
        "drill": "Break something on purpose, and prove that nothing is lost.",
        "exchange": "Serve as an exchange.",
        "switchover": "Hand a cell over to another node in good order.",
        "failover": "Have a node lead a cell that has no leader.",
        "failback": "Hand cells back to their first node at home.",
        "drain": "Hand over every cell that is led from a centre.",
        "fence": "Confirm that a cell's leader is dead, so that another is elected at once.",
        "gateway": "Keep the links of one centre: run the controller, check it, make its keys.",
        "incident": "Write down an incident, count whom it affects, draft the report, close it.",
        "keys": "Show, rotate and destroy the keys of agencies, in the key stores of both centres.",
        "law": "Show and check the matching list of a day.",
        "link": "Invite, approve, look at, suspend, resume, revoke and rotate the links of bodies.",
        "master": "Propose, approve and roll back versions of the master data (マスター).",
        "notice": "Tell the bodies of planned stops and incidents; see who has read it.",
        "officer": "Sign in as an officer; administer accounts, two administrators together.",
        "operations": "Write the operations logs of agencies and of operators, and look at the operators'.",
        "operators": "Show who may give an operator's orders, in which roles.",
        "pia": "Wording for a body's own protection assessment, checked against the tree.",
        "pki": "Issue certificates for systems, officers and servers.",
        "reconcile": "Compare the records of both sides and the network.",
        "records": "Write the evidence of provision records, and check it offline.",
        "sandbox": "Serve the simulated neighbours: the network and the registry network.",
        "site": "Render, check and explain the site of two centres.",
        "specs": "Render the specifications that are made from data.",
        "scan": "Search a running installation for planted values that must not be readable.",
        "simulate": "Run seeded worlds in which everything goes wrong, and judge them.",
        "status": "Show how the site stands: centres, cells, standbys, etcd, exchanges.",
        "stop": "Stop provisions of a kind or under a procedure (kill switch), and lift the stop.",
        "trace": "Show which requirement is covered by which passed test.",
    }
)

app = cyclopts.App(
    name="chukan",
    help="An open municipal intermediate-server platform (自治体中間サーバー・プラットフォーム).",
    help_epilogue="Also, by the script itself: chukan test [--full] and chukan lint.",
    version=lambda: version("chukan"),
)
for _name, _target in COMMANDS.items():
    app.command(_target, name=_name, help=SUMMARIES[_name])

config = cyclopts.App(name="config", help="Explain the settings.")
app.command(config)


@config.command
def explain(
    *,
    file: Annotated[Path | None, cyclopts.Parameter(name=["--file", "-f"])] = None,
    as_json: Annotated[bool, cyclopts.Parameter(name="--json", negative="")] = False,
) -> None:
    """Show every setting, its value and where the value comes from.

    Parameters
    ----------
    file
        The settings file (TOML); CHUKAN_SETTINGS names it otherwise.
    as_json
        Print JSON instead of a table.
    """
    named = os.environ.get("CHUKAN_SETTINGS")
    path = file or (Path(named) if named else None)
    entries = settings.explain(path, os.environ)
    if as_json:
        _write_json([entry._asdict() for entry in entries])
        return
    table = Table("setting", "value", "source", box=None)
    for entry in entries:
        table.add_row(
            entry.key, entry.value, f"[red]{entry.source}[/red]" if entry.source == "missing" else entry.source
        )
    Console().print(table)


def _write_json(document: object) -> None:
    sys.stdout.write(json.dumps(document, ensure_ascii=False) + "\n")


def show(problem: Problem, *, as_json: bool) -> None:
    """Show a problem to the person at the terminal, or as its document to a program."""
    if as_json:
        _write_json(problem.as_dict())
        return
    document = problem.as_dict()
    where = [f"{name}: {document[name]}" for name in ("pointer", "line", "limit", "expected") if name in document]
    lines = [problem.kind.title_en, *where, "", problem.kind.action_ja, problem.kind.action_en]
    title = f"{problem.kind.title_ja} ({problem.code})"
    Console(stderr=True).print(
        Panel("\n".join(lines), title=title, title_align="left", border_style="red"), markup=False
    )


def run(tokens: "Sequence[str]") -> int:
    """Run one command and return the exit status of the process: what it returned if that is a number, else 0."""
    try:
        _refuse_unknown(tokens)
        operator_roles.begin(tokens)
        result = app(list(tokens), result_action="return_value")
    except Problem as problem:
        show(problem, as_json="--json" in tokens)
        return EXIT_PROBLEM
    except ImportError as error:
        if not _is_absent(error):
            raise
        show(Problem("not_in_service"), as_json="--json" in tokens)
        return EXIT_PROBLEM
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    return result if type(result) is int else 0


def _refuse_unknown(tokens: "Sequence[str]") -> None:
    """Refuse a first word that is no command; the library would import every command to find a similar one."""
    known = [*COMMANDS, *config.name]
    if tokens and not tokens[0].startswith("-") and tokens[0] not in known:
        nearest = difflib.get_close_matches(tokens[0], known, n=1)
        raise Problem("unknown_command", expected=nearest[0] if nearest else None)


def _is_absent(error: ImportError) -> bool:
    """Tell whether a command's own module is not part of this installation; any other import error is a fault."""
    modules = {target.partition(":")[0] for target in COMMANDS.values()}
    return isinstance(error.__cause__, ModuleNotFoundError) and error.__cause__.name in modules


def main() -> None:
    """Be the process ``chukan``, whose memory is in no core dump."""
    core_dumps.forbid()
    log.configure(os.environ.get("CHUKAN_LOG_LEVEL", "info"))
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
