"""``chukan notice``: what every body is told (お知らせ) — planned stops, incidents — and who has read it.

A notice goes into every cell and stays in the archive, also when it is withdrawn.
"""

import datetime as dt
import uuid
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from chukan.errors import Problem
from chukan.ops import installation as acts
from chukan.ops import notices
from chukan.ops.installation import Installation
from chukan.ops.link_options import person
from chukan.ops.output import Json, say, table
from chukan.tenants import notices as board
from chukan.tenants.notices import Archived, Notice, Sort

app = App(name="notice", help="Tell the bodies of planned stops and incidents; see who has read it.")

By = Annotated[str, Parameter(name="--by")]
"""Name of the operator who acts."""


@app.command
def publish(
    title: str,
    text: str,
    *,
    by: By,
    sort: Sort = "general",
    body: list[str] | None = None,
    starts_at: str | None = None,
    ends_at: str | None = None,
    config: Path | None = None,
    as_json: Json = False,
) -> None:
    """Publish a notice to every body, or to some.

    Args:
        title: Title, at most 200 characters.
        text: Text, at most 8,000 characters; nobody's name or number.
        by: Name of the operator who publishes it.
        sort: What it is about.
        body: 6-digit codes of the bodies that it is for; all unless given.
        starts_at: When what it speaks of begins, with an offset.
        ends_at: When it ends.
        config: Settings file; CHUKAN_SETTINGS names it otherwise.
        as_json: Print JSON.
    """
    made = Notice(sort, title, text, person(by), tuple(body or ()), _instant(starts_at), _instant(ends_at))

    async def act(installation: Installation) -> uuid.UUID:
        return (await notices.publish(installation, made))[0]

    found = acts.run(config, act)
    say({"notice": found}, f"published: {found}", as_json=as_json)


@app.command
def withdraw(notice: str, *, by: By, config: Path | None = None, as_json: Json = False) -> None:
    """Withdraw a notice; it stays in the archive and says so.

    Args:
        notice: Id of the notice.
        by: Name of the operator who withdraws it.
        config: Settings file; CHUKAN_SETTINGS names it otherwise.
        as_json: Print JSON.
    """
    given, name = _id(notice), person(by)

    async def act(installation: Installation) -> None:
        await board.withdraw(installation.cells, given, name, installation.clock.now())

    acts.run(config, act)
    say({"notice": given, "withdrawn": True}, f"withdrawn: {given}", as_json=as_json)


@app.command(name="list")
def list_(*, config: Path | None = None, as_json: Json = False) -> None:
    """List the archive, the newest first, with how many of the agencies that each is for have read it."""

    async def act(installation: Installation) -> list[tuple[Archived, list[int]]]:
        snapshot = await installation.snapshot()
        here = [(row.number, row.body) for row in snapshot.agencies if row.state == "open"]
        return [(each, notices.unread(each, here)) for each in await board.archive(installation.cells)]

    found = acts.run(config, act)
    rows = [
        [str(each.id), f"{each.at:%Y-%m-%d %H:%MZ}", each.sort, each.title, str(len(each.read_by)), str(len(left))]
        for each, left in found
    ]
    told = [{**each._asdict(), "unread_by": left} for each, left in found]
    say(told, table("notice", "published", "sort", "title", "read", "unread", rows=rows), as_json=as_json)


def _id(text: str) -> uuid.UUID:
    try:
        return uuid.UUID(text)
    except ValueError:
        raise Problem("not_found") from None


def _instant(text: str | None) -> dt.datetime | None:
    if text is None:
        return None
    try:
        found = dt.datetime.fromisoformat(text)
    except ValueError:
        found = None
    if found is None or found.tzinfo is None:
        raise Problem("invalid_field", pointer="/starts_at", expected="an instant with its offset")
    return found.astimezone(dt.UTC)
