"""TOML files made into frozen structures, and what is wrong with one said by its place.

Invariant: a problem names keys, types and bounds, and never quotes a value.
"""

import difflib
import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from chukan.errors import Problem

T = TypeVar("T")


def read_text(path: Path) -> str:
    """Return a file's text. Raises ``Problem`` settings_unreadable."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        raise Problem("settings_unreadable", expected="a readable UTF-8 file") from None


def parse(text: str) -> dict[str, Any]:
    """Return the tree of a text. Raises ``Problem`` settings_unreadable with the line."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        found = re.search(r"at line (\d+)", str(error))
        raise Problem("settings_unreadable", line=int(found[1]) if found else None, expected="TOML") from None
    except RecursionError:
        raise Problem("settings_unreadable", expected="TOML that is not nested so deeply") from None


def convert(tree: object, kind: type[T], pointer: str, base: Path = Path()) -> T:
    """Return a tree as a structure; relative paths are relative to ``base``.

    Raises ``Problem`` setting_missing, setting_invalid, and setting_unknown where the structure forbids unknown keys.
    """

    def to_path(wanted: type, value: object) -> object:
        if wanted is Path and isinstance(value, str):
            return base / value
        raise TypeError("Expected `str`")  # msgspec adds the place, and makes it its own error

    hook: Callable[[type, object], object] = to_path
    try:
        return msgspec.convert(tree, kind, dec_hook=hook)
    except msgspec.ValidationError as error:
        raise _as_problem(str(error), kind, pointer) from None


def form(error: msgspec.ValidationError) -> str:
    """Return the form that was expected."""
    return _form(str(error))


def _form(text: str) -> str:
    words = text.partition(" - at ")[0]
    if words.startswith("Invalid enum value"):  # the one text of msgspec's that quotes what it found
        return "one of the words that are defined for it"
    return words.removeprefix("Expected ").partition(", got")[0]


def _as_problem(text: str, kind: object, pointer: str) -> Problem:
    found = re.search(r" - at `(?:key in )?\$\.?(.*)`$", text)
    parts = [part for part in re.split(r"[.\[\]]+", found[1]) if part] if found else []
    place = "/".join([pointer, *parts])
    if missing := re.search(r"missing required field `(\w+)`", text):
        return Problem("setting_missing", pointer=f"{place}/{missing[1]}")
    if unknown := re.search(r"contains unknown field `([\w-]+)`", text):
        known = [] if parts else [field.name for field in msgspec.structs.fields(kind)]  # type: ignore[arg-type]
        return Problem("setting_unknown", pointer=f"{place}/{unknown[1]}", expected=nearest(unknown[1], known))
    return Problem("setting_invalid", pointer=place, expected=_form(text))


def nearest(name: str, known: "list[str] | dict[str, Any]") -> str | None:
    """Return the known name that was probably meant."""
    return next(iter(difflib.get_close_matches(name, known, n=1, cutoff=0.5)), None)
