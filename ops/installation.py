"""An installation as its operator works on it: the cells by the steward's login, the key stores, the common data.

Here are the acts of an operator as functions, for the command line, the demo and tests alike: agencies come, are closed
and leave; systems and officers are registered; kill switches are set. Several changes are collected in ``Changes`` and
published as one snapshot by ``publish``; the other functions are that for one thing.

Invariant: an operator's act needs the steward's login and, to change the common data, its signing key; export and
destruction need an order of the agency besides, which no operator can make.
"""

import asyncio
import dataclasses
import datetime as dt
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from chukan.chance import Chance, SystemChance
from chukan.clock import Clock, SystemClock
from chukan.errors import Problem
from chukan.ops.certificates import read_certificates, require_environment
from chukan.ops.operator_gate import admit
from chukan.ops.refused_commands import entered
from chukan.ops.revoked_cards import revoked_cards
from chukan.platform.law import Law
from chukan.replication.primary import Cells
from chukan.settings import Settings, load
from chukan.tenants import departure, directory, order_book, orders, reencryption
from chukan.tenants.arrival import make_ready
from chukan.tenants.bodies import AgencyEntry
from chukan.tenants.changes import Changes, require_agency
from chukan.tenants.common_reading import Common, read_common
from chukan.tenants.departure import administrator
from chukan.tenants.directory import AgencyRow, ClientRow, Directory, Snapshot
from chukan.tenants.export_file import Manifest, Written
from chukan.tenants.keystore import KeyStores
from chukan.tenants.orders import Approved, SignedOrder
from chukan.tenants.pem_keys import read_private_key, read_public_key
from chukan.tenants.publishing import Published, Publisher

T = TypeVar("T")
_TRIES_MAX = 8


class Installation:
    """What an operator's machine can reach; made by ``open_installation``."""

    def __init__(
        self,
        settings: Settings,
        *,
        cells: Cells,
        keystores: KeyStores,
        law: Law,
        public: Ed25519PublicKey,
        key: Ed25519PrivateKey | None,
        clock: Clock,
        chance: Chance,
    ) -> None:
        self.settings = settings
        self.lead_s = settings.site.lead_s
        """How many seconds ahead changes of the common data take effect."""
        self.cells = cells
        self.keystores = keystores
        self.law = law
        self.clock = clock
        self.chance = chance
        self._public = public
        self._key = key

    @property
    def public(self) -> Ed25519PublicKey:
        """The key that the common data must be signed with."""
        return self._public

    @property
    def signing_key(self) -> Ed25519PrivateKey:
        """The key that signs common data and grants; ``Problem`` setting_missing without it, or as it is read."""
        named = self.settings.operator.directory_signing_key_file
        key = self._key or (None if named is None else _read_half(named, self._public))
        if key is None:
            pointer = "/operator/directory_signing_key_file"
            raise Problem("setting_missing", pointer=pointer, expected="--directory-key FILE")
        return key

    @property
    def publisher(self) -> Publisher:
        """Publishes the common data; ``Problem`` as ``signing_key``."""
        return Publisher(self.cells, self.signing_key, self.clock, self.law.number, lead_s=self.lead_s)

    async def common(self) -> Common:
        """Return the common data as it stands in the cells. Raises ``Problem``."""
        return await read_common(self.cells, self._public)

    async def snapshot(self) -> Snapshot:
        """Return the common data in force, or an empty one; ``Problem`` as ``common``."""
        return (await self.common()).snapshot or self._empty()

    async def coming(self) -> Snapshot:
        """Return what will hold once everything that waits is in force; ``Problem`` as ``common``."""
        return (await self.common()).coming or self._empty()

    def _empty(self) -> Snapshot:
        return directory.first(self.clock.now(), self.law.number, self.cells.environment)


@asynccontextmanager
async def open_installation(
    settings: Settings,
    *,
    directory_key: Path | None = None,
    clock: Clock | None = None,
    chance: Chance | None = None,
) -> AsyncIterator[Installation]:
    """Open an installation by its settings; connects to nothing yet.

    Args:
        settings: those of any of its exchanges; ``steward_password_file`` of the cells is needed for most acts.
        directory_key: private key (PEM, Ed25519) that signs the common data, needed for whatever changes it; where it
            is not given, the one that the settings name is read when it is needed.
        clock: the machine's own unless given.
        chance: the system's randomness unless given.

    Raises:
        Problem: certificate_unreadable; setting_invalid when the key is not the one that exchanges verify with, or the
            key stores are not of two centres; other_environment for a root or key store of another environment.
    """
    clock = clock or SystemClock()
    chance = chance or SystemChance(clock)
    environment = settings.site.environment
    require_environment(settings.exchange.tls_ca_file, environment)
    public = read_public_key(settings.exchange.directory_key_file)
    key = None if directory_key is None else _read_half(directory_key, public)
    try:
        keystores = KeyStores.of(settings, chance=chance)
    except ValueError:
        raise Problem("setting_invalid", pointer="/keystores", expected="a folder for each of two centres") from None
    try:
        keystores.check()
        async with Cells(settings.cells, environment) as cells:
            yield Installation(
                settings,
                cells=cells,
                keystores=keystores,
                law=Law.load(settings.data.law_directory),
                public=public,
                key=key,
                clock=clock,
                chance=chance,
            )
    finally:
        keystores.close()


