"""``chukan incident``: a leak, loss or damage (漏えい等, 番号法29条の4) from its opening to its report and its closing.

An operator writes down what is known, counts per agency how many records and persons a period touches at most, and
prints the draft of the report with its deadlines. Who the persons are only their agency finds out, with its own keys:
``chukan client affected``; its summary, which names nobody, makes the draft exact (``--found``).

Every step is an operator's act in the operations log. Nothing here opens a record.
"""

import datetime as dt
import uuid
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Final, Literal, TypeVar

import msgspec
from cyclopts import App, Parameter

from chukan.clock import JST
from chukan.errors import Problem
from chukan.ops import incident_report as reports
from chukan.ops import installation as acts
from chukan.ops.client_affected import zoned
from chukan.ops.installation import Installation
from chukan.ops.link_options import By, person
from chukan.ops.output import Json, create_file, say, table
from chukan.platform.law.calendar import read_calendar
from chukan.platform.law.tables import Source
from chukan.platform.wire.incidents import Affected
from chukan.tenants.changes import require_agency
from chukan.tenants.directory import AgencyRow
from chukan.tenants.incidents import AGENCIES_MAX, Count, Facts, Incident, count_affected, enter, read_incidents

_FOUND_BYTES_MAX: Final = 4 << 20

T = TypeVar("T")
app = App(name="incident", help="Write down an incident, count whom it affects, draft the report, close it.")

Agencies = Annotated[tuple[str, ...], Parameter(name="--agency", negative="")]
Kinds = Annotated[tuple[str, ...], Parameter(name="--kind", negative="")]


@app.command(name="open")
def open_(
    title: str,
    *,
    by: By,
    known_at: dt.datetime,
    since: dt.datetime | None = None,
    until: dt.datetime | None = None,
    wrongful: Annotated[bool, Parameter(negative="")] = False,
    agency: Agencies = (),
    kind: Kinds = (),
    config: Path | None = None,
    as_json: Json = False,
) -> None:
    """Open an incident; prints its id and the deadlines of the reports.

    Parameters
    ----------
    title
        What happened, in one line; nobody's name or number.
    by
        Name of the operator who acts.
    known_at
        When it became known (事態を知った時点); Japan's time unless it has a zone.
    since
        Beginning of the period whose records are affected.
    until
        Its end, not included.
    wrongful
        It may have been done for a wrongful purpose (不正の目的): 60 days instead of 30.
    agency
        Agencies (16-digit codes) that are affected; several times, all where none is given.
    kind
        Kinds (TM codes) where no others are affected.
    config
        Settings file; CHUKAN_SETTINGS names it otherwise.
    as_json
        Print JSON.
    """
    facts = Facts(
        title=title,
        known_at=zoned(known_at),
        wrongful=wrongful,
        since=None if since is None else zoned(since),
        until=None if until is None else zoned(until),
        agencies=list(agency) or None,
        kinds=list(kind) or None,
    )
    who = person(by)

    async def act(installation: Installation) -> tuple[uuid.UUID, reports.Deadlines]:
        await _check(installation, facts)
        incident = installation.chance.uuid7()
        await enter(installation.cells, installation.settings.links_cell, incident, "open", who, facts)
        return incident, reports.deadlines_of(zoned(known_at), wrongful=wrongful, holidays=_holidays(installation))

    incident, times = acts.run(config, act)
    text = (
        f"{incident}\npreliminary report (速報) without delay, by {times.preliminary_until};"
        f" final report (確報) by {times.final}"
    )
    say({"incident": incident, "deadlines": times}, text, as_json=as_json)


