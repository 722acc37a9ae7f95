"""Every answer equals the copy registered: what came out is what the provider's own system had put in, item by item.

The registration must be one that could be in force between the asking and the telling; an answer made of two
registrations, of another person's or of none is wrong. A line's content is the same whenever it is handed out.
"""

import math
import uuid
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from chukan.ops.drills.checkers.registrations import fits, readable, writes
from chukan.ops.drills.facts import Evidence, Fault
from chukan.ops.drills.journal import Account
from chukan.ops.drills.restored import Restored

_Content = tuple[tuple[str, str], ...]


class _Asked(NamedTuple):
    """Whom a line was asked about, and when."""

    subject: str
    at: float


def wrong(
    accounts: Sequence[Account], evidence: Evidence, gaps: frozenset[str], restored: Restored | None = None
) -> Iterator[Fault]:
    """Yield answers that equal no registration; ``gaps`` are the marks of all reason codes for a missing item."""
    of = writes(accounts, restored)
    asked, contents = _read(accounts)
    for line in evidence.contents:
        contents[line.id].setdefault(tuple(sorted(line.marks.items())), math.inf)
    for line_id, found in contents.items():
        if len(found) > 1:
            yield Fault("wrong_answers", "content_differs", str(line_id))
        question = asked.get(line_id, _Asked("", 0.0))
        for marks, ended in found.items():
            possible = readable(of.get(question.subject, []), question.at, ended)
            if not any(fits(write, dict(marks), gaps) for write in possible):
                yield Fault("wrong_answers", "answer_of_no_registration", str(line_id), question.subject)


def _read(accounts: Sequence[Account]) -> tuple[dict[uuid.UUID, _Asked], dict[uuid.UUID, dict[_Content, float]]]:
    """Return what was asked, and each content that was told of a line with the first instant of it."""
    asked: dict[uuid.UUID, _Asked] = {}
    contents: dict[uuid.UUID, dict[_Content, float]] = defaultdict(dict)
    for account in accounts:
        sent = account.sent()
        for entry in account.of("told", "settled"):
            for line in entry.lines:
                if entry.act == "query":
                    asked.setdefault(line.id, _Asked(sent[entry.n].subject, sent[entry.n].at))
                if line.marks:
                    contents[line.id].setdefault(tuple(sorted(line.marks.items())), entry.at)
    return asked, contents
