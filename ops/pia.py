"""``chukan pia``: wording for a body's own protection assessment (特定個人情報保護評価書), made from data.

docs/pia/measures/*.toml hold, for each item of the assessment's form, the sentence that an officer may take over, where
Chukan does what it says, which test shows it, what the body still has to do, and what is not covered. This module
checks them against the tree and makes the pages beside them.

Invariant: a measure never names a file, command, requirement or test that does not exist, and never rests on a test
that does not cite one of its requirements; where the software is said to do it all, a named test cites each of them.
It never words anything itself: sentences stand in the data alone.
"""

from __future__ import annotations

import ast
import importlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from enum import Enum
from pathlib import Path
from typing import Annotated, Final

import cyclopts
import msgspec

from chukan import toml_reading
from chukan.errors import Problem
from chukan.ops import cli, trace

ROOT: Final = Path(__file__).resolve().parent.parent
PAGES: Final = ROOT / "docs" / "pia"
MEASURES: Final = PAGES / "measures"
INDEX: Final = "requirements.ja.md"
ASSESSMENT_BASIS: Final = "pia-wording"

app = cyclopts.App(name="pia", help="Wording for a body's own protection assessment. (特定個人情報保護評価)")


class Standing(Enum):
    """How far the software itself does what a sentence says."""

    DONE = "done"
    PART = "part"
    PEOPLE = "people"


BASES: Final = {
    ASSESSMENT_BASIS: "評価書",
    "law": "法令",
    "seed": "基本構想",
    "observed": "公開資料",
    "incident": "過去の事故",
    "proposal": "提案",
}

WORDS: Final = {
    Standing.DONE: "ソフトウェアで実現",
    Standing.PART: "一部をソフトウェアで実現",
    Standing.PEOPLE: "運用で実施（ソフトウェアの範囲外）",
}

Some = Annotated[tuple[str, ...], msgspec.Meta(min_length=1)]


