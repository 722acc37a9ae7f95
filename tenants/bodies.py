"""Local public bodies and their agencies, as data (団体, 機関).

A body (団体) is one of the 1,788 prefectures and municipalities; an agency (機関) is the tenant: the head of a body and
its board of education are two agencies. Heads and boards follow from the bodies by rule; joint bodies and national
counterparts stand in ``data/agencies.csv``.

An agency code has 16 digits. Codes that begin with ``99`` are ours — ``99``, kind (2), body (6), serial (6) — and
illustrative: they are never shown as official. Wards of designated cities are not bodies: what names one goes to the
city.

Invariant: this module is pure and its data constant; which agencies are served by an installation, and where their home
is, belongs to the directory, for which these are the shipped defaults.
"""

import csv
import enum
from collections.abc import Iterator, Mapping
from functools import cache
from importlib import resources
from typing import Literal

import msgspec

from chukan.tenants.numbers import BODY_DIGITS, body_check

Centre = Literal["east", "west"]

STATE = "000000"
"""The body code under which national counterparts stand; no body has it."""

_OWN_PREFIX = "99"
_AGENCY_DIGITS = 16
_FIRST_SERIAL = "000001"


class BodyKind(enum.StrEnum):
    """What kind of local public body it is."""

    PREFECTURE = "prefecture"
    DESIGNATED_CITY = "designated_city"
    CITY = "city"
    SPECIAL_WARD = "special_ward"
    TOWN = "town"
    VILLAGE = "village"


class AgencyKind(enum.StrEnum):
    """What an agency is within its body; ``digits`` stand in our agency codes."""

    HEAD = "head"
    """Governor or mayor (長)."""
    BOARD = "board"
    """Board of education (教育委員会)."""
    JOINT = "joint"
    """Joint body of several bodies (一部事務組合, 広域連合)."""
    NATIONAL = "national"
    """Counterpart outside the platform."""

    @property
    def digits(self) -> str:
        """The two digits of this kind in an agency code of ours."""
        return {"head": "01", "board": "02", "joint": "03", "national": "09"}[self.value]


class Body(msgspec.Struct, frozen=True):
    """A local public body (団体) with its 6-digit code; population of the 2020 census."""

    code: str
    prefecture: str
    name: str
    kana: str
    kind: BodyKind
    population_2020: int
    corporate_number: str
    home_centre: Centre


class AgencyEntry(msgspec.Struct, frozen=True):
    """An agency (機関) with its 16-digit code.

    ``form`` is the kind of its body for heads and boards, the form of a joint body, or ``national``; ``body`` is the
    6-digit code of the body (a joint body's: its seat's prefecture). ``home_centre`` is None outside the platform.
    """

    code: str
    name: str
    kind: AgencyKind
    body: str
    form: str
    home_centre: Centre | None
    on_platform: bool
    illustrative: bool

    @property
    def category(self) -> str:
        """``kind:form``, the name by which the classes of the law know it, e.g. ``head:city``."""
        return f"{self.kind.value}:{self.form}"


def _read(name: str) -> Iterator[dict[str, str]]:
    text = resources.files("chukan.tenants.data").joinpath(name).read_text(encoding="utf-8")
    return csv.DictReader(_uncommented(text))


def _uncommented(text: str) -> list[str]:
    return [line for line in text.splitlines() if not line.startswith("#")]


@cache
def _bodies() -> dict[str, Body]:
    return {row["code"]: msgspec.convert(row, Body, strict=False) for row in _read("bodies.csv")}


@cache
def _wards() -> dict[str, str]:
    return {row["code"]: row["city"] for row in _read("wards.csv")}


@cache
def _agencies() -> dict[str, AgencyEntry]:
    entries = [entry for known in _bodies().values() for entry in (_head(known), _board(known))]
    entries += [_listed(row) for row in _read("agencies.csv")]
    return {entry.code: entry for entry in entries}


@cache
def _by_body() -> dict[str, tuple[AgencyEntry, ...]]:
    grouped: dict[str, list[AgencyEntry]] = {}
    for entry in _agencies().values():
        grouped.setdefault(entry.body, []).append(entry)
    return {code: tuple(entries) for code, entries in grouped.items()}