@app.command
def amend(
    incident: uuid.UUID,
    facts: Path | None = None,
    *,
    by: By,
    reported: Literal["preliminary", "final"] | None = None,
    config: Path | None = None,
) -> None:
    """Add what has become known, or that a report was given.

    Parameters
    ----------
    incident
        Its id.
    facts
        JSON object: title, known_at, wrongful, since, until, agencies, kinds, summary, cause, secondary, to_persons,
        publication, prevention, other; what it names replaces what was known.
    by
        Name of the operator who acts.
    reported
        Which report was given to the Commission.
    config
        Settings file; CHUKAN_SETTINGS names it otherwise.
    """
    if (facts is None) is (reported is None):
        raise Problem("setting_missing", expected="a file of facts, or --reported")
    told = Facts(report=reported) if facts is None else _read(facts, Facts)
    who = person(by)

    async def act(installation: Installation) -> None:
        await _check(installation, told)
        step: Literal["amend", "reported"] = "amend" if reported is None else "reported"
        await enter(installation.cells, installation.settings.links_cell, incident, step, who, told)

    acts.run(config, act)
    say(None, "entered", as_json=False)


@app.command
def affected(incident: uuid.UUID, *, config: Path | None = None, as_json: Json = False) -> None:
    """Count by agency how many records and persons the period touches at most; nobody is named, nothing is opened.

    Parameters
    ----------
    incident
        Its id.
    config
        Settings file; CHUKAN_SETTINGS names it otherwise.
    as_json
        Print JSON.
    """
    found = acts.run(config, partial(_touched, incident=incident, found=()))
    rows = [[each.agency, each.name, f"{each.records:,}", f"{each.persons:,}"] for each in found]
    say(found, table("agency", "name", "records", "persons at most", rows=rows), as_json=as_json)


@app.command
def report(
    incident: uuid.UUID,
    *,
    final: Annotated[bool, Parameter(negative="")] = False,
    agency: str | None = None,
    found: Annotated[tuple[Path, ...], Parameter(name="--found", negative="")] = (),
    out: Path | None = None,
    config: Path | None = None,
    as_json: Json = False,
) -> None:
    """Draft the report to the Commission (個人情報保護委員会) with the nine fields of the law and the deadlines.

    Parameters
    ----------
    incident
        Its id.
    final
        The final report (確報) instead of the preliminary one (速報).
    agency
        The report of this agency alone.
    found
        What an agency found (chukan client affected --summary); several times. It takes the place of the upper bound.
    out
        New file for the draft instead of the terminal.
    config
        Settings file; CHUKAN_SETTINGS names it otherwise.
    as_json
        JSON instead of Markdown.
    """
    given = [_read(path, Affected) for path in found]
    if any(each.people for each in given):
        raise Problem("invalid_field", pointer="/found", expected="a summary without persons")

    async def act(installation: Installation) -> reports.Draft:
        case = await _one(installation, incident)
        touched = await _touched(installation, incident=incident, found=given, only=agency)
        try:
            return reports.draft_of(
                case,
                "final" if final else "preliminary",
                touched,
                kind_names={code: kind.name_ja for code, kind in installation.law.kinds.items()},
                holidays=_holidays(installation),
                reporter=None if agency is None else require_agency(await installation.snapshot(), agency).name,
            )
        except ValueError:
            raise Problem("setting_missing", pointer="/known_at", expected="when it became known") from None

    draft = acts.run(config, act)
    text = msgspec.json.format(msgspec.json.encode(draft)).decode() if as_json else reports.markdown(draft)
    if out is None:
        say(draft, text, as_json=as_json)
    else:
        create_file(out, text.encode())
        say(None, f"{out}: still open: {', '.join(draft.missing) or 'nothing'}", as_json=False)


