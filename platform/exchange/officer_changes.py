"""Changes of officers' accounts (アカウント管理): one administrator proposes, another one approves, both of the agency.

Until two administrators stand who have both their factors, the officers whom the common data names with the function
``order`` decide in their place, with their own cards, two of them as well: so an agency begins, and so it gets out of
having lost its administrators. Afterwards such a card is a second person to one administrator for one purpose only: to
give administrators back (``recovers``), so that two of whom one lost a device are not locked out. The operator has no
part in it but that registration. Where it is not known whose card acts, it counts as the proposer's own.

Invariant: an approval, the accounts it changes, the sessions it ends and its entry of the operations log are one
commit, made on accounts that nobody else changes meanwhile; the database refuses one person in both roles too. This
module knows nothing of HTTP.
"""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Final, Literal

import msgspec

from chukan import log
from chukan.clock import to_jst
from chukan.errors import Problem
from chukan.platform.exchange.context import Context
from chukan.platform.wire.officers import (
    GrantView,
    HalfCodeView,
    OfficerChange,
    OfficerChangePost,
    OfficerChanges,
    OfficerEntry,
    Officers,
    OfficerView,
)
from chukan.tenants import officer_rows as rows
from chukan.tenants import operations
from chukan.tenants.directory import AgencyRow
from chukan.tenants.officer_accounts import (
    ACCOUNTS_MAX,
    ADMINISTRATORS_MIN,
    Account,
    Entry,
    administered,
    change,
    is_administrator,
    may_be_one,
    recovers,
)
from chukan.tenants.officer_codes import Half, half_code
from chukan.tenants.operations import Operation
from chukan.tenants.partition import Partition
from chukan.tenants.sealing import AgencyKeys

CHANGE_LIFE: Final = dt.timedelta(days=14)
ENROL_WITHIN: Final = dt.timedelta(days=7)
"""How long after the approval a new officer may set the factors."""
OPEN_MAX: Final = 100
_CARD: Final = "card:"
_log = log.get("exchange.officers")
Door = Callable[[AgencyRow], AbstractAsyncContextManager[Partition]]


@dataclass(frozen=True, slots=True)
class Administrator:
    """Who asks: an officer in a session, or one by card whom the common data names (``order``)."""

    id: str
    """The account's officer id, or the certificate's registered id."""
    account: bool
    card: str | None = None
    """Of an account: its officer's own certificate, where one is known."""

    @property
    def actor(self) -> str:
        """The name in proposals and in the operations log: a card is never taken for an account of the same name."""
        return self.id if self.account else _CARD + self.id

    def is_person(self, actor: str) -> bool:
        """Tell whether an actor is the same person, also by the other credential."""
        return actor == self.actor or (self.card is not None and actor == _CARD + self.card)


