"""``chukan specs``: renders the specifications that are made from data, so that they cannot drift from the code.

docs/specs/transitions.md is the table of ``platform.flows.transitions``, errors.md beside it the registry errors.toml,
retention.md what ``tenants.retention`` and the settings say of how long things are kept.
A test compares what stands in docs/ with what this module renders. It never invents text of its own about behaviour.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

import cyclopts
import msgspec

from chukan.errors import REGISTRY
from chukan.platform.flows.transitions import TABLE, Transition
from chukan.settings import Exchange
from chukan.tenants.retention import CLASSES
from chukan.tenants.states import Side

app = cyclopts.App(name="specs", help="Render the specifications that are made from data. (仕様書の生成)")

ROOT: Final = Path(__file__).resolve().parent.parent / "docs" / "specs"


def _row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _transition(row: Transition) -> str:
    return _row(
        (
            row.source.name.lower() if row.source is not None else "–",
            f"`{row.event}`",
            ", ".join(target.name.lower() for target in row.targets),
            row.owner,
            row.deadline,
            ", ".join(outcome.word for outcome in row.outcomes) or "–",
            row.writes.value,
        )
    )


def transitions() -> str:
    """The table of every transition, by side (Markdown)."""
    head = _row(("from", "event", "to", "owner", "deadline of the state led to", "answer kinds", "writes"))
    rule = _row(["---"] * 7)
    parts = [
        "# Transitions of a line",
        "",
        "Made from `platform/flows/transitions.py` by `chukan specs write`; tests are generated from the same table.",
        "A pair of state and event that is not here cannot happen: the code refuses it. A line has exactly one final",
        "outcome on each side that took part, and one provision record (情報提供等記録) with it; what a side learns",
        "later is an amendment that names the record.",
    ]
    for side, title in ((Side.INQUIRER, "Inquirer (情報照会者)"), (Side.PROVIDER, "Provider (情報提供者)")):
        parts += ["", f"## {title}", "", head, rule]
        parts += [_transition(row) for row in TABLE if row.side is side]
    return "\n".join([*parts, ""])


def errors() -> str:
    """The registry of errors (Markdown)."""
    parts = [
        "# Error registry",
        "",
        "Made from `errors.toml` by `chukan specs write`. Every refusal is an RFC 9457 problem document with one of",
        "these codes; a code is never renamed and never changes its meaning. `side` names who has to act.",
        "",
        _row(("code", "status", "side", "retryable", "日本語", "English", "what to do")),
        _row(["---"] * 7),
    ]
    parts += [
        _row(
            (
                f"`{kind.code}`",
                str(kind.status),
                kind.side.value,
                "yes" if kind.retryable else "no",
                kind.title_ja,
                kind.title_en,
                kind.action_en,
            )
        )
        for kind in REGISTRY.values()
    ]
    return "\n".join([*parts, ""])


def retention() -> str:
    """Return what is kept for how long (Markdown)."""
    days = next(field for field in msgspec.structs.fields(Exchange) if field.name == "result_keep_days").default
    parts = [
        "# Retention (保存期間)",
        "",
        "Made from `tenants/retention.py` and the default of `exchange.result_keep_days` by `chukan specs write`. The",
        "exchanges delete in rounds of about ten minutes, a bounded page of agencies at a time. What is over and still",
        "there is shown by `chukan records retention`; what was deleted, by `chukan records expired`.",
        "",
        _row(("class", "何を", "what", "いつから", "from", "期間", "kept", "by")),
        _row(["---"] * 8),
    ]
    parts += [
        _row(
            (
                f"`{kept.name}`",
                kept.what_ja,
                kept.what_en,
                kept.since_ja,
                kept.since_en,
                kept.period_ja.format(results=days),
                kept.period_en.format(results=days),
                kept.by or "–",
            )
        )
        for kept in CLASSES
    ]
    return "\n".join([*parts, ""])


RENDERED: Final = {"retention.md": retention, "transitions.md": transitions, "errors.md": errors}


@app.command
def write(*, directory: Path = ROOT) -> None:
    """Write docs/specs/transitions.md, docs/specs/errors.md and docs/specs/retention.md."""
    for name, render in RENDERED.items():
        (directory / name).write_text(render(), encoding="utf-8")
