"""Migrations: brings a cell's database to the schema of this release, and prepares a new database to be a cell.

The files of ``sql/pre`` run before new code starts and only add; those of ``sql/post`` run after the last old process
has ended. Each file is one transaction together with its line in the ledger. A released file never changes: the ledger
holds every file's digest, and a database that was made by another text is refused before anything is run.

Invariant: one runner at a time (advisory lock), in the order of the numbers, each file once. ``post`` runs only after
all of ``pre``. No password travels: the server is given SCRAM verifiers.
"""

import base64
import hashlib
import hmac
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Final, Literal, NamedTuple

import asyncpg

from chukan.chance import SystemChance
from chukan.clock import SystemClock
from chukan.errors import Problem
from chukan.replication.primary import Connection
from chukan.settings import Environment
from chukan.tenants.births import patiently

Phase = Literal["pre", "post"]

LOGINS: Final = ("chukan_broker", "chukan_app", "chukan_steward", "chukan_links")
"""The login roles of a cell; ``prepare_cell`` gives them their passwords."""

_PHASES: Final[tuple[Phase, ...]] = ("pre", "post")
_LOCK: Final = 0x6368756B616E
_LOCK_TIMEOUT: Final = "60s"
_FILE_LOCK_TIMEOUT: Final = "500ms"
"""A cell that is being migrated serves: nobody is held up for longer than this by a lock that is not to be had."""
_NAME: Final = re.compile(r"(\d{4})_[a-z0-9_]+\.sql")
_ROLE: Final = re.compile(r"[a-z_]+")
_SCRAM_ITERATIONS: Final = 4096
_LEDGER: Final = """
    CREATE SCHEMA IF NOT EXISTS chukan;
    CREATE TABLE IF NOT EXISTS chukan.migrations (
      phase text NOT NULL CHECK (phase IN ('pre', 'post')),
      number integer NOT NULL,
      name text NOT NULL,
      sha256 bytea NOT NULL,
      at timestamptz NOT NULL DEFAULT now(),
      PRIMARY KEY (phase, number)
    )
"""


class Migration(NamedTuple):
    """One file: ``number`` orders it within its phase, ``sha256`` is the digest of its exact bytes."""

    phase: Phase
    number: int
    name: str
    text: str
    sha256: bytes


class Status(NamedTuple):
    """One file and whether this database has it; ``changed`` means that the database was made by another text."""

    phase: Phase
    number: int
    name: str
    applied: bool
    changed: bool


def read_migrations(root: Traversable | None = None) -> list[Migration]:
    """Return the files of a tree with ``pre`` and ``post``, pre first, in order; the shipped ones by default.

    ``ValueError`` for a name out of form, a number that comes twice, or a post file without its pre file.
    """
    root = root or resources.files("chukan.tenants.sql")
    found: list[Migration] = []
    for phase in _PHASES:
        files = sorted(file.name for file in (root / phase).iterdir() if file.name.endswith(".sql"))
        for name in files:
            match = _NAME.fullmatch(name)
            if match is None:
                raise ValueError(f"a migration is named 0000_words.sql, not {name}")
            data = (root / phase / name).read_bytes()
            found.append(Migration(phase, int(match[1]), name, data.decode(), hashlib.sha256(data).digest()))
    keys = [(each.phase, each.number) for each in found]
    if len(set(keys)) != len(keys):
        raise ValueError("two migrations of a phase have the same number")
    if any(phase == "post" and ("pre", number) not in keys for phase, number in keys):
        raise ValueError("a migration of post without its pair in pre")
    return found


async def migrate(admin: Connection, phase: Phase, files: Sequence[Migration] | None = None) -> list[str]:
    """Apply what is missing of a phase and return the names of the files that were run; a second run does nothing.

    ``admin`` is a superuser's connection to the cell's database, without an open transaction.

    Raises:
        Problem: database_failed when an applied file has changed or is gone, or pre is behind post; busy when another
            runner works for longer than a minute, or locks were not to be had in about one. A failing statement raises
            asyncpg's error; its file leaves nothing.
    """
    wanted = list(files) if files is not None else read_migrations()
    async with _alone(admin):
        await admin.execute(_LEDGER)
        done = await _ledger(admin)
        _check(wanted, done, phase)
        missing = [each for each in wanted if each.phase == phase and (phase, each.number) not in done]
        for each in missing:
            await _apply(admin, each)
        return [each.name for each in missing]


async def status(admin: Connection) -> list[Status]:
    """Return every shipped file and whether the database has it; reads only."""
    ready = await admin.fetchval("SELECT to_regclass('chukan.migrations') IS NOT NULL")
    done = await _ledger(admin) if ready else {}
    rows: list[Status] = []
    for each in read_migrations():
        applied = done.get((each.phase, each.number))
        changed = applied is not None and applied != (each.name, each.sha256)
        rows.append(Status(each.phase, each.number, each.name, applied is not None, changed))
    return rows


