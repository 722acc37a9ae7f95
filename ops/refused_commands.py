"""Operators' commands that were refused stand in the operators' log (操作記録: 拒否されたものを含む).

Whoever has no role for a command, brings an order that nobody signed, or a change of masters with a signature missing
is refused by the command itself, before it writes anything; so nothing would stand anywhere. The refusal is entered in
the log of the first cell that takes it: the command's words as they stand in the table of roles, who by the
certificate's name where one was shown, and the problem's code.

Invariant: no argument, no value and no text of the problem is entered; and a refusal is told whether or not its entry
could be written. A command that never reached an installation's cells leaves nothing, for it did nothing there.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final, Protocol

from chukan import log
from chukan.errors import Problem
from chukan.ops import operator_roles
from chukan.ops.certificates import read_certificates
from chukan.tenants.credentials import UntrustedError, name_of
from chukan.tenants.link_calls import fetch
from chukan.tenants.operations import Operation, make_operation

if TYPE_CHECKING:
    from chukan.chance import Chance
    from chukan.clock import Clock
    from chukan.replication.primary import Cells
    from chukan.settings import Settings

REFUSED: Final = frozenset(
    {"operator_role_required", "order_required", "order_invalid", "master_invalid", "second_person"}
)
"""Problems by which a person was refused: no role, no order, no valid signature, not another person."""
NOBODY: Final = "operator:unknown"
_log = log.get("ops.operator_gate")


class Reached(Protocol):
    """The installation that a command has reached."""

    settings: Settings
    cells: Cells
    clock: Clock
    chance: Chance


@asynccontextmanager
async def entered(installation: Reached) -> AsyncIterator[None]:
    """Do what a command does; where it is refused, enter that before the refusal is told."""
    try:
        yield
    except Problem as problem:
        await enter(installation.settings, installation.cells, installation.clock, installation.chance, problem)
        raise


async def enter(settings: Settings, cells: Cells, clock: Clock, chance: Chance, problem: Problem) -> bool:
    """Enter the refusal of the command that was begun; False for a problem that is none, or where no cell took it."""
    if problem.code not in REFUSED:
        return False
    words = operator_roles.begun().replace("-", "_").split()
    refusal = Operation(
        agency=None,
        actor=_shown(settings),
        kind=".".join(["command", *(words or ["unknown"])]),
        subject_class="command",
        outcome="refused",
        at=clock.now(),
        code=problem.code,
    )
    row = make_operation(None, chance, refusal)
    sql = "SELECT chukan.operations_append($1, $2, $3, $4, $5)"
    for cell in cells.names:
        try:
            async with cells.steward(cell) as steward:
                await fetch(steward, sql, *([value] for value in row))
        except Problem as failed:
            _log.error("refusal not entered", cell=cell, code=failed.code)
        else:
            return True
    return False


def _shown(settings: Settings) -> str:
    """Return the name of the certificate that the command was given, as it claims it."""
    file = settings.operator.certificate_file
    try:
        return NOBODY if file is None else name_of(read_certificates(file)[0])
    except (Problem, UntrustedError):
        return NOBODY