def _head(of: Body) -> AgencyEntry:
    title = "知事" if of.kind is BodyKind.PREFECTURE else "長"
    return _ruled(of, AgencyKind.HEAD, of.name + title)


def _board(of: Body) -> AgencyEntry:
    return _ruled(of, AgencyKind.BOARD, of.name + "教育委員会")


def _ruled(of: Body, kind: AgencyKind, name: str) -> AgencyEntry:
    return AgencyEntry(
        code=own_code(kind, of.code),
        name=name,
        kind=kind,
        body=of.code,
        form=of.kind.value,
        home_centre=of.home_centre,
        on_platform=True,
        illustrative=True,
    )


def _listed(row: Mapping[str, str]) -> AgencyEntry:
    seat = body(row["body"])
    return AgencyEntry(
        code=row["code"],
        name=row["name"],
        kind=AgencyKind(row["kind"]),
        body=row["body"],
        form=row["form"],
        home_centre=seat.home_centre if seat is not None else None,
        on_platform=row["on_platform"] == "yes",
        illustrative=row["illustrative"] == "yes",
    )


def own_code(kind: AgencyKind, body_code: str, serial: int = 1) -> str:
    """Return the illustrative agency code of ours for an agency of a body."""
    return f"{_OWN_PREFIX}{kind.digits}{body_code}{serial:06d}"


def bodies() -> tuple[Body, ...]:
    """Return all local public bodies in the order of their codes."""
    return tuple(_bodies().values())


def body(code: str) -> Body | None:
    """Return the body with this 6-digit code, or None; a ward of a designated city is not one."""
    return _bodies().get(code)


def agencies() -> tuple[AgencyEntry, ...]:
    """Return every agency known by rule or by list, national counterparts included."""
    return tuple(_agencies().values())


def agencies_with(listed: str) -> tuple[AgencyEntry, ...]:
    """Return every agency, with the joint bodies and national counterparts of a list in place of the shipped one.

    ``listed`` is a text as ``data/agencies.csv`` is; ``ValueError`` or ``KeyError`` where it is none, or not unique.
    """
    ruled = [entry for known in _bodies().values() for entry in (_head(known), _board(known))]
    entries = [*ruled, *map(_listed, csv.DictReader(_uncommented(listed)))]
    if len({entry.code for entry in entries}) != len(entries):
        raise ValueError("agencies.csv: two agencies have one code")
    return tuple(entries)


def agencies_text() -> str:
    """Return the shipped list of joint bodies and national counterparts, as it stands in its file."""
    return resources.files("chukan.tenants.data").joinpath("agencies.csv").read_text(encoding="utf-8")


def agencies_of(code: str) -> tuple[AgencyEntry, ...]:
    """Return the agencies of a body (6-digit code): head, board of education, joint bodies seated there."""
    return _by_body().get(code, ())


def agency(code: str) -> AgencyEntry | None:
    """Return the agency with this 16-digit code, or None; see ``resolve_agency`` for what queries may name."""
    return _agencies().get(code)


def resolve_ward(code: str) -> str:
    """Return the code of the designated city when ``code`` (6 digits) is one of its wards, else ``code`` itself."""
    return _wards().get(code, code)


def resolve_agency(named: str) -> AgencyEntry | None:
    """Return the agency that a query names, or None when it names none.

    Besides a 16-digit agency code a municipality's code of 5 or 6 digits, padded or not, names its head (as batch lines
    in use since June 2024 do). A ward of a designated city stands for the city in both forms.
    """
    code = named.strip()
    found = _agencies().get(code)
    if found is not None:
        return found
    if not (code.isascii() and code.isdigit()):
        return None
    if len(code) == BODY_DIGITS - 1:
        code += body_check(code)
    if len(code) == BODY_DIGITS:
        return _agencies().get(own_code(AgencyKind.HEAD, resolve_ward(code)))
    if len(code) == _AGENCY_DIGITS and code.startswith(_OWN_PREFIX) and code.endswith(_FIRST_SERIAL):
        return _agencies().get(code[:4] + resolve_ward(code[4:10]) + code[10:])
    return None
