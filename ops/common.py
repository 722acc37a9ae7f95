"""``chukan common``: the common data (共通データ) as they stand in the cells — in force, waiting, confirmed or not.

Looking changes nothing but what time does: what is due comes into force at the latest when somebody looks.
"""

from __future__ import annotations

from pathlib import Path

from cyclopts import App

from chukan.ops import installation as acts
from chukan.ops.installation import Installation
from chukan.ops.output import Json, say, table
from chukan.tenants.common_reading import Common, read_common
from chukan.tenants.sets import CommonRow

app = App(name="common", help="Show the common data of all cells: in force, and waiting for their time.")


@app.command
def status(*, config: Path | None = None, as_json: Json = False) -> int:
    """Show which snapshot is in force in each cell, what waits there, when it takes effect, and what is half done.

    Ends with status 1 where the cells differ, one is away, or something waits that not every cell has confirmed.
    """

    async def act(installation: Installation) -> Common:
        return await read_common(installation.cells, installation.public, past_missing=True)

    common = acts.run(config, act)
    rows = [
        [cell, str(row.number), _stands(row), row.effective_at.isoformat() if row.effective_at else "at once"]
        for cell, held in common.held.items()
        for row in held
    ]
    rows += [[cell, "-", "does not answer: what is not in force yet waits for it", ""] for cell in common.missing]
    whole = common.settled and common.whole
    told = {
        "in_force": None if common.snapshot is None else common.snapshot.number,
        "settled": common.settled,
        "whole": common.whole,
        "missing": common.missing,
        "waiting": [{"snapshot": each.snapshot.number, "effective_at": each.effective_at} for each in common.waiting],
        "cells": {
            cell: [{"snapshot": row.number, "stands": _stands(row), "effective_at": row.effective_at} for row in held]
            for cell, held in common.held.items()
        },
    }
    say(told, table("cell", "snapshot", "stands", "takes effect", rows=rows), as_json=as_json)
    return 0 if whole else 1


def _stands(row: CommonRow) -> str:
    if row.in_force:
        return "in force"
    return "waits" if row.confirmed else "not confirmed by every cell"
