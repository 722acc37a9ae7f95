"""Accounts of officers (職員アカウント): what one says, who may do what on which day, and what a change makes of them.

Pure: no store, no clock, no randomness. A right is a function at the agency, for one affair (事務) or for every affair,
from a day to a day, both included, days in Japan's time (JST). An officer whose last day is over has no right to
anything from midnight on. Whoever administers accounts does so with a second administrator (``officer_changes``).

Invariant: deny by default — what no grant in force names is not allowed; one card stands behind one account in service,
and whose card nobody has named may be anybody's; a change that would leave fewer than two administrators is refused
whole, for nobody could then change anything any more. This module must never put a name, a hash or a key into an
exception.
"""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Final, Literal

import msgspec

from chukan.errors import Problem
from chukan.tenants.directory import FUNCTIONS, Code16, Instant

OfficerId = Annotated[str, msgspec.Meta(pattern=r"^[0-9A-Za-z][0-9A-Za-z._-]{0,31}$(?!\n)")]
AccountFunction = Literal[
    "copies",
    "codes",
    "queries",
    "records",
    "reviews.prepare",
    "reviews.approve",
    "holds",
    "order",
    "residents",
    "administer",
]
ADMINISTER: Final = "administer"
"""Changes accounts, with another administrator; no certificate is granted it, an account only."""
ACCOUNT_FUNCTIONS: Final = FUNCTIONS | {ADMINISTER}
AFFAIR_FUNCTIONS: Final = frozenset({"queries", "records", "reviews.prepare", "reviews.approve"})
"""Functions that may be granted for one affair; for the others there is no affair that one could be held to."""
ADMINISTRATORS_MIN: Final = 2
ACCOUNTS_MAX: Final = 2_000
"""Accounts in service, or that are to be; who has left counts no more."""
KEPT_MAX: Final = 20_000
"""All accounts: those that ended stay, for what was done under them stays."""
GRANTS_MAX: Final = 400
"""Grants of one account; those that ended make room."""
PASSKEYS_MAX: Final = 4
NO_CARD: Final = ""
"""What an account says whose officer two administrators know to hold no card at all."""
Act = Literal["add", "grant", "revoke", "end", "unlock", "enrol", "card", "cardless"]


