"""``chukan client operations``: the agency reads, keeps and takes along its own operations log (操作記録).

For an officer's card with the function ``order``, or an administrator in a session. The exported file is checked
offline by ``chukan records verify`` with the verifier keys of the log, which come from elsewhere than the exchange. It
holds who did what at the agency: it is written for its owner alone.
"""

import os
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter
from rich.console import Console

from chukan.clock import to_jst
from chukan.errors import Problem
from chukan.ops import client_view as view
from chukan.ops.client_evidence import known_keys, show_seen
from chukan.ops.client_run import Target, run, run_each
from chukan.ops.sandbox.agency_client import AgencyClient
from chukan.ops.sandbox.checkpoint_book import CheckpointBook, Seen
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

    async def work(client: AgencyClient) -> int:
        return await _write(client, path)

    run(target, work, lambda console, size: console.print(f"{size} bytes"))


@app.command
def checkpoint(
    *,
    target: Target,
    keys: Path,
    keep: Path,
    after_restore: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Look at the log's newest checkpoint, check that it continues the kept one, and keep it.

    Parameters
    ----------
    keys
        Verifier keys of the log and of both centres, one a line (the operator's ``chukan operations keys``).
    keep
        The file of the kept checkpoint; made at the first look.
    after_restore
        Keep the new one though it contradicts the old one, which stays beside it: after an announced restore only.
    """
    book = CheckpointBook(keep, known_keys(keys))

    async def work(client: AgencyClient) -> Seen:
        return await book.look(client.operations_log, replace=after_restore)

    run_each(target, work, show_seen)


async def _write(client: AgencyClient, path: Path) -> int:
    """Write the file as it comes; one that was cut off does not stay. Raises ``Problem`` file_exists."""
    try:
        file = os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")
    except FileExistsError:
        raise Problem("file_exists", expected=str(path)) from None
    except OSError:
        raise Problem("file_unwritable", expected=str(path)) from None
    size = 0
    try:
        with file:
            async for piece in client.export_operations():
                size += file.write(piece)
    except BaseException:
        _remove(path)
        raise
    return size


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)


def _show(console: Console, reply: Operations) -> None:
    shown = view.table("position", "at (JST)", "actor", "second", "act", "outcome", "times")
    for each in reply.entries:
        outcome = each.outcome if each.problem is None else f"{each.outcome}: {each.problem}"
        at = f"{to_jst(each.at):%Y-%m-%d %H:%M:%S}"
        shown.add_row(str(each.position), at, each.actor, each.second or "", each.kind, outcome, str(each.times))
    console.print(shown)
    if reply.next is not None:
        console.print(f"next: --after {reply.next}")
