"""What judges by the master data (配信マスター): the law and the calendar, read whole from the files of one version.

A version may leave files out: those are the release's own. The files are read and checked exactly as the release's are,
so that a version which contradicts itself is refused before anybody proposes it, and again by whoever would go by it.

Invariant: pure but for reading the release's own files; an object never changes what it says.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from chukan.errors import Problem
from chukan.platform.law.calendar import Calendar, read_calendar
from chukan.platform.law.matching import Law
from chukan.platform.law.tables import Source
from chukan.tenants import bodies
from chukan.tenants.operator_register import FILE as OPERATORS
from chukan.tenants.operator_register import Register

AGENCIES = "agencies.csv"
"""Joint bodies and national counterparts (機関一覧); heads and boards follow from the bodies by rule."""
_CONTRADICTIONS = (ValueError, LookupError, TypeError, ArithmeticError, RecursionError, OSError, csv.Error, re.error)
"""What reading raises for files that are none: they are taken for what they should be."""


class MasterData(NamedTuple):
    """Everything that one version of the master data says; version 0 is what the release brings."""

    version: int
    law: Law
    calendar: Calendar


class LawInForce:
    """Stands for a ``Law`` with whoever keeps one for long: every attribute is that of the law of the moment."""

    def __init__(self, ask: Callable[[], Law]) -> None:
        """``ask`` returns the law in force, or raises ``Problem`` where none may be gone by."""
        self._ask = ask

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever the law has
        return getattr(self._ask(), name)


class VersionSource(Source):
    """Reads a version's files, and beneath them the release's; remembers the names of all that were read."""

    def __init__(self, files: Mapping[str, str], directory: Path | None) -> None:
        super().__init__(directory)
        self._files = files
        self.read: dict[str, str] = {}

    def has(self, name: str) -> bool:
        """Tell whether the version, or the release beneath it, has such a file."""
        return name in self._files or super().has(name)

    def text(self, name: str) -> str:
        """Return a file's text and fold it into the digest."""
        given = self._files.get(name)
        if given is None:
            text = super().text(name)
        else:
            content = given.encode()
            self._digest.update(len(content).to_bytes(8, "big") + content)
            text = given
        self.read[name] = text
        return text

    def agencies(self) -> tuple[bodies.AgencyEntry, ...]:
        """Return all agencies, joint bodies and national counterparts by the version's own list where it has one."""
        given = self._files.get(AGENCIES)
        if given is None:
            return super().agencies()
        self.read[AGENCIES] = given
        if given != bodies.agencies_text():
            self._digest.update(given.encode())  # the release's own list is in no digest: its data keeps its number
        return bodies.agencies_with(given)


def shipped(law: Law, directory: Path | None) -> MasterData:
    """Return what goes with a law that was read from the release's files, or from those of a directory."""
    return MasterData(0, law, read_calendar(Source(directory)))


def read_version(version: int, files: Mapping[str, str], directory: Path | None) -> MasterData:
    """Return what a version says. Raises ``Problem`` master_invalid, which names the contradiction."""
    return _read(version, VersionSource(files, directory))


def operators(files: Mapping[str, str], directory: Path | None) -> Register:
    """Return the operators' register (運用者名簿) of a version. Raises ``Problem`` master_invalid."""
    try:
        return Register.of(VersionSource(files, directory).rows(OPERATORS, missing_ok=True))
    except _CONTRADICTIONS as error:
        raise Problem("master_invalid", expected=str(error)[:500]) from None


def complete(files: Mapping[str, str], directory: Path | None) -> dict[str, str]:
    """Return a version's files with the release's beneath them, all that are read, after a check of the whole.

    ``Problem`` master_invalid, also for a file that nothing reads: a misspelt name would change nothing.
    """
    source = VersionSource(files, directory)
    _read(0, source)
    if AGENCIES not in source.read:
        source.read[AGENCIES] = bodies.agencies_text()
    unread = sorted(set(files) - set(source.read))
    if unread:
        raise Problem("master_invalid", expected=f"no file {', '.join(unread)}: nothing reads it")
    return source.read


def _read(version: int, source: VersionSource) -> MasterData:
    try:
        law, calendar = Law(source), read_calendar(source)
        Register.of(source.rows(OPERATORS, missing_ok=True))  # nobody is judged by it here; it must be one
    except _CONTRADICTIONS as error:
        raise Problem("master_invalid", expected=str(error)[:500]) from None
    return MasterData(version, law, calendar)
