"""``chukan client export-records``: the agency's records with their log and messages, for ``chukan records verify``.

The operations log is written the same way (``client_operations``). Such a file says whom the agency asked and was asked
about whom, or who did what there: it is written for its owner alone, and one that was cut off does not stay.
"""

import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from chukan.errors import Problem
from chukan.ops.client_run import Target, run
from chukan.ops.sandbox.clients import AgencyClient


def export_records(path: Path, *, target: Target) -> None:
    """Write the log with its records and their messages up to its last checkpoint.

    Parameters
    ----------
    path
        The new evidence file (証跡ファイル); only its owner reads it.
    """
    write_log(path, target, AgencyClient.export_records)


def write_log(path: Path, target: Target, pieces: Callable[[AgencyClient], AsyncIterator[bytes]]) -> None:
    """Write a log as it comes, and show its size. Raises ``Problem`` file_exists, file_unwritable."""

    async def work(client: AgencyClient) -> int:
        return await _write(pieces(client), path)

    run(target, work, lambda console, size: console.print(f"{size} bytes"))


async def _write(pieces: AsyncIterator[bytes], path: Path) -> int:
    try:
        file = os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")
    except FileExistsError:
        raise Problem("file_exists", expected=str(path)) from None
    except OSError:
        raise Problem("file_unwritable", expected=str(path)) from None
    size = 0
    try:
        with file:
            async for piece in pieces:
                size += file.write(piece)
    except BaseException:
        path.unlink(missing_ok=True)  # noqa: ASYNC240 - one name in a local folder
        raise
    return size