async def require_environment(admin: Connection, environment: Environment) -> None:
    """Refuse a cell of another environment; a database that is no cell yet is welcome.

    Raises ``Problem`` other_environment.
    """
    if await admin.fetchval("SELECT to_regclass('chukan.cell') IS NULL"):
        return
    # A cell of a release before the stamp is production's, unless it holds nothing: then it is stamped when prepared.
    stamped = "SELECT EXISTS (SELECT FROM pg_proc WHERE oid = to_regproc('chukan.environment'))"
    found = (
        await admin.fetchval("SELECT environment FROM chukan.cell") if await admin.fetchval(stamped) else "production"
    )
    if found != environment and await admin.fetchval("SELECT snapshot FROM chukan.cell") != 0:
        raise Problem("other_environment", expected=environment)


async def prepare_cell(
    admin: Connection, name: str, passwords: Mapping[str, str], environment: Environment = "production"
) -> None:
    """Make a database a cell (セル): schema, name, environment, and the passwords (ASCII) of the given login roles.

    May be called again, also to change passwords. Raises as ``migrate`` does, ``Problem`` other_environment for a cell
    of another environment, and ``ValueError`` for an unknown role or a password that is not printable ASCII.
    """
    if unknown := set(passwords) - set(LOGINS):
        raise ValueError(f"not login roles of a cell: {', '.join(sorted(unknown))}")
    verifiers = {role: scram_verifier(password) for role, password in passwords.items()}
    await require_environment(admin, environment)
    await migrate(admin, "pre")
    await admin.execute("UPDATE chukan.cell SET environment = $1 WHERE snapshot = 0", environment)
    for role, verifier in verifiers.items():
        # Neither can hold a quote: a role of LOGINS, and base64 with $ and : around it.
        await admin.execute(f"ALTER ROLE {role} PASSWORD '{verifier}'")
    await admin.execute("UPDATE chukan.cell SET name = $1", name)
    await migrate(admin, "post")


def scram_verifier(password: str, salt: bytes | None = None) -> str:
    """Return the SCRAM-SHA-256 verifier (RFC 5803) of a printable ASCII password; ``ValueError`` for any other.

    With a verifier the server never sees the password, so no log or memory of it can show one.
    """
    if not (password and password.isascii() and password.isprintable()):
        raise ValueError("a password is printable ASCII")
    salt = salt or SystemChance(SystemClock()).token(16)
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, _SCRAM_ITERATIONS)
    stored = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    server = hmac.digest(salted, b"Server Key", "sha256")
    salt_text, stored_text, server_text = (base64.b64encode(each).decode() for each in (salt, stored, server))
    return f"SCRAM-SHA-256${_SCRAM_ITERATIONS}:{salt_text}${stored_text}:{server_text}"


@asynccontextmanager
async def _alone(admin: Connection) -> AsyncIterator[None]:
    before = await admin.fetchval("SHOW lock_timeout")
    await admin.execute(f"SET lock_timeout = '{_LOCK_TIMEOUT}'")
    try:
        await admin.execute("SELECT pg_advisory_lock($1)", _LOCK)
    except asyncpg.LockNotAvailableError:
        raise Problem("busy", retry_after_s=60) from None
    finally:
        await admin.execute(f"SET lock_timeout = '{before}'")
    try:
        yield
    finally:
        await admin.execute("SELECT pg_advisory_unlock($1)", _LOCK)


async def _ledger(admin: Connection) -> dict[tuple[Phase, int], tuple[str, bytes]]:
    rows = await admin.fetch("SELECT phase, number, name, sha256 FROM chukan.migrations")
    return {(row["phase"], row["number"]): (row["name"], row["sha256"]) for row in rows}


def _check(wanted: Sequence[Migration], done: Mapping[tuple[Phase, int], tuple[str, bytes]], phase: Phase) -> None:
    """Refuse a ledger that this release cannot go on from, before anything is run."""
    known = {(each.phase, each.number): each for each in wanted}
    for key, (name, sha256) in done.items():
        each = known.get(key)
        if each is None or (each.name, each.sha256) != (name, sha256):
            raise Problem("database_failed", expected=f"the text of {key[0]}/{name} that this database was made with")
    if phase == "post":
        behind = [each.name for each in wanted if each.phase == "pre" and (each.phase, each.number) not in done]
        if behind:
            raise Problem("database_failed", expected=f"pre/{behind[0]} to be applied first")


async def _apply(admin: Connection, migration: Migration) -> None:
    """Run a file as one commit, giving way and trying again: whoever waits for a lock has everybody else behind it."""
    await patiently(lambda: _attempt(admin, migration))


async def _attempt(admin: Connection, migration: Migration) -> None:
    async with admin.transaction():
        await admin.execute(f"SET LOCAL lock_timeout = '{_FILE_LOCK_TIMEOUT}'")
        await admin.execute(migration.text)
        await admin.execute("RESET ROLE")
        await admin.execute(
            "INSERT INTO chukan.migrations (phase, number, name, sha256) VALUES ($1, $2, $3, $4)",
            migration.phase,
            migration.number,
            migration.name,
            migration.sha256,
        )
