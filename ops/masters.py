"""Changing the master data (配信マスター): proposed by one person, approved by another, in force at a stated instant.

A version is made from the one that will be in force once everything that waits is, so that none overwrites another
unseen: who proposed on top of an older one proposes anew. ``withdraw`` keeps an approved version out of force; a
rollback is a new version with the files of an old one.

Invariant: nothing is published here that ``tenants.masters.verify`` does not accept, and every act is entered with the
name in the certificate. Proposing, approving and rejecting need a private key; none of them needs the other's.
"""

from __future__ import annotations

import datetime as dt
import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from chukan.clock import to_jst
from chukan.errors import Problem
from chukan.ops.certificates import Issued, read_certificates
from chukan.ops.installation import Installation, publish
from chukan.ops.operator_gate import read_holder, register_in_force, require
from chukan.ops.revoked_cards import revoked_cards
from chukan.platform.law.masters import complete, operators
from chukan.tenants import master_book as book
from chukan.tenants import masters
from chukan.tenants.changes import Changes
from chukan.tenants.common_reading import Common
from chukan.tenants.masters import Content, FileDifference, Master
from chukan.tenants.operator_register import FILE as OPERATORS
from chukan.tenants.operator_register import Register
from chukan.tenants.publishing import Published
from chukan.tenants.sets import CellSets

State = Literal["proposed", "rejected", "approved", "waiting", "in force", "withdrawn", "past"]
FILE_BYTES_MAX = 4 * 1024 * 1024


class Person(NamedTuple):
    """Somebody who changes masters, as their certificate names them."""

    name: str
    chain: list[x509.Certificate]
    key: ec.EllipticCurvePrivateKey


class Preview(NamedTuple):
    """What a version would change, and how many lines are open that would be judged by it."""

    differences: list[FileDifference]
    pending: dict[str, int]
    """Open lines by cell, both sides. Which of them a change concerns only the agencies' keys could tell."""


@dataclass(frozen=True, slots=True)
class Version:
    """A version as it stands now."""

    version: int
    digest: bytes
    state: State
    proposed_by: str
    approved_by: str | None
    effective_at: dt.datetime | None
    """When it comes into force, of one that waits."""


def read_person(installation: Installation, certificate: Path, key: Path) -> Person:
    """Return who holds this certificate and key. ``Problem`` master_invalid, certificate_unreadable."""
    holder = read_holder(installation.settings, Issued(certificate, key), installation.clock.now())
    return Person(*holder)


def _revoked_now(installation: Installation) -> masters.RevokedAt:
    """Return what tells whether a certificate is on a list in force, whenever something was signed with it.

    ``Problem`` revocation_list_invalid while a list that the settings name cannot be read: nothing is signed then.
    """
    revoked = revoked_cards(installation.settings, installation.clock.now())
    return lambda certificate, _: revoked(certificate)


def read_files(folder: Path) -> dict[str, str]:
    """Return the changed files of a folder; ``Problem`` request_invalid."""
    found = {}
    try:
        for path in sorted(folder.iterdir()):
            if path.suffix in {".csv", ".toml"}:
                if path.stat().st_size > FILE_BYTES_MAX:
                    raise Problem("too_large", limit=FILE_BYTES_MAX)
                found[path.name] = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        raise Problem("request_invalid", expected=f"readable files in UTF-8 in {folder}") from None
    if not found or len(found) > masters.FILES_MAX:
        raise Problem("request_invalid", limit=masters.FILES_MAX, expected=f"files .csv or .toml in {folder}")
    return found


async def files_of(installation: Installation, version: int) -> dict[str, str]:
    """Return all files of a version, of 0 those of the release. ``Problem`` not_found, master_invalid."""
    if version == 0:
        return complete({}, installation.settings.data.law_directory)
    return dict((await _content(installation, await _row(installation, version))).files)


async def base_of(installation: Installation) -> int:
    """Return the version that will be in force once everything that waits is."""
    named = masters.named((await installation.coming()).law_number)
    return 0 if named is None else named.version


