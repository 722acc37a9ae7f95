"""Problem documents (RFC 9457): the one form in which this server says no, whatever it was that failed.

Everything that goes wrong becomes a ``Problem`` of the registry: what the parts raise, what the framework raises for a
path or a method, what the decoder says of a field, and what nobody foresaw (``internal``). A decoder's text may quote
what it read; only the place and the expected form are taken from it, and only where they are ours.

Invariant: nothing that a caller sent stands in a problem document, except the place (a JSON pointer made of our own
field names and positions, a line number).
"""

import importlib
import inspect
import json
import pkgutil
import re
from types import ModuleType
from typing import Any, Final, TypeVar

import msgspec
from aiohttp import web

from chukan.errors import Problem
from chukan.platform import wire
from chukan.platform.http import params
from chukan.platform.wire.agency import ProblemBody
from chukan.platform.wire.network import LINES_MAX

S = TypeVar("S", bound=msgspec.Struct)

CONTENT_TYPE: Final = "application/problem+json; charset=utf-8"
RETRY_AFTER_S: Final = 1
"""Default of ``Retry-After`` where a problem that can be retried names none."""

_RETRY_STATUSES: Final = frozenset({429, 503})
_PLACE: Final = re.compile(r" - at `(?:key` in `)?(\$[^`]*)`$")
_PART: Final = re.compile(r"\.([A-Za-z_][A-Za-z0-9_]*)|\[(\d+)\]")
_MISSING: Final = re.compile(r"^Object missing required field `(\w+)`")
_UNKNOWN: Final = re.compile(r"^Object contains unknown field ")
_TOO_LONG: Final = re.compile(r"^Expected `array` of length <= (\d+)$")
_EXPECTED: Final = re.compile(
    r"^Expected (`[^`]*`(?: (?:>=|<=|>|<) -?\d+| of length (?:>=|<=) \d+)?)(?:, got `[^`]*`)?$"
)
_PATTERN: Final = re.compile(r"^Expected `str` matching regex ")
_BRACKETS: Final = re.compile(rb'"(?:[^"\\]|\\.)*"|[\[\]{}]')


def _field_names(module: ModuleType) -> set[str]:
    kinds = [kind for _, kind in inspect.getmembers(module, inspect.isclass) if issubclass(kind, msgspec.Struct)]
    return {name for kind in kinds for name in kind.__struct_encode_fields__}


def _our_names() -> frozenset[str]:
    """Return the fields of every message and every parameter: whatever module the wire gets, its names are known."""
    modules = [importlib.import_module(f"{wire.__name__}.{each.name}") for each in pkgutil.iter_modules(wire.__path__)]
    return frozenset().union(*map(_field_names, [*modules, params]))


_OUR_NAMES: Final = _our_names()

DEPTH_MAX: Final = 16
"""Deepest nesting of a JSON body; the messages themselves need 6."""


def body_of(problem: Problem) -> ProblemBody:
    """Return a problem as the struct that replies carry per line."""
    return msgspec.convert(problem.as_dict(), ProblemBody)


def response(problem: Problem) -> web.Response:
    """Return the problem document with its status; 429 and 503 always say when to come back."""
    document = problem.as_dict()
    headers = {"Cache-Control": "no-store"}
    if problem.retry_after_s is not None or problem.status in _RETRY_STATUSES:
        document.setdefault("retry_after_s", RETRY_AFTER_S)
        headers["Retry-After"] = str(document["retry_after_s"])
    answer = web.Response(status=problem.status, body=msgspec.json.encode(document), headers=headers)
    answer.headers["Content-Type"] = CONTENT_TYPE
    return answer


def from_framework(error: web.HTTPException) -> Problem:
    """Return the problem that stands for what the framework raised for a path, a method or a header."""
    codes = {404: "not_found", 405: "method_not_allowed", 413: "too_large", 415: "unsupported_media_type"}
    if error.status in codes:
        return Problem(codes[error.status])
    return Problem("internal" if error.status >= web.HTTPInternalServerError.status_code else "malformed_request")


def from_decoder(error: msgspec.ValidationError, root: str = "") -> Problem:
    """Return the problem for a field that does not fit its type; ``root`` is the pointer that the value hangs under."""
    text = str(error)
    place = _PLACE.search(text)
    said = text[: place.start()] if place else text
    parts = _parts(place[1]) if place else []
    missing = _MISSING.match(said)
    if missing:
        parts.append(missing[1])
    pointer = "".join([root, *(f"/{part}" for part in parts)])
    line = int(parts[1]) + 1 if len(parts) > 1 and parts[1].isdigit() else None
    if _UNKNOWN.match(said):
        return Problem("unknown_field", pointer=pointer, line=line)
    too_long = _TOO_LONG.match(said)
    if too_long and int(too_long[1]) == LINES_MAX:
        return Problem("too_many_lines", pointer=pointer, limit=LINES_MAX)
    return Problem("invalid_field", pointer=pointer, line=line, expected=_form(said))


def _parts(path: str) -> list[str]:
    """Return our own names and positions in a decoder's path; it ends where a name begins that is not ours.

    The decoder writes ``[...]`` for a caller's name, but an unknown field's name stands in its text as it was sent, and
    may have been made to look like a path.
    """
    parts: list[str] = []
    at = 1
    while (found := _PART.match(path, at)) is not None:
        if found[1] and found[1] not in _OUR_NAMES:
            break
        parts.append(found[1] or found[2])
        at = found.end()
    return parts


def _form(said: str) -> str | None:
    found = _EXPECTED.match(said)
    if found:
        return found[1].replace("`", "")
    return "str of another form, see /openapi.json" if _PATTERN.match(said) else None


def decode(decoder: msgspec.json.Decoder[S], raw: bytes) -> S:
    """Decode a JSON body by its type.

    Raises ``Problem``: malformed_json, too_deep, invalid_field, unknown_field, too_many_lines.
    """
    try:
        decoded = decoder.decode(raw)
        json.loads(raw, object_pairs_hook=_named_once)
    except _NamedTwice:
        raise Problem("malformed_json", expected="each name once in an object") from None
    except msgspec.ValidationError as error:
        raise (Problem("too_deep", limit=DEPTH_MAX) if _too_deep(raw) else from_decoder(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise Problem("too_deep" if _too_deep(raw) else "malformed_json") from None
    except RecursionError:
        raise Problem("too_deep", limit=DEPTH_MAX) from None
    return decoded


class _NamedTwice(Exception):  # noqa: N818 - it says what was found
    """An object has one name twice: which value counts is told differently by different programs (RFC 8259 §4)."""


def _named_once(pairs: list[tuple[str, Any]]) -> None:
    if len({name for name, _ in pairs}) != len(pairs):
        raise _NamedTwice


def _too_deep(raw: bytes) -> bool:
    """Tell whether brackets nest too deeply; asked only of a body that did not fit, so that the others are fast."""
    depth = 0
    for found in _BRACKETS.finditer(raw):
        token = found[0]
        if token in b"[{":
            depth += 1
            if depth > DEPTH_MAX:
                return True
        elif token in b"]}":
            depth -= 1
    return False
