"""``chukan operations``: the operations logs (操作記録) as files that are checked offline, and the operators' own acts.

An agency's log is written without its entries, which only the agency's keys open; the operators' is in the clear.
``chukan records verify`` checks both kinds of files as it checks the provision records'.
"""

import tempfile
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Final

from cyclopts import App

from chukan.clock import to_jst
from chukan.errors import Problem
from chukan.ops import installation as acts
from chukan.ops.installation import Installation
from chukan.ops.output import Json, create_file, say, table
from chukan.platform.exchange.evidence import read_centre_keys
from chukan.tenants import evidence_file
from chukan.tenants.changes import require_agency
from chukan.tenants.evidence_file import Line
from chukan.tenants.operations import OperationFields
from chukan.tenants.operations_export import AgencyLog, OperatorsLog, export_operations, read_entries
from chukan.tenants.operations_tree import agency_log, operators_log
from chukan.tenants.partition import act_for

SHOWN_MAX: Final = 1_000
_IN_MEMORY_MAX: Final = 16 << 20

app = App(name="operations", help="Write the operations logs (操作記録), and look at the operators'.")


@app.command
def export(
    path: Path, *, agency: str | None = None, cell: str | None = None, config: Path | None = None, as_json: Json = False
) -> None:
    """Write an operations log up to its last checkpoint.

    Parameters
    ----------
    path
        The new file, for chukan records verify (with --allow-missing-records for an agency's).
    agency
        An agency's code (機関コード), 16 digits: its log without the entries.
    cell
        A cell: the log of its operators, with the entries.
    config
        Settings of any exchange; CHUKAN_SETTINGS names it otherwise.
    as_json
        Print JSON.
    """

    async def act(installation: Installation) -> int:
        lines, count = await _lines(installation, agency, cell), 0
        with tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY_MAX) as file:
            async for line in lines:
                file.writelines(evidence_file.encode([line]))
                count += 1
            file.seek(0)
            create_file(path, file.read())
        return count

    count = acts.run(config, act)
    say({"lines": count}, f"{count} lines", as_json=as_json)


async def _lines(installation: Installation, agency: str | None, cell: str | None) -> AsyncIterator[Line]:
    keys = read_centre_keys(installation.settings)
    if (agency is None) is (cell is None):
        raise Problem("setting_missing", expected="--agency CODE or --cell NAME")
    if agency is None:
        named = _cell(installation, cell)
        return export_operations(
            OperatorsLog(installation.cells, named), keys.origin(operators_log(named)), None, clear=True
        )
    row = require_agency(await installation.snapshot(), agency)
    door = partial(act_for, installation.cells.primary(row.cell).app, row.number)
    return export_operations(AgencyLog(door), keys.origin(agency_log(row.code)), None, clear=False)


def _cell(installation: Installation, cell: str | None) -> str:
    if cell not in installation.settings.cells:
        raise Problem("setting_invalid", pointer="--cell", expected="the name of a cell")
    return cell


@app.command(name="keys")
def show_keys(*, agency: str | None = None, cell: str | None = None, config: Path | None = None) -> None:
    """Show the verifier keys of an operations log and of the centres that cosign it, one a line.

    Parameters
    ----------
    agency
        An agency's code (機関コード), 16 digits.
    cell
        A cell, for the log of its operators.
    config
        Settings of any exchange; CHUKAN_SETTINGS names it otherwise.
    """

    async def act(installation: Installation) -> list[str]:
        if (agency is None) is (cell is None):
            raise Problem("setting_missing", expected="--agency CODE or --cell NAME")
        if agency is None:
            name = operators_log(_cell(installation, cell))
        else:
            name = agency_log(require_agency(await installation.snapshot(), agency).code)
        return [key.text() for key in read_centre_keys(installation.settings).known(name)]

    say(None, "\n".join(acts.run(config, act)), as_json=False)


@app.command(name="list")
def list_(cell: str, *, after: int = 0, config: Path | None = None, as_json: Json = False) -> None:
    """Show the acts of a cell's operators in the order of their log, 1,000 at a time; each is held against its leaf.

    Parameters
    ----------
    cell
        The cell.
    after
        Begin after this position.
    config
        Settings of any exchange; CHUKAN_SETTINGS names it otherwise.
    as_json
        Print JSON.
    """

    async def act(installation: Installation) -> list[tuple[int, OperationFields]]:
        reader = OperatorsLog(installation.cells, _cell(installation, cell))
        return await read_entries(reader, None, after, SHOWN_MAX)

    entries = acts.run(config, act)
    rows = [
        [
            str(position),
            f"{to_jst(each.at):%Y-%m-%d %H:%M:%S}",
            each.actor,
            each.second or "",
            each.kind,
            each.subject_class,
            each.outcome if each.code is None else f"{each.outcome}: {each.code}",
            str(each.times),
        ]
        for position, each in entries
    ]
    headings = ("position", "at", "actor", "second", "act", "to", "outcome", "times")
    say([{"position": place, "entry": each} for place, each in entries], table(*headings, rows=rows), as_json=as_json)
