"""Set functions of both sides and of the cell: leases, the sequencer, the snapshot, the canary, figures and hints."""

import datetime as dt
from collections.abc import Sequence

from chukan.errors import Problem
from chukan.tenants.hints import Hint
from chukan.tenants.retention import KEYS_DAYS
from chukan.tenants.rows import Grant
from chukan.tenants.sets.common import CHANNELS, Backlog, CommonRow, CopyAge, Expired, Opening, SetCaller, SnapshotRow
from chukan.tenants.states import Side


class SharedSets(SetCaller):
    """Set functions that belong to no flow."""

    async def opening(self) -> Opening:
        """Return in which epoch the cell was opened, and when."""
        (row,) = await self._call("opening")
        return Opening.of(row)

    async def worker_share(self, owner: str, side: Side, ttl_s: float) -> int:
        """Say that a worker is alive for ``ttl_s`` more; return its fair share of the shards, 1…64."""
        return int((await self._words("worker_share", owner, side, dt.timedelta(seconds=ttl_s)))[0])

    async def lease(self, owner: str, side: Side, want: int, ttl_s: float) -> list[Grant]:
        """Renew, give back and take leases until ``want`` shards are held; return all that are held now.

        ``owner`` is a name that no other process ever had: the epoch rises only when the owner changes.
        """
        rows = await self._call("lease", owner, side, want, dt.timedelta(seconds=ttl_s))
        return [Grant(side, row["shard"], row["epoch"]) for row in rows]

    async def release(self, owner: str) -> None:
        """Give all leases back at once."""
        await self._call("release", owner)

    async def succeed(self, owner: str, side: Side) -> int:
        """Give back what former processes of the same name hold of a side; return how many shards came free.

        Called before a process's first lease. ``owner`` is ``<name>-<8 hexadecimal digits>``.
        """
        return int((await self._words("succeed", owner, side))[0])

    async def raise_epochs(self) -> None:
        """Make every grant void; done before work resumes on a new (system identifier, timeline)."""
        await self._call("raise_epochs")

    async def sequence(self, owner: str, limit: int) -> int:
        """Give up to ``limit`` waiting records their place in their agency's log; -1 when another one is at it."""
        return int((await self._words("sequence", owner, limit))[0])

    async def sequencer_age(self) -> float:
        """Return how many seconds the oldest record has waited for its place, 0 when none waits."""
        return float((await self._words("sequencer_age"))[0])

    async def logs_aside(self) -> int:
        """Return of how many agencies the log is not gone on with, because a record that waits is not there."""
        return int((await self._words("logs_aside"))[0])

    async def snapshot(self) -> SnapshotRow | None:
        """Return the snapshot of common data in force in this cell."""
        rows = await self._call("current_snapshot")
        return SnapshotRow(**rows[0]) if rows else None

    async def take_snapshots(self, have: Sequence[int] = ()) -> list[CommonRow]:
        """Put in force what is due, and return the common data in force and what waits, by number.

        ``have`` are the numbers whose bodies the caller has: they come without.
        """
        return [CommonRow(**row) for row in await self._call("snapshot_take", list(have))]

    async def confirm_snapshot(self, number: int, signature: bytes) -> None:
        """Say that every cell has a snapshot that waits here; what is no longer here is passed over."""
        try:
            await self._call("snapshot_confirm", number, signature)
        except Problem as problem:
            if problem.code != "internal":
                raise

    async def snapshot_number(self) -> int:
        """Return the number of the snapshot in force, 0 where there is none; for asking often."""
        return int((await self._words("snapshot_number"))[0])

    async def canary(self) -> None:
        """Commit something: this fails or waits exactly when every write does."""
        await self._call("canary_sing")

    async def confirm(self) -> None:
        """Return once everything that this process has read in the cell so far is durable.

        A commit that lost its wait (a server restarted in place, a session ended on the server) is there for all to see
        before it is safe. So who finds by reading that something is done already says so only after this: a commit of
        our own that comes after it, and that waits (DESIGN §7).
        """
        await self._call("canary_sing")

    async def backlog(self) -> list[Backlog]:
        """Count open lines by side and state (at most 100,000 a side), with the oldest due instant."""
        rows = await self._call("backlog")
        return [Backlog(Side(row["side"]), row["state"], row["count"], row["oldest_due"]) for row in rows]

    async def reviews_lapsing(self, until: dt.datetime) -> dict[int, int]:
        """Return how many held provisions of each agency have a permit that ends by an instant; absent where none."""
        return {row["agency"]: row["count"] for row in await self._call("reviews_lapsing", until)}

    async def agency_backlog(self) -> dict[int, int]:
        """Count the open lines of both sides by agency number (CON-05); an agency without any is left out."""
        return {row["agency"]: row["count"] for row in await self._call("agency_backlog")}

    async def copy_ages(self, after: int = 0, agencies: int = 50) -> list[CopyAge]:
        """Return when copies of each kind last changed, for the next ``agencies`` agencies after a number."""
        rows = await self._call("copy_ages", after, agencies)
        return [CopyAge(row["agency"], row["kind"], row["at"]) for row in rows]

    async def forget(self, after: int, *, agencies: int = 50, keep_days: int = KEYS_DAYS, limit: int = 10_000) -> int:
        """Delete keys and sent bytes whose time is over at the next agencies; return where to go on, 0 at the end.

        ``keep_days`` is at least 7 (DESIGN §5).
        """
        keep = dt.timedelta(days=keep_days)
        return int((await self._words("forget", after, agencies, keep, limit))[0])

    async def expire_records(self, after: int, before: dt.date, *, agencies: int = 50, limit: int = 5_000) -> int:
        """Delete records whose seven years are over at the next agencies; return where to go on, 0 at the end.

        ``before`` is the first day of the first month that is kept (``retention.kept_from``); the server's own clock
        may keep more, never less.
        """
        return int((await self._words("expire_records", after, agencies, before, limit))[0])

    async def expire_messages(self, after: int, before: dt.date, *, agencies: int = 50, limit: int = 5_000) -> int:
        """Delete messages kept as evidence whose record is gone; ``before`` and the result as ``expire_records``."""
        return int((await self._words("expire_messages", after, agencies, before, limit))[0])

    async def expired_records(self, agency: int, *, limit: int = 1_000) -> list[Expired]:
        """Return what was deleted of an agency, of all with 0, newest first."""
        return [Expired(**row) for row in await self._call("expired_records", agency, limit)]

    async def purge_sessions(self, after: int, before: dt.datetime, *, agencies: int = 50, limit: int = 1_000) -> int:
        """Delete officers' sessions that ended before an instant at the next agencies; where to go on, 0 at the end."""
        return int((await self._words("purge_sessions", after, agencies, before, limit))[0])

    async def fold_statistics(self, after: int, *, agencies: int = 50, limit: int = 50_000) -> int:
        """Fold what sets have counted at the next agencies (統計); return where to go on, 0 at the end.

        0 as well where another process is folding. Sums never change by it; a call may be repeated at any time.
        """
        return int((await self._words("fold_statistics", after, agencies, limit))[0])

    async def notify(self, side: Side, hint: Hint) -> None:
        """Send a hint to a side: alone, after the commit that it speaks of, never in one that writes."""
        await self._fetch("SELECT pg_notify($1, $2)", CHANNELS[side], hint.payload())
