"""The tree of settings before it means anything: a TOML file overlaid by the environment, each leaf with its source.

It knows the structures that the tree must have by their types alone, and none of them by name.

Invariant: a key that no structure knows is refused, with the nearest known one; problems name the key, never the value.
"""

import re
import types
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from chukan import toml_reading
from chukan.errors import Problem

_PREFIX = "CHUKAN__"


class Entry(NamedTuple):
    """One line of ``chukan config explain``: ``source`` is default, missing, environment or ``<file>:<line>``."""

    key: str
    value: str
    source: str


class Raw(NamedTuple):
    """The merged tree before it is converted, and where each leaf came from (by dotted key)."""

    tree: dict[str, Any]
    sources: dict[str, str]


def read(struct: type, path: Path | None, environ: Mapping[str, str]) -> Raw:
    """Return the tree of a file (relative paths made absolute) overlaid by the environment (texts made typed).

    Raises ``Problem`` settings_unreadable, setting_unknown, setting_invalid.
    """
    tree: dict[str, Any] = {}
    sources: dict[str, str] = {}
    if path is not None:
        text = toml_reading.read_text(path)
        tree = toml_reading.parse(text)
        lines = _line_numbers(text)
        base = path.absolute().parent
        for key in _check(struct, tree, "", base):
            sources[key] = f"{path}:{lines[key]}" if key in lines else str(path)
    overlay = _overlay(environ)
    for key in _check(struct, overlay, "", Path.cwd(), from_text=True):
        sources[key] = "environment"
    _merge(tree, overlay)
    return Raw(tree, sources)


def explain(struct: type, raw: Raw) -> Iterator[Entry]:
    """Yield every setting with its value and source, also where some are missing or wrong in value."""
    return _explain(struct, raw.tree, "", raw.sources)


def _explain(struct: type, tree: Mapping[str, Any], prefix: str, sources: Mapping[str, str]) -> Iterator[Entry]:
    for field in msgspec.structs.fields(struct):
        key = f"{prefix}{field.name}"
        inner = _table(field.type)
        members = tree.get(field.name)
        if inner is not None:
            yield from _explain(inner, members if isinstance(members, dict) else {}, f"{key}.", sources)
        elif (row := _listed(field.type)) is not None:
            for position, value in enumerate(members or []):
                yield from _explain(row, value, f"{key}.{position}.", sources)
            if not members:
                yield Entry(key, "", "default")
        elif (element := _mapped(field.type)) is not None:
            yield from _explain_mapped(element, members or {}, key, sources)
            if not members:
                yield Entry(key, "", "missing" if field.required else "default")
        elif key in sources:
            yield Entry(key, str(members), sources[key])
        elif field.required:
            yield Entry(key, "", "missing")
        else:
            yield Entry(key, "" if field.default is None else str(field.default), "default")


def _explain_mapped(
    element: object, members: Mapping[str, Any], key: str, sources: Mapping[str, str]
) -> Iterator[Entry]:
    table = _table(element)
    for name, value in sorted(members.items()):
        if table is not None:
            yield from _explain(table, value, f"{key}.{name}.", sources)
        else:
            yield Entry(f"{key}.{name}", str(value), sources[f"{key}.{name}"])


def _overlay(environ: Mapping[str, str]) -> dict[str, Any]:
    overlay: dict[str, Any] = {}
    for name in sorted(environ):
        if not name.startswith(_PREFIX):
            continue
        *tables, leaf = name.removeprefix(_PREFIX).lower().split("__")
        table = overlay
        for part in tables:
            table = table.setdefault(part, {})
            if not isinstance(table, dict):
                raise Problem("setting_unknown", pointer="/" + "/".join([*tables, leaf]))
        table[leaf] = environ[name]
    return overlay


def _merge(tree: dict[str, Any], overlay: Mapping[str, Any]) -> None:
    for name, value in overlay.items():
        if isinstance(value, dict) and isinstance(tree.get(name), dict):
            _merge(tree[name], value)
        else:
            tree[name] = value


