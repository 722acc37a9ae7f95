"""What a drill knows of a cell that it restored to a moment, and what may therefore not be there any more.

A restore takes back, by intention, what a cell acknowledged between the moment and its stop. Only a scenario that says
so (``what was acknowledged after the moment is not in the cell``) is judged with this, and only for clients of that
cell: everything acknowledged before the moment or after the opening must be there as after any drill, and what went is
held against the reconciliation's list.

Pure: journals and evidence in, journals without what was taken back out.
"""

import uuid
from collections.abc import Sequence
from typing import Final

import msgspec

from chukan.ops.drills.facts import Evidence, Fault
from chukan.ops.drills.journal import WRITES, Account, Entry

_LAPSED: Final = "expired"


class Restored(msgspec.Struct, frozen=True):
    """The instants of a restore, in seconds since the drill began, and what the reconciliation listed."""

    cell: str
    kept_until: float
    """What was acknowledged by then is in the restored cell."""
    gone_from: float
    """What was sent from then on is not."""
    begun_at: float
    """When the cell was about to be stopped: until then it was the old one."""
    led_at: float
    """From then on whoever reads it reads the restored one."""
    opened_at: float
    """Before that it acknowledged nothing more."""
    listed: list[str] = []
    """Ids and references of what the network holds and the cell does not, as the reconciliation said."""
    waiting: dict[str, str] = {}
    """Requests that waited for an answer of the closed cell, each with its permit of that time."""

    def takes_back(self, account: Account, told: Entry) -> bool:
        """Tell whether an acknowledgement may be taken back by the restore."""
        return account.client.cell == self.cell and self.kept_until < told.at < self.opened_at


def gone(accounts: Sequence[Account], evidence: Evidence, restored: Restored) -> dict[uuid.UUID, Entry]:
    """Return the acknowledged query lines that the restore took back, each with its acknowledgement."""
    there = {line.id for lines in evidence.lines.values() for line in lines}
    return {
        line.id: told
        for account in accounts
        for told in account.of("told")
        if told.act == "query" and restored.takes_back(account, told)
        for line in told.lines
        if line.id not in there
    }


def without(accounts: Sequence[Account], taken: "dict[uuid.UUID, Entry]") -> list[Account]:
    """Return the journals as if what was taken back had never been acknowledged, nor been looked at afterwards."""
    return [Account(account.client, tuple(_without(account, taken))) for account in accounts]


def _without(account: Account, taken: "dict[uuid.UUID, Entry]") -> list[Entry]:
    looked = {str(line) for line in taken}
    dropped = {
        entry.n
        for entry in account.entries
        if (entry.act == "look" and entry.after in looked)
        or (entry.act == "query" and any(line.id in taken for line in entry.lines))
    }
    return [
        msgspec.structs.replace(entry, lines=[line for line in entry.lines if line.id not in taken])
        for entry in account.entries
        if entry.n not in dropped
    ]


def lost_for_good(faults: Sequence[Fault], evidence: Evidence, restored: Restored) -> list[Fault]:
    """Return the faults that the restore does not explain: a provision that it took back is one that was listed."""
    listed = set(restored.listed)
    requests = {one.reference: str(one.request) for one in evidence.network}
    return [
        fault
        for fault in faults
        if fault.kind != "no_record_at_provider" or not {fault.about, requests.get(fault.about, "")} & listed
    ]


# ---------------------------------------------------------------- what the scenario claims


def is_not_there(accounts: Sequence[Account], evidence: Evidence, restored: Restored) -> bool:
    """Tell whether something was taken back, and nothing that was sent after the moment is still there."""
    there = {line.id for lines in evidence.lines.values() for line in lines}
    still = 0
    for account in accounts:
        sent = account.sent()
        for told in account.of("told"):
            if told.act in WRITES and restored.takes_back(account, told) and sent[told.n].at >= restored.gone_from:
                still += any(line.id in there for line in told.lines)
    return not still and bool(gone(accounts, evidence, restored))


def is_listed(accounts: Sequence[Account], evidence: Evidence, restored: Restored) -> bool:
    """Tell whether the reconciliation listed every line taken back that the network holds; there must be one."""
    listed = set(restored.listed)
    held = {one.request: one.reference for one in evidence.network}
    taken = [line for line in gone(accounts, evidence, restored) if line in held]
    return bool(taken) and all({str(line), held[line]} & listed for line in taken)


def is_replaced(accounts: Sequence[Account], evidence: Evidence, restored: Restored) -> bool:  # noqa: ARG001
    """Tell whether no permit of before the opening was served, and what took its place was answered; at least one."""
    after = {str(one.request): one for one in evidence.network}
    answered = [after[request] for request in restored.waiting if request in after and after[request].outcome]
    served = [one for one in answered if one.outcome != _LAPSED]
    return bool(served) and all(one.reference != restored.waiting[str(one.request)] for one in served)
