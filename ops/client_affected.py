"""``chukan client affected``: whom the records of a period are about (影響を受けた本人), for the agency's own officers.

The exchange looks at a bounded number of records at a time; a period with more is halved until each part fits, and the
parts are put together here. The persons go to a new file that only its owner reads; what is shown, and what
``--summary`` writes for the report's draft, names nobody.
"""

import datetime as dt
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final

import msgspec
from cyclopts import Parameter
from rich.console import Console

from chukan.clock import JST
from chukan.errors import Problem
from chukan.ops.client_run import Target, run
from chukan.ops.output import create_file
from chukan.ops.sandbox.agency_client import AgencyClient
from chukan.ops.sandbox.clients import ClientError
from chukan.platform.wire.incidents import Affected, AffectedKind, AffectedPerson, AffectedSearch

PARTS_MAX: Final = 4_096
SHORTEST: Final = dt.timedelta(minutes=1)


def affected(
    *,
    target: Target,
    since: dt.datetime,
    until: dt.datetime,
    people: Path,
    summary: Path | None = None,
    kind: Annotated[tuple[str, ...], Parameter(negative="")] = (),
    counterpart: Annotated[tuple[str, ...], Parameter(negative="")] = (),
) -> None:
    """Find whom the agency's records of a period are about, and write the persons to a file.

    Parameters
    ----------
    since
        First instant, in Japan's time unless it has a zone, e.g. 2026-11-22T21:00.
    until
        End of the period, not included.
    people
        New file (JSON) for the persons, readable by its owner alone.
    summary
        New file (JSON) without persons, for chukan incident report --found.
    kind
        Only these kinds (TM codes); several times.
    counterpart
        Only what was exchanged with these agencies; several times.
    """
    body = AffectedSearch(since=zoned(since), until=zoned(until), kinds=list(kind), counterparts=list(counterpart))

    async def work(client: AgencyClient) -> Affected:
        return joined(body, await in_parts(client, body))

    def show(console: Console, found: Affected) -> None:
        console.print(
            f"{found.persons:,} persons in {found.records:,} records ({found.looked_at:,} looked at),"
            f" {found.unnamed:,} without an addressee number;"
            f" {len(found.kinds)} kinds, {len(found.counterparts)} agencies"
        )

    def keep(console: Console, found: Affected) -> None:
        create_file(people, msgspec.json.encode(found) + b"\n", 0o600)
        if summary is not None:
            create_file(summary, msgspec.json.encode(without_people(found)) + b"\n")
        show(console, found)

    run(target, work, keep)


def zoned(at: dt.datetime) -> dt.datetime:
    """Return an instant with its zone; Japan's where none was typed."""
    return at.replace(tzinfo=JST) if at.tzinfo is None else at


def without_people(found: Affected) -> Affected:
    """Return what may leave the agency: counts, kinds, items and counterparts."""
    return msgspec.structs.replace(found, people=[])


async def in_parts(client: AgencyClient, body: AffectedSearch) -> list[Affected]:
    """Ask for a period, or for its halves where it holds too much; ``ClientError``, ``Problem`` too_many_lines."""
    open_parts = [body]
    found: list[Affected] = []
    for _ in range(PARTS_MAX):
        if not open_parts:
            return found
        part = open_parts.pop()
        try:
            found.append(await client.affected(part))
        except ClientError as error:
            whole = part.until - part.since
            if error.as_problem().code != "too_many_lines" or whole < SHORTEST:
                raise
            middle = part.since + whole / 2
            open_parts += [
                msgspec.structs.replace(part, since=middle),
                msgspec.structs.replace(part, until=middle),
            ]
    raise Problem("too_many_lines", limit=PARTS_MAX)


def joined(body: AffectedSearch, parts: Sequence[Affected]) -> Affected:
    """Return the parts of a period as one; a person who stands in several of them counts once."""
    people: dict[bytes, AffectedPerson] = {}
    kinds: dict[str, set[str]] = {}
    for part in parts:
        for kind in part.kinds:
            kinds.setdefault(kind.kind, set()).update(kind.items)
        for each in part.people:
            before = people.get(each.label)
            people[each.label] = each if before is None else _one(before, each)
    return Affected(
        agency=parts[0].agency,
        since=body.since,
        until=body.until,
        looked_at=sum(part.looked_at for part in parts),
        records=sum(part.records for part in parts),
        persons=len(people),
        unnamed=sum(each.addressee is None for each in people.values()),
        kinds=[AffectedKind(kind, sorted(items)) for kind, items in sorted(kinds.items())],
        counterparts=sorted({code for part in parts for code in part.counterparts}),
        people=sorted(people.values(), key=lambda each: (each.addressee or "", each.label)),
    )


def _one(one: AffectedPerson, other: AffectedPerson) -> AffectedPerson:
    return AffectedPerson(
        one.addressee or other.addressee,
        one.label,
        one.records + other.records,
        sorted({*one.kinds, *other.kinds}),
        min(one.first, other.first),
        max(one.last, other.last),
    )
