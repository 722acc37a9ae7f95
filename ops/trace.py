"""``chukan trace``: which requirement is shown by which test that ran and passed.

docs/requirements.csv lists the requirements; a run of the tests writes what each test that cites one came to
(``tests/conftest.py``); this module puts the two together as docs/traceability.md. A requirement is covered only by
tests that passed: a failed or skipped one covers nothing, and a test that did not run is not mentioned.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Final

import cyclopts
import msgspec

from chukan.errors import Problem

ROOT: Final = Path(__file__).resolve().parent.parent
REQUIREMENTS: Final = ROOT / "docs" / "requirements.csv"
RESULTS: Final = ROOT / "var" / "test-results" / "requirements.json"
PAGE: Final = ROOT / "docs" / "traceability.md"

app = cyclopts.App(name="trace", help="Which requirement is shown by which passed test. (要求の追跡)")


class Requirement(msgspec.Struct, frozen=True):
    """One row of docs/requirements.csv."""

    id: str
    function: str
    requirement: str
    basis: str
    source: str
    how_to_test: str
    owner: str


class Cited(msgspec.Struct, frozen=True):
    """What a test that cites requirements came to."""

    test: str
    """Node id less its parameters."""
    requirements: list[str]
    outcome: str


def requirements(path: Path = REQUIREMENTS) -> list[Requirement]:
    """The requirements in their order."""
    with path.open(encoding="utf-8", newline="") as file:
        return [msgspec.convert(row, Requirement) for row in csv.DictReader(file)]


def covered(cited: Sequence[Cited]) -> Mapping[str, list[str]]:
    """The passed tests of each requirement; a test with parameters counts when all of them passed."""
    outcomes: dict[tuple[str, str], set[str]] = defaultdict(set)
    for test in cited:
        for requirement in test.requirements:
            outcomes[requirement, test.test].add(test.outcome)
    found: dict[str, list[str]] = defaultdict(list)
    for (requirement, name), came_to in sorted(outcomes.items()):
        if came_to == {"passed"}:
            found[requirement].append(name)
    return found


def page(wanted: Sequence[Requirement], cited: Sequence[Cited]) -> str:
    """The page (Markdown): totals by owner, then every requirement with its tests."""
    tests = covered(cited)
    owners: dict[str, list[Requirement]] = defaultdict(list)
    for row in wanted:
        owners[row.owner].append(row)
    parts = [
        "# Traceability",
        "",
        "Made by `./chukan trace write` from docs/requirements.csv and the results of the last run of the tests. A",
        "requirement is covered by tests that ran and passed; a skipped or failed test covers nothing. What belongs to",
        "a capability that is still to come may be shown in part only.",
        "",
        "| capability | requirements | covered |",
        "|---|---|---|",
    ]
    parts += [f"| {owner} | {len(rows)} | {sum(row.id in tests for row in rows)} |" for owner, rows in owners.items()]
    total = sum(row.id in tests for row in wanted)
    parts += [f"| all | {len(wanted)} | {total} |", ""]
    for owner, rows in owners.items():
        parts += [f"## {owner}", "", "| id | requirement | shown by |", "|---|---|---|"]
        for row in rows:
            shown = "<br>".join(f"`{name}`" for name in tests.get(row.id, ())) or "–"
            parts.append(f"| {row.id} | {row.requirement.replace('|', '/')} | {shown} |")
        parts.append("")
    return "\n".join(parts)


@app.command
def write(*, results: Path = RESULTS, to: Annotated[Path, cyclopts.Parameter(name="--to")] = PAGE) -> None:
    """Write docs/traceability.md from the results of the last run of the tests.

    Raises ``Problem`` settings_unreadable when there are no results.
    """
    try:
        cited = msgspec.json.decode(results.read_bytes(), type=list[Cited])
    except (OSError, msgspec.DecodeError):
        raise Problem("settings_unreadable", expected="results of ./chukan test") from None
    to.write_text(page(requirements(), cited), encoding="utf-8")
