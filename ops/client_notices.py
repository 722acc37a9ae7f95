"""``chukan client notices|read-notice|calendar``: what the operator tells the bodies, and what is open when."""

import uuid

from rich.console import Console

from chukan.clock import to_jst
from chukan.ops import client_view as view
from chukan.ops.client_run import Target, run
from chukan.platform.wire.notices import CalendarView, Notices


def notices(*, target: Target, after: uuid.UUID | None = None, limit: int = 50) -> None:
    """List the operator's notices to the body, the newest first; ``*`` marks what the agency has not read.

    Parameters
    ----------
    after
        Id behind which the page begins, as the page before named it.
    limit
        Notices of the page, at most 100.
    """
    run(target, lambda client: client.notices(after=after, limit=limit), _show)


def read_notice(notice: uuid.UUID, *, target: Target) -> None:
    """Say that the agency has read a notice (既読)."""
    run(target, lambda client: client.read_notice(notice), view.document)


def calendar(*, target: Target) -> None:
    """Show the service hours (運用時間): what is open now, planned stops, and when what is closed reopens."""
    run(target, lambda client: client.calendar(), _show_calendar)


def _show(console: Console, reply: Notices) -> None:
    for each in reply.notices:
        mark = " " if each.read_at is not None else "*"
        gone = " [withdrawn]" if each.withdrawn_at is not None else ""
        head = f"{mark} {to_jst(each.published_at):%Y-%m-%d %H:%M} {each.sort} {each.title}{gone}\n  {each.id}"
        console.print(head, markup=False, highlight=False)
        console.print(f"  {each.text}", markup=False, highlight=False)
    if reply.after is not None:
        console.print(f"next: --after {reply.after}")


def _show_calendar(console: Console, reply: CalendarView) -> None:
    shown = view.table("function", "now", "outside its hours", "reopens (JST)", "reason")
    for each in reply.standings:
        reopens = "-" if each.reopens_at is None else f"{to_jst(each.reopens_at):%Y-%m-%d %H:%M}"
        shown.add_row(each.function, "open" if each.open else "closed", each.outside, reopens, each.reason or "-")
    console.print(shown)
    for hours in reply.hours:
        console.print(f"{hours.function}: {' '.join(hours.days)} {hours.open}-{hours.close}", highlight=False)
    for stop in reply.stops:
        since, until = (f"{to_jst(at):%Y-%m-%d %H:%M}" for at in (stop.starts_at, stop.ends_at))
        line = f"planned stop of {' and '.join(stop.functions)}: {since} to {until} {stop.reason}"
        console.print(line, markup=False, highlight=False)