@app.command(name="list")
def list_(*, config: Path | None = None, as_json: Json = False) -> None:
    """List the incidents with their deadlines."""

    async def act(installation: Installation) -> tuple[list[Incident], frozenset[dt.date]]:
        cell = installation.settings.links_cell
        return await read_incidents(installation.cells, cell), _holidays(installation)

    incidents, holidays = acts.run(config, act)
    documents, rows = [], []
    for each in incidents:
        facts = each.facts
        known = facts.known_at or each.steps[0].at
        times = reports.deadlines_of(known, wrongful=bool(facts.wrongful), holidays=holidays)
        given = [step.facts.report for step in each.steps if step.step == "reported"]
        state = "closed" if each.closed else "open"
        documents.append(
            {"incident": each.id, "title": facts.title, "state": state, "deadlines": times, "reported": given}
        )
        rows.append([
            str(each.id), state, f"{known.astimezone(JST):%Y-%m-%d %H:%M}", str(times.preliminary_until),
            str(times.final), ", ".join(word or "" for word in given), facts.title or "",
        ])  # fmt: skip
    headings = ("incident", "state", "known at", "速報", "確報", "reported", "title")
    say(documents, table(*headings, rows=rows), as_json=as_json)


@app.command
def close(incident: uuid.UUID, *, by: By, config: Path | None = None) -> None:
    """Close an incident; nothing is added to it from then on.

    Parameters
    ----------
    incident
        Its id.
    by
        Name of the operator who acts.
    config
        Settings file; CHUKAN_SETTINGS names it otherwise.
    """
    who = person(by)

    async def act(installation: Installation) -> None:
        await enter(installation.cells, installation.settings.links_cell, incident, "close", who, Facts())

    acts.run(config, act)
    say(None, "closed", as_json=False)


# ---------------------------------------------------------------- what the commands share


async def _check(installation: Installation, facts: Facts) -> None:
    """Refuse agencies and kinds that nobody knows: a report must not name them."""
    snapshot = await installation.snapshot() if facts.agencies else None
    for code in facts.agencies or ():
        if snapshot is not None:
            require_agency(snapshot, code)
    for kind in facts.kinds or ():
        if kind not in installation.law.kinds:
            raise Problem("invalid_field", pointer="/kinds", expected="the code of a kind (TM…)")


async def _one(installation: Installation, incident: uuid.UUID) -> Incident:
    for each in await read_incidents(installation.cells, installation.settings.links_cell):
        if each.id == incident:
            return each
    raise Problem("not_found")


async def _touched(
    installation: Installation, *, incident: uuid.UUID, found: Sequence[Affected], only: str | None = None
) -> list[reports.Touch]:
    """Return how much of each agency is affected: what it found itself, else the upper bound of the period."""
    facts = (await _one(installation, incident)).facts
    if facts.since is None or facts.until is None:
        raise Problem("setting_missing", pointer="/since", expected="the period: --since and --until, or an amendment")
    snapshot = await installation.snapshot()
    by_code = {row.code: row for row in snapshot.agencies if row.state == "open"}
    wanted = [only] if only is not None else facts.agencies or sorted(by_code)
    own = {each.agency: each for each in found}
    touched = []
    for code in wanted[:AGENCIES_MAX]:
        row = by_code.get(code) or require_agency(snapshot, code)
        if code in own:
            touched.append(_found(row, own[code]))
            continue
        count = await count_affected(installation.cells, row.cell, row.number, facts.since, facts.until)
        if count.records:
            touched.append(_bound(row, count))
    return touched


def _found(row: AgencyRow, own: Affected) -> reports.Touch:
    kinds: Mapping[str, Sequence[str]] = {each.kind: each.items for each in own.kinds}
    return reports.Touch(
        agency=own.agency,
        name=row.name,
        records=own.records,
        persons=own.persons,
        exact=True,
        kinds=kinds,
    )


def _bound(row: AgencyRow, count: Count) -> reports.Touch:
    return reports.Touch(agency=row.code, name=row.name, records=count.records, persons=count.persons)


def _holidays(installation: Installation) -> frozenset[dt.date]:
    """Return the national holidays that the service calendar knows."""
    return frozenset(read_calendar(Source(installation.settings.data.law_directory)).file.holidays)


def _read(path: Path, form: type[T]) -> T:
    try:
        with path.open("rb") as file:
            return msgspec.json.decode(file.read(_FOUND_BYTES_MAX), type=form)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        raise Problem("setting_invalid", pointer=str(path), expected="a file of this form (JSON)") from None