def _read_half(path: Path, public: Ed25519PublicKey) -> Ed25519PrivateKey:
    key = read_private_key(path)
    if directory.key_id(key.public_key()) != directory.key_id(public):
        raise Problem("setting_invalid", pointer="/exchange/directory_key_file", expected="the half of the signing key")
    return key


def run(config: Path | None, work: Callable[[Installation], Awaitable[T]], *, directory_key: Path | None = None) -> T:
    """Do one thing with an installation, for a command; ``config`` None takes the file that CHUKAN_SETTINGS names.

    ``Problem`` operator_role_required where there is an operators' register and who acts has no role for the command.
    """
    named = os.environ.get("CHUKAN_SETTINGS")
    settings = load(config or (Path(named) if named else None), os.environ)

    async def act() -> T:
        async with open_installation(settings, directory_key=directory_key) as installation, entered(installation):
            await admit(settings, installation.cells, installation.public, installation.clock.now())
            return await work(installation)

    return asyncio.run(act())


# ---------------------------------------------------------------- acts


async def publish(
    installation: Installation,
    changes: Changes,
    *,
    at_once: bool = False,
    past_missing: bool = False,
    effective_at: dt.datetime | None = None,
) -> Published:
    """Make true what the changes say, as one snapshot in every cell; new agencies get keys and tables before.

    It takes effect at the time that is returned, not before ``effective_at``; or ``at_once``: then no agency may be
    new. Safe to repeat after any failure. ``Problem`` as ``Publisher.publish`` and ``arrival.make_ready`` say.
    """

    async def ready(agencies: Sequence[AgencyRow]) -> None:
        await make_ready(agencies, cells=installation.cells, keystores=installation.keystores)

    return await installation.publisher.publish(
        changes, ready=ready, at_once=at_once, past_missing=past_missing, effective_at=effective_at
    )


async def until_in_force(installation: Installation, published: Published) -> None:
    """Wait for what was published to be in force everywhere. Raises ``Problem``, busy when it should be and is not."""
    if published.effective_at is not None:
        await asyncio.sleep((published.effective_at - installation.clock.now()).total_seconds())
    for _ in range(_TRIES_MAX):
        common = await installation.common()
        if all((number or 0) >= published.snapshot.number for number in common.numbers.values()):
            return
        await asyncio.sleep(1.0)  # the cells' clocks may be behind ours by the allowed skew
    raise Problem("busy", retry_after_s=1)


async def add_agencies(installation: Installation, entries: Sequence[AgencyEntry]) -> list[AgencyRow]:
    """Add agencies of the shipped data, each in its home centre's cell; those that are there already stay."""
    changes = Changes()
    for entry in entries:
        changes.add_agency(code=entry.code, body=entry.body, name=entry.name, cell=entry.home_centre or "")
    published = await publish(installation, changes)
    return [require_agency(published.snapshot, entry.code) for entry in entries]


async def add_agency(installation: Installation, entry: AgencyEntry, *, cell: str | None = None) -> AgencyRow:
    """Add an agency, in its home centre's cell unless told otherwise."""
    placed = entry if cell is None else msgspec.structs.replace(entry, home_centre=cell)
    return (await add_agencies(installation, [placed]))[0]


async def register_client(installation: Installation, *clients: ClientRow) -> Published:
    """Register systems and officers; a certificate is bound to its registration by its id."""
    changes = Changes()
    for client in clients:
        changes.register(client)
    return await publish(installation, changes)


async def remove_client(installation: Installation, client_id: str) -> Published:
    """Remove a registration; its certificate opens nothing from then on. ``Problem`` unregistered_system."""
    Directory(await installation.coming()).client(client_id)
    return await publish(installation, Changes().remove(client_id))


async def close_agency(installation: Installation, code: str) -> AgencyRow:
    """Close an agency: it accepts nothing and provides nothing any more; its data and keys stay.

    Returns when that is in force: before, exchanges would send it what its cell refuses. ``Problem`` unknown_agency,
    and as publishing and the cell do.
    """
    published = await publish(installation, Changes().close_agency(code))
    await until_in_force(installation, published)
    row = require_agency(published.snapshot, code)
    # Exchanges know by the snapshot; the cell itself refuses what an exchange sends that has not heard.
    await departure.close_in_cell(installation.cells, row)
    return row


