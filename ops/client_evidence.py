"""``chukan client checkpoint``: keep the last checkpoint of the agency's log, and refuse one that does not continue it.

Every exchange that is named is asked by itself, one after the other: a platform that shows two different logs is found
out here. A contradiction is a problem and a status other than 0; the kept file is then evidence.
"""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.console import Console

from chukan.errors import Problem
from chukan.ops.client_run import Target, run_each
from chukan.ops.sandbox.checkpoint_book import CheckpointBook, Seen
from chukan.ops.sandbox.clients import AgencyClient
from chukan.tenants.checkpoint import CheckpointError, Key, read_keys


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
        Verifier keys of the log and of both centres, one a line (the operator's ``chukan records keys``).
    keep
        The file of the kept checkpoint; made at the first look.
    after_restore
        After an announced restore: keep the new one though it contradicts the old one, which stays beside it. Its log
        must hold the leaf of a restore that explains what was lost.
    """
    book = CheckpointBook(keep, known_keys(keys))

    async def work(client: AgencyClient) -> Seen:
        return await book.look(client, replace=after_restore)

    run_each(target, work, show_seen)


def known_keys(path: Path) -> list[Key]:
    """Return the verifier keys in a file, one a line. Raises ``Problem`` setting_invalid."""
    try:
        return read_keys(path.read_text(encoding="ascii").splitlines())
    except (OSError, UnicodeDecodeError, CheckpointError):
        raise Problem("setting_invalid", pointer="--keys", expected="verifier keys (C2SP vkey), one a line") from None


def show_seen(console: Console, seen: Seen) -> None:
    """Show a checkpoint that was looked at and kept."""
    held = f"continues the {seen.before} leaves kept before" if seen.before else "kept for the first time"
    console.print(f"{seen.origin}\n{seen.size} leaves, {'cosigned' if seen.cosigned else 'NOT COSIGNED YET'}; {held}")
