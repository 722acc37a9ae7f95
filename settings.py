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
from typing import Annotated, Any, Final, Literal, NamedTuple, TypeVar

import msgspec

from chukan.errors import Problem

_PREFIX = "CHUKAN__"
_MIB = 1024 * 1024

_MEMBER_FORMS = (
    ("name", re.compile(r"[a-z][a-z0-9-]{0,31}"), "a-z, 0-9 and hyphens, a letter first"),
    ("host", re.compile(r"[^/].*"), "a host name or an address"),
    ("rest", re.compile(r"https://[0-9A-Za-z.:\[\]-]+:[0-9]{1,5}/?"), "https://host:port"),
)

T = TypeVar("T")

Port = Annotated[int, msgspec.Meta(ge=0, le=65535)]
Positive = Annotated[int, msgspec.Meta(ge=1)]
Seconds = Annotated[float, msgspec.Meta(gt=0)]
LEAD_MIN_S: Final = 60.0
"""A change of production's common data takes effect this far ahead at least."""
Environment = Literal["production", "sandbox"]
"""What cells, key stores, common data, certificates and exports are stamped with; neither takes the other's."""


class Site(msgspec.Struct, frozen=True, kw_only=True):
    """Where this process stands. ``address_check`` may be off in a sandbox only (DESIGN invariant 8)."""

    centre: str
    address_check: bool = True
    sandbox: bool = False
    """A test environment (検証環境): its people are synthetic, and production's keys and data are refused."""
    fraction: Positive = 1
    """N of a sandbox that is 1/N of production (本番1/Nモデル): what an agency may use is divided by it."""

    common_data_lead_s: Annotated[float, msgspec.Meta(ge=0)] | None = None
    """How far ahead a change of the common data takes effect: 60 s unless given, 0 in a sandbox. Only a sandbox may
    have less than 60 s (DESIGN §7). A kill switch never waits."""

    @property
    def lead_s(self) -> float:
        """The seconds that hold."""
        if self.common_data_lead_s is not None:
            return self.common_data_lead_s
        return 0.0 if self.sandbox else LEAD_MIN_S

    @property
    def environment(self) -> Environment:
        """The word of the stamp."""
        return "sandbox" if self.sandbox else "production"


class Member(msgspec.Struct, frozen=True, kw_only=True):
    """One node of a cell: its PostgreSQL and its Patroni (``rest``), and the centre (拠点) where it stands."""

    name: str
    host: str
    port: Port
    rest: str
    centre: str


class Cell(msgspec.Struct, frozen=True, kw_only=True):
    """How to reach one cell (セル): one server, or the members of a Patroni cluster of which one leads.

    With ``members`` (``[[cells.X.members]]``) there is no ``host`` and ``port``; without, ``host`` is a host name or
    the directory of a Unix socket.
    """

    host: str = ""
    port: Port = 0
    members: list[Member] = []
    restore_epoch: Positive = 1
    """Raised by a restore: only then may a cell come back with an older timeline (DESIGN §7)."""
    tls_ca_file: Path | None = None
    """Who certifies the members' PostgreSQL and Patroni; every connection to a member is verified against it."""
    tls_certificate_file: Path | None = None
    tls_key_file: Path | None = None
    """This process's own certificate, which Patroni asks for."""
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
    permit_grace_s: Seconds = 30.0
    """How long after a permit's expiry an answer may still be on its way to the inquirer: then the line expires."""
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
        for key in () if members.get("members") else ("host", "port"):
            if key not in members:
                raise Problem("setting_missing", pointer=f"/cells/{name}/{key}")
        _convert(members, Cell, f"/cells/{name}")
    settings = _convert(raw.tree, Settings, "")
    if not settings.site.address_check and not settings.site.sandbox:
        raise Problem("setting_forbidden", pointer="/site/address_check")
    if settings.site.fraction != 1 and not settings.site.sandbox:
        raise Problem("setting_forbidden", pointer="/site/fraction")
    if settings.site.lead_s < LEAD_MIN_S and not settings.site.sandbox:
        raise Problem("setting_forbidden", pointer="/site/common_data_lead_s", expected="at least 60 s")
    for name, cell in settings.cells.items():
        _check_cell(f"/cells/{name}", cell)
    names = [(at, member.name) for at, member in _members(settings.cells)]
    for position, (at, name) in enumerate(names):
        # A member's name is its name as a synchronous standby: twice, it would silently stand for another one.
        if name in {earlier for _, earlier in names[:position]}:
            raise Problem("setting_invalid", pointer=f"{at}/name", expected="a name of its own over all cells")
    return settings


def _members(cells: Mapping[str, Cell]) -> Iterator[tuple[str, Member]]:
    for name, cell in cells.items():
        for position, member in enumerate(cell.members):
            yield f"/cells/{name}/members/{position}", member


def _check_cell(at: str, cell: Cell) -> None:
    """Refuse a cell that cannot be meant: a server and members at once, members without TLS or of a wrong form."""
    if not cell.members:
        return
    if cell.host:
        raise Problem("setting_forbidden", pointer=f"{at}/host", expected="members or a host")
    for key in ("tls_ca_file", "tls_certificate_file", "tls_key_file"):
        if getattr(cell, key) is None:
            raise Problem("setting_missing", pointer=f"{at}/{key}")
    for position, member in enumerate(cell.members):
        for key, form, words in _MEMBER_FORMS:
            if form.fullmatch(getattr(member, key)) is None:
                raise Problem("setting_invalid", pointer=f"{at}/members/{position}/{key}", expected=words)


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


def _listed(kind: object) -> type[msgspec.Struct] | None:
    """Return the row type of an array of tables; None for everything else."""
    for option in _options(kind):
        if typing.get_origin(option) is list:
            return _table(typing.get_args(option)[0])
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
