"""The tree as the house tests see it: every source that is ours, parsed once."""

import ast
import dataclasses
import functools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("replication", "tenants", "vpn", "platform", "ops")
# What set-up, builds and runs leave behind is not ours to judge.
LEFT_BEHIND = {"var", "build", "dist", "__pycache__"}


@dataclasses.dataclass(frozen=True)
class Source:
    """One file of text; ``name`` is its path from the root, with slashes."""

    name: str
    text: str

    @functools.cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text, self.name)

    @property
    def room(self) -> str:
        """The top folder, or ``ground`` for a file at the root."""
        return self.name.partition("/")[0] if "/" in self.name else "ground"

    @property
    def module(self) -> str:
        """The module's dotted name in the package."""
        return ".".join(["chukan", *self.name.removesuffix(".py").removesuffix("/__init__").split("/")])


def ours(folder: Path = ROOT) -> Iterator[Path]:
    """Yield every file of the project below a folder; hidden folders are left out, except the CI's own."""
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            hidden = path.name.startswith(".") and path.name != ".ci"
            if not hidden and path.name not in LEFT_BEHIND and not path.name.endswith(".egg-info"):
                yield from ours(path)
        else:
            yield path


@pytest.fixture(scope="session")
def files() -> list[Path]:
    """Every file of the project."""
    return list(ours())


@pytest.fixture(scope="session")
def sources(files: list[Path]) -> list[Source]:
    """Every Python file of the project, tests included."""
    found = [
        Source(path.relative_to(ROOT).as_posix(), path.read_text("utf-8")) for path in files if path.suffix == ".py"
    ]
    assert len(found) > 20
    return found


@pytest.fixture(scope="session")
def rooms(sources: list[Source]) -> list[Source]:
    """The Python files that ship: the ground and the rooms."""
    return [source for source in sources if source.room in {"ground", *ROOMS}]


@pytest.fixture(scope="session")
def plant() -> Callable[[str, str], Source]:
    """Make a source that is not in the tree, to show that a rule finds what it should."""
    return Source


@pytest.fixture(scope="session")
def root() -> Path:
    """The root of the clone."""
    return ROOT
