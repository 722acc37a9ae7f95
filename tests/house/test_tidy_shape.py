"""The shape of files and functions: docstrings, lengths, broad excepts, and that nothing lies about unused."""

import ast
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Protocol

from chukan.ops.cli import COMMANDS

FILE_LINES_MAX = 500
BODY_LINES_MAX = 70
FUNCTIONS_MAX = 40
BROAD_EXCEPTS_PER_1000_LINES = 1
COUNTED = {".py", ".sql", ".sh", ""}
BROAD = {"Exception", "BaseException"}


class Source(Protocol):
    """A Python file of the tree, see conftest.py."""

    name: str
    text: str
    tree: ast.Module
    room: str
    module: str


def clean(complaints: Iterable[str]) -> None:
    """Fail with every complaint on a line of its own."""
    found = list(complaints)
    assert not found, "\n" + "\n".join(found)


def undocumented(source: Source) -> Iterator[str]:
    if not ast.get_docstring(source.tree):
        yield f"{source.name}: a module begins by saying what it is for"


def long_bodies(source: Source) -> Iterator[str]:
    """Yield every function whose body, without its docstring, is too long to be read at once."""
    for node in ast.walk(source.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body if ast.get_docstring(node) is None else node.body[1:]
            lines = (node.end_lineno or 0) - body[0].lineno + 1 if body else 0
            if lines > BODY_LINES_MAX:
                yield f"{source.name}:{node.lineno}: {node.name} has {lines} lines, split it (at most {BODY_LINES_MAX})"


def crowded(source: Source) -> Iterator[str]:
    count = sum(isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) for node in ast.walk(source.tree))
    if count > FUNCTIONS_MAX:
        yield f"{source.name}: {count} functions, split the module (at most {FUNCTIONS_MAX})"


def broad_excepts(source: Source) -> list[str]:
    """Return the handlers that catch everything and do not raise it again."""
    found = []
    for node in ast.walk(source.tree):
        if isinstance(node, ast.ExceptHandler):
            caught = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
            broad = any(kind is None or (isinstance(kind, ast.Name) and kind.id in BROAD) for kind in caught)
            last = node.body[-1]
            if broad and not (isinstance(last, ast.Raise) and last.exc is None):
                found.append(f"{source.name}:{node.lineno}")
    return found


def mentioned(sources: list[Source], texts: list[str]) -> set[str]:
    """Return every module of ours that something imports, names in a string, or runs."""
    found: set[str] = set()
    for source in sources:
        for node in ast.walk(source.tree):
            if isinstance(node, ast.Import):
                found.update(alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module:
                found.add(node.module)
                found.update(f"{node.module}.{alias.name}" for alias in node.names)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.update(re.findall(r"chukan(?:\.\w+)+", node.value))
    for text in texts:
        found.update(re.findall(r"chukan(?:\.\w+)+", text))
        found.update("chukan." + path.replace("/", ".") for path in re.findall(r"((?:\w+/)+\w+)\.py\b", text))
    return found


def headings(text: str) -> int:
    """Count the first-level headings of a Markdown document, code blocks aside."""
    prose = re.sub(r"^(```|~~~).*?^\1", "", text, flags=re.MULTILINE | re.DOTALL)
    return len(re.findall(r"^# \S", prose, flags=re.MULTILINE))


def test_every_module_says_what_it_is_for(sources: list[Source]) -> None:
    clean(line for source in sources for line in undocumented(source))


def test_no_file_is_too_long(files: list[Path], root: Path) -> None:
    long = {}
    for path in files:
        if path.suffix in COUNTED and "data" not in path.parts:
            lines = path.read_bytes().count(b"\n")
            if lines > FILE_LINES_MAX and path.name != "LICENSE":
                long[path.relative_to(root).as_posix()] = lines
    assert long == {}


def test_no_function_is_too_long(sources: list[Source]) -> None:
    clean(line for source in sources for line in long_bodies(source))


def test_no_module_holds_too_many_functions(rooms: list[Source]) -> None:
    clean(line for source in rooms for line in crowded(source))


def test_broad_excepts_stay_within_their_budget(rooms: list[Source]) -> None:
    found = [place for source in rooms for place in broad_excepts(source)]
    lines = sum(source.text.count("\n") for source in rooms)
    assert len(found) <= max(1, lines * BROAD_EXCEPTS_PER_1000_LINES // 1000), found


def test_no_module_lies_about_unused(rooms: list[Source], root: Path) -> None:
    texts = [(root / name).read_text("utf-8") for name in ("chukan", "pyproject.toml")]
    used = mentioned(rooms, [*texts, *COMMANDS.values()])
    packages = {source.module for source in rooms if source.name.endswith("__init__.py")}
    unused = sorted({source.module for source in rooms} - used - packages)
    clean(f"{module}: nothing imports, names or runs it" for module in unused)


def test_every_document_has_one_first_heading(files: list[Path], root: Path) -> None:
    documents = [path for path in files if path.suffix == ".md"]
    counts = {path.relative_to(root).as_posix(): headings(path.read_text("utf-8")) for path in documents}
    assert {name: count for name, count in counts.items() if count != 1} == {}


def test_packages_have_their_first_file_where_they_must(root: Path) -> None:
    assert not (root / "platform" / "__init__.py").exists(), "it would shadow the standard library's platform"
    assert not list((root / "tests").rglob("__init__.py"))
    first = ast.parse((root / "__init__.py").read_text("utf-8"))
    assert len(first.body) == 1, "the root's __init__.py is a docstring only: pytest imports it twice"
    assert ast.get_docstring(first)


def test_the_rules_find_what_they_look_for(plant: Callable) -> None:
    assert list(undocumented(plant("x.py", "import os")))
    long = "def f():\n" + "    x = 1\n" * (BODY_LINES_MAX + 1)
    assert list(long_bodies(plant("x.py", long)))
    documented = 'def f():\n    """' + "\n" * 80 + '"""\n' + "    x = 1\n" * BODY_LINES_MAX
    assert not list(long_bodies(plant("x.py", documented)))
    assert list(crowded(plant("x.py", "".join(f"def f{n}(): ...\n" for n in range(FUNCTIONS_MAX + 1)))))


def test_the_rule_of_broad_excepts_lets_a_clean_up_pass(plant: Callable) -> None:
    for caught in ("", " Exception", " BaseException", " (OSError, Exception)"):
        assert broad_excepts(plant("x.py", f"try:\n    f()\nexcept{caught}:\n    g()"))
    assert not broad_excepts(plant("x.py", "try:\n    f()\nexcept BaseException:\n    g()\n    raise"))
    assert not broad_excepts(plant("x.py", "try:\n    f()\nexcept OSError:\n    g()"))


def test_the_rule_of_unused_modules_knows_every_way_of_use(plant: Callable) -> None:
    text = "import chukan.a\nfrom chukan.b import c\nx = 'chukan.d:app'\n"
    used = mentioned([plant("x.py", text)], ["python ops/local/e.py", "-m chukan.f"])
    assert {"chukan.a", "chukan.b", "chukan.b.c", "chukan.d", "chukan.ops.local.e", "chukan.f"} <= used
    assert "chukan.g" not in used


def test_headings_in_code_do_not_count() -> None:
    assert headings("# One\n\n```sh\n# comment\n```\n## Two\n") == 1
    assert headings("# One\n# Two\n") == 2
