"""Settings: one TOML file, overlaid by the environment, read once into frozen structures.

``CHUKAN__EXCHANGE__AGENCY_PORT=8443`` overlays ``agency_port`` of ``[exchange]``; ``CHUKAN__CELLS__EAST__HOST`` reaches
into a table of tables. Relative paths of the file are relative to the file. An unknown key is refused, with the nearest
known one, because a misspelt limit would otherwise silently not hold.

Invariant: no setting is a secret. Secrets are files, and a setting names the file; so every setting may be shown, and
``explain`` shows each one with the place that it came from. Problems name the key, never the value.
"""

import difflib
import re
import tomllib
import types
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, NamedTuple, TypeVar

import msgspec

from chukan.errors import Problem

_PREFIX = "CHUKAN__"
_MIB = 1024 * 1024

T = TypeVar("T")

Port = Annotated[int, msgspec.Meta(ge=0, le=65535)]
Positive = Annotated[int, msgspec.Meta(ge=1)]
Seconds = Annotated[float, msgspec.Meta(gt=0)]


class Site(msgspec.Struct, frozen=True, kw_only=True):
    """Where this process stands. ``address_check`` may be off in a sandbox only (DESIGN invariant 8)."""

    centre: str
    address_check: bool = True
    sandbox: bool = False


class Cell(msgspec.Struct, frozen=True, kw_only=True):
    """How to reach one cell (セル); ``host`` is a host name or the directory of a Unix socket."""

    host: str
    port: Port
    database: str = "chukan"
    broker_password_file: Path
    app_password_file: Path
    steward_password_file: Path | None = None
    broker_connections: Positive = 4
    app_connections: Positive = 4


class Exchange(msgspec.Struct, frozen=True, kw_only=True):
    """One exchange server: its three listeners, its certificate, and its bounds."""

    name: str
    agency_host: str = "127.0.0.1"
    agency_port: Port = 8443
    network_host: str = "127.0.0.1"
    network_port: Port = 8444
    health_host: str = "127.0.0.1"
    health_port: Port = 8445
    tls_certificate_file: Path
    tls_key_file: Path
    tls_ca_file: Path
    signing_key_file: Path
    directory_key_file: Path
    """Public half (PEM, Ed25519) of the key that signs the common data."""
    request_bytes_max: Positive = 16 * _MIB
    in_flight_max: Positive = 256
    permit_skew_s: Seconds = 2.0
    notice_hold_s: Seconds = 30.0
    drain_notice_s: Seconds = 3.0
    """How long everybody is told of a planned stop, and still served, before connections are closed. A device moves its
    route 1.1 s after ``/readyz`` says no (DESIGN §8)."""
    result_keep_days: Positive = 14


class Network(msgspec.Struct, frozen=True, kw_only=True):
    """How to reach the information-provision network (情報提供ネットワークシステム)."""

    url: str
    ca_file: Path
    verify_key_file: Path
    name: str = "network"
    """How the network names itself: sender of its envelopes, peer urn of its certificate, id of its permit key."""
    timeout_s: Seconds = 10.0


class Data(msgspec.Struct, frozen=True, kw_only=True):
    """Where to find the law's lists and the directory, when not the shipped ones are wanted."""

    law_directory: Path | None = None
    directory_file: Path | None = None


class Operator(msgspec.Struct, frozen=True, kw_only=True):
    """What only an operator's machine has; no exchange needs it."""

    directory_signing_key_file: Path | None = None
    """Private key (PEM, Ed25519) that signs the common data; ``--directory-key`` goes before it."""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """All settings of one process; ``keystores`` maps a centre (拠点) to its key-store directory."""

    site: Site
    cells: dict[str, Cell]
    exchange: Exchange
    network: Network
    keystores: dict[str, Path]
    data: Data = Data()
    operator: Operator = Operator()


class Entry(NamedTuple):
    """One line of ``chukan config explain``: ``source`` is default, missing, environment or ``<file>:<line>``."""

    key: str
    value: str
    source: str


class _Raw(NamedTuple):
    """The merged tree before it is converted, and where each leaf came from (by dotted key)."""

    tree: dict[str, Any]
    sources: dict[str, str]


def load(path: Path | None, environ: Mapping[str, str]) -> Settings:
    """Read and check the settings.

    Raises ``Problem``: settings_unreadable, setting_unknown, setting_missing, setting_invalid, setting_forbidden.
    """
    raw = _read(path, environ)
    for name, members in raw.tree.get("cells", {}).items():
        # Each cell by itself first: msgspec does not say under which key of a table of tables it stumbled.
        _convert(members, Cell, f"/cells/{name}")
    settings = _convert(raw.tree, Settings, "")
    if not settings.site.address_check and not settings.site.sandbox:
        raise Problem("setting_forbidden", pointer="/site/address_check")
    return settings


