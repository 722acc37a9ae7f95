"""How a site may be drilled (切替訓練): its mark, by what command its processes are reached, and as whom clients ask.

The table ``[drill]`` of ``site.toml``. ``hand`` is a command that is run on the operator's machine for each act, a list
of words without any shell; in each word ``{host}``, ``{address}``, ``{site}``, ``{action}``, ``{process}`` and
``{other}`` are replaced by names of this very site. ``actions`` says which acts it carries out; ``hands`` gives some
acts a command of their own. What is in neither is not possible on this site, and drills that need it are refused.

Invariant: pure; nothing here reaches a host.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec

from chukan.errors import Problem

Action = Literal[
    "kill", "stop", "start", "freeze", "thaw", "lose_centre", "return_centre", "cut", "mend", "isolate", "rejoin",
    "fill_disk", "free_disk", "lose_gateway", "return_gateway",
]  # fmt: skip
Word = Annotated[str, msgspec.Meta(min_length=1, max_length=4096)]
Command = Annotated[list[Word], msgspec.Meta(max_length=64)]

UNDONE_BY: Final[Mapping[Action, Action]] = {
    "kill": "start",
    "stop": "start",
    "freeze": "thaw",
    "lose_centre": "return_centre",
    "cut": "mend",
    "isolate": "rejoin",
    "fill_disk": "free_disk",
    "lose_gateway": "return_gateway",
}
"""What breaks is possible only together with what mends it: a drill leaves the site as it found it."""
_PLACES: Final = frozenset({"host", "address", "site", "action", "process", "other"})
_PLACE: Final = re.compile(r"\{([^{}]*)\}")


class DrillClients(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """As whom the clients of a drill ask: agencies that are for drills only, and the made people that they know."""

    connection: Path
    """``connection.json``: these agencies' certificates and keys, and where the network tells its records."""
    agencies: list[str] = []
    """Codes of the agencies to use; all of the file when empty."""
    people: Annotated[int, msgspec.Meta(ge=1)]
    seed: int
    """The made people (``chukan environment``) whose copies were lodged and whose codes were acquired."""


class Drills(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole table."""

    allowed: bool = False
    """The mark: whether drills may run on this site unasked."""
    hand: Command = []
    actions: list[Action] = []
    hands: dict[Action, Command] = {}
    clients: DrillClients

    def template(self, action: Action) -> Sequence[str]:
        """Return the command of an act; empty where nobody carries it out."""
        return self.hands.get(action) or (self.hand if action in self.actions else ())

    def does(self, action: Action) -> bool:
        """Tell whether an act, and what undoes it, is carried out by somebody."""
        undo = UNDONE_BY.get(action, action)
        return bool(self.template(action)) and bool(self.template(undo))


def fill(template: Sequence[str], places: Mapping[str, str]) -> list[str]:
    """Return a command with its places filled; one without a value here becomes an empty text."""
    return [_PLACE.sub(lambda found: places.get(found[1], ""), word) for word in template]


def check(drill: Drills | None) -> Iterator[Problem]:
    """Yield what is wrong with the table; code setting_invalid."""
    if drill is None:
        return
    if drill.actions and not drill.hand:
        yield Problem("setting_missing", pointer="/drill/hand", expected="the command that carries out [drill] actions")
    for pointer, command in (("/drill/hand", drill.hand), *((f"/drill/hands/{k}", v) for k, v in drill.hands.items())):
        for word in command:
            if not {found[1] for found in _PLACE.finditer(word)} <= _PLACES:
                yield Problem(
                    "setting_invalid", pointer=pointer, expected=f"of places only {', '.join(sorted(_PLACES))}"
                )
