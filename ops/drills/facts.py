"""What the parties hold when a drill is over, as far as a checker needs it: ids, outcomes, places, salted marks.

The evidence is kept beside the report, so that anybody may judge again; it holds no person and no content.
"""

import uuid
from collections.abc import Iterator

import msgspec

from chukan.ops.drills.journal import Line


class Fault(msgspec.Struct, frozen=True):
    """Something that must not be: which number of the report it counts in, a stable word, what it is about."""

    counts_as: str
    """``lost``, ``duplicates``, ``two_writers`` or ``wrong_answers``."""
    kind: str
    about: str
    detail: str = ""


class Recorded(msgspec.Struct, frozen=True):
    """A provision record of one side, as its agency reads it."""

    id: uuid.UUID
    side: str
    outcome: str
    reference: str = ""
    amends: uuid.UUID | None = None
    position: int = -1


class Exchanged(msgspec.Struct, frozen=True):
    """The network's own record of one line."""

    request: uuid.UUID
    reference: str
    inquirer: str
    provider: str
    outcome: str | None
    told_provider: bool
    """Whether the provider acknowledged the notice."""


class Evidence(msgspec.Struct, frozen=True):
    """Everything that was read when all was over; only what came about since the drill began."""

    lines: dict[str, list[Line]]
    """All query lines by agency, as the platform shows them now."""
    records: dict[str, list[Recorded]]
    """All records by agency; of agencies outside the platform there are none here."""
    network: list[Exchanged]
    copies: dict[str, dict[str, str]]
    """Marks of each subject's copy as it stands now."""
    contents: list[Line] = []
    """Content of answered lines, collected once more."""

    def line(self, wanted: uuid.UUID) -> Iterator[tuple[str, Line]]:
        """Yield every line with an id, with its agency; there should be one."""
        for agency, lines in self.lines.items():
            for line in lines:
                if line.id == wanted:
                    yield agency, line
