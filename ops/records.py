"""``chukan records``: write an agency's evidence (情報提供等記録の証跡), and check it without the platform.

``verify`` reads a file and keys, and nothing else: no settings, no network, no database. It says whether the log is as
it was signed, and otherwise which leaf is the first that is not. ``export`` and ``keys`` are an operator's: what they
write names nobody and opens nothing, for the records themselves are not in it.
"""

import tempfile
from functools import partial
from pathlib import Path
from typing import Annotated, Final

import msgspec
from cyclopts import App, Parameter

from chukan.errors import Problem
from chukan.ops import installation as acts
from chukan.ops import message_view
from chukan.ops.installation import Installation
from chukan.ops.map_repair import rebuild_map
from chukan.ops.output import Json, create_file, say, table
from chukan.ops.resident_check import WORDS as RESIDENT_WORDS
from chukan.ops.resident_check import ResidentFinding, ResidentReport, check_answer
from chukan.ops.retention_report import retention
from chukan.platform.exchange.evidence import read_centre_keys
from chukan.platform.message_check import check_messages
from chukan.platform.wire.resident import ResidentRecords
from chukan.tenants import evidence_file
from chukan.tenants.changes import require_agency
from chukan.tenants.checkpoint import NOTE_BYTES_MAX, CheckpointError, Key, read_keys
from chukan.tenants.evidence_check import check, find_restores
from chukan.tenants.evidence_export import export_log
from chukan.tenants.evidence_report import WORDS, Finding, Report, Rules
from chukan.tenants.partition import act_for
from chukan.tenants.retention import KEPT_YEARS
from chukan.tenants.sets import CellSets

EXIT_UNSOUND: Final = 1
_KEYS_BYTES_MAX: Final = 1 << 20
_SHOWS: Final = {
    "unaltered": "every leaf and record is as it was signed",
    "complete": "every leaf and record is as it was signed, and the signed map of persons follows from them",
}
_IN_MEMORY_MAX: Final = 16 << 20
_ANSWER_BYTES_MAX: Final = 64 << 20

app = App(name="records", help="Write the evidence of provision records, and check it offline.")
app.command(rebuild_map, name="rebuild-map")
app.command(retention)


@app.command
def verify(
    export: Path,
    *,
    keys: Path,
    known: Annotated[tuple[Path, ...], Parameter(name="--known", consume_multiple=False)] = (),
    allow_uncosigned: Annotated[bool, Parameter(negative="")] = False,
    allow_missing_records: Annotated[bool, Parameter(negative="")] = False,
    allow_restored: Annotated[bool, Parameter(negative="")] = False,
    network_key: Annotated[tuple[Path, ...], Parameter(name="--network-key", consume_multiple=False)] = (),
    need_messages: Annotated[bool, Parameter(negative="")] = False,
    as_json: Json = False,
) -> int:
    """Check an evidence file; exit status 0 where all is as it was signed, 1 where something is not.

    Parameters
    ----------
    export
        The evidence file (証跡ファイル).
    keys
        Verifier keys of the log and of both centres, one a line, from elsewhere than the file.
    known
        A checkpoint kept from earlier, or that somebody else was given; may be repeated.
    allow_uncosigned
        Do not ask that the last checkpoint is cosigned by the other centre.
    allow_missing_records
        Do not ask for the record of each leaf: records are deleted after seven years.
    allow_restored
        Accept that a --known checkpoint is of leaves which a restore lost, where the log itself says so.
    network_key
        A public key of the network (PEM), from elsewhere than the file: check the messages too; may be repeated.
    need_messages
        With --network-key: ask for messages of each record that names a permit.
    as_json
        Print JSON.
    """
    rules = Rules(
        _read_keys(keys),
        [_read(path, NOTE_BYTES_MAX) for path in known],
        need_cosigned=not allow_uncosigned,
        need_records=not allow_missing_records,
        allow_restored=allow_restored,
    )
    try:
        if known:
            with export.open("rb") as file:
                rules = rules._replace(restores=find_restores(evidence_file.decode(file)))
        with export.open("rb") as file:
            report = check(evidence_file.decode(file), rules)
        told, rows, sound = _document(report), _rows(report), report.sound
        if network_key:
            network = message_view.read_network_keys(network_key)
            with export.open("rb") as file:
                messages = check_messages(evidence_file.decode(file), network, need_messages=need_messages)
            told["messages"] = message_view.document(messages)
            rows, sound = rows + message_view.rows(messages), sound and messages.sound
    except OSError:
        raise Problem("setting_invalid", pointer="EXPORT", expected="a file that can be read") from None
    say(told, table("", "", rows=rows), as_json=as_json)
    return 0 if sound else EXIT_UNSOUND


