"""A restored data directory as a server that nobody else can reach: for reading what it holds, then to be thrown away.

It listens on one socket in a private folder and lets in, by the operating system's word alone (peer), the user that
started it, under the administrator's name. It archives nothing, replicates to nobody, and says nothing of what it
holds. A keeper ends it when this process is gone, however that ended.
"""

from __future__ import annotations

import os
import pwd
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from chukan.ops.local.binaries import Binaries
from chukan.ops.local.machine import Identity
from chukan.ops.local.postgres import Server
from chukan.replication.primary import DRIVER_ERRORS, Connection, translate


@contextmanager
def quiet_server(data: Path, programs: Path, identity: Identity | None, user: str) -> Iterator[Server]:
    """Run a server on a data directory that ended its recovery, and stop it.

    Args:
        data: the directory; settings and log are made beside it.
        programs: folder of the server's programs.
        identity: whom to run it as, None for the calling user.
        user: the administrator's name in it, under whom the calling user is let in.

    Raises:
        Problem: database_failed, naming the log.
    """
    major = int((data / "PG_VERSION").read_text(encoding="ascii"))
    hba, ident = (data.with_name(f"{data.name}.{part}") for part in ("peer", "ident"))
    hba.write_text("local all all peer map=own\n", encoding="utf-8")
    ident.write_text(f'own {pwd.getpwuid(os.geteuid()).pw_name} "{user}"\n', encoding="utf-8")
    for path in (hba, ident):
        path.chmod(0o644)
    options = {
        "hba_file": str(hba),
        "ident_file": str(ident),
        "archive_mode": "off",
        "max_wal_senders": "0",
        "max_connections": "20",
    }
    server = Server("restored", data, binaries=Binaries("debian", programs, major), options=options, identity=identity)
    server.start()
    try:
        yield server
    finally:
        server.stop()


@asynccontextmanager
async def entered(server: Server, database: str, user: str) -> AsyncIterator[Connection]:
    """Lend an administrator's connection to it. Raises ``Problem``."""
    try:
        connection: Connection = await server.enter(database, user)
    except DRIVER_ERRORS as error:
        raise translate(error) from None
    try:
        yield connection
    finally:
        connection.terminate()
