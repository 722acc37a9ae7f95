"""Door 2: the set functions of one cell — ``CellSets(pool)``, one method a function, one commit a call.

A set is a list of rows of one side in one cell, of any mix of agencies. The broker's login has no right on any table;
it may execute these functions and nothing else. A retry of any call is safe: what was done before is found by a
statement that writes, so "already done" is as durable as the first time.

``listen`` brings the hints of other processes that there is work.
"""

from collections.abc import Callable
from typing import Final

from chukan.replication.primary import Cells
from chukan.tenants import hints
from chukan.tenants.hints import Hint
from chukan.tenants.sets.acquisition_asks import AskSets
from chukan.tenants.sets.code_changes import CodeChangeSets
from chukan.tenants.sets.codes import CodeSets
from chukan.tenants.sets.common import CHANNELS, Backlog, CommonRow, CopyAge, Opening, SnapshotRow
from chukan.tenants.sets.corrections import CorrectionSets
from chukan.tenants.sets.evidence import EvidenceSets
from chukan.tenants.sets.inquiry import InquirySets
from chukan.tenants.sets.links import LinkSets
from chukan.tenants.sets.masters import MasterSets
from chukan.tenants.sets.operations import OperationSets
from chukan.tenants.sets.provision import ProvisionSets
from chukan.tenants.sets.shared import SharedSets
from chukan.tenants.states import Side

__all__ = ["CHANNELS", "Backlog", "CellSets", "CommonRow", "CopyAge", "Opening", "SnapshotRow", "listen"]

_SIDES: Final = {channel: side for side, channel in CHANNELS.items()}


class CellSets(
    InquirySets,
    ProvisionSets,
    CodeSets,
    CodeChangeSets,
    AskSets,
    LinkSets,
    EvidenceSets,
    MasterSets,
    OperationSets,
    CorrectionSets,
    SharedSets,
):
    """All set functions of one cell, called by the broker's login.

    Every method raises ``Problem``: stale_lease, agency_moved (stale generation, or closed); no_primary, unavailable,
    busy (worth another try: the commit may or may not have happened); internal (a defect, logged by its SQLSTATE).
    """


async def listen(cells: Cells, cell: str, heard: Callable[[str, Side, Hint], None]) -> None:
    """Call ``heard(cell, side, hint)`` whenever there may be something to do, until cancelled; see ``Cells.hear``."""
    await cells.hear(cell, list(_SIDES), lambda channel, told: heard(cell, _SIDES[channel], hints.read(told)))
