"""``chukan client``: act as an agency's system, or as one of its officers, from the command line.

Works against the demo (``--connection var/demo/connection.json --agency CODE``) and against a real installation
(``--url --ca --certificate --key``). Everything is shown as a table, or with ``--json`` as the very documents of the
agency API. What it shows is the agency's own data on the agency's own terminal; nothing is written to a log or a file.
"""

import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Final, Literal, TypeVar

import msgspec
from cyclopts import App, Parameter

from chukan.errors import Problem
from chukan.ops import (
    client_affected,
    client_codes,
    client_delegations,
    client_evidence,
    client_export,
    client_files,
    client_notices,
    client_officer,
    client_operations,
    client_resident,
)
from chukan.ops import client_view as view
from chukan.ops.client_run import DEMO_CONNECTION, Target, lines_of, run
from chukan.ops.moments import read_moment
from chukan.ops.sandbox.clients import AgencyClient, digest_of
from chukan.ops.sandbox.connection_file import read_connection
from chukan.platform.wire.agency import (
    Copies,
    CopyKey,
    CopySearch,
    LoadOpen,
    Queries,
    QueryLine,
    ReviewPrepare,
)
from chukan.platform.wire.network import Condition

app = App(name="client", help="Act as an agency's system: register, acquire, query, collect.")
WAIT_MAX_S: Final = 60
T = TypeVar("T")
for _command in (*client_files.COMMANDS, *client_codes.COMMANDS, *client_delegations.COMMANDS):
    app.command(_command)
app.command(client_officer.app)
app.command(client_operations.app)
app.command(client_resident.app)
app.command(client_evidence.checkpoint)
app.command(client_export.export_records)
app.command(client_notices.notices)
app.command(client_notices.read_notice)
app.command(client_notices.calendar)
app.command(client_affected.affected)


# ---------------------------------------------------------------- queries: 情報照会


@app.command
def query(
    addressee: str | None = None,
    *,
    target: Target,
    kind: str | None = None,
    provider: str | None = None,
    affair: str | None = None,
    procedure: str | None = None,
    department: str = "窓口",
    year: str | None = None,
    item: Annotated[tuple[str, ...], Parameter(negative="")] = (),
    withheld: bool = False,
    consent: Annotated[bool, Parameter(negative="")] = False,
    on_behalf_of: str | None = None,
    provider_for: str | None = None,
    file: Path | None = None,
    wait: int = 10,
) -> None:
    """Ask another agency about a person, wait for the answer, and collect it.

    Parameters
    ----------
    addressee
        The agency's own number of the person (団体内統合宛名番号).
    kind
        Kind of specific personal information (TM code); absent, the connection file's first example is taken.
    provider
        Agency to ask.
    affair
        Affair (JM code).
    procedure
        Procedure (JT code).
    department
        Department that asks.
    year
        Year that is asked about; the latest otherwise.
    item
        Item to ask for; several times. All that the procedure allows otherwise.
    withheld
        The record is to be withheld from the person (不開示).
    consent
        The person's consent is held; an ordinance's affair (条例事務) needs it for local tax information.
    on_behalf_of
        Agency whose affair it is, where this one asks under a delegation (委任元).
    provider_for
        Agency whose information it is, where the provider answers for it (提供者の委任元).
    file
        JSON of the body of POST /queries, instead of everything above.
    wait
        Seconds to wait for answers.
    """
    if file is not None:
        lines = _read(file, Queries).lines
    else:
        wanted = {"affair": affair, "procedure": procedure, "kind": kind, "provider": provider}
        words = {**_complete(target, addressee, wanted), "department": department}
        condition = Condition() if year is None else Condition(period="1", year=year)
        others = {"on_behalf_of": on_behalf_of, "provider_for": provider_for}
        words |= {name: value for name, value in others.items() if value is not None}
        lines = [_line(words, condition, item, withheld=withheld, consent=consent)]
    body = Queries(lines=lines, collect=True)
    run(target, lambda client: client.query(body, wait_s=min(wait, WAIT_MAX_S)), view.batch)


