"""``chukan records rebuild-map``: mend the map of persons (記録の地図) of one agency's log, from the log itself.

For an agency of which ``ChukanEvidenceBroken`` says that its map is not the one that was signed: pages were damaged or
lost. Nothing else is mended by it: where the log is not the signed one either, the agency is set aside and the status
is 1. It names nobody and opens nothing.
"""

from pathlib import Path
from typing import Final

from chukan.ops import installation as acts
from chukan.ops.installation import Installation
from chukan.ops.link_options import By, person
from chukan.ops.output import Json, say, table
from chukan.platform.exchange.evidence import read_centre_keys
from chukan.tenants.changes import require_agency
from chukan.tenants.map_repair import MapRepair, Mended

EXIT_UNSOUND: Final = 1
WORDS: Final = {
    "sound": "the map at rest is the one that was signed",
    "no_map": "the last checkpoint signs no map: there is nothing to mend",
    "log_differs": "the LEAVES are not those that were signed: the log was set aside, nothing was changed",
    "map_differs": "the map that follows from the log is NOT the signed one: it was set aside, nothing changed",
}


def rebuild_map(agency: str, *, by: By, config: Path | None = None, as_json: Json = False) -> int:
    """Make a damaged map of persons anew from the log; exit status 0 where it is the signed one now, 1 otherwise.

    Safe to interrupt and to repeat, while exchanges serve. An agency whose leaves are not those that were signed is
    set aside (ChukanLogSetAside): restore it, and run this again.

    Parameters
    ----------
    agency
        The agency's code (機関コード), 16 digits.
    by
        Name of the operator who acts.
    config
        Settings of any exchange; CHUKAN_SETTINGS names it otherwise.
    as_json
        Print JSON.
    """
    who = person(by)

    async def act(installation: Installation) -> Mended:
        row = require_agency(await installation.snapshot(), agency)
        keys = read_centre_keys(installation.settings)
        return await MapRepair(installation.cells, row.cell, row.number, row.code, keys).mend(who)

    found = acts.run(config, act)
    document = {"sound": found.sound, **found._asdict(), "root": found.root.hex(), "means": WORDS[found.outcome]}
    rows = [
        ["checkpoint", f"{found.size:,} leaves"],
        ["map", f"{found.persons:,} persons in {found.pages:,} pages"],
        ["mended", f"{found.put:,} pages put right, {found.gone:,} of no map taken away"],
        ["result", WORDS[found.outcome]],
    ]
    say(document, table("", "", rows=rows), as_json=as_json)
    return 0 if found.outcome in {"sound", "no_map"} else EXIT_UNSOUND
