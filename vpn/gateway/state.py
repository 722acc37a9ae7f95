"""What a controller keeps on its own disk: the desired state that counts, and where the devices were last seen.

Private files, each replaced as a whole: ``state.json`` changes with an act or a rotation, ``endpoints.json`` with a
device's place; ``interfaces.json`` names what is to be taken away when it is configured no longer. With them a
controller runs while the cell is away, a stale database cannot bring back what was taken away, and a restarted
gateway calls every device itself.

Invariant: no key in the clear stands in any; pre-shared keys are kept as the database has them, sealed. A file that
cannot be read is put aside and never half believed: then nothing is known, and what runs is left as it is.
"""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from chukan import log, private_file
from chukan.vpn.gateway.desired import Kept
from chukan.vpn.gateway.rotation import Progress

FORM: Final = 1
PLACES_MAX: Final = 200_000

_log = log.get("vpn.gateway.state")
T = TypeVar("T")


class Memory(msgspec.Struct, frozen=True, kw_only=True):
    """Everything but the endpoints."""

    form: int = FORM
    centre: str
    read_at: float | None = None
    """When the database was last read, in seconds since 1970; None before the first time."""
    kept: Kept = Kept()
    progress: Mapping[str, Progress] = {}
    marks: Mapping[str, Mapping[str, str]] = {}
    """By kind: what each link was given, as ``kinds.Report`` says it."""

    def __repr__(self) -> str:
        return f"Memory({self.centre})"


class Place(msgspec.Struct, frozen=True):
    """Where a device was seen, and its last handshake (seconds since 1970)."""

    endpoint: str
    handshake_at: float

    def __repr__(self) -> str:
        return "Place()"


class Store:
    """The files of one controller, in a folder of its own. Its methods block: call them in a thread."""

    def __init__(self, folder: Path, centre: str) -> None:
        self._centre = centre
        self._state = folder / "state.json"
        self._places = folder / "endpoints.json"
        self._interfaces = folder / "interfaces.json"

    def read(self) -> Memory:
        """Return what was kept; an empty memory where there is nothing, or nothing of this centre."""
        found = _read(self._state, Memory)
        if found is None or found.form != FORM or found.centre != self._centre:
            return Memory(centre=self._centre)
        return found

    def write(self, memory: Memory) -> None:
        """Keep it. Raises ``OSError``."""
        self._state.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        private_file.write(self._state, msgspec.json.encode(memory))

    def read_places(self) -> dict[str, Place]:
        """Return where each link's device was last seen."""
        return _read(self._places, dict[str, Place]) or {}

    def write_places(self, places: Mapping[str, Place]) -> None:
        """Keep it. Raises ``OSError``; ``ValueError`` for more links than there can be."""
        if len(places) > PLACES_MAX:
            raise ValueError("more devices were seen than there can be links")
        self._places.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        private_file.write(self._places, msgspec.json.encode(places))

    def read_interfaces(self) -> set[str]:
        """Return the names of the interfaces that this controller has made, at its last start."""
        return _read(self._interfaces, set[str]) or set()

    def write_interfaces(self, names: Collection[str]) -> None:
        """Keep it. Raises ``OSError``."""
        self._interfaces.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        private_file.write(self._interfaces, msgspec.json.encode(sorted(names)))


def _read(path: Path, kind: type[T]) -> T | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError) as error:
        _log.error("a file of this gateway cannot be read and is put aside", exc_info=error)
    try:
        path.replace(path.with_name(f"{path.name}.unreadable"))
    except OSError as error:
        _log.error("a file of this gateway cannot be put aside", exc_info=error)
    return None