@app.command
def verify_resident(
    answer: Path,
    *,
    keys: Path,
    known: Annotated[tuple[Path, ...], Parameter(name="--known", consume_multiple=False)] = (),
    allow_uncosigned: Annotated[bool, Parameter(negative="")] = False,
    allow_missing_records: Annotated[bool, Parameter(negative="")] = False,
    as_json: Json = False,
) -> int:
    """Check a resident's answer; exit status 0 where none of their records in the log is missing, 1 otherwise.

    Parameters
    ----------
    answer
        The answer of POST /resident/records (本人開示), as it came.
    keys
        Verifier keys of the log and of both centres, one a line, from elsewhere than the answer.
    known
        A checkpoint kept from earlier, or that somebody else was given; may be repeated.
    allow_uncosigned
        Do not ask that the checkpoint is cosigned by the other centre.
    allow_missing_records
        Accept leaves whose record is not there any more: records are deleted after seven years.
    as_json
        Print JSON.
    """
    rules = Rules(
        _read_keys(keys),
        [_read(path, NOTE_BYTES_MAX) for path in known],
        need_cosigned=not allow_uncosigned,
        need_records=not allow_missing_records,
    )
    try:
        given = msgspec.json.decode(_read(answer, _ANSWER_BYTES_MAX), type=ResidentRecords)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        report = ResidentReport(findings=[ResidentFinding("answer")])
        limits = []
    else:
        report, limits = check_answer(given, rules), given.cannot_show
    document = {
        "sound": report.sound,
        "shows": report.shows,
        "origin": report.origin,
        "size": report.size,
        "root": report.root,
        "persons": report.persons,
        "records": [msgspec.Raw(record) for record in report.records],
        "findings": [each._asdict() | {"means": RESIDENT_WORDS[each.code]} for each in report.findings],
        "cannot_show": limits,
    }
    say(document, table("", "", rows=_resident_rows(report, [(each.ja, each.en) for each in limits])), as_json=as_json)
    return 0 if report.sound else EXIT_UNSOUND


@app.command
def export(agency: str, path: Path, *, config: Path | None = None, as_json: Json = False) -> None:
    """Write the log of an agency up to its last checkpoint: leaves, tiles and checkpoints, no record.

    Parameters
    ----------
    agency
        The agency's code (機関コード), 16 digits.
    path
        The new file.
    config
        Settings of any exchange; CHUKAN_SETTINGS names it otherwise.
    as_json
        Print JSON.
    """

    async def act(installation: Installation) -> int:
        row = require_agency(await installation.snapshot(), agency)
        origin = read_centre_keys(installation.settings).origin(row.code)
        door = partial(act_for, installation.cells.primary(row.cell).app, row.number)
        with tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY_MAX) as file:
            count = 0
            async for line in export_log(door, origin, None):
                file.writelines(evidence_file.encode([line]))
                count += 1
            file.seek(0)
            create_file(path, file.read())
        return count

    lines = acts.run(config, act)
    say({"lines": lines}, f"{lines} lines", as_json=as_json)


@app.command(name="keys")
def show_keys(agency: str, *, config: Path | None = None) -> None:
    """Show the verifier keys of an agency's log and of the centres that cosign it, one a line.

    Parameters
    ----------
    agency
        The agency's code (機関コード), 16 digits.
    config
        Settings of any exchange; CHUKAN_SETTINGS names it otherwise.
    """

    async def act(installation: Installation) -> list[Key]:
        row = require_agency(await installation.snapshot(), agency)
        return read_centre_keys(installation.settings).known(row.code)

    say(None, "\n".join(key.text() for key in acts.run(config, act)), as_json=False)


