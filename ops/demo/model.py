"""A test environment as 1/N of production (本番1/Nモデル, 検証環境構築): what is divided, and where it is kept.

Divided by N are people, queries, connections and what an exchange works on at once; what an agency may use is divided
by the exchange itself (``site.fraction``). Times and forms are no volumes and stay as they are in production. Nothing
else is taken over: keys, certificates, passwords, lists and people of a test environment are its own.

Invariant: nothing here reads a key, a password or a row of production; of its settings only numbers are taken.
"""

import math
from importlib import resources
from pathlib import Path
from typing import Annotated, Final

import msgspec

from chukan.errors import Problem
from chukan.ops.demo.place import Place
from chukan.settings import Positive, Settings

PEOPLE_MIN: Final = 400
PEOPLE_MAX: Final = 50_000
"""Fewer people than that do not let every outcome happen; more do not fit a body's share of the synthetic range."""
QUERIES_MIN: Final = 100
QUERIES_MAX: Final = 100_000


class Model(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The numbers of a test environment: ``fraction`` is N, the others are what is left of production's."""

    fraction: Positive
    people: Annotated[int, msgspec.Meta(ge=PEOPLE_MIN, le=PEOPLE_MAX)]
    queries: Annotated[int, msgspec.Meta(ge=QUERIES_MIN, le=QUERIES_MAX)]
    in_flight_max: Positive
    broker_connections: Positive
    app_connections: Positive


def derive(production: Settings, fraction: int, *, population: int, queries: int) -> Model:
    """Return 1/``fraction`` of a production with so many residents, and so many queries in the time to be rehearsed.

    Raises ``Problem`` setting_forbidden for settings of a sandbox; setting_invalid when too few or too many people or
    queries are left.
    """
    if production.site.sandbox:
        raise Problem("setting_forbidden", pointer="/site/sandbox")
    cells = production.cells.values()
    return Model(
        fraction=fraction,
        people=_within(population // fraction, PEOPLE_MIN, PEOPLE_MAX, "/population"),
        queries=_within(queries // fraction, QUERIES_MIN, QUERIES_MAX, "/queries"),
        in_flight_max=_divided(production.exchange.in_flight_max, fraction),
        broker_connections=_divided(max(cell.broker_connections for cell in cells), fraction),
        app_connections=_divided(max(cell.app_connections for cell in cells), fraction),
    )


def _divided(limit: int, fraction: int) -> int:
    return max(1, math.ceil(limit / fraction))


def _within(number: int, least: int, most: int, pointer: str) -> int:
    if not least <= number <= most:
        raise Problem("setting_invalid", pointer=pointer, expected=f"{least:,} to {most:,} once it is divided by N")
    return number


def write_model(place: Place, model: Model, lists: Path | None) -> None:
    """Put the numbers and a copy of the law's lists (``lists``, or the shipped ones) into a new environment's place.

    Raises ``Problem`` file_exists where there is something already.
    """
    try:
        place.model.mkdir(parents=True, mode=0o700)
    except FileExistsError:
        raise Problem("file_exists", expected=str(place.model)) from None
    place.law.mkdir(mode=0o700)
    for each in (lists or resources.files("chukan.platform.law.data")).iterdir():
        if each.name.endswith((".csv", ".toml")):
            (place.law / each.name).write_bytes(each.read_bytes())
    place.model_file.write_bytes(msgspec.json.format(msgspec.json.encode(model), indent=2) + b"\n")


def read_model(place: Place) -> Model | None:
    """Return a place's numbers, None for a demo, which is 1/N of nothing. Raises ``Problem`` settings_unreadable."""
    if not place.model_file.exists():
        return None
    try:
        return msgspec.json.decode(place.model_file.read_bytes(), type=Model)
    except (OSError, msgspec.DecodeError):
        raise Problem("settings_unreadable", expected=str(place.model_file)) from None
