"""How ``chukan client`` shows replies: tables for people, item names in Japanese where the law's data knows them.

Nothing is decided here; every function takes a console and a reply of the agency API.
"""

from functools import cache

import msgspec
from rich.console import Console
from rich.table import Table

from chukan.platform.law import Law
from chukan.platform.wire import agency as wire
from chukan.platform.wire.files import QueryFile
from chukan.platform.wire.statistics import ProcedureCounts, Statistics


def terminal() -> Console:
    """Return the terminal; what an exchange sent is text and never taken for markup."""
    return Console(markup=False, highlight=False)


def table(*names: str, title: str | None = None) -> Table:
    """Return a table whose cells are broken and never cut off: an id that lacks its end is of no use."""
    made = Table(box=None, title=title, title_justify="left")
    for name in names:
        made.add_column(name, overflow="fold")
    return made


@cache
def _law() -> Law:
    return Law.load()


def batch(console: Console, reply: wire.Batch) -> None:
    """Show the lines of a batch, and the content of those that have some."""
    console.print(f"batch {reply.batch}")
    _lines(console, reply.lines)
    for line in reply.lines:
        if line.content is not None:
            _content(console, line.line, line.content)


def query_page(console: Console, reply: wire.QueryPage) -> None:
    """Show a page of lines."""
    _lines(console, reply.lines)
    if reply.next is not None:
        console.print(f"next: {reply.next}")


def query_file(console: Console, reply: QueryFile) -> None:
    """Show a query file: how many lines stand where, and the first refused ones."""
    console.print(f"file {reply.id} {reply.name} {reply.state}: {reply.lines} lines, {reply.refused} refused")
    shown = table("state or outcome", "lines")
    for word, count in [*reply.states.items(), *reply.outcomes.items()]:
        shown.add_row(word, str(count))
    console.print(shown)
    if reply.problems:
        refused = table("line", "field", "problem")
        for problem in reply.problems:
            refused.add_row(str(problem.line), (problem.pointer or "").removeprefix("/"), problem.code)
        console.print(refused)


def _lines(console: Console, lines: list[wire.QueryLineView]) -> None:
    shown = table("line", "state", "outcome", "reason", "id")
    for line in lines:
        reason = line.reason or ""
        if line.problem is not None:
            reason = f"{line.problem.code} {line.problem.pointer or ''}".strip()
        shown.add_row(str(line.line), line.state, line.outcome or "", reason, "" if line.id is None else str(line.id))
    console.print(shown)


def _content(console: Console, number: int, content: wire.AnswerContent) -> None:
    kind = _law().kinds.get(content.kind)
    title = content.kind if kind is None else kind.name_ja
    for copy in content.copies:
        shown = table("item", "value", title=f"line {number}: {title} {copy.period}".rstrip())
        for code, value in copy.items.items():
            shown.add_row(_item_name(content.kind, copy.layout, code), _value(value))
        console.print(shown)


def _item_name(kind: str, layout: int, code: str) -> str:
    known = _law().layout(kind, layout)
    item = None if known is None else known.items.get(code)
    return code if item is None else item.name_ja


def _value(value: str | wire.Gap) -> str:
    if isinstance(value, str):
        return value
    reason = _law().gap_codes.get(value.gap, "")
    return f"（未設定 {value.gap} {reason}）"


def line_results(console: Console, reply: wire.LineResults) -> None:
    """Show what became of each line, briefly where all is well."""
    shown = table("line", "status", "problem", "where")
    for line in reply.lines:
        problem = line.problem
        shown.add_row(
            str(line.line), line.status, problem.code if problem else "", (problem.pointer or "") if problem else ""
        )
    console.print(shown)


def code_statuses(console: Console, reply: wire.CodeStatuses) -> None:
    """Show the status of links; an acquisition number while one is open."""
    shown = table("line", "status", "acquisition number")
    for line in reply.lines:
        shown.add_row(str(line.line), line.status, line.acquisition_number or "")
    console.print(shown)


def copies(console: Console, reply: wire.CopyPage) -> None:
    """Show copies with all their items."""
    for copy in reply.copies:
        kind = _law().kinds.get(copy.kind)
        title = copy.kind if kind is None else kind.name_ja
        shown = table("item", "value", title=f"{title} {copy.period} from {copy.effective_from}")
        for code, value in copy.items.items():
            shown.add_row(_item_name(copy.kind, copy.layout, code), _value(value))
        console.print(shown)
    if not reply.copies:
        console.print("no copies")


def records(console: Console, reply: wire.Records) -> None:
    """Show provision records."""
    shown = table("closed", "side", "inquirer", "provider", "kind", "outcome", "flags", "reference")
    for record in reply.records:
        flags = [
            name
            for name, is_set in (
                ("withheld", record.withheld),
                ("28条", record.pia_refusal),
                ("amends", record.amends is not None),
            )
            if is_set
        ]
        shown.add_row(
            f"{record.closed_at:%Y-%m-%d %H:%M:%S}",
            record.side,
            record.inquirer,
            record.provider,
            record.kind,
            record.outcome,
            " ".join(flags),
            record.reference or "",
        )
    console.print(shown)
    if reply.next is not None:
        console.print(f"next: {reply.next}")


def statistics(console: Console, reply: Statistics) -> None:
    """Show counts of records by month, side and outcome."""
    console.print(f"{reply.first} to {reply.last}: {reply.records} records, {reply.amendments} amendments")
    shown = table("month", "fiscal year", "side", "outcome", "records", "amendments")
    for line in reply.lines:
        counts = (str(line.records), str(line.amendments))
        shown.add_row(line.month, str(line.fiscal_year), line.side, line.outcome, *counts)
    console.print(shown)


def procedure_statistics(console: Console, reply: ProcedureCounts) -> None:
    """Show counts of records by month, side, procedure, kind and outcome."""
    console.print(f"{reply.first} to {reply.last}: {sum(line.records for line in reply.lines)} records")
    shown = table("month", "side", "procedure", "kind", "outcome", "records", "amendments")
    for line in reply.lines:
        counts = (str(line.records), str(line.amendments))
        shown.add_row(line.month, line.side, line.procedure, line.kind, line.outcome, *counts)
    console.print(shown)
    if reply.next is not None:
        console.print(f"not all: the log goes on after {reply.next}")


def reviews(console: Console, reply: wire.Reviews) -> None:
    """Show what waits for an officer."""
    shown = table("id", "state", "inquirer", "kind", "procedure", "until", "prepared by", "proposed", "at", "")
    for review in reply.reviews:
        shown.add_row(
            str(review.id),
            "held: look again" if review.stale else review.state,
            review.inquirer,
            review.kind,
            review.procedure,
            f"{review.expires_at:%Y-%m-%d %H:%M:%S}",
            review.prepared_by or "",
            (review.proposed or "") + (" (withheld)" if review.withheld else ""),
            "" if review.prepared_at is None else review.prepared_at.isoformat(),
            "decide now" if review.escalated else "",
        )
    console.print(shown)


def document(console: Console, reply: object) -> None:
    """Show a reply as indented JSON."""
    console.print_json(msgspec.json.encode(reply).decode(), ensure_ascii=False)