async def propose(
    installation: Installation, person: Person, files: Mapping[str, str], effective_at: dt.datetime, note: str
) -> Version:
    """Propose a version with these files in the place of the present ones, to take effect at an instant.

    ``Problem`` master_invalid where the whole contradicts itself or nothing changes, or the instant is not ahead;
    master_state where somebody else proposed at the same moment.
    """
    _require_ahead(installation, effective_at)
    base = await base_of(installation)
    before = await files_of(installation, base)
    after = complete({**before, **files}, installation.settings.data.law_directory)
    if not masters.compare(before, after):
        raise Problem("master_invalid", expected="something that is otherwise than in the version before")
    await _require_roles(installation, person, before, after, effective_at)
    known = await book.versions(installation.cells)
    content = Content(
        version=1 + max((row.version for row in known), default=0),
        base=base,
        environment=installation.settings.site.environment,
        note=note,
        effective_at=effective_at,
        files=after,
    )
    body = masters.pack(content)
    masters.unpack(body)  # refuses a form that could not be read back
    digest, at = masters.digest_of(body), installation.clock.now()
    signature = masters.sign("propose", digest, person.chain, person.key, at)
    await book.put(installation.cells, Master(digest, content.version, body, signature, None))
    await _enter(installation, content.version, "propose", person, note)
    return Version(content.version, digest, "proposed", person.name, None, None)


async def approve(installation: Installation, person: Person, version: int) -> Published:
    """Approve another's proposal, and have it take effect at its instant; safe to repeat after any failure.

    ``Problem`` second_person for one's own; master_state where it was rejected or withdrawn, where another version came
    between, or its instant is over.
    """
    row = await _row(installation, version)
    state = (await _states(installation))[version]
    if state.state in ("rejected", "withdrawn", "past", "in force"):
        raise Problem("master_state")
    content = await _content(installation, row)
    trusted = read_certificates(installation.settings.exchange.tls_ca_file)
    # Whose card was revoked since proposes nothing any more, whatever time the proposal names.
    revoked = _revoked_now(installation)
    base = await files_of(installation, content.base)
    await _require_roles(installation, person, base, dict(content.files), content.effective_at)
    if masters.check_signature(row.proposal, "propose", row.digest, trusted, revoked) == person.name:
        raise Problem("second_person")
    found = await book.get(installation.cells, row.digest)
    name = masters.name_in_force(version, row.digest)
    if state.state != "waiting":
        _require_ahead(installation, content.effective_at)
        if content.base != await base_of(installation):
            raise Problem("master_state", expected=f"a version made from version {await base_of(installation)}")
    approval = masters.sign("approve", row.digest, person.chain, person.key, installation.clock.now())
    approved = found._replace(approval=found.approval or approval)
    masters.verify(approved, row.digest, trusted=trusted, environment=content.environment, revoked=revoked)
    await book.put(installation.cells, approved)
    before = (await installation.coming()).law_number
    published = await publish(
        installation, Changes().set_law(name, instead_of=before), effective_at=content.effective_at
    )
    await _enter(installation, version, "approve", person, content.note)
    return published


async def reject(installation: Installation, person: Person, version: int, reason: str) -> None:
    """Refuse a proposal, or take one's own back. ``Problem`` master_state where it was decided about already."""
    row = await _row(installation, version)
    await _require_any(installation, person)
    if (await _states(installation))[row.version].state not in ("proposed", "approved"):
        raise Problem("master_state")
    await _enter(installation, version, "reject", person, reason)


async def withdraw(installation: Installation, person: Person, version: int, reason: str) -> Published:
    """Keep an approved version that waits from coming into force: what is in force before it stays.

    ``Problem`` master_state where it does not wait.
    """
    row = await _row(installation, version)
    await _require_any(installation, person)
    state = (await _states(installation))[version]
    if state.state != "waiting" or state.effective_at is None:
        raise Problem("master_state")
    name = masters.name_in_force(version, row.digest)
    common = await installation.common()
    coming = [each for each in (common.snapshot, *(each.snapshot for each in common.waiting)) if each is not None]
    before = next((old for old, new in itertools.pairwise(coming) if new.law_number == name), None)
    if before is None:
        raise Problem("master_state")
    changes = Changes().set_law(before.law_number, instead_of=name)
    published = await publish(installation, changes, effective_at=state.effective_at)
    await _enter(installation, version, "withdraw", person, reason)
    return published


