"""Callers that an exchange refused (接続の拒否記録), as lines of the cell that has the links: their form and reading.

Invariant: a line names registered ids, codes of bodies and a code of the error registry, and nothing that a caller said
of itself. Nobody changes or deletes one.
"""

import datetime as dt
import uuid
from typing import Final

import msgspec

from chukan.replication.primary import Cells
from chukan.tenants.link_calls import fetch, zoned

SET_MAX: Final = 200
"""How many lines are entered in one call."""
READ_MAX: Final = 1_000


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """How often one exchange refused the same for the same reason, from its first to its last instant there."""

    id: uuid.UUID
    at: dt.datetime
    until: dt.datetime
    exchange: str
    peer: str
    """The registered id of the certificate; empty for one that is not registered."""
    body: str
    """The 6-digit code of the certificate's body, or empty."""
    tunnel: str
    """The first five digits of the code of the body through whose link it came; empty for none."""
    code: str
    """Empty, as all of these, in the line that counts what was too much to be told apart."""
    times: int


async def read_refusals(
    cells: Cells, cell: str, since: dt.datetime, body: str | None = None, limit: int = READ_MAX
) -> tuple[Refusal, ...]:
    """Return what was refused since an instant, the newest first: of a body (its certificate, or its tunnel), or all.

    At most 1,000. Raises ``Problem`` invalid_field for an instant without a zone; others as ``link_calls.fetch``.
    """
    sql = "SELECT * FROM chukan.refusals($1, $2, $3)"
    async with cells.steward(cell) as connection:
        rows = await fetch(connection, sql, zoned(since), body, min(limit, READ_MAX))
    return tuple(Refusal(**{name: row[name] for name in Refusal.__struct_fields__}) for row in rows)
