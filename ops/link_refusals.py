"""``chukan link refusals``: which callers the exchanges refused because tunnel, certificate and path disagreed.

For the operator and the auditor. It only reads, by the steward's login; nobody can change or delete what it shows.
"""

import datetime as dt
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from cyclopts import App

from chukan.clock import JST
from chukan.errors import Problem
from chukan.ops import installation as acts
from chukan.ops.installation import Installation
from chukan.ops.link_options import within
from chukan.ops.output import Json, say
from chukan.tenants.link_refusals import Refusal, read_refusals
from chukan.tenants.numbers import is_body_code

HOURS_MAX: Final = 24 * 366
_HEADINGS: Final = ("from", "until", "times", "code", "peer", "body", "tunnel", "exchange")


def register(app: App) -> None:
    """Add the command of this module to ``chukan link``."""
    app.command(refusals)


def refusals(*, body: str | None = None, hours: int = 24, config: Path | None = None, as_json: Json = False) -> None:
    """Show whom the exchanges refused, and through whose tunnel they came; the newest first, 1,000 at most.

    Args:
        body: Only what bears the certificate of this body (6 digits), or came through its tunnel.
        hours: From so many hours ago.
        config: Settings file; CHUKAN_SETTINGS names it otherwise.
        as_json: Print JSON.
    """
    within(hours, HOURS_MAX, "--hours")
    if body is not None and not is_body_code(body):
        raise Problem("invalid_field", pointer="/body", expected="a body's 6-digit code")

    async def act(installation: Installation) -> tuple[Refusal, ...]:
        since = installation.clock.now() - dt.timedelta(hours=hours)
        return await read_refusals(installation.cells, installation.settings.links_cell, since, body)

    found = acts.run(config, act)
    say({"refusals": found}, _told(found), as_json=as_json)


def _told(found: Sequence[Refusal]) -> str:
    """Return lines of columns, each as wide as it must be: a code that is cut off would be no code."""
    lines = [
        _HEADINGS,
        *(
            (
                _moment(line.at),
                _moment(line.until),
                str(line.times),
                line.code or "(others)",
                line.peer or "-",
                line.body or "-",
                line.tunnel or "-",
                line.exchange,
            )
            for line in found
        ),
    ]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)


def _moment(at: dt.datetime) -> str:
    return f"{at.astimezone(JST):%Y-%m-%d %H:%M:%S}"
