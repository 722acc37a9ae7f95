"""What an operator's or officer's command gives: an answer for people or for programs, and files that replace nothing.

Text of an installation (names of agencies, reasons of orders) is shown as it is, never as markup.
"""

import os
import sys
from pathlib import Path
from typing import Annotated, TypeAlias

import msgspec
from cyclopts import Parameter
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from chukan.errors import Problem

Json: TypeAlias = Annotated[bool, Parameter(name="--json", negative="")]
"""Print one JSON document instead of text."""


def say(document: object, text: str | Table, *, as_json: bool) -> None:
    """Print the document as one line of JSON, or the text for a person."""
    if as_json:
        sys.stdout.write(msgspec.json.encode(document).decode() + "\n")
    elif isinstance(text, str):
        Console().print(text, markup=False, highlight=False, soft_wrap=True)
    else:
        Console().print(text)


def table(*headings: str, rows: list[list[str]]) -> Table:
    """Return a plain table of texts."""
    made = Table(*headings, box=None, pad_edge=False)
    for row in rows:
        made.add_row(*map(escape, row))
    return made


def create_file(path: Path, content: bytes, mode: int = 0o644) -> None:
    """Write a new file. Raises ``Problem`` file_exists, file_unwritable."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except FileExistsError:
        raise Problem("file_exists", expected=str(path)) from None
    except OSError:
        raise Problem("file_unwritable", expected=str(path)) from None


def replace_file(path: Path, content: bytes) -> None:
    """Replace a file whole, so that nobody reads half of it. Raises ``Problem`` file_exists, file_unwritable."""
    aside = path.with_name(f".{path.name}.new")
    create_file(aside, content)
    try:
        aside.rename(path)
    except OSError:
        aside.unlink(missing_ok=True)
        raise Problem("file_unwritable", expected=str(path)) from None
