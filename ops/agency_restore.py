"""``chukan backup restore-agency``: one agency alone goes back to a moment (機関単位の復元), on its officers' order.

The cell is restored to the moment into a folder of its own, a server that nobody else can reach reads it, and what the
agency provides from is put back into the living cell in one commit. Only that agency is answered 503 meanwhile. The
folder is taken away afterwards, however it ended.

Runs on a host that can read a centre's repository (as ``backup restore``) and has an installation's settings (as
``agency move``). Safe to repeat: an interrupted restore goes on under the same order, a finished one is not done again.

Invariant: nothing is laid down, frozen or written before the order was found good; without one there is only
``order_required``, audited. What will stay unreadable is told before anything of the living cell is touched.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

from rich.table import Table

from chukan.errors import Problem
from chukan.ops import restoring
from chukan.ops.certificates import read_certificates
from chukan.ops.failover import confirm
from chukan.ops.installation import Installation
from chukan.ops.output import table
from chukan.ops.pgbackrest import identity_of
from chukan.ops.quiet_server import entered, quiet_server
from chukan.ops.revoked_cards import revoked_cards
from chukan.replication.primary import Connection
from chukan.replication.site import Node, Site
from chukan.tenants import orders
from chukan.tenants.agency_restore import Prospect, Restored, Restorer
from chukan.tenants.changes import require_agency
from chukan.tenants.departure import administrator
from chukan.tenants.directory import Directory
from chukan.tenants.orders import Approved, SignedOrder, Target

Tell = Callable[[str], None]
Source = Callable[[], AbstractAsyncContextManager[Connection]]
"""Brings the cell of the moment up, lends an administrator's connection to it, and takes it away again."""

_KEPT: Final = {
    "links": "links that were made since, kept",
    "holds": "holds that were set since, kept",
    "loads": "loads to be registered again",
}


class Wish(NamedTuple):
    """What was asked for."""

    code: str
    target: Target
    document: SignedOrder | None
    confirmed: bool
    """Do not ask: for scripts."""


class Administration(NamedTuple):
    """The databases' administrator, who alone can read and fill an agency's tables."""

    user: str
    password_file: Path | None


async def restore_agency(
    installation: Installation, wish: Wish, admin: Administration, source: Source, tell: Tell
) -> Restored:
    """Restore an agency; what an earlier call left to be published is published, and nothing else is done then.

    ``Problem`` unknown_agency, order_required, order_invalid, setting_missing without an administrator, not_confirmed;
    as ``Restorer``, the source and the cells say.
    """
    if wish.document is None:
        await _demand(installation, wish)  # refused and audited, before anything else is asked for
    if admin.password_file is None:
        raise Problem("setting_missing", pointer="/admin_password_file", expected="--admin-password-file FILE")
    restorer = _restorer(installation, admin.user, admin.password_file)
    if (settled := await restorer.settle(wish.code)) is not None:
        tell("A restore had been carried out and not published. It is now; nothing else was done.")
        return Restored(settled, whole=False, rows={}, kept={})
    approved = await _demand(installation, wish)
    if (done := await restorer.take_up(approved, wish.code)) is not None:
        tell("This order had been carried out and not published everywhere. It is now; nothing else was done.")
        return done
    async with source() as connection:
        prospect = await restorer.look(wish.code, connection)
        # Asked in a thread: the picture of the cells' leaders must not grow old while somebody thinks.
        await asyncio.to_thread(_ask, wish, prospect)
        tell(f"Agency {wish.code} is frozen and put back.")
        return await restorer.restore(approved, wish.code, connection)


def _restorer(installation: Installation, user: str, password_file: Path) -> Restorer:
    @asynccontextmanager
    async def admins(cell: str) -> AsyncIterator[Connection]:
        async with administrator(installation.settings.cells[cell], user, password_file) as admin:
            yield admin

    return Restorer(installation.cells, installation.publisher, admins, installation.keystores)


async def _demand(installation: Installation, wish: Wish) -> Approved:
    snapshot = await installation.snapshot()
    return orders.demand(
        wish.document,
        action="restore",
        agency=require_agency(snapshot, wish.code),
        directory=Directory(snapshot),
        trusted=read_certificates(installation.settings.exchange.tls_ca_file),
        at=installation.clock.now(),
        target=wish.target,
        revoked=revoked_cards(installation.settings, installation.clock.now()),
    )


def _ask(wish: Wish, prospect: Prospect) -> None:
    """Say what will come back and what of it cannot be read, and go on only when it is confirmed."""
    moment = wish.target.moment.isoformat()
    what = "all its tables, which are gone" if prospect.whole else "its copies, links and holds"
    counts = ", ".join(f"{name} {each.rows}" for name, each in prospect.tables.items())
    words = f"Agency {wish.code} goes back to {moment}: {what} ({counts})."
    if prospect.whole:
        words += " What happened after that moment is not in them: reconcile with the network afterwards."
    confirm(words, wish.code, yes=wish.confirmed)
    if prospect.unreadable:
        lost = ", ".join(f"{name} {each.unreadable}" for name, each in prospect.tables.items() if each.unreadable)
        why = "of a key that was destroyed" if prospect.keys else "of its keys, which were destroyed"
        confirm(
            f"{prospect.unreadable} rows stay unreadable for want {why} ({lost}).", "unreadable", yes=wish.confirmed
        )


@asynccontextmanager
async def from_backup(
    site: Site, target: Target, node: Node, repository: int, scratch: Path, tell: Tell, *, user: str, database: str
) -> AsyncIterator[Connection]:
    """Bring the cell of the moment up from a repository, in a new folder of ``scratch`` with room for all of it.

    Raises ``Problem``: file_unwritable, backup_failed, database_failed.
    """
    identity = identity_of(site)
    try:
        folder = Path(tempfile.mkdtemp(prefix="chukan-restore-", dir=scratch))
        if identity is not None:
            os.chown(folder, identity.uid, identity.gid)
    except OSError:
        raise Problem("file_unwritable", expected=str(scratch)) from None
    try:
        data = folder / "data"
        # Both wait for programs; meanwhile the living cells are watched on.
        bring = restoring.bring_back
        await asyncio.to_thread(bring, site, target.cell, node, repository, target.moment, data, tell)
        with quiet_server(data, site.postgresql, identity, user) as server:
            async with entered(server, database, user) as connection:
                yield connection
    finally:
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)


def answer(done: Restored, target: Target) -> tuple[dict[str, Any], Table]:
    """Return what a restore came to, for programs and for people."""
    row = done.agency
    told: dict[str, Any] = {
        "agency": row.code,
        "cell": row.cell,
        "generation": row.generation,
        "from": target.cell,
        "moment": target.moment.astimezone(dt.UTC),
        "whole": done.whole,
        "rows": done.rows,
        "kept": done.kept,
    }
    rows = [[name, str(value)] for name, value in told.items() if name not in ("rows", "kept")]
    rows += [[f"rows of {name}", str(count)] for name, count in done.rows.items()]
    rows += [[_KEPT[name], str(count)] for name, count in done.kept.items()]
    return told, table("", "", rows=rows)
