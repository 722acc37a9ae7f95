"""An exchange's part in the operations logs (操作記録): the port for those who enter acts, and the loops of the trees.

Entries get their places in every exchange (one at a time in a cell); where there is an evidence key they are signed and
cosigned as the provision records are, by the same code.

Invariant: what enters an act for an agency seals it with that agency's keys; nothing here reads an entry.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator
from functools import partial
from typing import Any

from chukan.platform.exchange.context import Context
from chukan.platform.exchange.evidence import memory_cell, read_centre_keys
from chukan.tenants.cosigning import Cosigner, Restores
from chukan.tenants.evidence import Signer
from chukan.tenants.operations import Journal
from chukan.tenants.operations_tree import OperationSequencer, OperationTrees, log_name
from chukan.tenants.sets import CellSets


def make_journal(context: Context) -> Journal:
    """Return the port for acts that write nothing else: agencies' go to their cells, operators' to the first."""

    def sets_of(agency: int | None) -> CellSets:
        if agency is None:
            return context.sets[min(context.sets)]
        return context.cell(context.common.directory.by_number(agency))

    return Journal(context.keys, sets_of, context.chance)


def operation_loops(
    context: Context, on_age: Callable[[str, float], None]
) -> Iterator[tuple[str, Coroutine[Any, Any, None]]]:
    """Yield the loops of this exchange by name; without an evidence key only those that give places.

    Raises ``Problem`` as ``read_centre_keys``.
    """
    keys = read_centre_keys(context.settings)

    memory = context.sets[memory_cell(context.settings)]
    for cell, sets in context.sets.items():
        yield f"operations {cell}", OperationSequencer(sets).run()
        if keys.private is None:
            continue
        trees, named = OperationTrees(sets), partial(log_name, cell=cell, code_of=context.code_of)
        yield f"operations signer {cell}", Signer(trees, keys, named, partial(on_age, cell)).run()
        if len(keys.public) > 1:
            # Only this centre's own settings say that a cell was restored: no log can say it of itself.
            restores = Restores(context.settings.cells[cell].restore_epoch, trees, memory)
            cosigner = Cosigner(trees, memory, keys, named, context.clock, restores=restores)
            yield f"operations cosigner {cell}", cosigner.run()
