"""``chukan keys reencrypt|progress|retire``: what follows a rotation — rows get the newest key, old versions their end.

An operator may re-encrypt at any time, for nothing can be lost by it. To destroy old versions makes older backups
unreadable: that is the agency's to order, by two officers.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cyclopts import App
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from chukan.errors import Problem
from chukan.ops import installation as acts
from chukan.ops import orders
from chukan.ops.installation import Installation
from chukan.ops.output import Json, say, table
from chukan.tenants import reencryption
from chukan.tenants.changes import require_agency
from chukan.tenants.directory import AgencyRow
from chukan.tenants.reencryption import RATE_PER_S, Done

_RATE_MAX = 1_000_000


def add_to(app: App) -> None:
    """Add the commands to ``chukan keys``."""
    for command in (reencrypt, progress, retire):
        app.command(command)


def reencrypt(
    code: str | None = None,
    *,
    all_agencies: bool = False,
    rows_per_s: int = RATE_PER_S,
    config: Path | None = None,
    as_json: Json = False,
) -> int:
    """Seal an agency's rows anew with its newest data key, while traffic runs; exit code 1 when any is left.

    It can be interrupted and goes on where it was. Rows that somebody works with are passed over and found again.

    Args:
        code: Code of the agency, 16 digits.
        all_agencies: Every open agency instead, one after the other.
        rows_per_s: How many rows a second at most, so that the disks stay the customers'.
        config: Settings file; CHUKAN_SETTINGS names it otherwise.
        as_json: Print JSON.
    """
    if (code is None) != all_agencies:
        raise Problem("invalid_field", pointer="/code", expected="a code, or --all-agencies")
    if not 1 <= rows_per_s <= _RATE_MAX:
        raise Problem("invalid_field", pointer="/rows_per_s", limit=_RATE_MAX)

    async def act(installation: Installation) -> list[dict[str, Any]]:
        snapshot = await installation.snapshot()
        every = [row for row in snapshot.agencies if row.state == "open"]
        rows = every if code is None else [require_agency(snapshot, code)]
        return [_said(row, await _one(installation, row, rows_per_s, quiet=as_json)) for row in rows]

    done = acts.run(config, act)
    rows = [[str(value) for value in each.values()] for each in done]
    say(
        done,
        table("agency", "version", "sealed anew", "left", "unreadable", "unknown columns", rows=rows),
        as_json=as_json,
    )
    return 1 if any(each["left"] for each in done) else 0


async def _one(installation: Installation, row: AgencyRow, rows_per_s: int, *, quiet: bool) -> Done:
    keys = installation.keystores.load(row.number)
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total} blocks"))
    with Progress(*columns, console=Console(stderr=True), disable=quiet, transient=True) as shown:
        task = shown.add_task(row.code, total=None)

        def report(place: str, block: int, blocks: int) -> None:
            shown.update(task, description=f"{row.code} {place}", completed=block, total=blocks)

        return await reencryption.reencrypt(installation.cells, row, keys, rate_per_s=rows_per_s, report=report)


def _said(row: AgencyRow, done: Done) -> dict[str, Any]:
    return {
        "agency": row.code,
        "version": done.version,
        "sealed": done.sealed,
        "left": done.left,
        "unreadable": done.unreadable,
        "unknown": ", ".join(done.unknown),
    }


def progress(*, config: Path | None = None, as_json: Json = False) -> None:
    """Show how far the last re-encryption of each agency is, and which retirements were begun and cut off.

    Args:
        config: Settings file; CHUKAN_SETTINGS names it otherwise.
        as_json: Print JSON.
    """

    async def act(installation: Installation) -> list[dict[str, Any]]:
        snapshot = await installation.snapshot()
        codes = {row.number: row.code for row in snapshot.agencies}
        cells = sorted(installation.settings.cells)
        found = [each for cell in cells for each in await reencryption.progress(installation.cells, cell)]
        begun = [each for cell in cells for each in await reencryption.retirements_begun(installation.cells, cell)]
        floors = [each for cell in cells for each in await reencryption.open_floors(installation.cells, cell)]
        return [
            *(
                _unfinished(codes, each.agency, each.version, "retirement begun", each.at.isoformat(timespec="seconds"))
                for each in begun
            ),
            *(
                _unfinished(codes, each.agency, each.version, "floor not proven", "", f"{each.relation}.{each.sealed}")
                for each in floors
            ),
        ] + [
            {
                "agency": codes.get(each.agency, str(each.agency)),
                "version": each.version,
                "at": each.place,
                "block": each.block,
                "blocks": each.blocks,
                "sealed": each.sealed,
                "state": "done" if each.ended_at else "begun",
                "since": each.at.isoformat(timespec="seconds"),
            }
            for each in found
        ]

    found = acts.run(config, act)
    rows = [[str(value) for value in each.values()] for each in found]
    say(
        found,
        table("agency", "version", "at", "block", "of", "sealed anew", "state", "since", rows=rows),
        as_json=as_json,
    )


def _unfinished(
    codes: Mapping[int, str], agency: int, version: int, state: str, since: str, at: str = ""
) -> dict[str, Any]:
    """Return a line about a retirement that was cut off, beside those of walks."""
    line = {"agency": codes.get(agency, str(agency)), "version": version, "at": at, "block": 0, "blocks": 0}
    return {**line, "sealed": 0, "state": state, "since": since}


def retire(code: str, *, order: Path | None = None, config: Path | None = None, as_json: Json = False) -> None:
    """Destroy an agency's data keys of before the newest, for ever, once none of its rows needs them.

    Rows are re-encrypted first. Backups of before that can then be read no more: it takes the agency's own order.
    Without one, what was begun in one centre is finished in all: those keys are used by nobody any more.

    Args:
        code: Code of the agency.
        order: Order to retire, signed by two officers of the agency.
        config: Settings file; CHUKAN_SETTINGS names it otherwise.
        as_json: Print JSON.
    """
    document = None if order is None else orders.read_order(order)

    async def act(installation: Installation) -> Done:
        return await acts.retire_keys(installation, code, document)

    done = acts.run(config, act)
    told = {"agency": code, "kept": done.version, "sealed": done.sealed}
    say(told, f"{code}: data keys of before version {done.version} destroyed", as_json=as_json)
