"""The forms of a load (副本登録): what its agency announces, what was refused, and how it stands.

Refused lines are known by part, line and code of the error registry, never by a value: these forms are shown to people.
"""

import uuid
from typing import Literal, NamedTuple

import msgspec

Mode = Literal["full", "difference"]
OnError = Literal["reject_line", "reject_file"]
State = Literal["open", "held", "committed", "aborted"]


class LoadSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What a load will bring; ``full`` replaces all copies of (kind, period, layout)."""

    kind: str
    layout: int
    mode: Mode
    expected: int
    """Lines to come, refused ones included."""
    period: str = ""
    on_error: OnError = "reject_file"
    source: str = "file"


class Refused(NamedTuple):
    """A line that was refused before it came here: its number in its part (from 1) and a code of the registry."""

    line: int
    code: str


class RefusedLine(NamedTuple):
    """A refused line as a load remembers it."""

    part: int
    line: int
    code: str


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """A load session as it stands."""

    id: uuid.UUID
    spec: LoadSpec
    state: State
    staged: int
    refused: int
    parts: list[int]
    problems: list[RefusedLine]
    inserted: int = 0
    updated: int = 0
    unchanged: int = 0
    deleted: int = 0
