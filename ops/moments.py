"""Moments (時点) as an operator or officer gives them on a command line."""

import datetime as dt

from chukan.errors import Problem


def read_moment(text: str, option: str) -> dt.datetime:
    """Return a moment, ISO 8601 with its zone. Raises ``Problem`` setting_invalid, naming the option."""
    try:
        moment = dt.datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise Problem("setting_invalid", pointer=option, expected="a moment with its zone: 2026-04-01T09:00:00+09:00")
    return moment