class OfficerAccounts:
    """Shows and changes accounts. ``door`` opens an agency's own partition."""

    def __init__(self, context: Context, door: Door) -> None:
        self._context = context
        self._door = door

    async def list(self, agency: AgencyRow, by: Administrator) -> Officers:
        """Return the accounts by officer; of those ended, the latest 2,000. Raises ``Problem`` session_required."""
        keys = self._keys(agency)
        async with self._door(agency) as partition:
            found = await rows.accounts(partition, keys)
            self._may(found, by)
        now, day = self._now(), self._today()
        left = [row for row in found.values() if row.account.ended(day)]
        left.sort(key=lambda row: row.account.last or day, reverse=True)
        hidden = {row.account.officer for row in left[ACCOUNTS_MAX:]}
        return Officers(officers=[_view(row, now) for officer, row in sorted(found.items()) if officer not in hidden])

    async def changes(self, agency: AgencyRow, by: Administrator) -> OfficerChanges:
        """Return what waits for a decision, and what was decided last. Raises ``Problem`` session_required."""
        keys = self._keys(agency)
        async with self._door(agency) as partition:
            accounts = await rows.accounts(partition, keys)
            found = await rows.changes(partition, keys, self._now() - CHANGE_LIFE)
        if not by.account and self._administered(accounts):
            # A card may be needed as the second person of these, and of no others.
            found = [row for row in found if row.state == "open" and _may_second(by, row)]
            if not found:
                raise Problem("session_required")
        return OfficerChanges(changes=[_change_view(row) for row in found])

    async def propose(
        self, agency: AgencyRow, by: Administrator, body: OfficerChangePost, *, key: str, content: bytes
    ) -> OfficerChange:
        """Keep a proposal once it could be carried out today; the same request again shows the same.

        Raises ``Problem``: session_required, idempotency_key_reused, busy (too many wait), as ``change``.
        """
        keys, now = self._keys(agency), self._now()
        request, digest = keys.digest("key", key.encode()), keys.digest("body", by.actor.encode() + b"\n" + content)
        proposal = rows.Proposal(entries=[_entry(each) for each in body.entries], reason=body.reason)
        async with self._door(agency) as partition:
            found = await rows.accounts(partition, keys)
            self._may(found, by)
            if await rows.open_changes(partition, now - CHANGE_LIFE) >= OPEN_MAX:
                raise Problem("busy", retry_after_s=60)
            fresh = self._context.chance.uuid7()
            row = await rows.propose(
                partition,
                keys,
                change=fresh,
                request=request,
                content=digest,
                proposer=by.actor,
                proposal=proposal,
                at=now,
            )
            if row.content != digest:
                raise Problem("idempotency_key_reused")
            if row.id == fresh:
                # Of a repeat, the accounts may have changed meanwhile by this very proposal.
                self._changed(found, proposal.entries, fresh, now, recovery=by.account)
                await self._enter(partition, agency, by, "account.propose", row)
        _log.warning("accounts: change proposed", agency=agency.number, peer=by.actor, count=len(proposal.entries))
        return _change_view(row, _halves(keys, "proposer", row))

    async def approve(self, agency: AgencyRow, by: Administrator, wanted: uuid.UUID) -> OfficerChange:
        """Carry out what another administrator proposed, who still is one.

        Raises ``Problem``: session_required, not_found, change_closed, second_officer_required, as ``change``.
        """
        keys, now = self._keys(agency), self._now()
        async with self._door(agency) as partition:
            found = await rows.accounts(partition, keys, lock=True)
            row = await rows.change(partition, keys, wanted)
            if row is None or not _may_second(by, row):
                # A card that is no second person to this one is not told whether there is such a change.
                self._may(found, by)
            row = self._open_change(row, now)
            if row.state == "approved" and row.decided_by == by.actor:
                return _change_view(row, _halves(keys, "approver", row))
            if row.state != "open":
                raise Problem("change_closed")
            still = self._may_still(found, row.proposer)
            if (still or not row.proposer.startswith(_CARD)) and self._same_person(found, by, row.proposer):
                raise Problem("second_officer_required")
            if not still:
                raise Problem("change_closed")
            entries = row.proposal.entries
            for changed in self._changed(found, entries, row.id, now, recovery=not by.account).values():
                await rows.put_account(partition, keys, changed)
            for officer in {entry.officer for entry in entries if entry.act in {"unlock", "enrol", "add"}}:
                await rows.set_lock(partition, officer, 0, None)
            await rows.end_sessions(partition, [entry.officer for entry in entries if entry.act in {"end", "enrol"}])
            await rows.decide(partition, row.id, "approved", by.actor, now)
            await self._enter(partition, agency, by, "account.approve", row)
        _log.warning("accounts: change approved", agency=agency.number, peer=by.actor, count=len(entries))
        decided = msgspec.structs.replace(_change_view(row), state="approved", decided_by=by.actor)
        return msgspec.structs.replace(decided, codes=_halves(keys, "approver", row))

    async def reject(self, agency: AgencyRow, by: Administrator, wanted: uuid.UUID) -> OfficerChange:
        """Close a proposal without effect; its proposer may, too. Raises ``Problem`` as ``approve``."""
        keys, now = self._keys(agency), self._now()
        async with self._door(agency) as partition:
            self._may(await rows.accounts(partition, keys, lock=True), by)
            row = self._open_change(await rows.change(partition, keys, wanted), now)
            if row.state == "approved":
                raise Problem("change_closed")
            if row.state == "open":
                await rows.decide(partition, row.id, "rejected", by.actor, now)
                await self._enter(partition, agency, by, "account.reject", row)
        decided_by = row.decided_by or by.actor
        return msgspec.structs.replace(_change_view(row), state="rejected", decided_by=decided_by)

    # ------------------------------------------------------------ inside

    def _may(self, found: dict[str, rows.AccountRow], by: Administrator) -> None:
        """Refuse a card once the agency administers itself; what a session may do was asked before."""
        if not by.account and self._administered(found):
            raise Problem("session_required")

    def _administered(self, found: dict[str, rows.AccountRow]) -> bool:
        return administered((row.account for row in found.values()), self._today())

    def _open_change(self, row: rows.ChangeRow | None, now: dt.datetime) -> rows.ChangeRow:
        if row is None:
            raise Problem("not_found")
        if row.state == "open" and row.at + CHANGE_LIFE <= now:
            raise Problem("change_closed")
        return row

    def _same_person(self, found: dict[str, rows.AccountRow], by: Administrator, proposer: str) -> bool:
        if by.is_person(proposer):
            return True
        accounts, day = {officer: row.account for officer, row in found.items()}, self._today()
        own, other = accounts.get(by.id) if by.account else None, accounts.get(proposer)
        if proposer.startswith(_CARD):
            return own is not None and may_be_one(accounts, own, proposer.removeprefix(_CARD), day)
        if not by.account:
            return other is not None and may_be_one(accounts, other, by.id, day)
        cards = {card for card in (by.card, own.card if own else None) if card}
        return other is not None and other.card in cards

    def _may_still(self, found: dict[str, rows.AccountRow], proposer: str) -> bool:
        """Tell whether who proposed could still propose today: it takes two who both are in office."""
        if proposer.startswith(_CARD):
            return not self._administered(found)
        row = found.get(proposer)
        return row is not None and is_administrator(row.account, self._today(), ready=True)

    def _changed(
        self,
        found: dict[str, rows.AccountRow],
        entries: Sequence[Entry],
        by: uuid.UUID,
        now: dt.datetime,
        *,
        recovery: bool,
    ) -> dict[str, Account]:
        """Return what a change makes; ``recovery``: where a card is, or may become, the second person of it.

        The factors of the administrator who lost a device are void at once, so that for a while one is left.
        """
        accounts = {officer: row.account for officer, row in found.items()}
        day = to_jst(now).date()
        after = ADMINISTRATORS_MIN if administered(accounts.values(), day) else 0
        after = min(after, 1) if recovery and recovers(entries) else after
        return change(accounts, entries, by=by, day=day, enrol_until=now + ENROL_WITHIN, ready_after=after)

    async def _enter(
        self,
        partition: Partition,
        agency: AgencyRow,
        by: Administrator,
        kind: Literal["account.propose", "account.approve", "account.reject"],
        row: rows.ChangeRow,
    ) -> None:
        entry = Operation(
            agency=agency.number,
            actor=by.actor,
            kind=kind,
            subject_class="account",
            outcome="done",
            at=self._now(),
            subject=row.id,
            second=None if kind == "account.propose" else row.proposer,
        )
        await operations.append(partition, self._keys(agency), self._context.chance, entry)

    def _keys(self, agency: AgencyRow) -> AgencyKeys:
        return self._context.keys(agency.number)

    def _now(self) -> dt.datetime:
        return self._context.clock.now()

    def _today(self) -> dt.date:
        return to_jst(self._now()).date()


