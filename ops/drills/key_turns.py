"""Rotates data keys (鍵の更新) of the drill's agencies and has their rows sealed anew while all clients work.

By the operator's own commands, ``chukan keys rotate`` and ``reencrypt``, each a process of its own: a drill is to try
what an operator has. Rows that the clients write while an exchange has not heard of the new key yet are left by a first
call and taken by a second.

Invariant: nothing is destroyed; a rotation has nothing that would have to be undone.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Final

import msgspec

from chukan.errors import REGISTRY, Problem
from chukan.ops.drills.commands import run_command
from chukan.ops.drills.mover import SETTINGS
from chukan.ops.drills.ports import Installation
from chukan.ops.drills.vocabulary import Step
from chukan.replication.site import Site

COMMAND_S: Final = 60.0
TRIES_MAX: Final = 3

Note = Callable[[str, str, str], None]


class CommandKeys:
    """The commands of the operator whose settings lie in a site's operator directory."""

    def __init__(self, site: Site) -> None:
        self._folder = site.operator.directory

    async def rotate(self, agency: str) -> int:
        """Give an agency a new data key; returns its version. Raises ``Problem`` of the command, process_failed."""
        (made,) = await self._call("rotate", agency)
        return made.version

    async def reencrypt(self, agency: str) -> tuple[int, int]:
        """Seal an agency's rows anew; returns how many were, and how many are left. ``Problem`` as ``rotate``."""
        (made,) = await self._call("reencrypt", agency)
        return made.sealed, made.left

    async def _call(self, act: str, agency: str) -> "list[_Told]":
        words = ("keys", act, agency, "--config", str(self._folder / SETTINGS), "--json")
        said = await run_command(words, COMMAND_S)
        return _read(said, f"chukan keys {act}")


class KeyTurns:
    """The sentences about keys, by verb."""

    def __init__(self, installation: Installation, note: Note) -> None:
        self._installation, self._note = installation, note
        self.verbs: Mapping[str, Callable[[Step], Awaitable[None]]] = {
            "rotate_keys": self._rotate,
            "reencrypt_rows": self._reencrypt,
        }

    def _agencies(self) -> list[str]:
        """Those whom the drill's clients act for or ask."""
        return sorted({agency for case in self._installation.cases() for agency in (case.inquirer, case.provider)})

    async def _rotate(self, step: Step) -> None:
        del step
        versions = [await self._installation.keys.rotate(agency) for agency in self._agencies()]
        self._note(
            f"{len(versions)}機関のデータ鍵を更新した",
            f"{len(versions)} agencies have a new data key",
            "keys",
        )

    async def _reencrypt(self, step: Step) -> None:
        total = 0
        for agency in self._agencies():
            for _ in range(TRIES_MAX):
                sealed, left = await self._installation.keys.reencrypt(agency)
                total += sealed
                if not left:
                    break
            else:
                raise Problem("drill_step_failed", expected=step.en)
        self._note(f"{total}行を新しい鍵で封緘し直した", f"{total} rows were sealed anew", "keys")


class _Told(msgspec.Struct, frozen=True):
    """What the commands print of an agency."""

    version: int = 0
    sealed: int = 0
    left: int = 0


class _Refused(msgspec.Struct, frozen=True):
    code: str
    expected: str | None = None


def _read(said: bytes, command: str) -> list[_Told]:
    try:
        told = msgspec.json.decode(said, type=list[_Told] | _Refused)
    except msgspec.MsgspecError:
        raise Problem("process_failed", expected=command) from None
    if isinstance(told, _Refused):
        raise Problem(told.code if told.code in REGISTRY else "process_failed", expected=told.expected or command)
    return told
