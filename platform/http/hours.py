"""Service hours (運用時間, OPS-01) at the door: what comes outside them is refused with the time of reopening.

Queries and query files wait for the opening instead where the calendar says so (``exchange/inquiries`` dates their
sending); nothing else can wait, and nothing waits for an opening that the calendar does not have. Reading, collecting
and officers' acts are never closed.
"""

from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from chukan.errors import Problem
from chukan.platform.http.calls import Call

if TYPE_CHECKING:
    from collections.abc import Mapping

    from chukan.platform.law.calendar import Function

_QUEUED: Final = frozenset({"postQueries", "postQueryFile"})
_FUNCTIONS: "Mapping[str, Function]" = MappingProxyType(
    {
        "postQueries": "online",
        "askHolders": "online",
        "askCodes": "online",
        "postQueryFile": "batch",
        "postCodeFile": "batch",
        "openLoad": "batch",
        "putLoadPart": "batch",
        "commitLoad": "batch",
    }
)


def require_open(call: Call) -> None:
    """Refuse a call of a function that is closed now. Raises ``Problem`` outside_hours with the time of reopening."""
    function = _FUNCTIONS.get(call.route.name)
    if function is None:
        return
    now = call.services.clock.now()
    found = call.services.calendar().standing(function, now)
    if found.open or (found.queues and found.reopens is not None and call.route.name in _QUEUED):
        return
    if found.reopens is None:
        raise Problem("outside_hours", expected="no opening is known")
    seconds = max(1, round((found.reopens - now).total_seconds()))
    raise Problem("outside_hours", retry_after_s=seconds, expected=found.reopens.isoformat())
