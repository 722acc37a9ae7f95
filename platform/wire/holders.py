"""Which agencies hold a linkage code of a person (通知先の通知): ``POST /holders`` of the agency API."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from chukan.platform.wire.agency import Addressee, ProblemBody
from chukan.platform.wire.network import LINES_MAX, AgencyCode, Code16, Message


class HolderLine(Message, frozen=True):
    """One person, and what for: providers are named only where the matching list allows this question to be asked."""

    addressee: Addressee
    affair: Code16
    procedure: Code16
    kind: Code16


class HolderAsk(Message, frozen=True):
    """``POST /holders``."""

    lines: Annotated[list[HolderLine], msgspec.Meta(min_length=1, max_length=LINES_MAX)]


class HolderView(Message, frozen=True):
    """What is known about one line; ``answered`` with no provider means that nobody may be named."""

    line: int
    status: Literal["answered", "no_code", "not_permitted", "stopped", "refused"]
    providers: list[AgencyCode] = msgspec.field(default_factory=list)
    reason: str | None = None
    problem: ProblemBody | None = None


class HolderViews(Message, frozen=True):
    """Result per line."""

    lines: list[HolderView]