def _may_second(by: Administrator, row: rows.ChangeRow) -> bool:
    """Tell whether a card may be the second person of an administrator's change though the agency has two."""
    return not by.account and not row.proposer.startswith(_CARD) and recovers(row.proposal.entries)


def _entry(each: OfficerEntry) -> Entry:
    return msgspec.convert(msgspec.to_builtins(each), Entry)


def _halves(keys: AgencyKeys, half: Half, row: rows.ChangeRow) -> list[HalfCodeView]:
    officers = dict.fromkeys(entry.officer for entry in row.proposal.entries if entry.act in {"add", "enrol"})
    return [HalfCodeView(officer=officer, half=half_code(keys, half, row.id, officer)) for officer in officers]


def _change_view(row: rows.ChangeRow, codes: list[HalfCodeView] | None = None) -> OfficerChange:
    return OfficerChange(
        id=row.id,
        state=row.state,
        proposer=row.proposer,
        at=row.at,
        entries=[msgspec.convert(msgspec.to_builtins(entry), OfficerEntry) for entry in row.proposal.entries],
        reason=row.proposal.reason,
        decided_by=row.decided_by,
        codes=codes or [],
    )


def _view(row: rows.AccountRow, now: dt.datetime) -> OfficerView:
    account = row.account
    locked = row.locked_until if row.locked_until is not None and row.locked_until > now else None
    return OfficerView(
        officer=account.officer,
        name=account.name,
        department=account.department,
        first=account.first,
        last=account.last,
        card=account.card or None,
        enrolled=account.enrolled,
        grants=[
            GrantView(function=each.function, affair=each.affair, first=each.first, last=each.last)
            for each in account.grants
        ],
        locked_until=locked,
    )
