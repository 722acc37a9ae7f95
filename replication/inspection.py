"""What a connection to a cell must be before its first use; one that is not is refused and nothing is served with it.

Commits must wait for what the cell promises (``synchronous_commit``), plans must not be generic, no door in pg_catalog
may stand open, the cell must be of this environment, and the server the very (system identifier, timeline) that was
found to lead, in an epoch that the settings know (DESIGN §7). Array types are learnt at the same time, for an agency's
role may not ask for them later (it has no ``set_config``).

Invariant: it looks and changes nothing.
"""

from typing import Final

import asyncpg

from chukan import log
from chukan.errors import Problem
from chukan.replication.driver import Connection
from chukan.replication.leader import Leader
from chukan.settings import Environment

_ARRAYS: Final = (
    "SELECT $1::int[], $2::bigint[], $3::smallint[], $4::text[], $5::uuid[], $6::bytea[], $7::bool[], $8::date[],"
    " $9::timestamptz[]"
)
_WARM_ROLES: Final = "SELECT pg_has_role(oid, $1) FROM pg_roles WHERE rolname ~ '^a[0-9]{5}$' LIMIT 1"
_SET_OPTION_SINCE: Final = 16

_log = log.get("primary")


async def inspect(connection: Connection, environment: Environment, leader: Leader | None, epoch: int = 1) -> None:
    """Refuse a connection that must not be served with.

    Raises ``Problem``: unavailable (the reason in the log), no_primary for another server than the leader,
    other_environment.
    """
    settings = await connection.fetchrow(
        "SELECT current_setting('synchronous_commit'), current_setting('plan_cache_mode'), pg_is_in_recovery()"
    )
    if settings is None or tuple(settings) != ("on", "force_custom_plan", False):
        _log.critical("refused to serve: the session's settings are not safe")
        raise Problem("unavailable", retry_after_s=10)
    try:
        doors = [row[0] for row in await connection.fetch("SELECT chukan.open_doors()")]
    except (asyncpg.UndefinedFunctionError, asyncpg.InvalidSchemaNameError, asyncpg.InsufficientPrivilegeError):
        doors = ["an unprepared database"]
    if doors:
        _log.critical("refused to serve: the database is not hardened", count=len(doors), reason=doors[0])
        raise Problem("unavailable", retry_after_s=10)
    if leader is not None:
        me = await connection.fetchrow("SELECT system, timeline FROM chukan.whoami()")
        if me is None or tuple(me) != (leader.system, leader.timeline):
            _log.critical("refused to serve: this server is not the leader that was found", peer=leader.member)
            raise Problem("no_primary", retry_after_s=1)
    if await connection.fetchval("SELECT epoch FROM chukan.opening()") > epoch:
        # Whoever has the settings of before a restore would take the restored state for that of before.
        _log.critical("refused to serve: the cell was restored and opened in an epoch that the settings do not know")
        raise Problem("unavailable", retry_after_s=10)
    if await connection.fetchval("SELECT chukan.environment()") != environment:
        _log.critical("refused to serve: the cell belongs to another environment")
        raise Problem("other_environment", expected=environment)
    await connection.fetch(_ARRAYS, [], [], [], [], [], [], [], [], [])
    # The first look at the memberships of a login that may act for thousands of agencies takes long: not in a request.
    how = "SET" if connection.get_server_version().major >= _SET_OPTION_SINCE else "MEMBER"
    await connection.fetchval(_WARM_ROLES, how)
