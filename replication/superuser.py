"""A superuser's connection to one node of a site, by the operator's certificate and password; no server has it.

It goes to the node that is named, whether it leads or not: whoever sets a cell up has asked who does.
"""

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import asyncpg

from chukan.replication import render
from chukan.replication.driver import Connection
from chukan.replication.site import Site

_CONNECT_TIMEOUT_S: Final = 10.0


@asynccontextmanager
async def superuser(site: Site, node: str, database: str) -> AsyncIterator[Connection]:
    """Lend a superuser's connection to one node; raises what the driver raises, and ``KeyError`` for no node."""
    cell, row = site.node(node)
    folder = site.operator.directory
    context = ssl.create_default_context(cafile=folder / "ca.pem")
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(folder / "certificate.pem", folder / "key.pem")
    password = (folder / "passwords" / f"{cell}-superuser").read_text(encoding="ascii").strip()
    connection: Connection = await asyncpg.connect(
        host=site.address(row.host),
        port=row.port,
        user=render.SUPERUSER,
        password=password,
        database=database,
        ssl=context,
        timeout=_CONNECT_TIMEOUT_S,
    )
    try:
        yield connection
    finally:
        connection.terminate()
