"""Reads the data files of the law into frozen rows, and checks them as a whole.

Invariant: a set of files that contradicts itself is refused at loading, never half used: every code that a file refers
to must exist, item codes are unique in a layout, no two lists are in force on one day.
"""

import csv
import hashlib
import itertools
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date
from importlib import resources
from pathlib import Path

from chukan.tenants import bodies


@dataclass(frozen=True, slots=True)
class Entry:
    """One row of a matching list: (item, provider, kind) with the inquirer and the affair's short label."""

    item: str
    inquirer: str
    affair_label: str
    statutes: str
    provider: str
    kind_text: str
    defined_term: bool


@dataclass(frozen=True, slots=True)
class ListInForce:
    """A matching list with its days (both inclusive; ``valid_until`` None: until superseded)."""

    number: int
    name: str
    law: str
    valid_from: date
    valid_until: date | None
    entries: tuple[Entry, ...] = field(repr=False)

    def covers(self, day: date) -> bool:
        """Tell whether the list is in force on a day."""
        return self.valid_from <= day and (self.valid_until is None or day <= self.valid_until)


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of specific personal information (特定個人情報の種類); ``period``: year, date or none."""

    code: str
    name_ja: str
    name_en: str
    illustrative: bool
    period: str
    texts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Affair:
    """An affair (事務); ``items`` names the entries of each list by the list's number."""

    code: str
    label_ja: str
    illustrative: bool
    items: tuple[tuple[int, str], ...]

    def items_in(self, number: int) -> tuple[str, ...]:
        """Return the entries of one list that name the affair."""
        return tuple(item for listed, item in self.items if listed == number)


@dataclass(frozen=True, slots=True)
class Procedure:
    """A procedure (事務手続) of an affair."""

    code: str
    affair: str
    label_ja: str
    illustrative: bool


class Source:
    """Where the files are: the package's own, or a directory; remembers a digest of all that was read."""

    def __init__(self, directory: Path | None) -> None:
        self._root = directory or resources.files("chukan.platform.law.data")
        self._digest = hashlib.sha256()

    def text(self, name: str) -> str:
        """Return a file's text and fold it into the digest."""
        content = self._root.joinpath(name).read_bytes()
        self._digest.update(len(content).to_bytes(8, "big") + content)
        return content.decode("utf-8")

    def has(self, name: str) -> bool:
        """Tell whether there is such a file."""
        return self._root.joinpath(name).is_file()

    def rows(self, name: str, *, missing_ok: bool = False) -> Iterator[dict[str, str]]:
        """Return the rows of a CSV file; lines that begin with ``#`` are comments.

        ``missing_ok`` is for a file that data of an earlier release do not have: it has no rows then. A row that has
        not as many fields as the header has is a ``ValueError``: one that was cut off would have no last day.
        """
        if missing_ok and not self.has(name):
            return iter(())
        lines = (line for line in self.text(name).splitlines() if not line.startswith("#"))
        return _whole_rows(name, csv.DictReader(lines))

    def agencies(self) -> tuple[bodies.AgencyEntry, ...]:
        """Return the agencies that the classes of the law are resolved to."""
        return bodies.agencies()

    def digest(self) -> str:
        """Return the hexadecimal SHA-256 of everything read so far."""
        return self._digest.hexdigest()


def _whole_rows(name: str, reader: "csv.DictReader[str]") -> Iterator[dict[str, str]]:
    for row in reader:
        if len(row) != len(reader.fieldnames or ()) or None in row.values():
            raise ValueError(f"{name}: a row has not as many fields as the header")
        yield row


def read_lists(source: Source) -> tuple[ListInForce, ...]:
    """Return the matching lists.

    Raises:
        ValueError: two lists are in force on one day, or share a number.
    """
    lists = [
        ListInForce(
            number=table["number"],
            name=table["name"],
            law=table["law"],
            valid_from=table["valid_from"],
            valid_until=table.get("valid_until"),
            entries=tuple(_entry(row) for row in source.rows(table["file"])),
        )
        for table in tomllib.loads(source.text("lists.toml"))["list"]
    ]
    lists.sort(key=lambda one: one.valid_from)
    for earlier, later in itertools.pairwise(lists):
        if earlier.covers(later.valid_from):
            raise ValueError(f"lists {earlier.number} and {later.number} are in force on one day")
    if len({one.number for one in lists}) != len(lists):
        raise ValueError("two lists have one number")
    return tuple(lists)