def _complete(target: Target, addressee: str | None, wanted: Mapping[str, str | None]) -> dict[str, str]:
    """Return affair, procedure, kind, provider and addressee; what was not given comes from a fitting example."""
    given = {name: value for name, value in wanted.items() if value is not None}
    if addressee is not None and len(given) == len(wanted):
        return {**given, "addressee": addressee}
    for affair in read_connection(target.connection or DEMO_CONNECTION).affairs:
        known = {name: str(getattr(affair, name)) for name in wanted}
        person = addressee or next(iter(affair.examples), None)
        if affair.inquirer == target.agency and known | given == known and person is not None:
            return {**known, "addressee": person}
    raise Problem("setting_missing", expected="an addressee, --kind, --provider, --affair and --procedure")


def _line(
    words: Mapping[str, str], condition: Condition, items: Sequence[str], *, withheld: bool, consent: bool
) -> QueryLine:
    flags = {"withheld": withheld, "consent": consent}
    line = {**words, **flags, "condition": msgspec.to_builtins(condition)}
    if items:
        line["items"] = list(items)
    try:
        return msgspec.convert(line, QueryLine)
    except msgspec.ValidationError:
        # Its text may quote what was typed; the form of each field stands in the API's definition.
        raise Problem("invalid_field", expected="fields as /openapi.json defines them") from None


@app.command
def show(reference: uuid.UUID, *, target: Target, wait: int = 0) -> None:
    """Show a batch or a line by its id, after waiting for it where wanted."""
    run(target, lambda client: client.view(reference, wait_s=wait), view.batch)


@app.command
def collect(reference: uuid.UUID, *, target: Target) -> None:
    """Take the content of answered lines; may be repeated until it is purged."""
    run(target, lambda client: client.collect(reference), view.batch)


@app.command
def cancel(reference: uuid.UUID, *, target: Target) -> None:
    """Take open lines back (中断)."""
    run(target, lambda client: client.cancel(reference), view.batch)


@app.command
def queries(*, target: Target, state: str | None = None, limit: int = 100) -> None:
    """List query lines, by state where one is given."""
    run(target, lambda client: client.queries(state=state, limit=limit), view.query_page)


# ---------------------------------------------------------------- copies: 副本


@app.command
def register(file: Path, *, target: Target) -> None:
    """Register copies from a JSON file: the body of POST /copies (異動)."""
    body = _read(file, Copies)
    run(target, lambda client: client.register(body), view.line_results)


@app.command
def load(
    *parts: Path,
    target: Target,
    kind: str,
    layout: int,
    period: str = "",
    mode: Literal["full", "difference"] = "difference",
    media_type: str = "application/x-ndjson",
) -> None:
    """Register a whole load from files (副本登録): each file is a part; all come into force together.

    Parameters
    ----------
    parts
        Files, NDJSON unless said otherwise.
    kind
        Kind of the copies.
    layout
        Version of the layout.
    period
        Year or period that the copies are about.
    mode
        full replaces everything of the kind and period.
    media_type
        Media type of the files, e.g. text/csv; charset=cp932.
    """
    body = LoadOpen(kind=kind, layout=layout, mode=mode, expected=lines_of(parts, media_type), period=period)

    async def work(client: AgencyClient) -> object:
        session = await client.open_load(body)
        for number, part in enumerate(parts):
            await client.put_part(session.id, number, part, media_type=media_type)
        return await client.commit_load(session.id, [digest_of(part) for part in parts])

    run(target, work, view.document)


@app.command
def copies(addressee: str, *, target: Target, kind: str | None = None) -> None:
    """Show the agency's own copies of a person."""
    body = CopySearch(keys=[CopyKey(addressee=addressee, kind=kind)])
    run(target, lambda client: client.search_copies(body), view.copies)


# ---------------------------------------------------------------- linkage codes: 符号


