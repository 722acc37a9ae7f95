"""The revocation lists in force: read at the start, looked at every second, honoured without a restart.

Who holds connections asks ``refuses`` (one hash) at every turn, and is told by ``follow`` when lists changed, so that
what stands open with a certificate that was revoked is ended then.

Invariants: a process that was told to honour a list does not start without a good one; after that the last good list
goes on, whatever lies in the file, until a good one that is not older takes its place. A list past its next update goes
on as well, loudly (metrics, an error in the log): what it revokes stays revoked, and shutting out every body because
one renewal was forgotten would do more harm than it prevents (decision record *Revocation lists*).
"""

import asyncio
import contextlib
import datetime as dt
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, Protocol

from cryptography import x509

from chukan import log
from chukan.clock import Clock
from chukan.errors import Problem
from chukan.platform import revocation
from chukan.platform.revocation import Identity, RevocationList

EVERY_S: Final = 1.0
AGAIN_S: Final = 30.0
"""After a refusal of a file that did not change since: its date may have been of the future."""
READ_S: Final = 10.0
REFUSED: Final = "certificate_revoked"
"""Code under which a refused certificate is counted."""

_log = log.get("revocation")


class Told(Protocol):
    """Who is told how the lists stand."""

    def revocation_list(self, name: str, this_update: float, next_update: float, revoked: int) -> None:
        """Take that a list is in force: its dates (Unix seconds), and how many certificates it revokes."""
        ...

    def revocation_list_usable(self, name: str, *, usable: bool) -> None:
        """Take whether what lies in a list's file now was taken."""
        ...

    def access_refused(self, code: str) -> None:
        """Count a caller that was not let in."""
        ...


class _Kept:
    """One file: the list in force, and what of the file was looked at last."""

    def __init__(self, name: str, path: Path) -> None:
        self.name, self.path = name, path
        self.list: RevocationList | None = None
        self.stamp: tuple[int, int, int] | None = None
        self.usable = True
        self.looked_at_s = 0.0
        self.told_old = False


class RevocationLists:
    """All lists of a process, each under a name; ``roots`` are those that issuing certificates must lead to."""

    def __init__(self, files: Mapping[str, Path], roots: Sequence[x509.Certificate], clock: Clock, told: Told) -> None:
        """Read every list. Raises ``Problem`` revocation_list_invalid where one cannot be taken."""
        self._kept = [_Kept(name, path) for name, path in files.items()]
        self._roots, self._clock, self._told = list(roots), clock, told
        self._serials: dict[bytes, frozenset[int]] = {}
        self._followers: list[Callable[[], None]] = []
        for kept in self._kept:
            kept.stamp = _stamp(kept.path)
            self._take(kept, self._read(kept))

    def refuses(self, identity: Identity | None) -> bool:
        """Tell whether a certificate is revoked; who shows none (a plain connection) has none to be revoked."""
        return identity is not None and identity.serial in self._serials.get(identity.issuer, ())

    def revoked_by(self, certificate: x509.Certificate, at: dt.datetime) -> bool:
        """Tell whether a certificate was revoked at a time: what was signed before it was stays signed."""
        issuer, serial = certificate.issuer.public_bytes(), certificate.serial_number
        lists = [each.list for each in self._kept if each.list is not None and each.list.issuer == issuer]
        return any(serial in each.dates and each.dates[serial] <= at for each in lists)

    def refuses_shown(self, shown: bytes) -> bool:
        """Tell the same of a server's certificate (DER), and count it; one that cannot be read is refused too."""
        with contextlib.suppress(ValueError):
            if not self.refuses(revocation.identity_of(shown)):
                return False
        self.refused()
        _log.error("a server's certificate is revoked, nothing is asked of it")
        return True

    def refused(self) -> None:
        """Count one connection that was refused or ended."""
        self._told.access_refused(REFUSED)

    def follow(self, changed: Callable[[], None]) -> None:
        """Call this whenever lists changed; it must not wait and not raise."""
        self._followers.append(changed)

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(EVERY_S)

    async def look(self) -> None:
        """Look at every file once, and take what is new and good."""
        for kept in self._kept:
            stamp, now_s = _stamp(kept.path), self._clock.monotonic()
            if stamp != kept.stamp or (not kept.usable and now_s - kept.looked_at_s >= AGAIN_S):
                again, kept.stamp, kept.looked_at_s = stamp == kept.stamp, stamp, now_s
                await self._try(kept, quiet=again)
            self._tell_old(kept)

    async def _try(self, kept: _Kept, *, quiet: bool) -> None:
        try:
            async with asyncio.timeout(READ_S):
                found = await asyncio.to_thread(self._read, kept)
        except (Problem, TimeoutError) as problem:
            kept.usable = False
            self._told.revocation_list_usable(kept.name, usable=False)
            if not quiet:
                reason = problem.expected if isinstance(problem, Problem) else "readable in time"
                _log.error("a revocation list was not taken, the last good one goes on", reason=reason)
            return
        self._take(kept, found)

    def _read(self, kept: _Kept) -> RevocationList:
        try:
            with kept.path.open("rb") as file:
                content = file.read(revocation.BYTES_MAX + 1)
        except OSError:
            raise Problem("revocation_list_invalid", expected="a readable file") from None
        found = revocation.parse(content, self._roots, self._clock.now())
        before = kept.list
        if before is not None and found.issuer != before.issuer:
            raise Problem("revocation_list_invalid", expected="of the same issuer as before")
        if before is not None and (found.number, found.this_update) < (before.number, before.this_update):
            raise Problem("revocation_list_invalid", expected="not older than the list in force")
        return found

    def _take(self, kept: _Kept, found: RevocationList) -> None:
        kept.list, kept.usable, kept.told_old = found, True, False
        lists = [each.list for each in self._kept if each.list is not None]
        self._serials = {
            issuer: frozenset().union(*(each.serials for each in lists if each.issuer == issuer))
            for issuer in {each.issuer for each in lists}
        }
        dates = found.this_update.timestamp(), found.next_update.timestamp()
        self._told.revocation_list(kept.name, *dates, len(found.serials))
        self._told.revocation_list_usable(kept.name, usable=True)
        _log.info("a revocation list is in force", count=len(found.serials))
        for changed in self._followers:
            changed()

    def _tell_old(self, kept: _Kept) -> None:
        if kept.list is not None and not kept.told_old and kept.list.next_update < self._clock.now():
            kept.told_old = True
            _log.error("a revocation list is past its next update, and goes on")


def _stamp(path: Path) -> tuple[int, int, int] | None:
    """Return what tells that a file is another one; None where there is none."""
    try:
        found = os.stat(path)  # noqa: PTH116 - one call a second
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