class _Form(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Base of what rests sealed."""


class Grant(_Form, frozen=True, kw_only=True):
    """One right: a function for an affair, or for every affair, on days from first to last."""

    function: str
    affair: str | None = None
    first: dt.date
    last: dt.date | None = None

    def in_force(self, day: dt.date) -> bool:
        """Tell whether it holds on this day."""
        return self.first <= day and (self.last is None or day <= self.last)


class Passkey(_Form, frozen=True, kw_only=True):
    """A registered passkey: credential id, public key (COSE), and its signature counter."""

    id: bytes
    public: bytes
    count: int


class Account(_Form, frozen=True, kw_only=True):
    """One officer. ``password`` is an Argon2id hash; ``enrolment`` names the change by which factors may be set."""

    officer: OfficerId
    name: str
    department: str = ""
    first: dt.date
    last: dt.date | None = None
    card: str | None = None
    """Registered id of the officer's own client certificate; ``NO_CARD`` where there is none, None: nobody has said."""
    grants: list[Grant] = []
    password: str = ""
    passkeys: list[Passkey] = []
    since: Instant | None = None
    """When the factors were set; a session of factors set at another instant is none."""
    enrolment: uuid.UUID | None = None
    enrol_until: Instant | None = None

    def in_force(self, day: dt.date) -> bool:
        """Tell whether the officer serves on this day."""
        return self.first <= day and (self.last is None or day <= self.last)

    @property
    def enrolled(self) -> bool:
        """Whether the officer has both factors."""
        return bool(self.password) and self.since is not None and (bool(self.passkeys) or bool(self.card))

    def ended(self, day: dt.date) -> bool:
        """Tell whether the officer has left before this day."""
        return self.last is not None and self.last < day


class Entry(_Form, frozen=True, kw_only=True, omit_defaults=True):
    """One line of a change, as of a personnel file (人事異動): what is done to which officer."""

    act: Act
    officer: OfficerId
    name: str = ""
    department: str = ""
    function: AccountFunction | None = None
    affair: Code16 | None = None
    first: dt.date | None = None
    last: dt.date | None = None
    card: str | None = None


@dataclass(frozen=True, slots=True)
class Affairs:
    """The affairs (事務) that a right is for; None: every one."""

    names: frozenset[str] | None

    def allows(self, affair: str) -> bool:
        """Tell whether an affair is among them."""
        return self.names is None or affair in self.names


EVERY_AFFAIR: Final = Affairs(None)
NO_AFFAIR: Final = Affairs(frozenset())


def rights(account: Account, day: dt.date) -> dict[str, Affairs]:
    """Return the functions that an officer has on a day, each with its affairs; none on a day outside the service."""
    if not account.in_force(day):
        return {}
    found: dict[str, Affairs] = {}
    for grant in account.grants:
        if grant.function in ACCOUNT_FUNCTIONS and grant.in_force(day):
            before = found.get(grant.function, NO_AFFAIR).names
            every = before is None or grant.affair is None
            found[grant.function] = EVERY_AFFAIR if every else Affairs(frozenset({*(before or ()), grant.affair or ""}))
    return found


def is_administrator(account: Account, day: dt.date, *, ready: bool) -> bool:
    """Tell whether the officer may decide on accounts on a day; ``ready``: and has both factors to do so."""
    return ADMINISTER in rights(account, day) and (account.enrolled or not ready)


def administered(accounts: Iterable[Account], day: dt.date) -> bool:
    """Tell whether the agency administers its accounts itself: two administrators have both their factors."""
    return sum(is_administrator(account, day, ready=True) for account in accounts) >= ADMINISTRATORS_MIN


def may_be_one(accounts: Mapping[str, Account], one: Account, card: str, day: dt.date) -> bool:
    """Tell whether an account's officer may be who acts with a card, as far as anybody has said.

    Where nobody has named the officer's card, it may be this one: unless it is another one's in service.
    """
    if one.card is not None:
        return one.card == card
    others = (each for each in accounts.values() if each.officer != one.officer and not each.ended(day))
    return all(each.card != card for each in others)


def recovers(entries: Iterable[Entry]) -> bool:
    """Tell whether a change only gives administrators back: new factors, an end of a lock, one more administrator."""
    return all(
        entry.act in {"enrol", "unlock", "add"} or (entry.act == "grant" and entry.function == ADMINISTER)
        for entry in entries
    )


def change(
    accounts: Mapping[str, Account],
    entries: Iterable[Entry],
    *,
    by: uuid.UUID,
    day: dt.date,
    enrol_until: dt.datetime,
    ready_after: int,
) -> dict[str, Account]:
    """Return the accounts that a change makes or alters, by officer; none is altered in place.

    Args:
        accounts: all accounts of the agency.
        entries: what is to be done, in this order.
        by: id of the change, which the one-time codes of new officers are made from.
        day: today in Japan.
        enrol_until: until when new officers may set their factors.
        ready_after: how many administrators with both factors must stand after.

    Raises:
        Problem: with the line, of an entry that cannot be carried out (invalid_field, not_found, officer_exists);
            administrators_needed.
    """
    changed = dict(accounts)
    touched: set[str] = set()
    for number, entry in enumerate(entries):
        try:
            _refuse_shared_card(changed, entry, day)
            changed[entry.officer] = _applied(changed.get(entry.officer), entry, by, day, enrol_until)
        except Problem as problem:
            raise Problem(problem.code, pointer=f"/entries/{number}{problem.pointer or ''}", line=number + 1) from None
        touched.add(entry.officer)
    if sum(not account.ended(day) for account in changed.values()) > ACCOUNTS_MAX:
        raise Problem("too_many_lines", limit=ACCOUNTS_MAX)
    if len(changed) > KEPT_MAX:
        raise Problem("too_many_lines", limit=KEPT_MAX)
    lasting = [account for account in changed.values() if _administers_on(account, day)]
    ready = sum(is_administrator(account, day, ready=True) for account in changed.values())
    if len(lasting) < ADMINISTRATORS_MIN or ready < ready_after:
        raise Problem("administrators_needed", limit=ADMINISTRATORS_MIN)
    return {officer: changed[officer] for officer in touched}


def _refuse_shared_card(accounts: Mapping[str, Account], entry: Entry, day: dt.date) -> None:
    """Refuse a card that is another account's: whoever holds it would be two persons wherever it takes two."""
    for account in accounts.values():
        if entry.card is None or account.ended(day):
            continue
        if account.card == entry.card and account.officer != entry.officer:
            raise Problem("invalid_field", pointer="/card")


def _administers_on(account: Account, day: dt.date) -> bool:
    """Tell whether somebody administers today, or is to from a later day on."""
    ahead = (grant.first for grant in account.grants if grant.function == ADMINISTER)
    return any(is_administrator(account, max(day, account.first, first), ready=False) for first in ahead)


def _applied(account: Account | None, entry: Entry, by: uuid.UUID, day: dt.date, enrol_until: dt.datetime) -> Account:
    if entry.act == "add":
        return _added(account, entry, by, day, enrol_until)
    if account is None:
        raise Problem("not_found", pointer="/officer")
    if entry.act in {"card", "cardless"}:
        return _carded(account, entry)
    return _altered(account, entry, by, day, enrol_until)


def _altered(account: Account, entry: Entry, by: uuid.UUID, day: dt.date, enrol_until: dt.datetime) -> Account:
    match entry.act:
        case "grant":
            return _granted(account, entry, day)
        case "revoke":
            return _revoked(account, entry, day)
        case "end":
            return _ended(account, entry, day)
        case "enrol":
            # The old factors are void at once: one of them may be what was lost.
            return msgspec.structs.replace(
                account, card=entry.card, password="", passkeys=[], since=None, enrolment=by, enrol_until=enrol_until
            )
        case _:
            return account  # unlock: what locks stands beside the account


def _added(account: Account | None, entry: Entry, by: uuid.UUID, day: dt.date, enrol_until: dt.datetime) -> Account:
    if account is not None and not account.ended(day):
        raise Problem("officer_exists", pointer="/officer")
    if not entry.name.strip():
        raise Problem("invalid_field", pointer="/name")
    first = entry.first or day
    if entry.last is not None and entry.last < first:
        raise Problem("invalid_field", pointer="/last")
    # Who comes back after having left begins anew, without the rights and factors of then.
    return Account(
        officer=entry.officer,
        name=entry.name,
        department=entry.department,
        first=first,
        last=entry.last,
        card=entry.card,
        enrolment=by,
        enrol_until=enrol_until,
    )


def _carded(account: Account, entry: Entry) -> Account:
    """Name the officer's card, or say that there is none; a card that is the only factor is changed by ``enrol``."""
    if (entry.card is not None) is not (entry.act == "card"):
        raise Problem("invalid_field", pointer="/card")
    if account.enrolled and not account.passkeys:
        raise Problem("invalid_field", pointer="/act")
    return msgspec.structs.replace(account, card=entry.card or NO_CARD)


def _ended(account: Account, entry: Entry, day: dt.date) -> Account:
    gone = account.ended(day)
    if entry.last is None or (gone and account.last is not None and entry.last > account.last):
        # Who has left begins anew (add): rights and factors of then do not come back by a later day.
        raise Problem("invalid_field", pointer="/last")
    if gone:
        return account
    # Never further back than yesterday: what was done under an account stays under it.
    return msgspec.structs.replace(account, last=max(entry.last, day - dt.timedelta(days=1)))


def _granted(account: Account, entry: Entry, day: dt.date) -> Account:
    if entry.function is None:
        raise Problem("invalid_field", pointer="/function")
    if entry.function not in AFFAIR_FUNCTIONS and entry.affair is not None:
        raise Problem("invalid_field", pointer="/affair")
    first = max(entry.first or day, day)
    if entry.last is not None and entry.last < first:
        raise Problem("invalid_field", pointer="/last")
    grant = Grant(function=entry.function, affair=entry.affair, first=first, last=entry.last)
    kept = [known for known in account.grants if known.last is None or known.last >= day]
    if len(kept) >= GRANTS_MAX:
        raise Problem("too_many_lines", limit=GRANTS_MAX)
    return msgspec.structs.replace(account, grants=[*kept, grant])


def _revoked(account: Account, entry: Entry, day: dt.date) -> Account:
    """End the grants of a function (for an affair; for none named, all of them) on a day, yesterday unless named."""
    if entry.function is None:
        raise Problem("invalid_field", pointer="/function")
    yesterday = day - dt.timedelta(days=1)
    last = max(entry.last or yesterday, yesterday)
    grants, met = [], False
    for grant in account.grants:
        if grant.function != entry.function or (entry.affair is not None and grant.affair != entry.affair):
            grants.append(grant)
            continue
        met = True
        ends = last if grant.last is None else min(last, grant.last)
        if grant.first <= ends:
            grants.append(msgspec.structs.replace(grant, last=ends))
    if not met:
        raise Problem("not_found", pointer="/function")
    return msgspec.structs.replace(account, grants=grants)
