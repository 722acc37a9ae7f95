"""Which role a command of an operator needs, by the words it is typed with (運用者の権限).

Light on purpose: the command line looks here before it imports anything. A command that stands here nowhere and opens
an installation needs ``security``; a test holds the table against every command that does.

Invariant: deny by default. This module must never say what an operator may read of agencies' data: nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from types import MappingProxyType
from typing import Final, Literal

from chukan.tenants.operator_register import Role

Needs = Role | Literal["signed"]
"""``signed``: the act itself bears a person's signature, which is judged by the roles of whoever signed."""

_TABLE: Final[Mapping[Needs, str]] = {
    "observe": (
        "agency list, agency show, agency client list, agency order show, common status, incident list, keys status,"
        " keys tokens, keys progress, link show, link list, link history, link refusals, master list, master diff,"
        " master show, notice list, operations list, operations export, operations keys, operators list,"
        " records export, records keys, records expired, records retention, stop list"
    ),
    "operate": (
        "agency add, agency close, agency move, agency client add, agency client remove, link invite, link enrol,"
        " link approve, link rotate, link suspend, link resume, link extend, link revoke, link drain, link gateway,"
        " notice publish, notice withdraw, stop add, stop lift"
    ),
    "security": (
        "agency destroy, agency discard, agency export, agency prepare-keystores, backup restore-agency,"
        " incident affected, incident amend, incident close, incident open, incident report, keys destroy,"
        " keys reencrypt, keys retire, keys rotate, records rebuild-map"
    ),
    "signed": "master propose, master rollback, master approve, master reject, master withdraw",
}
ROLES: Final[Mapping[str, Needs]] = MappingProxyType(
    {command.strip(): role for role, commands in _TABLE.items() for command in commands.split(",") if command.strip()}
)
WITHOUT_CELLS: Final = frozenset({"agency prepare-keystores", "keys tokens"})
"""Commands that touch no cell: setting up before there is one, and looking at tokens while none answers."""
_WORDS_MAX: Final = 3
_command: ContextVar[str] = ContextVar("command", default="")


def typed(tokens: Sequence[str]) -> str:
    """Return the command among what was typed: its words up to the first option, as far as the table knows them."""
    words: list[str] = []
    for token in tokens[:_WORDS_MAX]:
        if token.startswith("-"):
            break
        words.append(token)
    known = (" ".join(words[:count]) for count in range(len(words), 0, -1))
    return next((command for command in known if command in ROLES), "")


def begin(tokens: Sequence[str]) -> None:
    """Remember what was typed, for what is judged later in this process."""
    _command.set(typed(tokens))


def begun() -> str:
    """Return the words of the command that was begun, as they stand in the table; empty where it stands nowhere."""
    return _command.get()


def needs_cells() -> bool:
    """Tell whether the command that was begun does anything in a cell."""
    return _command.get() not in WITHOUT_CELLS


def needed() -> Needs:
    """Return what the command needs that was begun."""
    return ROLES.get(_command.get(), "security")
