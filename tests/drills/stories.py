"""Stories of drills for the checkers' tests: a good one, from which each test plants its fault."""

import uuid

import msgspec

from chukan.ops.drills.facts import Evidence, Exchanged, Recorded
from chukan.ops.drills.journal import Account, Client, Entry, Line

EAST, WEST = "1310100000000001", "2710000000000003"
REPLACE = msgspec.structs.replace
GAPS = frozenset({"gap"})


def line_id(n: int) -> uuid.UUID:
    return uuid.UUID(int=1000 + n)


def marks(version: int) -> dict[str, str]:
    return {"name": "n", "amount": f"v{version}"}


def ask(n: int, at: float, *, answer: int | None = 1, took: float = 0.1, **more: object) -> list[Entry]:
    """A query that was told collected, with the content of a version."""
    sent = Entry("sending", at, n, "query", "exchange-east", f"key-{n}", "s1")
    content = {} if answer is None else marks(answer)
    told = REPLACE(
        sent,
        event="told",
        at=at + took,
        status=200,
        batch=uuid.UUID(int=n),
        lines=[Line(line_id(n), "collected", "provided", content)],
        **more,
    )
    return [sent, told]


def register(n: int, at: float, version: int, *, event: str = "told", took: float = 0.1) -> list[Entry]:
    sent = Entry("sending", at, n, "register", "exchange-west", f"key-{n}", "s1", version, marks(version))
    return [sent, REPLACE(sent, event=event, at=at + took, marks={}, status=200 if event == "told" else 0)]


def search(n: int, at: float, found: int) -> list[Entry]:
    sent = Entry("sending", at, n, "search", "exchange-west", f"key-{n}", "s1")
    return [sent, REPLACE(sent, event="told", at=at + 0.1, marks=marks(found), status=200)]


def asker(*entries: list[Entry]) -> Account:
    client = Client("east-near", EAST, "east", "home-east-near")
    return Account(client, tuple(entry for each in entries for entry in each))


def giver(*entries: list[Entry]) -> Account:
    client = Client("west-near", WEST, "west", "home-west-near")
    return Account(client, tuple(entry for each in entries for entry in each))


def good() -> list[Account]:
    """Two questions, three registrations, one search; the second question comes after the second registration."""
    return [
        asker(ask(1, 1.0), ask(2, 3.0, answer=2)),
        giver(register(11, 0.5, 1), register(12, 2.0, 2), search(13, 2.5, 2), register(14, 4.0, 3)),
    ]


def truth(*numbers: int) -> Evidence:
    """What everybody holds after the good story, of the questions with these numbers."""
    numbers = numbers or (1, 2)
    lines = [Line(line_id(n), "collected", "provided") for n in numbers]
    asked = [Recorded(line_id(n), "inquirer", "provided", f"r{n}", position=n) for n in numbers]
    given = [Recorded(uuid.UUID(int=5000 + n), "provider", "provided", f"r{n}", position=n) for n in numbers]
    network = [Exchanged(line_id(n), f"r{n}", EAST, WEST, "provided", told_provider=True) for n in numbers]
    return Evidence({EAST: lines, WEST: []}, {EAST: asked, WEST: given}, network, {"s1": marks(3)})