class Measure(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One sentence of an assessment, and what stands behind it."""

    id: Annotated[str, msgspec.Meta(pattern=r"^(KI|NW|PF)-[0-9]{2}$")]
    title: str
    standing: Standing
    sentence: str
    requirements: Some
    body: Some
    """What the body itself still has to do."""
    where: tuple[str, ...] = ()
    """Files and folders of the tree."""
    commands: tuple[str, ...] = ()
    """Commands, without the leading ``chukan``."""
    docs: tuple[str, ...] = ()
    """Pages, from the root of the tree."""
    tests: tuple[str, ...] = ()
    """Node ids, as in docs/traceability.md."""
    gaps: tuple[str, ...] = ()
    """What is not covered."""


class Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One item of the assessment's form (評価書の項目)."""

    heading: str
    measures: Annotated[tuple[Measure, ...], msgspec.Meta(min_length=1)]


class Sheet(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One page."""

    title: str
    intro: str
    sections: Annotated[tuple[Section, ...], msgspec.Meta(min_length=1)]

    def measures(self) -> Iterator[Measure]:
        """Every measure in its order."""
        for section in self.sections:
            yield from section.measures


def sheets(directory: Path = MEASURES) -> Mapping[str, Sheet]:
    """The data by the name of the page. Raises ``Problem`` settings_unreadable, setting_missing, setting_invalid."""
    return {
        f"{path.stem}.ja.md": toml_reading.convert(
            toml_reading.parse(toml_reading.read_text(path)), Sheet, f"/{path.stem}"
        )
        for path in sorted(directory.glob("*.toml"))
    }


# What the tree has -------------------------------------------------------------------------------------------------


def _cited(nodes: Iterable[ast.expr]) -> set[str]:
    """The requirements that markers among these expressions cite."""
    calls = (found for node in nodes for found in ast.walk(node) if isinstance(found, ast.Call))
    return {
        argument.value
        for call in calls
        if isinstance(call.func, ast.Attribute) and call.func.attr == "requirement"
        for argument in call.args
        if isinstance(argument, ast.Constant) and isinstance(argument.value, str)
    }


def _tests(body: list[ast.stmt], prefix: str, inherited: set[str]) -> Iterator[tuple[str, set[str]]]:
    for node in body:
        if isinstance(node, ast.ClassDef) and node.name.startswith("Test"):
            yield from _tests(node.body, f"{prefix}::{node.name}", inherited | _cited(node.decorator_list))
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test"):
            yield f"{prefix}::{node.name}", inherited | _cited(node.decorator_list)


def cited_in(name: str, root: Path = ROOT) -> Mapping[str, set[str]]:
    """The tests of one file by node id, each with the requirements that it cites; none where there is no such file."""
    path = root / name
    if not path.is_file():
        return {}
    tree = ast.parse(path.read_text(encoding="utf-8"))
    marks = [
        node.value
        for node in tree.body
        if isinstance(node, ast.Assign)
        and any(isinstance(to, ast.Name) and to.id == "pytestmark" for to in node.targets)
    ]
    return dict(_tests(tree.body, name, _cited(marks)))


def is_command(words: str) -> bool:
    """Tell whether the command line has these words as a command (``keys rotate``)."""
    first, *rest = words.split()
    target = cli.COMMANDS.get(first)
    if target is None:
        return False
    module, _, name = target.partition(":")
    found: cyclopts.App = getattr(importlib.import_module(module), name)
    for word in rest:
        if word.startswith("-") or word not in found:
            return False
        found = found[word]
    return True


def complaints(measure: Measure, known: Mapping[str, str]) -> Iterator[str]:
    """What is wrong with one measure; ``known`` are the requirements with their basis."""
    yield from (f"{measure.id}: no requirement {name}" for name in measure.requirements if name not in known)
    yield from (f"{measure.id}: no {name}" for name in (*measure.where, *measure.docs) if not (ROOT / name).exists())
    yield from (f"{measure.id}: no command {words}" for words in measure.commands if not is_command(words))
    shown: set[str] = set()
    for node in measure.tests:
        found = cited_in(node.partition("::")[0]).get(node)
        if found is None:
            yield f"{measure.id}: no test {node}"
        elif not found & set(measure.requirements):
            yield f"{measure.id}: {node} cites none of its requirements"
        else:
            shown |= found
    if measure.standing is Standing.DONE:
        yield from (f"{measure.id}: no test of it shows {name}" for name in measure.requirements if name not in shown)
    if (measure.standing is Standing.PEOPLE) == bool(measure.tests):
        yield f"{measure.id}: what software does is shown by tests, and what people do is not"
    if measure.standing is Standing.PART and not measure.gaps:
        yield f"{measure.id}: what is missing has to be said"


def faults(pages: Mapping[str, Sheet]) -> list[str]:
    """Everything that is wrong with the data, a line each."""
    known = {row.id: row.basis for row in trace.requirements()}
    measures = [measure for sheet in pages.values() for measure in sheet.measures()]
    found = [text for measure in measures for text in complaints(measure, known)]
    ids = [measure.id for measure in measures]
    found += [f"{name} stands twice" for name in sorted(set(ids)) if ids.count(name) > 1]
    said = {name for measure in measures for name in measure.requirements}
    wanted = {name for name, basis in known.items() if basis == ASSESSMENT_BASIS}
    return found + [f"no measure speaks of {name}" for name in sorted(wanted - said)]


# Pages -------------------------------------------------------------------------------------------------------------


def _link(name: str) -> str:
    return f"[{name}](../../{name})"


def _bullets(head: str, lines: Iterable[str]) -> Iterator[str]:
    for number, line in enumerate(lines):
        if number == 0:
            yield f"- **{head}**"
        yield f"  - {line}"


def _measure(measure: Measure) -> Iterator[str]:
    yield from ("", f"### {measure.id} {measure.title}", "", f"*{WORDS[measure.standing]}*", "")
    yield from (f"> {line}".rstrip() for line in measure.sentence.strip().splitlines())
    yield ""
    places = [_link(name) for name in measure.where] + [f"`./chukan {words}`" for words in measure.commands]
    yield from _bullets("実現箇所", [*places, *(_link(name) for name in measure.docs)])
    yield from _bullets("示すテスト", (f"`{node}`" for node in measure.tests))
    yield from _bullets("団体が行うこと", measure.body)
    yield from _bullets("含まれないこと", measure.gaps)
    yield f"- **要求** {', '.join(measure.requirements)}"


def page(name: str, sheet: Sheet) -> str:
    """One page (Markdown)."""
    source = f"measures/{name.removesuffix('.ja.md')}.toml"
    made = f"この頁は `./chukan pia write` が [{source}]({source}) から作ります。直接編集しないでください。"
    parts = [f"# {sheet.title}", "", sheet.intro.strip(), "", made]
    for section in sheet.sections:
        parts += ["", f"## {section.heading}"]
        for measure in section.measures:
            parts += _measure(measure)
    return "\n".join([*parts, ""])


def index(pages: Mapping[str, Sheet]) -> str:
    """The page that leads from each requirement to its measures (Markdown)."""
    places: dict[str, list[str]] = defaultdict(list)
    for name, sheet in pages.items():
        for measure in sheet.measures():
            for requirement in measure.requirements:
                places[requirement].append(f"[{measure.id}]({name}) {WORDS[measure.standing]}")
    parts = [
        "# 要求から措置を引く",
        "",
        "`./chukan pia write` が作ります。要求の全文は [requirements.csv](../requirements.csv)、直近の全テストの結果は",
        "[traceability.md](../traceability.md) にあります。「評価書」は、評価書の標準的な記載に基づく要求です。",
        "",
        "| 要求 | 機能 | 根拠 | 措置 |",
        "|---|---|---|---|",
    ]
    parts += [
        f"| {row.id} | {row.function} | {BASES[row.basis]} | {'<br>'.join(places[row.id])} |"
        for row in trace.requirements()
        if row.id in places
    ]
    return "\n".join([*parts, ""])


def rendered() -> Mapping[str, str]:
    """Every page by its name. Raises ``Problem`` like ``sheets``."""
    pages = sheets()
    return {**{name: page(name, sheet) for name, sheet in pages.items()}, INDEX: index(pages)}


@app.command
def write() -> None:
    """Check the data and write the pages of docs/pia. Raises ``Problem`` setting_invalid where the data is wrong."""
    found = faults(sheets())
    if found:
        raise Problem("setting_invalid", expected=found[0])
    for name, text in rendered().items():
        (PAGES / name).write_text(text, encoding="utf-8")
