"""What a centre's gateway process asks and tells about links: ``LinkController``, by the login ``chukan_links``.

Its host has no other login's password. The login reads no table; its functions give what the gateway must have, all
sealed for it, and take what the gateway saw.

Invariant: all calls may be repeated; what is asked twice is done once. Nothing here decides who may have a link.
"""

import datetime as dt
from collections.abc import Callable, Sequence

from chukan.errors import Problem
from chukan.replication.primary import Cells
from chukan.tenants.link_calls import SQL_DESIRED, Record, desired, fetch_from
from chukan.tenants.link_rows import CHANNEL, DRIFT_MAX, SEEN_MAX, Desired, Drifted, Seen

_LOST = "no_primary"


class LinkController:
    """The links of one installation, as a gateway process knows them.

    ``cells`` has the cell with ``links_password_file``. All methods raise ``Problem``: no_primary, unavailable, busy;
    internal (a defect, logged by its SQLSTATE).
    """

    def __init__(self, cells: Cells, cell: str) -> None:
        self._cells = cells
        self._cell = cell

    async def number(self) -> int:
        """Return the highest generation that any act has given; for asking often."""
        return int((await self._fetch("SELECT chukan.link_number() AS number"))[0]["number"])

    async def desired(self, centre: str) -> Desired:
        """Return what a centre's gateway must have, and (suspended, revoked) must not have, as of one instant."""
        return desired(await self._fetch(SQL_DESIRED, centre))

    async def hear(self, heard: Callable[[], None]) -> None:
        """Call ``heard()`` whenever links may have changed, and on every (re)connect, until cancelled.

        A hint may be lost: whoever listens also looks by a timer.
        """
        await self._cells.hear(self._cell, [CHANNEL], lambda _channel, _told: heard())

    async def seen(self, centre: str, sightings: Sequence[Seen]) -> int:
        """Keep from where devices were seen; return how many rows changed. Unknown links are passed over."""
        count = 0
        for at in range(0, len(sightings), SEEN_MAX):
            part = sightings[at : at + SEEN_MAX]
            columns = (
                [each.link for each in part],
                [each.endpoint for each in part],
                [each.handshake_at for each in part],
            )
            rows = await self._fetch("SELECT chukan.link_seen($1, $2, $3, $4) AS count", centre, *columns)
            count += int(rows[0]["count"])
        return count

    async def drifted(self, centre: str, differences: Sequence[Drifted]) -> int:
        """Enter differences into the audit, ``DRIFT_MAX`` at most; return how many lines that made.

        What is only reported, and was within ten minutes, is not entered again.
        """
        part = differences[:DRIFT_MAX]
        columns = [each.link for each in part], [each.kind for each in part], [each.repaired for each in part]
        rows = await self._fetch("SELECT chukan.link_drifted($1, $2, $3, $4) AS count", centre, *columns)
        return int(rows[0]["count"])

    async def rotated(self, centre: str, link: str, generation: int | None = None) -> bool:
        """Say that a link's next key or pre-shared key was seen in use: it becomes the present one.

        False where nothing is next, or the link is not as it was in ``generation`` any more: look again then.
        """
        sql = "SELECT chukan.link_rotated($1, $2, $3) AS turned"
        return bool((await self._fetch(sql, centre, link, generation))[0]["turned"])

    async def hold_service(self, centre: str, owner: str, ttl_s: float) -> int | None:
        """Take or renew the right to have the links in mode ``service``; the epoch, None while somebody else has it.

        ``owner`` is a name that no other process has. The time (1…300 s) runs by the database's clock from within this
        call: count it from before the call.
        """
        sql = "SELECT chukan.link_hold_service($1, $2, $3) AS epoch"
        epoch = (await self._fetch(sql, centre, owner, dt.timedelta(seconds=ttl_s)))[0]["epoch"]
        return None if epoch is None else int(epoch)

    async def leave_service(self, owner: str) -> bool:
        """Give that right back at once, what it was for having been taken down before; False where it was not held."""
        return bool((await self._fetch("SELECT chukan.link_leave_service($1) AS done", owner))[0]["done"])

    async def _fetch(self, sql: str, *values: object) -> list[Record]:
        pool = self._cells.links(self._cell)
        try:
            return await fetch_from(pool, sql, *values)
        except Problem as problem:
            if problem.code != _LOST:
                raise
        # The connection broke, or there was none: once more, at whoever leads now.
        return await fetch_from(pool, sql, *values)
