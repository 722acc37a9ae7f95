"""Reconciles a restored cell (セル) with the network, and opens it (DESIGN §7); ``reopening_commands`` calls this.

A restored cell is closed: exchanges read there, write nothing, and have the network wait. Of each agency that lives
there the network is asked what it and the agency have told each other since the moment restored to. What the network
can push again it pushes again; what nobody can bring back is a *difference*, listed for the agencies, and the number of
them must be accepted by whoever opens the cell. What is pushed again arrives once the cell is open.

Invariant: nothing of an agency is opened or shown but ids: messages and permits are known to the cell or not.
"""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, TypeVar

import msgspec

from chukan import log
from chukan.chance import Chance
from chukan.clock import Clock
from chukan.errors import Problem
from chukan.ops.installation import Installation, open_installation
from chukan.ops.restored_logs import RestoredLogs
from chukan.ops.sandbox.config import read_private_key, read_public_key
from chukan.platform import tls
from chukan.platform.envelope import Opener, Signer
from chukan.platform.exchange.evidence import read_centre_keys
from chukan.platform.exchange.memos import open_notice
from chukan.platform.peer import NetworkPeer
from chukan.platform.wire.network import LINES_MAX, InventoryEntry, InventoryRequest, RedeliveryRequest
from chukan.replication.primary import Connection
from chukan.settings import Settings
from chukan.tenants import reopening
from chukan.tenants.departure import administrator
from chukan.tenants.directory import AgencyRow
from chukan.tenants.sealing import AgencyKeys
from chukan.tenants.sets import CellSets, CommonRow
from chukan.tenants.states import InquiryState, ProvisionState

MARGIN: Final = dt.timedelta(seconds=60)
"""So much before the moment the network is asked from: its clock and the cell's differ, and a repeat does no harm."""
PAGES_MAX: Final = 10_000
HELD_MAX: Final = 10_000

_log = log.get("reopening")
_encode: Final = msgspec.json.encode
T = TypeVar("T")

What = Literal[
    "request_unknown", "provision_unknown", "provision_undecided", "code_to_acquire", "not_redelivered", "not_told"
]
"""A difference that no redelivery brings back:

- ``request_unknown``: the agency asked for a permit, and its line is not here; the query and its record are lost;
- ``provision_unknown``: the agency answered, and neither the provision nor its record is here;
- ``provision_undecided``: it is still held here, and was answered;
- ``code_to_acquire``: a linkage code was brought, and is not here; the agency hands its number over once more;
- ``not_redelivered``: the network does not have the message any more;
- ``not_told``: the network does not take this platform as speaking for the agency.
"""


class Difference(msgspec.Struct, frozen=True, omit_defaults=True):
    """One thing that the network holds and the cell does not."""

    agency: str
    what: What
    id: str | None = None
    """Of a request its id, which is the agency's line; of a provision its permit; of a code its message."""
    at: dt.datetime | None = None
    final: str | None = None
    """What the line ended with, by the network's word."""


class Reconciled(msgspec.Struct, frozen=True):
    """What came of a comparison."""

    cell: str
    epoch: int
    """The epoch that the cell waits to be opened in."""
    since: dt.datetime
    asked_at: dt.datetime
    agencies: int
    lines: int
    """How many things the network told."""
    redelivered: int
    """How many messages it was asked to push again (or would be), codes not counted."""
    differences: list[Difference]

    @property
    def count(self) -> int:
        """The number that must be accepted to open the cell."""
        return len(self.differences)


class Opened(msgspec.Struct, frozen=True):
    """A cell that was opened."""

    cell: str
    epoch: int
    opened_at: dt.datetime
    agencies: int
    differences: int


@dataclass(frozen=True, slots=True)
class Place:
    """A restored cell, and what is needed to compare and open it."""

    cell: str
    epoch: int
    """The one that the settings name."""
    sets: CellSets
    admin: Connection
    peer: NetworkPeer
    keys: Callable[[int], AgencyKeys]
    agencies: Sequence[AgencyRow]
    """Those that live in the cell, closed ones too."""
    newest: CommonRow | None
    """The newest common data in force in any cell."""
    witnesses: Sequence[CellSets]
    """All cells in which cosigners remember what they saw of its logs."""
    origin: Callable[[str], str]
    """The name of an agency's log, by its code."""
    clock: Clock
    chance: Chance


# ---------------------------------------------------------------- for the command line, and for drills


async def reconcile_cell(
    settings: Settings,
    cell: str,
    since: dt.datetime,
    *,
    admin_user: str,
    admin_password_file: Path,
    redeliver: bool = True,
) -> Reconciled:
    """Compare a restored cell with the network, and have pushed again what can be.

    Args:
        settings: those of an exchange, rendered after the cell's ``restore_epoch`` was raised; its identity towards the
            network and its key stores are used.
        cell: the restored cell.
        since: the moment restored to.
        admin_user: the databases' administrator.
        admin_password_file: the administrator's password.
        redeliver: order what can be pushed again; otherwise it is only counted.

    Raises:
        Problem: cell_not_restored; network_unavailable; keys_unconfirmed; as the cells do.
    """
    async with place(settings, cell, admin_user, admin_password_file) as found:
        return await compare(found, since, redeliver=redeliver)


