"""Who plays in the demo: real agencies of real bodies in both halves of the country, their systems and officers.

Agencies, bodies and home centres are looked up in the shipped directory data; only the choice is made here. Two
national counterparts stand outside the platform, one that answers and one that asks.
"""

from functools import cache
from typing import Final, NamedTuple

from chukan.tenants import bodies as directory
from chukan.tenants.bodies import AgencyEntry, AgencyKind, own_code
from chukan.tenants.directory import ClientRow, Function

HEADS: Final = {
    "011002": 14,  # 札幌市
    "072028": 8,  # 会津若松市
    "141003": 18,  # 横浜市
    "131121": 14,  # 世田谷区
    "282090": 8,  # 豊岡市
    "281000": 14,  # 神戸市
    "401307": 16,  # 福岡市
    "472018": 8,  # 那覇市
}
"""Municipalities, and how many of a hundred residents live there."""

BOARDS: Final = ("072028", "141003", "282090")
GOVERNOR: Final = "130001"
GOVERNED: Final = "131121"
"""The municipality whose residents the governor knows."""
UNIONS: Final = {"9903130001000001": "131121", "9903400009000001": "401307"}
"""Late-stage elderly unions (後期高齢者医療広域連合) and a member municipality of each."""

NATIONAL_PROVIDER: Final = "1419900000002200"
PROVIDER_KNOWS: Final = "401307"
NATIONAL_INQUIRER: Final = "9909000000000010"
INQUIRER_KNOWS: Final = "011002"
"""National counterparts, and the municipality of which each knows the people that began the year there."""

SYSTEM_FUNCTIONS: Final[tuple[Function, ...]] = ("copies", "codes", "queries", "records", "holds")
OFFICER_FUNCTIONS: Final[tuple[Function, ...]] = (
    "queries", "records", "holds", "reviews.prepare", "reviews.approve", "order",
)  # fmt: skip
OFFICERS_PER_AGENCY: Final = 2


class Officer(NamedTuple):
    """An officer's registered id; there is no name, for the demo invents no staff."""

    id: str
    agency: str


def head(body: str) -> str:
    """Return the agency code of a body's mayor or governor."""
    return own_code(AgencyKind.HEAD, body)


def board(body: str) -> str:
    """Return the agency code of a body's board of education."""
    return own_code(AgencyKind.BOARD, body)


@cache
def agencies() -> tuple[AgencyEntry, ...]:
    """Return the agencies on the platform, by code."""
    codes = [*map(head, (*HEADS, GOVERNOR)), *map(board, BOARDS), *UNIONS]
    return tuple(sorted(map(entry, codes), key=lambda each: each.code))


def bodies() -> tuple[str, ...]:
    """Return the bodies whose agencies are on the platform, each with one link where there are any."""
    return tuple(dict.fromkeys(agency.body for agency in agencies()))


@cache
def entry(code: str) -> AgencyEntry:
    """Return one agency of the shipped data."""
    found = directory.agency(code)
    if found is None:
        raise ValueError("the demo names an agency that the directory data does not hold")
    return found


def home(code: str) -> str | None:
    """Return the cell that an agency lives in, None for one outside the platform."""
    return entry(code).home_centre


def system_of(code: str) -> str:
    """Return the id of the system that acts for an agency: one per body, a union has its own."""
    agency = entry(code)
    union = agency.kind is AgencyKind.JOINT
    return f"system-{agency.body}-union" if union else f"system-{agency.body}"


def officers_of(code: str) -> tuple[Officer, ...]:
    """Return the two officers of an agency."""
    agency = entry(code)
    stem = f"officer-{agency.body}-{agency.kind.value}"
    return tuple(Officer(f"{stem}-{n}", code) for n in range(1, OFFICERS_PER_AGENCY + 1))


def clients() -> list[ClientRow]:
    """Return every registered system and officer."""
    served: dict[str, list[AgencyEntry]] = {}
    for agency in agencies():
        served.setdefault(system_of(agency.code), []).append(agency)
    systems = [
        ClientRow(
            id=system,
            body=of[0].body,
            kind="system",
            name=f"{of[0].name}ほか" if len(of) > 1 else of[0].name,
            agencies=[agency.code for agency in of],
            functions=list(SYSTEM_FUNCTIONS),
        )
        for system, of in served.items()
    ]
    officers = [
        ClientRow(
            id=officer.id,
            body=agency.body,
            kind="officer",
            name=officer.id,
            agencies=[agency.code],
            functions=list(OFFICER_FUNCTIONS),
        )
        for agency in agencies()
        for officer in officers_of(agency.code)
    ]
    return systems + officers
