"""How wide sealed values are in a cell: mean octets of each sealed column, for whoever sizes or measures a database.

Reads lengths only, never a value, and only leaf by leaf. For the administrator of a cell that was made for measuring:
it goes past row security, which nobody who serves may do.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

from chukan.errors import Problem
from chukan.replication.primary import Connection
from chukan.tenants.partition import schema_name

_COLUMNS: Final = {
    "request": "SELECT sum(octet_length(q.request)), count(*) FROM {schema}.queries q",
    "permit_request": (
        "SELECT sum(octet_length(o.sealed)), count(*) FROM {schema}.outbox o JOIN {schema}.queries q USING (agency, id)"
    ),
    "permit": "SELECT sum(octet_length(p.sealed)), count(*) FROM {schema}.permits p",
    "notice": "SELECT sum(octet_length(p.notice)), count(*) FROM {schema}.provisions p",
    "sent_answer": (
        "SELECT sum(octet_length(o.sealed)), count(*)"
        " FROM {schema}.outbox o JOIN {schema}.provisions p USING (agency, id)"
    ),
    "answer": "SELECT sum(octet_length(a.sealed)), count(*) FROM {schema}.answers a",
    "record": "SELECT sum(octet_length(r.sealed)), count(*) FROM {schema}.records r",
}


class Widths(NamedTuple):
    """Mean octets of a sealed value: what a line leaves at the inquirer and at the provider."""

    request: int
    permit_request: int
    """The bytes to the network that ask for the permit."""
    permit: int
    notice: int
    sent_answer: int
    """The bytes to the network that carry the answer."""
    answer: int
    record: int


async def sealed_widths(admin: Connection, agencies: Sequence[int]) -> Widths:
    """Return the means over some agencies, rounded up.

    Raises:
        Problem: not_found, where one of the columns holds nothing at any of them.
    """
    means: dict[str, int] = {}
    for name, statement in _COLUMNS.items():
        octets = rows = 0
        for agency in agencies:
            total, count = await admin.fetchrow(statement.format(schema=schema_name(agency))) or (0, 0)
            octets, rows = octets + (total or 0), rows + count
        if rows == 0:
            raise Problem("not_found")
        means[name] = -(-octets // rows)
    return Widths(**means)
