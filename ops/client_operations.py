"""``chukan client operations``: the agency reads, keeps and takes along its own operations log (操作記録).

For an officer's card with the function ``order``, or an administrator in a session. The exported file is checked
offline by ``chukan records verify`` with the verifier keys of the log, which come from elsewhere than the exchange. It
holds who did what at the agency: it is written for its owner alone.
"""

from pathlib import Path

from cyclopts import App
from rich.console import Console

from chukan.clock import to_jst
from chukan.ops import client_view as view
from chukan.ops.client_evidence import Keeping, look_at_log
from chukan.ops.client_export import write_log
from chukan.ops.client_run import Target, run
from chukan.ops.sandbox.agency_client import AgencyClient
from chukan.platform.wire.operations import Operations

app = App(name="operations", help="Read, keep and export the agency's own operations log (操作記録), as its officer.")


@app.command(name="list")
def list_(*, target: Target, after: int = 0, limit: int = 100) -> None:
    """List what the agency's officers did and were refused, in the order of the log.

    Parameters
    ----------
    after
        Begin after this position.
    limit
        Entries of the page, at most 500.
    """
    run(target, lambda client: client.operations(after=after, limit=limit), _show)


@app.command
def export(path: Path, *, target: Target) -> None:
    """Write the log with its entries up to its last checkpoint, for chukan records verify.

    Parameters
    ----------
    path
        The new file; only its owner reads it.
    """
    write_log(path, target, AgencyClient.export_operations)


@app.command
def checkpoint(*, target: Target, keeping: Keeping) -> None:
    """Look at the log's newest checkpoint, check that it continues the kept one, and keep it."""
    look_at_log(target, keeping, lambda client: client.operations_log)


def _show(console: Console, reply: Operations) -> None:
    shown = view.table("position", "at (JST)", "actor", "second", "act", "outcome", "times")
    for each in reply.entries:
        outcome = each.outcome if each.problem is None else f"{each.outcome}: {each.problem}"
        at = f"{to_jst(each.at):%Y-%m-%d %H:%M:%S}"
        shown.add_row(str(each.position), at, each.actor, each.second or "", each.kind, outcome, str(each.times))
    console.print(shown)
    if reply.next is not None:
        console.print(f"next: --after {reply.next}")
