"""Never two writers that acknowledge: what an observer outside can tell of it from the clients' journals alone.

Three signs. An acknowledgement under an older timeline, asked for after one under a newer timeline of the same cell had
been received. A registration read back that had already been replaced when the reading began. A query that was
acknowledged and is not there when it is looked for, even if it is there again later. (What only a deposed primary had
acknowledged is gone in the end: ``found`` sees that.)

That two nodes call themselves primary is no sign: it is harmless as long as one of them cannot acknowledge.
"""

import uuid
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from typing import Final

from chukan.ops.drills.checkers.registrations import fits, readable, writes
from chukan.ops.drills.facts import Fault
from chukan.ops.drills.journal import WRITES, Account, Entry
from chukan.ops.drills.restored import Restored

_GONE: Final = 404


def two(accounts: Sequence[Account], restored: Restored | None = None) -> Iterator[Fault]:
    """Yield every sign of a second writer."""
    yield from _timelines(accounts)
    yield from _replaced(accounts, restored)
    for account in accounts:
        yield from _missing(account)


def _pairs(account: Account, *acts: str) -> Iterator[tuple[Entry, Entry]]:
    sent = account.sent()
    for entry in account.of("told", "refused", "in_doubt"):
        if entry.act in acts and entry.n in sent:
            yield sent[entry.n], entry


def _acknowledged(account: Account) -> Iterator[tuple[Entry, Entry]]:
    return (pair for pair in _pairs(account, *WRITES) if pair[1].event == "told" and pair[1].timeline)


def _led(accounts: Sequence[Account]) -> dict[str, str]:
    """Return the cell that each named leader leads: the home of most of those whom it told something.

    Not of each client by itself: an agency that was moved is told by the leader of another cell than its home.
    """
    told: dict[str, Counter[str]] = defaultdict(Counter)
    for account in accounts:
        for _, entry in _acknowledged(account):
            if entry.leader:
                told[entry.leader][account.client.cell] += 1
    return {leader: cells.most_common(1)[0][0] for leader, cells in told.items()}


def _timelines(accounts: Sequence[Account]) -> Iterator[Fault]:
    """Acknowledgements of one cell, asked for in the order in which earlier ones were received."""
    by_cell: dict[str, list[tuple[Entry, Entry]]] = defaultdict(list)
    led = _led(accounts)
    for account in accounts:
        for pair in _acknowledged(account):
            by_cell[led.get(pair[1].leader, account.client.cell)].append(pair)
    for cell, pairs in by_cell.items():
        received = sorted((told.at, told.timeline) for _, told in pairs)
        highest: list[int] = []
        for _, timeline in received:
            highest.append(max(timeline, highest[-1] if highest else 0))
        instants = [at for at, _ in received]
        for sent, told in pairs:
            before = bisect_left(instants, sent.at)
            if before and told.timeline < highest[before - 1]:
                detail = f"{cell}: timeline {told.timeline} acknowledged after {highest[before - 1]}"
                yield Fault("two_writers", "older_timeline_acknowledged", sent.key, detail)


def _replaced(accounts: Sequence[Account], restored: Restored | None) -> Iterator[Fault]:
    of = writes(accounts, restored)
    for account in accounts:
        for sent, told in _pairs(account, "search"):
            if told.event != "told" or sent.subject not in of:
                continue
            possible = readable(of[sent.subject], sent.at, told.at)
            if not any(told.marks and fits(write, told.marks, frozenset()) for write in possible):
                yield Fault("two_writers", "replaced_copy_read", sent.subject, f"at {told.at:.1f} s")


def _missing(account: Account) -> Iterator[Fault]:
    acknowledged: dict[uuid.UUID, float] = {}
    for _, told in _pairs(account, "query"):
        for line in told.lines:
            acknowledged.setdefault(line.id, told.at)
    for sent, told in _pairs(account, "look"):
        if told.status == _GONE:
            yield Fault("two_writers", "acknowledged_query_not_shown", sent.after, f"at {told.at:.1f} s")
    for sent, told in _pairs(account, "list"):
        if told.event != "told":
            continue
        shown = {line.id for line in told.lines}
        after, last = uuid.UUID(sent.after), max(shown, default=uuid.UUID(int=0))
        for known, at in acknowledged.items():
            expected = known > after and at < sent.at and (not told.next or known <= last)
            if expected and known not in shown:
                yield Fault("two_writers", "acknowledged_query_not_listed", str(known), f"at {told.at:.1f} s")
