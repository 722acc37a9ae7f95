"""Structured logs: one JSON object a line on standard error, made of known fields only.

Personal information must not be in a log, and a rule that relies on everybody's care does not hold. So the log is an
allow-list: a processor drops every field that ``ALLOWED`` does not name and counts it in ``dropped``; texts are short,
and one with a run of eleven or more digits is dropped too; the event is a fixed phrase, never a formatted one; an
exception is logged by its type and its place in the code, never by its text, for a text may quote a value.

Lines of libraries (aiohttp, asyncio) come out as ``library message`` with the logger's name, level and exception type.
Importing this module is enough to be safe; ``configure`` only sets the level and the stream.
"""

import logging
import re
import sys
import traceback
import uuid
from collections.abc import MutableMapping
from types import TracebackType
from typing import Any, TextIO, cast

import structlog
from structlog.typing import FilteringBoundLogger

from chukan.errors import Problem

BoundLogger = FilteringBoundLogger

ALLOWED: frozenset[str] = frozenset(
    {
        "agency",  # the agency's number
        "attempt",
        "batch",
        "body",  # a local public body's 6-digit code
        "cell",
        "centre",
        "code",  # a code of the error registry
        "count",
        "dropped",
        "epoch",
        "error",  # an exception's type, set by this module
        "error_at",  # the places in the code that it came through, set by this module
        "event",
        "level",
        "line_id",
        "link",  # a link's name, 131016-1
        "logger",
        "method",
        "outcome",
        "owner",
        "peer",  # the registered id of a client system
        "pid",
        "port",
        "reason",
        "request_id",  # our own, made for each request
        "route",  # the route's template, never the path
        "seconds",
        "shard",
        "side",
        "signal",
        "snapshot",
        "stage",
        "status",
        "timestamp",
        "tunnel",  # the body's code whose link an inner address belongs to
        "url_host",
        "version",
    }
)

_TEXT_MAX = 120
_FRAMES_MAX = 6
_CAUSES_MAX = 4
_EVENT = re.compile(r"[A-Za-z][A-Za-z0-9_ .,:;'()/-]{0,99}")
_LONG_DIGITS = re.compile(r"\d{11}")
_UUID_TEXT = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_LONG_INTEGER = 10**10
_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50}


def _keep(value: object) -> bool:
    """Tell whether a value may stand in a log line: a scalar, short, and no candidate for somebody's number."""
    if value is None or isinstance(value, bool | float | uuid.UUID):
        return True
    if isinstance(value, int):
        return abs(value) < _LONG_INTEGER
    if isinstance(value, str):
        return len(value) <= _TEXT_MAX and (
            _UUID_TEXT.fullmatch(value) is not None or _LONG_DIGITS.search(value) is None
        )
    return False


def _filter(_logger: object, _name: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    kept: dict[str, Any] = {}
    dropped = 0
    for name, value in event.items():
        if name in ALLOWED and _keep(value):
            kept[name] = str(value) if isinstance(value, uuid.UUID) else value
        else:
            dropped += 1
    if _EVENT.fullmatch(str(kept.get("event", ""))) is None:
        # A phrase with anything unusual in it was formatted from a value.
        dropped += "event" in kept
        kept["event"] = "unnamed event"
    if dropped:
        kept["dropped"] = dropped
    return kept


def _places(trace: TracebackType | None) -> str:
    """Return the innermost places of a traceback as ``module:line`` — names in our code and the libraries' only."""
    frames = [(frame.f_globals.get("__name__", "?"), line) for frame, line in traceback.walk_tb(trace)]
    return " ".join(f"{module}:{line}" for module, line in frames[-_FRAMES_MAX:])[-_TEXT_MAX:]


def describe(error: BaseException) -> dict[str, Any]:
    """Return the fields that stand for an exception: ``error``, ``error_at`` and, for a problem, ``code``."""
    names = [type(error).__name__]
    cause = error.__cause__ or error.__context__
    while cause is not None and len(names) < _CAUSES_MAX:
        names.append(type(cause).__name__)
        cause = cause.__cause__ or cause.__context__
    fields: dict[str, Any] = {
        "error": " < ".join(names)[:_TEXT_MAX],
        "error_at": _places(error.__traceback__),
    }
    if isinstance(error, Problem):
        fields["code"] = error.code
    return fields


def _name(logger: object, _name: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    event["logger"] = getattr(logger, "name", "?")
    return event


def _exceptions(_logger: object, _name: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    info = event.pop("exc_info", None)
    event.pop("stack_info", None)
    error: BaseException | None = None
    if isinstance(info, BaseException):
        error = info
    elif isinstance(info, tuple):
        error = cast("tuple[Any, BaseException | None, Any]", info)[1]
    elif info:
        error = sys.exc_info()[1]
    if error is not None:
        event.update(describe(error))
    return event


class _Lines(structlog.WriteLogger):
    """Writes finished lines, and remembers whose they are; a name given by ``bind`` would freeze the configuration."""

    def __init__(self, stream: TextIO, name: str) -> None:
        super().__init__(stream)
        self.name = name


class _LibraryHandler(logging.Handler):
    """Passes on that a library spoke, and where; never what it said."""

    def emit(self, record: logging.LogRecord) -> None:
        fields: dict[str, Any] = {}
        if record.exc_info and record.exc_info[1] is not None:
            fields = describe(record.exc_info[1])
        get(record.name).log(record.levelno, "library message", **fields)


def _uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        return
    get("process").critical("uncaught exception", exc_info=error.with_traceback(trace))


def configure(level: str = "info", stream: TextIO | None = None) -> None:
    """Set the level (debug, info, warning, error, critical) and the stream; standard error unless told otherwise.

    Takes over the standard library's root logger and the hook for uncaught exceptions, so that no other way leads an
    exception's text to standard error. ``KeyError`` for an unknown level.
    """
    threshold = _LEVELS[level]
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            _name,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _exceptions,
            _filter,
            structlog.processors.JSONRenderer(ensure_ascii=False),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=lambda name="?": _Lines(stream or sys.stderr, name),
        cache_logger_on_first_use=False,
    )
    root = logging.getLogger()
    root.handlers[:] = [_LibraryHandler()]
    root.setLevel(max(threshold, logging.WARNING))
    sys.excepthook = _uncaught


def get(name: str) -> BoundLogger:
    """Return the logger of one part of the system; ``name`` is a module's or stage's name."""
    return cast("BoundLogger", structlog.get_logger(name))


configure()