async def preview(installation: Installation, before: Mapping[str, str], after: Mapping[str, str]) -> Preview:
    """Return what is otherwise, and how many open lines there are in each cell."""
    pending = {}
    for name in sorted(installation.cells.names):
        counted = await CellSets(installation.cells.primary(name).broker).agency_backlog()
        pending[name] = sum(counted.values())
    return Preview(masters.compare(before, after), pending)


async def versions(installation: Installation) -> list[Version]:
    """Return the versions as they stand, the newest first."""
    states = await _states(installation)
    return [states[number] for number in sorted(states, reverse=True)]


async def content_of(installation: Installation, version: int) -> Content:
    """Return what a version says, whatever its state. ``Problem`` not_found, master_invalid."""
    return await _content(installation, await _row(installation, version))


async def _states(installation: Installation) -> dict[int, Version]:
    common = await installation.common()
    done = {(act.version, act.act) for act in await book.acts(installation.cells)}
    found = {}
    for row in await book.versions(installation.cells):
        state, at = _state(row, common, done)
        by = None if row.approval is None else masters.read_signature(row.approval).by
        proposer = masters.read_signature(row.proposal).by
        found[row.version] = Version(row.version, row.digest, state, proposer, by, at)
    return found


def _state(row: book.VersionRow, common: Common, done: set[tuple[int, str]]) -> tuple[State, dt.datetime | None]:
    name = masters.name_in_force(row.version, row.digest)
    if common.snapshot is not None and common.snapshot.law_number == name:
        return "in force", None
    if (row.version, "withdraw") in done:
        return "withdrawn", None
    waiting = [each.effective_at for each in common.waiting if each.snapshot.law_number == name]
    if waiting:
        return "waiting", waiting[0]
    if (row.version, "reject") in done:
        return "rejected", None
    if (row.version, "approve") in done:
        return "past", None
    return "proposed" if row.approval is None else "approved", None


async def _require_roles(
    installation: Installation,
    person: Person,
    before: Mapping[str, str],
    after: Mapping[str, str],
    effective_at: dt.datetime,
) -> None:
    """Refuse who may not change these files by the register in force; the register itself is changed by ``security``.

    ``Problem`` operator_role_required; master_invalid for a register that two people could not change any more.
    """
    register, now = await _register(installation), installation.clock.now()
    changed = {each.file for each in masters.compare(before, after)}
    if changed - {OPERATORS}:
        require(register, person.name, "masters", now)
    if OPERATORS not in changed:
        return
    require(register, person.name, "security", now)
    if not operators(after, installation.settings.data.law_directory).changeable(to_jst(effective_at).date()):
        raise Problem("master_invalid", expected=f"{OPERATORS} with two people of masters and security, without an end")


async def _require_any(installation: Installation, person: Person) -> None:
    """Refuse who has nothing to do with versions. Keeping one out of force is the safe side: either role may."""
    register, day = await _register(installation), to_jst(installation.clock.now()).date()
    if not register.may(person.name, "security", day):
        require(register, person.name, "masters", installation.clock.now())


async def _register(installation: Installation) -> Register:
    return await register_in_force(installation.settings, installation.cells, installation.public)


async def _row(installation: Installation, version: int) -> book.VersionRow:
    found = next((row for row in await book.versions(installation.cells) if row.version == version), None)
    if found is None:
        raise Problem("not_found")
    return found


async def _content(installation: Installation, row: book.VersionRow) -> Content:
    found = await book.get(installation.cells, row.digest)
    if masters.digest_of(found.body) != row.digest:
        raise Problem("master_invalid", expected="the bytes that were signed")
    return masters.unpack(found.body)


def _require_ahead(installation: Installation, effective_at: dt.datetime) -> None:
    if effective_at < installation.clock.now() + dt.timedelta(seconds=installation.lead_s):
        raise Problem("master_invalid", expected=f"an instant at least {installation.lead_s:g} seconds ahead")


async def _enter(installation: Installation, version: int, act: str, person: Person, reason: str) -> None:
    row = book.ActRow(version, act, person.name, reason, installation.clock.now())
    await book.enter(installation.cells, installation.chance.uuid7(), row)
