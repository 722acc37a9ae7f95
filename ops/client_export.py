"""``chukan client export-records``: the agency's records with their log and messages, for ``chukan records verify``.

The file says whom the agency asked and was asked about whom: it is written for its owner alone, and one that was cut
off does not stay.
"""

import os
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

    async def work(client: AgencyClient) -> int:
        return await _write(client, path)

    run(target, work, lambda console, size: console.print(f"{size} bytes"))


async def _write(client: AgencyClient, path: Path) -> int:
    """Write the file as it comes. Raises ``Problem`` file_exists, file_unwritable."""
    try:
        file = os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")
    except FileExistsError:
        raise Problem("file_exists", expected=str(path)) from None
    except OSError:
        raise Problem("file_unwritable", expected=str(path)) from None
    size = 0
    try:
        with file:
            async for piece in client.export_records():
                size += file.write(piece)
    except BaseException:
        path.unlink()  # noqa: ASYNC240 - one name in a local folder
        raise
    return size