async def export_agency(
    installation: Installation, code: str, document: SignedOrder | None, path: Path
) -> tuple[Manifest, Written]:
    """Hand an agency its data in a file that only the recipient of its order can open.

    ``Problem`` unknown_agency, order_required, order_invalid, and as ``departure.export_agency`` says.
    """
    agency, approved = await _demand(installation, code, document, "export")
    return await departure.export_agency(
        approved,
        agency,
        cells=installation.cells,
        keys=installation.keystores.load(agency.number),
        path=path,
        chance=installation.chance,
        at=installation.clock.now().replace(microsecond=0),
    )


async def destroy_agency(
    installation: Installation,
    code: str,
    document: SignedOrder | None,
    *,
    admin_user: str,
    admin_password_file: Path | None,
) -> Published:
    """Destroy a closed agency: keys in every centre, tables, role, rights.

    ``Problem`` unknown_agency, order_required, order_invalid, and as ``departure.destroy_agency`` says.
    """
    agency, approved = await _demand(installation, code, document, "destroy")
    publisher = installation.publisher
    if admin_password_file is None:
        raise Problem("setting_missing", pointer="/admin_password_file", expected="--admin-password-file FILE")
    async with administrator(installation.settings.cells[agency.cell], admin_user, admin_password_file) as admin:
        return await departure.destroy_agency(
            approved,
            agency,
            cells=installation.cells,
            keystores=installation.keystores,
            publisher=publisher,
            admin=admin,
        )


async def destroy_keys(installation: Installation, code: str, document: SignedOrder | None) -> AgencyRow:
    """Destroy a closed agency's keys in every centre (crypto-erase); its tables stay, and nobody can read them.

    ``Problem`` unknown_agency, order_required, order_invalid, and as ``departure.destroy_keys`` says.
    """
    agency, approved = await _demand(installation, code, document, "destroy")
    await departure.destroy_keys(approved, agency, cells=installation.cells, keystores=installation.keystores)
    return agency


async def retire_keys(installation: Installation, code: str, document: SignedOrder | None) -> reencryption.Done:
    """Destroy an agency's data keys of before the newest, once its rows need none of them; its other keys stay.

    Rows are re-encrypted first; a floor in the database then proves that none is left. What backups of before hold can
    be read no more, so it takes an order of the agency, and a new one each time; what was interrupted goes on under the
    same, at the version that it was begun with. Without an order, what any centre has begun to destroy is finished:
    those keys are used by nobody any more. ``Problem`` key_versions_needed, and as ``destroy_keys``.
    """
    if document is None and (finished := await _finish_retirement(installation, code)) is not None:
        return finished
    agency, approved = await _demand(installation, code, document, "retire")
    async with installation.cells.steward(agency.cell) as steward:
        if await order_book.begin(steward, approved, agency.number) == "done":
            # The keys of before a later rotation are not what these officers ordered destroyed.
            raise Problem("order_invalid", expected="an order that was not carried out before")
    keys = installation.keystores.load(agency.number)
    async with installation.cells.steward(agency.cell) as steward:
        version = await reencryption.name_version(steward, approved.order.id, agency.number, keys.newest())
    done = await reencryption.reencrypt(installation.cells, agency, keys)
    if done.left:
        raise Problem("key_versions_needed", limit=done.left)
    await reencryption.raise_floor(installation.cells, agency, version)
    await asyncio.to_thread(installation.keystores.retire, agency.number, version)
    async with installation.cells.steward(agency.cell) as steward:
        await order_book.finish(steward, approved)
    return dataclasses.replace(done, version=version)


async def _finish_retirement(installation: Installation, code: str) -> reencryption.Done | None:
    """Carry out what a centre's key store was interrupted at; None where nothing was begun."""
    agency = require_agency(await installation.snapshot(), code)
    begun = await asyncio.to_thread(installation.keystores.unfinished, agency.number)
    if begun is None:
        return None
    await asyncio.to_thread(installation.keystores.retire, agency.number, begun.below)
    for each in await reencryption.retirements_begun(installation.cells, agency.cell):
        if (each.agency, each.version) == (agency.number, begun.below):
            async with installation.cells.steward(agency.cell) as steward:
                await order_book.finish_id(steward, each.id)
    return reencryption.Done(begun.below)


async def _demand(
    installation: Installation, code: str, document: SignedOrder | None, action: orders.Action
) -> tuple[AgencyRow, Approved]:
    snapshot = await installation.snapshot()
    agency = require_agency(snapshot, code)
    trusted = read_certificates(installation.settings.exchange.tls_ca_file)
    approved = orders.demand(
        document,
        action=action,
        agency=agency,
        directory=Directory(snapshot),
        trusted=trusted,
        at=installation.clock.now(),
        revoked=revoked_cards(installation.settings, installation.clock.now()),
    )
    return agency, approved
