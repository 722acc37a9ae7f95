"""The master data (配信マスター) that this process judges by: always the version that the common data in force names.

A version is fetched as soon as common data names it, also common data that still waits for its time: at that instant
the law, the layouts and the calendar change over together with the directory, in one step. What two persons signed is
verified here again; the operator's signature under the common data alone opens nothing.

Invariant: where the version that is named is not held nobody is told any law: ``of`` raises ``common_data_stale``, so
nothing is asked, provided or registered by other data than every exchange goes by. It must never fall back to another.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from cryptography import x509

from chukan import log
from chukan.errors import Problem
from chukan.platform.law.masters import MasterData, read_version
from chukan.settings import Environment
from chukan.tenants import masters
from chukan.tenants.directory import Directory
from chukan.tenants.sets import CellSets

_log = log.get("exchange.masters")
HELD_MAX: Final = 8
"""Versions that are kept at hand; the oldest is forgotten first, and fetched again should it be named again."""


class MastersInForce:
    """Holds the versions that common data names, in force or waiting."""

    def __init__(
        self,
        base: MasterData,
        directory: Path | None,
        trusted: Callable[[], Sequence[x509.Certificate]],
        environment: Environment,
        revoked: masters.RevokedAt = masters.none_revoked_at,
    ) -> None:
        """``base`` is what the release brings, from ``directory``; ``trusted`` reads the authority's roots.

        A version that was signed before a signer's certificate was revoked stays in force: the country does not lose
        its law because somebody left the office. One that was signed afterwards is nobody's.
        """
        self._revoked = revoked
        self._base = base
        self._directory = directory
        self._trusted = trusted
        self._environment: Environment = environment
        self._held: dict[int | str, MasterData] = {}

    def of(self, directory: Directory) -> MasterData:
        """Return what this common data is judged by. Raises ``Problem`` common_data_stale where it is not held."""
        name = directory.snapshot.law_number
        found = self._held.get(name)
        if found is not None:
            return found
        if self.lacks(directory):
            raise Problem("common_data_stale", retry_after_s=2)
        return self._base

    def lacks(self, directory: Directory) -> bool:
        """Whether common data names a version that is not held here."""
        name = directory.snapshot.law_number
        if name in self._held:
            return False
        try:
            return masters.named(name) is not None
        except Problem:
            return True

    async def fetch(self, cell: str, sets: CellSets, directory: Directory) -> None:
        """Fetch and verify what common data names, unless it is held; what fails is logged, and tried again later."""
        name = directory.snapshot.law_number
        if not self.lacks(directory):
            return
        try:
            wanted = masters.named(name)
            if wanted is None:
                return
            found = await sets.master(wanted.digest)
            if found is None:
                raise Problem("common_data_stale")  # noqa: TRY301 - one way out for every reason
            self._hold(name, found, wanted)
        except Problem as problem:
            _log.error("master data not held", cell=cell, snapshot=directory.number, code=problem.code)

    def _hold(self, name: int | str, found: masters.Master, wanted: masters.Named) -> None:
        verified = masters.verify(
            found, wanted.digest, trusted=self._trusted(), environment=self._environment, revoked=self._revoked
        )
        if verified.content.version != wanted.version:
            raise Problem("master_invalid", expected="the version that was named")
        self._held[name] = read_version(wanted.version, verified.content.files, self._directory)
        while len(self._held) > HELD_MAX:
            del self._held[next(iter(self._held))]
        _log.info("master data held", version=wanted.version)