async def open_cell(
    settings: Settings,
    cell: str,
    since: dt.datetime,
    *,
    admin_user: str,
    admin_password_file: Path,
    accept: int,
    note: str = "",
) -> Opened:
    """Compare once more, and open the cell when exactly ``accept`` differences are found.

    Arguments as of ``reconcile_cell``; ``note`` is kept with the opening.

    Raises:
        Problem: differences_not_accepted; otherwise as ``reconcile_cell`` says.
    """
    async with place(settings, cell, admin_user, admin_password_file) as found:
        return await open_place(found, since, accept=accept, note=note)


@asynccontextmanager
async def place(settings: Settings, cell: str, user: str, password_file: Path) -> AsyncIterator[Place]:
    """Reach a restored cell and the network by an exchange's settings. Raises ``Problem``."""
    if cell not in settings.cells:
        raise Problem("invalid_field", pointer="/cell", expected=" or ".join(sorted(settings.cells)))
    async with (
        open_installation(settings) as installation,
        administrator(settings.cells[cell], user, password_file) as admin,
    ):
        peer = network_peer(settings, installation.clock, installation.chance)
        try:
            yield await _place(installation, cell, admin, peer)
        finally:
            await peer.close()


async def _place(installation: Installation, cell: str, admin: Connection, peer: NetworkPeer) -> Place:
    common = await installation.common()
    if common.snapshot is None:
        raise Problem("common_data_stale")
    in_force = [row for rows in common.held.values() for row in rows if row.in_force]
    return Place(
        cell=cell,
        epoch=installation.settings.cells[cell].restore_epoch,
        sets=CellSets(installation.cells.primary(cell).broker),
        admin=admin,
        peer=peer,
        keys=installation.keystores.load,
        agencies=[row for row in common.snapshot.agencies if row.cell == cell],
        newest=max(in_force, key=lambda row: row.number, default=None),
        witnesses=[CellSets(installation.cells.primary(name).broker) for name in sorted(installation.settings.cells)],
        origin=read_centre_keys(installation.settings).origin,
        clock=installation.clock,
        chance=installation.chance,
    )


def network_peer(settings: Settings, clock: Clock, chance: Chance) -> NetworkPeer:
    """Return the network as the exchange of these settings calls it. Raises ``Problem``; the caller closes it."""
    mine, network = settings.exchange, settings.network
    signer = Signer(mine.name, read_private_key(mine.signing_key_file), clock, chance)
    opener = Opener({network.name: read_public_key(network.verify_key_file)}, clock)
    context = tls.client_context(mine.tls_certificate_file, mine.tls_key_file, network.ca_file)
    return NetworkPeer(network, signer, opener, context, name=network.name)


# ---------------------------------------------------------------- comparing


class _Findings:
    """What is found of one agency."""

    def __init__(self, agency: AgencyRow) -> None:
        self.agency = agency
        self.differences: list[Difference] = []
        self.again: list[uuid.UUID] = []
        self.answers: set[uuid.UUID] = set()
        """Those of ``again`` that are answers."""
        self.reopen: list[uuid.UUID] = []

    def differs(self, what: What, entry: InventoryEntry | None = None, named: uuid.UUID | None = None) -> None:
        """Note a difference."""
        at, final = (None, None) if entry is None else (entry.at, entry.final)
        self.differences.append(Difference(self.agency.code, what, None if named is None else str(named), at, final))


async def compare(here: Place, since: dt.datetime, *, redeliver: bool) -> Reconciled:
    """Compare every agency of the cell with the network. Raises ``Problem`` as ``reconcile_cell``."""
    await _require_restored(here)
    asked_at = here.clock.now()
    lines, again, differences = 0, 0, []
    for agency in here.agencies:
        found = _Findings(agency)
        entries = await _inventory(here, agency, since - MARGIN)
        if entries is None:
            found.differs("not_told")
        else:
            lines += len(entries)
            await _look_at_requests(here, found, [each for each in entries if each.what == "request"])
            await _look_at_notices(here, found, [each for each in entries if each.what == "notice"])
            await _look_at_codes(here, found, [each for each in entries if each.what == "code"])
        if redeliver:
            await _order(here, found)
        again += len(found.again)
        differences += found.differences
    _log.warning("a restored cell was compared", cell=here.cell, count=len(differences))
    return Reconciled(here.cell, here.epoch, since, asked_at, len(here.agencies), lines, again, differences)


async def _require_restored(here: Place) -> None:
    opening = await reopening.read_opening(here.admin)
    if opening.epoch >= here.epoch:
        expected = f"a restore_epoch above {opening.epoch} for {here.cell}"
        raise Problem("cell_not_restored", expected=expected)


