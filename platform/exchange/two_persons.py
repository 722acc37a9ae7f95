"""Whether two officers are two persons (四眼原則), where one acted by card and the other acts by an account.

While an agency goes over from cards to accounts, one person has both: what was proposed by card must not be approved by
the same person's account. Wherever a second officer is asked for, this is asked, and not whether two ids differ.

Invariant: what nobody has said is taken for the same person; a card that no account names may be anybody's whose
account names no card. This module never changes anything.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

from chukan.clock import to_jst
from chukan.errors import Problem
from chukan.platform.exchange.context import Context
from chukan.tenants import officer_rows as rows
from chukan.tenants.directory import AgencyRow
from chukan.tenants.officer_accounts import may_be_one
from chukan.tenants.partition import Partition

Door = Callable[[AgencyRow], AbstractAsyncContextManager[Partition]]


async def require_second(context: Context, door: Door, agency: AgencyRow, officer: str, first: str) -> None:
    """Refuse an officer who is, or may be, the one that acted first; both by id, of an account or of a card.

    Raises:
        Problem: second_officer_required.
    """
    if await are_one(context, door, agency, officer, first):
        raise Problem("second_officer_required")


async def are_one(context: Context, door: Door, agency: AgencyRow, officer: str, first: str) -> bool:
    """Tell whether two ids, of accounts or of cards, are or may be one person's."""
    if officer == first:
        return True
    keys, day = context.keys(agency.number), to_jst(context.clock.now()).date()
    async with door(agency) as partition:
        one = await rows.account(partition, keys, officer)
        other = await rows.account(partition, keys, first)
        if one is None and other is None:
            return False
        if one is not None and other is not None:
            return bool(one.account.card) and one.account.card == other.account.card
        everybody = {name: row.account for name, row in (await rows.accounts(partition, keys)).items()}
    known = one or other
    assert known is not None  # noqa: S101 - exactly one of them is an account
    return may_be_one(everybody, known.account, first if one is not None else officer, day)
