"""The service calendar (運用カレンダー, OPS-01): when which function is open, as data, in Japan's time.

Pure: it is asked about an instant and answers with a standing, which names the reopening where a function is closed.
Hours are of days of the week, or of holidays; planned stops close functions from an instant until another.

Invariant: a calendar that contradicts itself (no such day, hours that end before they begin, a stop without an end)
cannot be made. It must never refuse without saying until when, unless a function has no opening within a year.
"""

from __future__ import annotations

import datetime as dt
import tomllib
from typing import Annotated, Final, Literal, NamedTuple

import msgspec

from chukan.clock import JST, to_jst
from chukan.platform.law.tables import Source

Function = Literal["online", "batch"]
Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun", "holiday"]
Time = Annotated[str, msgspec.Meta(pattern=r"^(([01][0-9]|2[0-3]):[0-5][0-9]|24:00)$")]
Instant = Annotated[dt.datetime, msgspec.Meta(tz=True)]

FILE: Final = "calendar.toml"
FUNCTIONS: Final[tuple[Function, ...]] = ("online", "batch")
_WEEK: Final[tuple[Day, ...]] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_DAYS_AHEAD: Final = 366
"""How far a reopening is looked for."""
_ROUNDS_MAX: Final = 64
"""Planned stops that may follow one another without an opening between them."""


class _Form(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of the tables of the file."""


class Hours(_Form, frozen=True, kw_only=True):
    """On these days open from ``open`` until before ``close``, in Japan's time."""

    days: Annotated[list[Day], msgspec.Meta(min_length=1, max_length=8)]
    open: Time
    close: Time


class FunctionHours(_Form, frozen=True, kw_only=True):
    """A function and its hours; what comes outside them is refused, or queued where it can wait."""

    name: Function
    outside: Literal["refuse", "queue"]
    hours: Annotated[list[Hours], msgspec.Meta(min_length=1, max_length=64)]


class Closed(_Form, frozen=True, kw_only=True, rename={"since": "from"}):
    """A planned stop (計画停止) of functions."""

    functions: Annotated[list[Function], msgspec.Meta(min_length=1, max_length=2)]
    since: Instant
    until: Instant
    reason: Annotated[str, msgspec.Meta(min_length=1, max_length=200)]


class CalendarFile(_Form, frozen=True, kw_only=True):
    """The whole file."""

    function: Annotated[list[FunctionHours], msgspec.Meta(max_length=2)] = []
    closed: Annotated[list[Closed], msgspec.Meta(max_length=200)] = []
    holidays: Annotated[list[dt.date], msgspec.Meta(max_length=400)] = []


class Standing(NamedTuple):
    """How a function stands at an instant."""

    open: bool
    queues: bool
    """Whether what comes while it is closed may wait for the opening."""
    reopens: dt.datetime | None
    """When it opens, None while it is open, or where no opening is known."""
    reason: str | None
    """Of the planned stop that closes it."""


class Calendar:
    """Service hours, looked up by instant."""

    def __init__(self, file: CalendarFile) -> None:
        """Take what a file says; ``ValueError`` where it contradicts itself."""
        self.file = file
        self._functions = {each.name: each for each in file.function}
        self._holidays = frozenset(file.holidays)
        if len(self._functions) != len(file.function):
            raise ValueError(f"{FILE}: a function has hours twice")
        for function in file.function:
            if any(each.close <= each.open for each in function.hours):
                raise ValueError(f"{FILE}: hours end before they begin")
        if any(each.until <= each.since for each in file.closed):
            raise ValueError(f"{FILE}: a planned stop ends before it begins")

    def standing(self, function: Function, at: dt.datetime) -> Standing:
        """Tell how a function stands at an instant, and when it reopens where it is closed."""
        found = self._functions.get(function)
        stop = self._stop(function, at)
        if stop is None and self._in_hours(found, at):
            return Standing(open=True, queues=False, reopens=None, reason=None)
        return Standing(
            open=False,
            queues=self.queues(function),
            reopens=self._reopens(function, at),
            reason=None if stop is None else stop.reason,
        )

    def queues(self, function: Function) -> bool:
        """Whether what comes to a function outside its hours waits for them where it can, instead of being refused."""
        found = self._functions.get(function)
        return found is not None and found.outside == "queue"

    def stops(self, at: dt.datetime) -> list[Closed]:
        """Return the planned stops that are not over, the next one first."""
        return sorted((each for each in self.file.closed if each.until > at), key=lambda each: each.since)

    def _reopens(self, function: Function, at: dt.datetime) -> dt.datetime | None:
        found = self._functions.get(function)
        for _ in range(_ROUNDS_MAX):
            stop = self._stop(function, at)
            if stop is not None:
                at = stop.until
                continue
            if self._in_hours(found, at):
                return at.astimezone(dt.UTC)
            later = self._next_opening(found, at)
            if later is None:
                return None
            at = later
        return None

    def _stop(self, function: Function, at: dt.datetime) -> Closed | None:
        covering = (each for each in self.file.closed if function in each.functions and each.since <= at < each.until)
        return max(covering, key=lambda each: each.until, default=None)

    def _in_hours(self, found: FunctionHours | None, at: dt.datetime) -> bool:
        if found is None:
            return True
        local = to_jst(at)
        day, now = self._day(local.date()), local.strftime("%H:%M")
        return any(day in each.days and each.open <= now < each.close for each in found.hours)

    def _next_opening(self, found: FunctionHours | None, at: dt.datetime) -> dt.datetime | None:
        local = to_jst(at)
        for ahead in range(_DAYS_AHEAD if found is not None else 0):
            date = local.date() + dt.timedelta(days=ahead)
            for hours in sorted(found.hours if found else (), key=lambda each: each.open):
                hour, minute = map(int, hours.open.split(":"))
                opens = dt.datetime.combine(date, dt.time(hour, minute), JST)
                if self._day(date) in hours.days and opens > local:
                    return opens
        return None

    def _day(self, date: dt.date) -> Day:
        return "holiday" if date in self._holidays else _WEEK[date.weekday()]


def read_calendar(source: Source) -> Calendar:
    """Return the calendar of a source; one that has none is always open.

    ``ValueError`` where the file is no calendar or contradicts itself.
    """
    try:
        text = source.text(FILE)
    except FileNotFoundError:
        return Calendar(CalendarFile())
    try:
        return Calendar(msgspec.convert(tomllib.loads(text), CalendarFile))
    except RecursionError:
        raise ValueError(f"{FILE}: nested too deeply") from None
    except msgspec.ValidationError as error:
        raise ValueError(f"{FILE}: {error}") from None