async def _inventory(here: Place, agency: AgencyRow, since: dt.datetime) -> list[InventoryEntry] | None:
    """Return everything that the network tells of an agency, None where it tells nothing."""
    entries: list[InventoryEntry] = []
    after = 0
    for _ in range(PAGES_MAX):
        request = InventoryRequest(id=here.chance.uuid7(), agency=agency.code, since=since, after=after)
        (reply,) = await here.peer.inventories([_encode(request)])
        if reply.outcome != "answered":
            return None
        entries += reply.entries
        if reply.next is None:
            return entries
        after = reply.next
    raise Problem("too_many_lines", limit=PAGES_MAX * LINES_MAX)


async def _look_at_requests(here: Place, found: _Findings, entries: Sequence[InventoryEntry]) -> None:
    """Queries: a line that is not here is lost; one that is open here and answered there gets its answer again."""
    for part in _parts(entries):
        ids = [entry.request for entry in part if entry.request is not None]
        views = {view.id: view for view in await here.sets.inquiry_views(found.agency.number, ids=ids, limit=len(ids))}
        for entry in part:
            view = None if entry.request is None else views.get(entry.request)
            if view is None:
                found.differs("request_unknown", entry, entry.request)
            elif view.state < InquiryState.ANSWERED and entry.push is not None:
                found.again.append(entry.push)
                found.answers.add(entry.push)


async def _look_at_notices(here: Place, found: _Findings, entries: Sequence[InventoryEntry]) -> None:
    """Provisions: what is not here and not answered is asked anew; what was answered is lost with its record."""
    if not entries:
        return
    keys = here.keys(found.agency.number)
    held = await _held_permits(here, found.agency, keys)
    for part in _parts(entries):
        permits = [b"" if entry.permit is None else keys.digest("permit", entry.permit.bytes) for entry in part]
        known = await reopening.known_permits(here.admin, found.agency.number, permits)
        for entry, is_known in zip(part, known, strict=True):
            if not is_known and entry.final not in {None, "expired"}:  # nothing was provided under one that lapsed
                found.differs("provision_unknown", entry, entry.permit)
            elif not is_known and entry.final is None and entry.push is not None:
                found.again.append(entry.push)
            elif is_known and entry.final not in {None, "expired"} and entry.permit in held:
                found.differs("provision_undecided", entry, entry.permit)


async def _held_permits(here: Place, agency: AgencyRow, keys: AgencyKeys) -> set[uuid.UUID]:
    """Return the permits of an agency's held lines (自動応答不可)."""
    rows = await here.sets.provision_views(agency.number, state=ProvisionState.HELD, limit=HELD_MAX)
    return {open_notice(keys, row.id, row.notice).permit.permit for row in rows}


async def _look_at_codes(here: Place, found: _Findings, entries: Sequence[InventoryEntry]) -> None:
    """Linkage codes: one that was brought and is not here can be acquired once more."""
    for part in _parts([entry for entry in entries if entry.push is not None]):
        messages = [entry.push for entry in part if entry.push is not None]
        known = await reopening.known_messages(here.admin, found.agency.number, messages)
        for entry, message, is_known in zip(part, messages, known, strict=True):
            if not is_known:
                found.reopen.append(message)
                found.differs("code_to_acquire", entry, message)


async def _order(here: Place, found: _Findings) -> None:
    """Have pushed again what can be; what cannot any more is a difference."""
    for part in _parts([*found.again, *found.reopen]):
        items = [_encode(RedeliveryRequest(id=message, agency=found.agency.code)) for message in part]
        for reply in await here.peer.redeliveries(items):
            # A notice whose line or time has ended by now leaves nothing to be done.
            if reply.status == "unknown" or (reply.status == "closed" and reply.id in found.answers):
                found.differs("not_redelivered", None, reply.id)


def _parts(items: Sequence[T]) -> Iterator[Sequence[T]]:
    for start in range(0, len(items), LINES_MAX):
        yield items[start : start + LINES_MAX]


# ---------------------------------------------------------------- opening


async def open_place(here: Place, since: dt.datetime, *, accept: int, note: str = "") -> Opened:
    """Compare, bring the common data up to those of the other cells, and open. Raises ``Problem`` as ``open_cell``."""
    report = await compare(here, since, redeliver=True)
    if report.count != accept:
        raise Problem("differences_not_accepted", expected=str(report.count))
    if here.newest is not None:
        await reopening.catch_up(here.admin, await here.sets.snapshot_number(), here.newest)
    logs = RestoredLogs(here.cell, here.epoch, here.admin, here.agencies, here.witnesses, here.origin)
    await logs.mark()
    words = f"restored to {since.isoformat()}; {accept} differences accepted; {note}".rstrip("; ")
    opened_at = await reopening.open_cell(here.admin, here.epoch, words)
    for agency in here.agencies:
        # The audit event of each agency; its log bears a leaf of it, which the next checkpoint signs.
        _log.warning("cell_restored", agency=agency.number, cell=here.cell, epoch=here.epoch)
    return Opened(here.cell, here.epoch, opened_at, len(here.agencies), accept)
