"""``chukan status``: centres, cells, leaders, timelines, lag, standbys, etcd, exchanges, the last drill: one picture.

Everybody is asked at once and has a deadline; who does not answer is shown as silent. Nothing is changed. Status 1 when
something does not stand as the site file wants it.
"""

import asyncio
import contextlib
import time
from pathlib import Path
from typing import Annotated, Final

import msgspec
from cyclopts import App, Parameter
from rich.console import Console, Group
from rich.live import Live

from chukan.errors import Problem
from chukan.ops import site_certificates
from chukan.ops.centres.drawing import draw
from chukan.ops.centres.picture import Painter, Picture
from chukan.ops.drills.history import History
from chukan.ops.failover import default_site
from chukan.ops.local.machine import CLONE
from chukan.ops.namespaces import enter
from chukan.ops.output import Json, say
from chukan.replication.site import Site
from chukan.replication.site_file import read

app = App(name="status", help="Show how the site stands: centres, cells, standbys, etcd, exchanges.")

EVERY_S: Final = 1.0


@app.default
def status(
    *,
    site: Annotated[Path | None, Parameter(name=["--site", "-s"])] = None,
    watch: Annotated[bool, Parameter(negative="")] = False,
    textfile: Path | None = None,
    as_json: Json = False,
) -> int:
    """Show how the site stands; status 1 when something is not as it should be.

    Args:
        site: The site file; CHUKAN_SITE names it otherwise, and that of the running lab is taken when neither does.
        watch: Show it anew each second until Ctrl-C.
        textfile: Also write there when everybody's certificates end, for Prometheus' textfile collector.
        as_json: Print JSON.
    """
    described = read(site or default_site())
    if described.operator.namespace:
        enter(described.operator.namespace)
    if watch:
        with contextlib.suppress(KeyboardInterrupt):
            asyncio.run(_watch(described))
        return 0
    picture = asyncio.run(_once(described))
    if textfile is not None:
        site_certificates.write(textfile, asyncio.run(site_certificates.ends(described)))
    if as_json:
        say({**_plain(picture), "complaints": picture.complaints(), "last_drill": last_drill()}, "", as_json=True)
    else:
        Console(highlight=False).print(Group(draw(picture), _drill_line(last_drill())))
    return int(not picture.whole)


def _plain(picture: Picture) -> dict[str, object]:
    return {name: getattr(picture, name) for name in picture.__struct_fields__}


class LastDrill(msgspec.Struct, frozen=True):
    """What the newest report says: how long clients were without an answer, by group, and whether anything was lost."""

    scenario: str
    begun_at: str
    passed: bool


def last_drill() -> LastDrill | None:
    """Return the newest drill whose report is kept and signed; None where there is none that holds."""
    history = History(CLONE / "var" / "drills")
    for drill in history.ids()[-1:]:
        try:
            report = history.read(drill)
        except (Problem, OSError, msgspec.DecodeError):
            return None
        return LastDrill(report.scenario, report.begun_at, report.passed)
    return None


def _drill_line(drill: LastDrill | None) -> str:
    if drill is None:
        return "[dim]last drill      none is kept: chukan drill run switchover[/]"
    word = "[green]passed[/]" if drill.passed else "[red]not passed[/]"
    return f"[dim]last drill     [/] {drill.scenario}, {drill.begun_at}, {word}"


async def _once(site: Site) -> Picture:
    async with Painter(site) as painter:
        return await painter.paint()


async def _watch(site: Site) -> None:
    async with Painter(site) as painter:
        with Live(Group(), console=Console(highlight=False), screen=False, auto_refresh=False) as live:
            while True:
                shown = Group(draw(await painter.paint(), at=time.strftime("%H:%M:%S")), _drill_line(last_drill()))
                live.update(shown, refresh=True)
                await asyncio.sleep(EVERY_S)