def _check(struct: type, tree: dict[str, Any], prefix: str, base: Path, *, from_text: bool = False) -> Iterator[str]:
    """Yield the dotted key of every leaf of a tree; refuse unknown ones; make paths absolute and texts typed."""
    known = {field.name: field.type for field in msgspec.structs.fields(struct)}
    for name, value in tree.items():
        key = f"{prefix}{name}"
        if name not in known:
            raise Problem("setting_unknown", pointer=_pointer(key), expected=toml_reading.nearest(name, known))
        inner, element, row = _table(known[name]), _mapped(known[name]), _listed(known[name])
        if row is not None:
            yield from _check_listed(row, value, key, base, from_text=from_text)
            continue
        if inner is None and element is None:
            tree[name] = _leaf(known[name], value, key, base, from_text=from_text)
            yield key
            continue
        if not isinstance(value, dict):
            raise Problem("setting_invalid", pointer=_pointer(key), expected="a table")
        if inner is not None:
            yield from _check(inner, value, f"{key}.", base, from_text=from_text)
        else:
            yield from _check_mapped(element, value, key, base, from_text=from_text)


def _check_mapped(element: object, members: dict[str, Any], key: str, base: Path, *, from_text: bool) -> Iterator[str]:
    table = _table(element)
    for name, value in members.items():
        inner = f"{key}.{name}"
        if table is None:
            members[name] = _leaf(element, value, inner, base, from_text=from_text)
            yield inner
        elif isinstance(value, dict):
            yield from _check(table, value, f"{inner}.", base, from_text=from_text)
        else:
            raise Problem("setting_invalid", pointer=_pointer(inner), expected="a table")


def _check_listed(row: type, value: object, key: str, base: Path, *, from_text: bool) -> Iterator[str]:
    """Check an array of tables; a single environment variable cannot spell one, so it comes from the file alone."""
    if from_text or not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
        raise Problem("setting_invalid", pointer=_pointer(key), expected="an array of tables, in the file")
    for position, each in enumerate(value):
        yield from _check(row, each, f"{key}.{position}.", base)


def _leaf(kind: object, value: object, key: str, base: Path, *, from_text: bool) -> object:
    if _is_path(kind):
        return str(base / value) if isinstance(value, str) else value
    if not from_text:
        return value
    try:
        return msgspec.convert(value, kind, strict=False)
    except msgspec.ValidationError as error:
        raise Problem("setting_invalid", pointer=_pointer(key), expected=toml_reading.form(error)) from None


def _options(kind: object) -> tuple[Any, ...]:
    """Return the members of a union without ``None``; a plain type is a union of one."""
    if typing.get_origin(kind) in {types.UnionType, typing.Union}:
        return tuple(option for option in typing.get_args(kind) if option is not types.NoneType)
    return (kind,)


def _table(kind: object) -> type[msgspec.Struct] | None:
    for option in _options(kind):
        if isinstance(option, type) and issubclass(option, msgspec.Struct):
            return option
    return None


def _mapped(kind: object) -> object:
    """Return the element type of a table of tables or of values; None for everything else."""
    for option in _options(kind):
        if typing.get_origin(option) is dict:
            return typing.get_args(option)[1]
    return None


def _listed(kind: object) -> type[msgspec.Struct] | None:
    """Return the row type of an array of tables; None for everything else."""
    for option in _options(kind):
        if typing.get_origin(option) is list:
            return _table(typing.get_args(option)[0])
    return None


def _is_path(kind: object) -> bool:
    return Path in _options(kind)


def _pointer(key: str) -> str:
    return "/" + key.replace(".", "/")


def _line_numbers(text: str) -> dict[str, int]:
    """Return the line of each plain key by dotted name; keys written in unusual ways are simply not found."""
    lines: dict[str, int] = {}
    rows: dict[str, int] = {}
    table = ""
    for number, line in enumerate(text.splitlines(), start=1):
        if header := re.match(r"\s*\[\[([\w.-]+)\]\]", line):
            rows[header[1]] = rows.get(header[1], -1) + 1
            table = f"{header[1]}.{rows[header[1]]}."
        elif header := re.match(r"\s*\[([\w.-]+)\]", line):
            table = f"{header[1]}."
        elif key := re.match(r"\s*([\w.-]+)\s*=", line):
            lines[f"{table}{key[1]}"] = number
    return lines