@app.command
def codes(*addressees: str, target: Target, acquire: Annotated[bool, Parameter(negative="")] = False) -> None:
    """Show the status of people's linkage codes, or acquire them; a code itself is never shown.

    Parameters
    ----------
    addressees
        The agency's own numbers of the people.
    acquire
        Begin to acquire what is not there yet; the acquisition number goes to the body's own resident-registry system.
    """
    if not addressees:
        raise Problem("setting_missing", expected="at least one addressee number")
    run(
        target,
        lambda client: client.ask_codes(addressees) if acquire else client.search_codes(addressees),
        view.code_statuses,
    )


# ---------------------------------------------------------------- records and reviews


@app.command
def records(addressee: str | None = None, *, target: Target, after: str | None = None, limit: int = 100) -> None:
    """Show the agency's provision records (情報提供等記録), of one person where one is given."""
    run(
        target,
        lambda client: client.records_of(addressee) if addressee else client.records(after=after, limit=limit),
        view.records,
    )


@app.command
def statistics(
    *,
    target: Target,
    first: Annotated[str | None, Parameter(name="--from")] = None,
    last: Annotated[str | None, Parameter(name="--to")] = None,
    fiscal_year: int | None = None,
    by_procedure: Annotated[bool, Parameter(negative=())] = False,
) -> None:
    """Count the agency's provision records by month, side and outcome (統計).

    Parameters
    ----------
    first
        First month, e.g. 2026-04; with --to.
    last
        Last month.
    fiscal_year
        A fiscal year (年度) instead, e.g. 2026; the present one where nothing is given.
    by_procedure
        By procedure and kind (事務手続・種類) too: the exchange opens the records, which takes longer.
    """
    if by_procedure:
        run(
            target,
            lambda client: client.procedure_statistics(first=first, last=last, fiscal_year=fiscal_year),
            view.procedure_statistics,
        )
    else:
        run(target, lambda client: client.statistics(first=first, last=last, fiscal_year=fiscal_year), view.statistics)


reviews = App(
    name="reviews", help="Decide about held provisions (自動応答不可), as officers: one prepares, another decides."
)
app.command(reviews)


@reviews.command(name="list")
def list_reviews(*, target: Target) -> None:
    """List what waits for a decision."""
    run(target, lambda client: client.reviews(), view.reviews)


@reviews.command
def prepare(
    review: uuid.UUID,
    *,
    target: Target,
    decision: Literal["provide", "refuse"],
    withheld: Annotated[bool, Parameter(negative="")] = False,
    note: str = "",
) -> None:
    """Propose a decision, as a first officer (--officer)."""
    body = ReviewPrepare(decision=decision, withheld=withheld, note=note)
    run(target, lambda client: client.prepare_review(review, body), view.document)


@reviews.command
def approve(review: uuid.UUID, *, target: Target, note: str = "", prepared_at: str | None = None) -> None:
    """Carry the proposal out, as a second officer (--officer).

    Args:
        review: The review.
        target: Connection and agency.
        note: For the archive.
        prepared_at: When the proposal was made that you looked at, as the list shows it; another one is then refused.
    """
    seen = None if prepared_at is None else read_moment(prepared_at, "--prepared-at")
    run(target, lambda client: client.approve_review(review, note=note, prepared_at=seen), view.document)


@reviews.command
def refuse(review: uuid.UUID, *, target: Target, note: str = "") -> None:
    """Refuse the provision, as a second officer (--officer)."""
    run(target, lambda client: client.refuse_review(review, note=note), view.document)


def _read(path: Path, kind: type[T]) -> T:
    """Read a JSON file that is the body of a call. Raises ``Problem`` settings_unreadable, invalid_field."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except msgspec.ValidationError:
        raise Problem("invalid_field", expected=f"JSON of {kind.__name__}, see /openapi.json") from None
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        raise Problem("settings_unreadable", expected="a readable JSON file") from None