def explain(path: Path | None, environ: Mapping[str, str]) -> list[Entry]:
    """Return every setting with its value and source, also when some are missing or wrong in value.

    Raises ``Problem`` settings_unreadable or setting_unknown.
    """
    raw = _read(path, environ)
    return list(_explain(Settings, raw.tree, "", raw.sources))


def _explain(struct: type, tree: Mapping[str, Any], prefix: str, sources: Mapping[str, str]) -> Iterator[Entry]:
    for field in msgspec.structs.fields(struct):
        key = f"{prefix}{field.name}"
        inner = _table(field.type)
        members = tree.get(field.name)
        if inner is not None:
            yield from _explain(inner, members if isinstance(members, dict) else {}, f"{key}.", sources)
        elif (element := _mapped(field.type)) is not None:
            for name, value in sorted((members or {}).items()):
                if (table := _table(element)) is not None:
                    yield from _explain(table, value, f"{key}.{name}.", sources)
                else:
                    yield Entry(f"{key}.{name}", str(value), sources[f"{key}.{name}"])
            if not members:
                yield Entry(key, "", "missing" if field.required else "default")
        elif key in sources:
            yield Entry(key, str(members), sources[key])
        elif field.required:
            yield Entry(key, "", "missing")
        else:
            yield Entry(key, "" if field.default is None else str(field.default), "default")


def _read(path: Path | None, environ: Mapping[str, str]) -> _Raw:
    tree: dict[str, Any] = {}
    sources: dict[str, str] = {}
    if path is not None:
        text, tree = _parse(path)
        lines = _line_numbers(text)
        base = path.absolute().parent
        for key in _check(Settings, tree, "", base):
            sources[key] = f"{path}:{lines[key]}" if key in lines else str(path)
    overlay = _overlay(environ)
    for key in _check(Settings, overlay, "", Path.cwd(), from_text=True):
        sources[key] = "environment"
    _merge(tree, overlay)
    return _Raw(tree, sources)


def _parse(path: Path) -> tuple[str, dict[str, Any]]:
    try:
        text = path.read_text(encoding="utf-8")
        return text, tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        found = re.search(r"at line (\d+)", str(error))
        raise Problem("settings_unreadable", line=int(found[1]) if found else None, expected="TOML") from None
    except (OSError, UnicodeDecodeError):
        raise Problem("settings_unreadable", expected="a readable UTF-8 file") from None


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
            nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
            raise Problem("setting_unknown", pointer=_pointer(key), expected=nearest[0] if nearest else None)
        inner, element = _table(known[name]), _mapped(known[name])
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


def _leaf(kind: object, value: object, key: str, base: Path, *, from_text: bool) -> object:
    if _is_path(kind):
        return str(base / value) if isinstance(value, str) else value
    if not from_text:
        return value
    try:
        return msgspec.convert(value, kind, strict=False)
    except msgspec.ValidationError as error:
        raise Problem("setting_invalid", pointer=_pointer(key), expected=_form(error)) from None


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


def _is_path(kind: object) -> bool:
    return Path in _options(kind)


def _to_path(kind: type, value: object) -> object:
    if kind is Path and isinstance(value, str):
        return Path(value)
    raise NotImplementedError  # msgspec turns it into its own error for a type that it does not know


def _pointer(key: str) -> str:
    return "/" + key.replace(".", "/")


def _form(error: msgspec.ValidationError) -> str:
    """Return the form that was expected; msgspec's text names types and bounds, and never quotes a value of ours."""
    return str(error).split(" - at ")[0].removeprefix("Expected ").split(", got")[0]


def _convert(tree: Mapping[str, Any], kind: type[T], pointer: str) -> T:
    try:
        return msgspec.convert(tree, kind, dec_hook=_to_path)
    except msgspec.ValidationError as error:
        raise _as_problem(error, pointer) from None


def _as_problem(error: msgspec.ValidationError, pointer: str) -> Problem:
    text = str(error)
    where = re.search(r" - at `\$\.?(.*)`$", text)
    parts = [part for part in re.split(r"[.\[\]]+", where[1]) if part] if where else []
    missing = re.search(r"missing required field `(\w+)`", text)
    if missing:
        return Problem("setting_missing", pointer="/".join([pointer, *parts, missing[1]]))
    return Problem("setting_invalid", pointer="/".join([pointer, *parts]), expected=_form(error))


def _line_numbers(text: str) -> dict[str, int]:
    """Return the line of each plain key by dotted name; keys written in unusual ways are simply not found."""
    lines: dict[str, int] = {}
    table = ""
    for number, line in enumerate(text.splitlines(), start=1):
        if header := re.match(r"\s*\[([\w.-]+)\]", line):
            table = f"{header[1]}."
        elif key := re.match(r"\s*([\w.-]+)\s*=", line):
            lines[f"{table}{key[1]}"] = number
    return lines