@app.command
def expired(agency: str | None = None, *, config: Path | None = None, as_json: Json = False) -> None:
    """List which months' records were deleted because their seven years were over (施行令30条), newest first.

    Parameters
    ----------
    agency
        The agency's code (機関コード), 16 digits; all agencies otherwise.
    config
        Settings of any exchange; CHUKAN_SETTINGS names it otherwise.
    as_json
        Print JSON.
    """

    async def act(installation: Installation) -> list[list[str]]:
        snapshot = await installation.snapshot()
        number = 0 if agency is None else require_agency(snapshot, agency).number
        codes = {row.number: row.code for row in snapshot.agencies}
        cells = [CellSets(installation.cells.primary(name).broker) for name in installation.cells.names]
        found = [each for sets in cells for each in await sets.expired_records(number)]
        found.sort(key=lambda each: each.at, reverse=True)
        return [
            [codes.get(each.agency, ""), f"{each.month:%Y-%m}", str(each.count), f"{each.at:%Y-%m-%d}"]
            for each in found
        ]

    rows = acts.run(config, act)
    names = ("agency", "month", "count", "deleted_on")
    document = {"expired": [dict(zip(names, row, strict=True)) for row in rows], "kept_years": KEPT_YEARS}
    say(document, table("agency", "month", "records", "deleted on", rows=rows), as_json=as_json)


def _read(path: Path, bytes_max: int) -> bytes:
    try:
        with path.open("rb") as file:
            raw = file.read(bytes_max + 1)
    except OSError:
        raw = b""
    if not 0 < len(raw) <= bytes_max:
        raise Problem("setting_invalid", pointer=str(path), expected="a file that can be read")
    return raw


def _read_keys(path: Path) -> list[Key]:
    try:
        return read_keys(_read(path, _KEYS_BYTES_MAX).decode("utf-8").splitlines())
    except (UnicodeDecodeError, CheckpointError):
        raise Problem("setting_invalid", pointer="--keys", expected="verifier keys (C2SP vkey), one a line") from None


def _document(report: Report) -> dict[str, object]:
    return {
        "sound": report.sound,
        "origin": report.origin,
        "size": report.size,
        "root": report.root,
        "cosigned_size": report.cosigned_size,
        "leaves": report.leaves,
        "records": report.records,
        "checkpoints": report.checkpoints,
        "first_bad": None if report.first_bad is None else _finding(report.first_bad),
        "restores": [{"leaf": each.position, "epoch": each.epoch, "size": each.size} for each in report.restores],
        "findings": [_finding(each) for each in report.findings],
        "map_size": report.map_size,
        "shows": report.shows,
    }


def _resident_rows(report: ResidentReport, limits: list[tuple[str, str]]) -> list[list[str]]:
    rows = [["log", report.origin], ["checkpoint", f"{report.size} leaves"]]
    rows += [
        [
            each.asked,
            f"{each.shown} shown, {each.withheld} withheld (不開示), {each.gone} gone, {each.unproven} unproven",
        ]
        if each.known
        else [each.asked, "nobody's here"]
        for each in report.persons
    ]
    if report.sound:
        rows.append(["result", "complete: no record of these persons in the log is missing, each is as it was signed"])
    else:
        rows.append(["result", "NOT shown to be complete"])
    rows += [[each.code, f"{each.asked or ''} {RESIDENT_WORDS[each.code]}".strip()] for each in report.findings]
    return rows + [["not shown", text] for pair in limits for text in pair]


def _finding(finding: Finding) -> dict[str, object]:
    return {"code": finding.code, "first": finding.first, "last": finding.last, "means": WORDS[finding.code]}


def _rows(report: Report) -> list[list[str]]:
    bad = report.first_bad
    rows = [
        ["log", report.origin],
        ["checkpoint", f"{report.size} leaves, cosigned up to {report.cosigned_size}"],
        ["read", f"{report.leaves} leaves, {report.records} records, {report.checkpoints} checkpoints"],
    ]
    rows += [
        ["restored", f"leaf {each.position}, epoch {each.epoch}: {each.size} leaves had been seen before"]
        for each in report.restores
    ]
    if report.sound:
        return [*rows, ["result", f"{report.shows}: {_SHOWS[report.shows]}"]]
    rows.append(["result", "NOT as it was signed"])
    if bad is not None:
        rows.append(["first bad leaf", _places(bad)])
    return rows + [[each.code, f"{_places(each)} {WORDS[each.code]}".strip()] for each in report.findings]


def _places(finding: Finding) -> str:
    if finding.first is None:
        return ""
    return str(finding.first) if finding.first == finding.last else f"{finding.first}-{finding.last}:"