def _entry(row: dict[str, str]) -> Entry:
    return Entry(
        item=row["item"],
        inquirer=row["inquirer"],
        affair_label=row["affair_label"],
        statutes=row["statutes"],
        provider=row["provider"],
        kind_text=row["information_kind"],
        defined_term=row["kind_is_defined_term"] == "yes",
    )


def read_kinds(source: Source) -> dict[str, Kind]:
    """Return the kinds by code."""
    return {
        row["code"]: Kind(
            code=row["code"],
            name_ja=row["name_ja"],
            name_en=row["name_en"],
            illustrative=row["illustrative"] == "yes",
            period=row["period"],
            texts=tuple(text for text in row["texts"].split("|") if text),
        )
        for row in source.rows("kinds.csv")
    }


def read_affairs(source: Source, lists: tuple[ListInForce, ...]) -> dict[str, Affair]:
    """Return the affairs by code.

    Raises:
        ValueError: an affair names an item that its list does not have.
    """
    known = {(one.number, entry.item) for one in lists for entry in one.entries}
    affairs: dict[str, Affair] = {}
    for row in source.rows("affairs.csv"):
        item = (int(row["list"]), row["item"])
        if item not in known:
            raise ValueError(f"affair {row['code']} names item {row['item']}, which list {row['list']} does not have")
        earlier = affairs.get(row["code"])
        affairs[row["code"]] = Affair(
            code=row["code"],
            label_ja=row["label_ja"],
            illustrative=row["illustrative"] == "yes",
            items=(*(earlier.items if earlier else ()), item),
        )
    return affairs


def read_procedures(source: Source, affairs: dict[str, Affair]) -> dict[str, Procedure]:
    """Return the procedures by code.

    Raises:
        ValueError: a procedure names an affair that does not exist.
    """
    procedures = {
        row["code"]: Procedure(row["code"], row["affair"], row["label_ja"], row["illustrative"] == "yes")
        for row in source.rows("procedures.csv")
    }
    lost = [one.code for one in procedures.values() if one.affair not in affairs]
    if lost:
        raise ValueError(f"procedures of no affair: {lost}")
    return procedures


def read_allowed(
    source: Source, kinds: dict[str, Kind], procedures: dict[str, Procedure]
) -> dict[tuple[str, str, int], frozenset[str]]:
    """Return the allowed items by (procedure, kind, list number); ``*`` stands for all of the layouts in force.

    Raises:
        ValueError: a row names a procedure or a kind that does not exist.
    """
    allowed: dict[tuple[str, str, int], frozenset[str]] = {}
    for row in source.rows("allowed_items.csv"):
        if row["procedure"] not in procedures or row["kind"] not in kinds:
            raise ValueError(f"allowed_items.csv: no such procedure or kind: {row['procedure']}, {row['kind']}")
        for number in row["lists"].split():
            allowed[row["procedure"], row["kind"], int(number)] = frozenset(row["items"].split())
    return allowed


def read_conditions(source: Source, kinds: dict[str, Kind]) -> dict[tuple[str, str], frozenset[str]]:
    """Return by (period of a kind, 照会条件区分) which of year, start and end must be given; the others must not.

    Raises:
        ValueError: a kind has a period that the table does not know.
    """
    table = {
        (row["period"], row["condition"]): frozenset(name for name in ("year", "start", "end") if row[name] == "needed")
        for row in source.rows("conditions.csv")
    }
    lost = {kind.period for kind in kinds.values()} - {period for period, _ in table}
    if lost:
        raise ValueError(f"conditions.csv does not know the periods {sorted(lost)}")
    return table
