"""Repeated requests at door 1 (要求の再送): the first outcome of an Idempotency-Key, in the transaction of the effect.

A key rests as a keyed digest beside the keyed digest of what was asked. Claiming it is an upsert that *writes*, also
when the key is there already: so two of the same kind at once wait for each other, and "already done" is answered only
by a commit that is durable itself. Set functions claim their keys by themselves; both use the same leaf.

Invariant: a key stands for one request. The same key with other content is refused and nothing happens.
"""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, NamedTuple

from chukan.errors import Problem

if TYPE_CHECKING:
    from chukan.tenants.partition import Partition
    from chukan.tenants.sealing import AgencyKeys


class Claim(NamedTuple):
    """What the key stands for; ``fresh`` says that it was never seen before, so that the effect is still to be made."""

    outcome: uuid.UUID
    fresh: bool


async def claim(partition: Partition, keys: AgencyKeys, key: str, content: bytes, outcome: uuid.UUID) -> Claim:
    """Claim a key for a request, or find its first outcome.

    Args:
        partition: the agency's door; the effect must be made in the same transaction.
        keys: the agency's.
        key: the Idempotency-Key as it was sent.
        content: everything that must be the same when the key comes again.
        outcome: reference to what this request makes; kept only when the key is fresh.

    Raises:
        Problem: idempotency_key_reused.
    """
    digest = keys.digest("body", content)
    row = await partition.fetchrow(
        f"INSERT INTO {partition.table('idempotency')} AS i (agency, key, body, outcome) VALUES ($1, $2, $3, $4)"
        " ON CONFLICT (agency, key) DO UPDATE SET tries = i.tries + 1 RETURNING body, outcome, tries = 1 AS fresh",
        partition.agency,
        keys.digest("key", key.encode()),
        digest,
        outcome,
    )
    if row is None or bytes(row["body"]) != digest:
        raise Problem("idempotency_key_reused")
    return Claim(row["outcome"], row["fresh"])
