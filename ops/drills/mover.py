"""Moves an agency between cells by the operator's own command, ``chukan agency move``, as a process of its own.

A drill is to try what an operator has: so nothing of the move is done here but calling it. What a move leaves in the
old cell is discarded at once, for the agency comes back there.
"""

from typing import Final

import msgspec

from chukan.errors import REGISTRY, Problem
from chukan.ops.drills.commands import run_command
from chukan.replication import render
from chukan.replication.site import Site

SETTINGS: Final = "operator.toml"
COMMAND_S: Final = 180.0
_PASSWORDS: Final = "{cell}-superuser"
_KEPT: Final = "old_copy_kept"


class CommandMover:
    """The commands of the operator whose settings lie in a site's operator directory."""

    def __init__(self, site: Site) -> None:
        self._folder = site.operator.directory

    @property
    def is_there(self) -> bool:
        """Tell whether the operator has settings here."""
        return (self._folder / SETTINGS).is_file()

    async def move(self, agency: str, cell: str) -> None:
        """Move an agency, and discard what it left; what an earlier drill did not discard is discarded before.

        Raises ``Problem``: that of the command; process_failed for one that says nothing, or not in time.
        """
        try:
            moved = await self._call("move", agency, "--to", cell)
        except Problem as problem:
            if problem.code != _KEPT:
                raise
            await self._discard(agency, cell)
            moved = await self._call("move", agency, "--to", cell)
        if moved.from_cell is not None:
            await self._discard(agency, moved.from_cell)

    async def _discard(self, agency: str, cell: str) -> None:
        await self._call("discard", agency, "--cell", cell, "--confirm", agency)

    async def _call(self, *words: str) -> "_Told":
        passwords = self._folder / "passwords" / _PASSWORDS
        options = ("--config", str(self._folder / SETTINGS), "--admin-user", render.SUPERUSER)
        words = ("agency", *words, *options, "--admin-password-file", str(passwords), "--json")
        said = await run_command(words, COMMAND_S)
        return _read(said, f"chukan agency {words[1]}")


class _Told(msgspec.Struct, frozen=True):
    """What the commands print: what was done, or a problem's document."""

    from_cell: str | None = msgspec.field(default=None, name="from")
    code: str = ""
    expected: str | None = None


def _read(said: bytes, command: str) -> _Told:
    try:
        told = msgspec.json.decode(said, type=_Told)
    except msgspec.MsgspecError:
        raise Problem("process_failed", expected=command) from None
    if told.code in REGISTRY:
        raise Problem(told.code, expected=told.expected)
    return told
