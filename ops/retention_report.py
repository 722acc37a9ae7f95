"""``chukan records retention``: what is over by its period (保存期間) and still there, of every class, in one report.

The periods are those of ``tenants/retention``, by the clock port; deleting is the exchanges' work, round by round
(every ten minutes), so that a little may be over at any moment. What is over longer than a day: nobody deletes.
Counts and instants only: nothing is opened, nobody is named.
"""

import datetime as dt
from pathlib import Path
from typing import Final, NamedTuple

from chukan.clock import JST, to_jst, today_jst
from chukan.ops import installation as acts
from chukan.ops.installation import Installation
from chukan.ops.output import Json, say, table
from chukan.replication.primary import Connection, Proxy
from chukan.tenants.changes import require_agency
from chukan.tenants.link_calls import Record, fetch
from chukan.tenants.retention import CLASSES, STAYING, Limits, limits_of

EXIT_LATE: Final = 1
COUNTED_MAX: Final = 10_001
LATE: Final = dt.timedelta(days=1)
"""Over for longer than that: nobody deletes."""


class Over(NamedTuple):
    """One class, of all agencies that were looked at."""

    name: str
    before: dt.datetime | None
    """Everything of before this instant is over; None where nothing ever is."""
    there: int
    """How much is over and still there (of what stays: how much there is); up to 10,001 of each agency are counted."""
    oldest: dt.datetime | None

    @property
    def late(self) -> bool:
        """Whether it should have been deleted more than a day ago."""
        return self.before is not None and self.oldest is not None and self.oldest < self.before - LATE


def retention(agency: str | None = None, *, config: Path | None = None, as_json: Json = False) -> int:
    """Show of every class how long it is kept and what is over and still there; exit status 1 where nobody deletes.

    Parameters
    ----------
    agency
        The agency's code (機関コード), 16 digits; all agencies otherwise.
    config
        Settings of any exchange; CHUKAN_SETTINGS names it otherwise.
    as_json
        Print JSON.
    """

    async def act(installation: Installation) -> tuple[list[Over], int]:
        days = installation.settings.exchange.result_keep_days
        limits = limits_of(installation.clock.now(), today_jst(installation.clock), days)
        return await look(installation, agency, limits), days

    found, days = acts.run(config, act)
    document = {"classes": [{**each._asdict(), "late": each.late} for each in found], "result_keep_days": days}
    kept = {each.name: each.period_en.format(results=days) for each in CLASSES}
    rows = [
        [
            each.name,
            kept[each.name],
            f"{to_jst(each.before):%Y-%m-%d %H:%M}" if each.before else "",
            f"{each.there:,}",
            f"{to_jst(each.oldest):%Y-%m-%d %H:%M}" if each.oldest else "",
            "LATE" if each.late else "",
        ]
        for each in found
    ]
    say(document, table("class", "kept", "over before", "there", "oldest", "", rows=rows), as_json=as_json)
    return EXIT_LATE if any(each.late for each in found) else 0


async def look(installation: Installation, agency: str | None, limits: Limits) -> list[Over]:
    """Return what is over of one agency, or of all that are open. Raises ``Problem`` as the cells do."""
    snapshot = await installation.snapshot()
    agencies = [row for row in snapshot.agencies if row.state == "open"]
    if agency is not None:
        agencies = [require_agency(snapshot, agency)]
    counts: dict[str, tuple[int, dt.datetime | None]] = {}
    for cell in sorted({row.cell for row in agencies}):
        async with installation.cells.steward(cell) as steward:
            for row in (each for each in agencies if each.cell == cell):
                for found in await over_at(steward, row.number, limits):
                    count, oldest = counts.get(found["class"], (0, None))
                    instants = [at for at in (oldest, found["oldest"]) if at is not None]
                    counts[found["class"]] = count + found["over"], min(instants, default=None)
    return [
        Over(each.name, _before(each.name, limits), *counts.get(each.name, (0, None)))
        for each in CLASSES
    ]  # fmt: skip


async def over_at(steward: Connection | Proxy, agency: int, limits: Limits) -> list[Record]:
    """Return (class, over, oldest) of one agency, by the login that may count and not read."""
    return [
        *await fetch(steward, "SELECT * FROM chukan.retention_over($1, $2, $3, $4, $5, $6, $7)", agency, *limits),
        *await fetch(steward, "SELECT * FROM chukan.messages_over($1, $2)", agency, limits.records),
    ]


def _before(name: str, limits: Limits) -> dt.datetime | None:
    if name in STAYING:
        return None
    if name in {"records", "lines", "messages"}:
        return dt.datetime.combine(limits.records, dt.time(), JST)
    at: dt.datetime = limits.now if name == "sessions" else getattr(limits, name)
    return at
