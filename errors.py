"""The registry of errors: every way in which Chukan says no, with a stable code and what to do about it.

The registry is data (``errors.toml``); this module only reads it. A code is a promise to callers: it is never renamed
and never changes its meaning. ``side`` names who has to act: the agency that called, the platform, the network, or the
providing agency.

Invariant: a problem never carries the offending value. It may carry where the value stood (a JSON pointer, a line
number), a limit, and the *form* that was expected; ``str(problem)`` is the code and nothing else, because exception
texts find their way into logs.
"""

import enum
import tomllib
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import msgspec


class Side(enum.StrEnum):
    """Who has to act before the same request can succeed."""

    AGENCY = "agency"
    PLATFORM = "platform"
    NETWORK = "network"
    PROVIDER = "provider"


class ErrorKind(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One entry of the registry; ``status`` is the HTTP status that carries it."""

    code: str
    status: int
    side: Side
    retryable: bool
    title_ja: str
    title_en: str
    action_ja: str
    action_en: str


def _read_registry(path: Path) -> Mapping[str, ErrorKind]:
    tables = tomllib.loads(path.read_text(encoding="utf-8"))
    kinds = {code: msgspec.convert({"code": code, **table}, ErrorKind) for code, table in tables.items()}
    return MappingProxyType(kinds)


REGISTRY: Mapping[str, ErrorKind] = _read_registry(Path(__file__).with_name("errors.toml"))


class Problem(Exception):  # noqa: N818 (RFC 9457 calls it a problem, and so do the documents that we send)
    """A registered error on its way to the caller.

    ``pointer`` is the JSON pointer (RFC 6901) of the bad field, ``line`` the 1-based line of a file or list,
    ``retry_after_s`` goes into ``Retry-After``, ``limit`` is the bound that was passed, and ``expected`` names the form
    that was expected; none of them may hold anything that the caller sent. An unregistered code raises ``KeyError`` at
    once, so that a typing error cannot hide until the day the error happens.
    """

    def __init__(
        self,
        code: str,
        *,
        pointer: str | None = None,
        line: int | None = None,
        retry_after_s: int | None = None,
        limit: int | None = None,
        expected: str | None = None,
    ) -> None:
        self.kind = REGISTRY[code]
        super().__init__(code)
        self.pointer = pointer
        self.line = line
        self.retry_after_s = retry_after_s
        self.limit = limit
        self.expected = expected

    @property
    def code(self) -> str:
        """The registered code."""
        return self.kind.code

    @property
    def status(self) -> int:
        """The HTTP status that carries this problem."""
        return self.kind.status

    def __str__(self) -> str:
        return self.kind.code

    def as_dict(self) -> dict[str, Any]:
        """Return the problem document (RFC 9457): registry members first, then the members that were given."""
        kind = self.kind
        document: dict[str, Any] = {
            "type": f"urn:chukan:error:{kind.code}",
            "title": kind.title_ja,
            "title_en": kind.title_en,
            "status": kind.status,
            "code": kind.code,
            "side": kind.side.value,
            "retryable": kind.retryable,
            "action": kind.action_ja,
            "action_en": kind.action_en,
        }
        given = {
            "pointer": self.pointer,
            "line": self.line,
            "retry_after_s": self.retry_after_s,
            "limit": self.limit,
            "expected": self.expected,
        }
        document.update({name: value for name, value in given.items() if value is not None})
        return document
