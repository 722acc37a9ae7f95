"""``chukan drill summary``: what all kept drills came to, one row a scenario.

Invariant: only reports whose signature holds are counted; how many were not is said.
"""

from datetime import datetime
from pathlib import Path
from typing import Annotated

import msgspec
from cyclopts import Parameter

from chukan.ops.drills.history import History
from chukan.ops.drills.tables import Language, cells, headings, markdown, rows
from chukan.ops.local.machine import CLONE
from chukan.ops.moments import read_moment
from chukan.ops.output import Json, say, table


def summary(
    *,
    since: str | None = None,
    language: Language = "en",
    as_markdown: Annotated[bool, Parameter(name="--markdown", negative="")] = False,
    store: Annotated[Path, Parameter(name="--store")] = CLONE / "var" / "drills",
    as_json: Json = False,
) -> None:
    """Show what the kept drills came to: runs, losses, and the shortest and longest outage of each home.

    Parameters
    ----------
    since
        Only drills that began at this moment or later, ISO 8601 with its zone.
    language
        Of the table's headings.
    as_markdown
        Print the table as Markdown.
    store
        Folder of the reports.
    as_json
        Print JSON.
    """
    history = History(store)
    begun = read_moment(since, "--since") if since is not None else None
    reports = history.readable()
    unbelieved = len(history.ids()) - len(reports)
    found = rows(one for one in reports if begun is None or datetime.fromisoformat(one.begun_at) >= begun)
    document = {"drills": msgspec.to_builtins(found), "not_believed": unbelieved}
    if as_markdown:
        say(document, markdown(found, language).rstrip("\n"), as_json=as_json)
        return
    say(document, table(*headings(language), rows=[cells(row) for row in found]), as_json=as_json)
    if unbelieved and not as_json:
        say(None, f"Not counted: {unbelieved} whose signature does not hold.", as_json=False)
