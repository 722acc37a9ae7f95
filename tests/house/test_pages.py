"""What the pages name is there: links lead somewhere, and commands and their options exist."""

import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import cyclopts
import pytest

from chukan.ops import cli

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
BY_THE_SCRIPT = {"test", "lint", "config"}
LABELS = {"production", "restored"}  # `chukan production 00001` is the label of a key, `chukan restored leaf` a tag
FENCE = re.compile(r"```[a-z]*\n(.*?)```", flags=re.DOTALL)


def headings(text: str) -> set[str]:
    """The anchors of a page, as GitHub makes them."""
    lines = re.findall(r"^#+ (.*)$", FENCE.sub("", text), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", line.strip().lower()).replace(" ", "-") for line in lines}


def dead_links(page: Path, text: str) -> Iterator[str]:
    for target in re.findall(r"\]\(([^)\s]+)\)", FENCE.sub("", text)):
        if "://" in target or target.startswith("mailto:"):
            continue
        name, _, anchor = target.partition("#")
        place = page.parent / name if name else page
        if not place.exists():
            yield f"{page.name}: nothing at {target}"
        elif anchor and place.suffix == ".md" and anchor.lower() not in headings(place.read_text(encoding="utf-8")):
            yield f"{page.name}: no heading for {target}"


def commands(text: str) -> Iterator[list[str]]:
    """What is written as a command: in a fence at the beginning of a line, or in backticks; a list of words each."""
    joined = text.replace("\\\n", " ")
    lines = [line for fence in FENCE.findall(joined) for line in fence.splitlines()]
    lines += re.findall(r"`([^`\n]+)`", FENCE.sub("", joined))
    for line in lines:
        if found := re.match(r"\s*(?:\$ |# )?(?:\./)?chukan ([a-z-]+(?:\s.*)?)$", line.partition(" # ")[0]):
            yield found[1].split()


def unknown(words: list[str]) -> Iterator[str]:
    """What of a command there is not: the command, or an option of it."""
    target = cli.COMMANDS.get(words[0])
    if target is None:
        if words[0] not in BY_THE_SCRIPT | LABELS:
            yield words[0]
        return
    module, _, name = target.partition(":")
    app: cyclopts.App = getattr(importlib.import_module(module), name)
    depth = 1
    while depth < len(words) and not words[depth].startswith("-") and words[depth] in app:
        app = app[words[depth]]
        depth += 1
    rest = words[depth:]
    if app.default_command is None:
        if rest and re.fullmatch(r"[a-z][a-z-]*", rest[0]):
            yield " ".join(words[: depth + 1])
        return
    arguments = app.assemble_argument_collection(parse_docstring=False)
    known = {"--help"} | {name for argument in arguments for name in argument.names}
    yield from (
        f"{' '.join(words[:depth])} {word}" for word in rest if re.fullmatch(r"--[a-z-]+", word) and word not in known
    )


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    assert list(dead_links(page, page.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_and_option_is_there(page: Path) -> None:
    found = [text for words in commands(page.read_text(encoding="utf-8")) for text in unknown(words)]
    assert found == []


def test_what_is_not_there_is_told(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# A page\n", encoding="utf-8")
    text = "[a](page.md#a-page) [b](gone.md) [c](page.md#gone)\n```\n[d](not-a-link.md)\n```\n"
    assert list(dead_links(page, text)) == ["page.md: nothing at gone.md", "page.md: no heading for page.md#gone"]
    text = "`./chukan keys burn A`, `chukan keyz`, `chukan test --full`\n"
    text += "```\nchukan keys status A \\\n  --config f --fast\n```\n"
    found = [name for words in commands(text) for name in unknown(words)]
    assert found == ["keys status --fast", "keys burn", "keyz"]
