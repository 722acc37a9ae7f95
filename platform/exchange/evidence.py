"""An exchange's part in the evidence (証跡): it signs all cells' logs with its centre's key, and cosigns others'.

Signers of several exchanges may run at once: each cell lets one work at a time. Both kinds stand still in a restored
cell that is not opened yet, as everything does (``SetCaller.guard``).

Invariant: the centre's private key is read here and given to signer and cosigner only.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator
from functools import partial
from typing import Any

from chukan.errors import Problem
from chukan.platform.exchange.context import Context
from chukan.settings import Settings
from chukan.tenants.cosigning import Cosigner, Restores
from chukan.tenants.evidence import CentreKeys, Signer
from chukan.tenants.map_growth import MapFollower, MapGrower
from chukan.tenants.pem_keys import read_private_key, read_public_key


def read_centre_keys(settings: Settings) -> CentreKeys:
    """Return the evidence keys that the settings name.

    Raises ``Problem`` certificate_unreadable; setting_invalid where the own key is not the published one of this
    centre, or the memory's cell is none.
    """
    evidence, centre = settings.evidence, settings.site.centre
    public = {name: read_public_key(path) for name, path in evidence.public_key_files.items()}
    private = None if evidence.signing_key_file is None else read_private_key(evidence.signing_key_file)
    if private is not None:
        mine = public.get(centre)
        if mine is None or mine.public_bytes_raw() != private.public_key().public_bytes_raw():
            pointer = f"/evidence/public_key_files/{centre}"
            raise Problem("setting_invalid", pointer=pointer, expected="the public half of signing_key_file")
    if evidence.memory_cell is not None and evidence.memory_cell not in settings.cells:
        raise Problem("setting_invalid", pointer="/evidence/memory_cell", expected="the name of a cell")
    return CentreKeys(evidence.name, settings.site.environment, centre, private, public)


def origin_of(settings: Settings, name: str) -> str:
    """Return the origin of a log by what stands for the code in it; no key is read for it."""
    return CentreKeys(settings.evidence.name, settings.site.environment, settings.site.centre, None, {}).origin(name)


def memory_cell(settings: Settings) -> str:
    """Return the cell in which this centre remembers what it has cosigned."""
    named = settings.evidence.memory_cell or settings.site.centre
    return named if named in settings.cells else min(settings.cells)


def evidence_loops(
    context: Context, on_age: Callable[[str, float], None], on_broken: Callable[[str, str, int], None]
) -> Iterator[tuple[str, Coroutine[Any, Any, None]]]:
    """Yield the loops of this exchange by name, none without a key; ``Problem`` as ``read_centre_keys``.

    ``on_broken`` is told by cell, and by what is refused (``signing``, ``cosigning``), of how many logs it is.
    """
    keys = read_centre_keys(context.settings)
    if keys.private is None:
        return

    memory = context.sets[memory_cell(context.settings)]
    for cell, sets in context.sets.items():
        signing, cosigning = partial(on_broken, cell, "signing"), partial(on_broken, cell, "cosigning")
        yield (
            f"signer {cell}",
            Signer(sets, keys, context.code_of, partial(on_age, cell), on_broken=signing, maps=MapGrower(sets)).run(),
        )
        if len(keys.public) > 1:
            # Only this centre's own settings say that a cell was restored: no log can say it of itself.
            restores = Restores(context.settings.cells[cell].restore_epoch, sets, memory)
            maps = MapFollower(sets, memory)
            cosigner = Cosigner(
                sets, memory, keys, context.code_of, context.clock, restores=restores, on_forked=cosigning, maps=maps
            )
            yield f"cosigner {cell}", cosigner.run()
