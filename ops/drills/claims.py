"""What some drills demand of requests that failed: when they may, and whose; read from the clients' journals alone.

Pure.
"""

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from chukan.ops.drills import restored
from chukan.ops.drills.checkers import outage
from chukan.ops.drills.journal import Account, Entry

OF_A_RESTORE: Final = {
    "taken_back": restored.is_not_there,
    "listed": restored.is_listed,
    "replay_refused": restored.is_replaced,
}
"""What a drill that restores a cell claims of what the restore took back, by verb."""
_MOVED: Final = "agency_moved"
_COME_BACK: Final = 503


class Failure(NamedTuple):
    """A request neither acknowledged nor refused for good: whose, when it was sent, and what was told, if anything."""

    agency: str
    sent_at: float
    told: Entry | None


def failures(accounts: Sequence[Account]) -> Iterator[Failure]:
    """Yield every request that failed, those of which a journal says nothing more among them."""
    for account in accounts:
        ended = {entry.n: entry for entry in account.of("told", "refused", "in_doubt")}
        for n, sent in account.sent().items():
            told = ended.get(n)
            if told is None or told.event == "in_doubt":
                yield Failure(account.client.agency, sent.at, told)


def none_before(accounts: Sequence[Account], until: float | None) -> bool | None:
    """Tell whether no request that was sent before an instant failed; None where the instant never came."""
    return None if until is None else all(failure.sent_at >= until for failure in failures(accounts))


def only_of(accounts: Sequence[Account], agency: str) -> bool | None:
    """Tell whether only an agency that moves was refused, each time with a time to come back; None where none moved."""
    return (
        all(failure.agency == agency and _politely(failure.told) for failure in failures(accounts)) if agency else None
    )


def _politely(told: Entry | None) -> bool:
    return told is not None and told.status == _COME_BACK and told.code == _MOVED and told.retry_after_s > 0


def unserved_s(accounts: Sequence[Account], agency: str, begun: float, ended: float) -> float | None:
    """Return the longest time for which no write of one agency was acknowledged; None where no agency is meant."""
    of = [account for account in accounts if agency and account.client.agency == agency]
    found = [gap.seconds for gaps in outage.outages(of, begun, ended).values() for gap in gaps]
    return round(max(found), 2) if found else None
