"""``chukan client checkpoint``: keep the last checkpoint of the agency's log, and refuse one that does not continue it.

Every exchange that is named is asked by itself, one after the other: a platform that shows two different logs is found
out here. A contradiction is a problem and a status other than 0; the kept file is then evidence. The operations log is
kept the same way (``client_operations``).
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.console import Console

from chukan.errors import Problem
from chukan.ops.client_run import Target, run_each
from chukan.ops.sandbox.checkpoint_book import CheckpointBook, Log, Seen
from chukan.ops.sandbox.clients import AgencyClient
from chukan.tenants.checkpoint import CheckpointError, Key, read_keys


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Keeping:
    """What a log's checkpoint is held against, and where it is kept."""

    keys: Path
    """Verifier keys of the log and of both centres, one a line (operator: `chukan records keys`, `operations keys`)."""
    keep: Path
    """The file of the kept checkpoint; made at the first look."""
    after_restore: Annotated[bool, Parameter(negative="")] = False
    """After an announced restore: keep the new one though it contradicts the old one, which stays beside it. Its log
    must hold the leaf of a restore that explains what was lost."""


def checkpoint(*, target: Target, keeping: Keeping) -> None:
    """Look at the log's newest checkpoint, check that it continues the kept one, and keep it."""
    look_at_log(target, keeping, lambda client: client)


def look_at_log(target: Target, keeping: Keeping, log_of: Callable[[AgencyClient], Log]) -> None:
    """Look at one of the agency's logs at every exchange. Raises ``Problem`` setting_invalid, as ``CheckpointBook``."""
    book = CheckpointBook(keeping.keep, _known_keys(keeping.keys))

    async def work(client: AgencyClient) -> Seen:
        return await book.look(log_of(client), replace=keeping.after_restore)

    run_each(target, work, _show)


def _known_keys(path: Path) -> list[Key]:
    try:
        return read_keys(path.read_text(encoding="ascii").splitlines())
    except (OSError, UnicodeDecodeError, CheckpointError):
        raise Problem("setting_invalid", pointer="--keys", expected="verifier keys (C2SP vkey), one a line") from None


def _show(console: Console, seen: Seen) -> None:
    held = f"continues the {seen.before} leaves kept before" if seen.before else "kept for the first time"
    console.print(f"{seen.origin}\n{seen.size} leaves, {'cosigned' if seen.cosigned else 'NOT COSIGNED YET'}; {held}")
