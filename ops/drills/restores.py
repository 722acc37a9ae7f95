"""Restores a whole cell to a moment (時点指定の復元), reconciles it with the network, and opens it.

The moment is one that clients work before and after, and nobody else knows of: what they were told before it must be in
the restored cell, what they were told after it must not, and the reconciliation must list it. What the network waited
for an answer to when the cell was opened is asked of the network itself.

Invariant: a restore that was begun is finished by the stage's own ``heal``, whatever happens in between.
"""

import asyncio
import datetime as dt
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

import msgspec

from chukan.clock import SystemClock
from chukan.errors import Problem
from chukan.ops.drills.ports import Installation
from chukan.ops.drills.restored import Restored
from chukan.ops.drills.vocabulary import Step
from chukan.ops.drills.waits import Clients

Note = Callable[[str, str, str], None]


class _Difference(msgspec.Struct, frozen=True):
    """One line of the reconciliation's report; what else it has is for people."""

    id: str | None = None


class _Report(msgspec.Struct, frozen=True):
    """The reconciliation's report."""

    differences: list[_Difference]


class _Kept(msgspec.Struct, frozen=True):
    """A moment, by the clock of the wall, and between which instants of the drill it lies."""

    at: dt.datetime
    after: float
    before: float


class Restores:
    """The sentences about backups, by verb."""

    def __init__(self, installation: Installation, clients: Clients, note: Note) -> None:
        self._installation, self._clients, self._note = installation, clients, note
        self._moment: _Kept | None = None
        self._begun_at = self._led_at = 0.0
        self.restored: Restored | None = None
        """What came of a restore; None before the cell was opened."""
        self.verbs: Mapping[str, Callable[[Step], Awaitable[None]]] = {
            "back_up": self._back_up,
            "keep_moment": self._keep_moment,
            "restore": self._restore,
            "reopen": self._reopen,
        }

    async def _back_up(self, step: Step) -> None:
        (label,) = await self._installation.restorer.back_up(step.words["cell"])
        self._note(f"バックアップ {label} が取れた", f"the backup {label} is made", "backup")

    async def _keep_moment(self, step: Step) -> None:
        del step
        after = self._clients.now()
        self._moment = _Kept(SystemClock().now(), after, self._clients.now())

    async def _restore(self, step: Step) -> None:
        if self._moment is None:
            raise Problem("drill_step_failed", expected="a moment to restore to")
        self._begun_at = self._clients.now()
        (epoch,) = await self._installation.restorer.restore(step.words["cell"], self._moment.at.isoformat())
        self._led_at = self._clients.now()
        self._note(f"復元された(世代 {epoch})。まだ開いていない", f"restored (epoch {epoch}), not open yet", "restored")

    async def _reopen(self, step: Step) -> None:
        cell, moment = step.words["cell"], self._moment
        if moment is None:
            raise Problem("drill_step_failed", expected="a restored cell")
        waiting = {
            str(one.request): str(one.reference)
            for one in await self._installation.network_records()
            if one.outcome is None and one.expires_at is not None and self._clients.home_of(one.provider) == cell
        }
        report, _ = await self._installation.restorer.open_restored(cell)
        found = msgspec.json.decode(await asyncio.to_thread(Path(report).read_bytes), type=_Report)
        self.restored = Restored(
            cell=cell,
            kept_until=moment.after,
            gone_from=moment.before,
            begun_at=self._begun_at,
            led_at=self._led_at,
            opened_at=self._clients.now(),
            listed=[each.id for each in found.differences if each.id is not None],
            waiting=waiting,
        )
        self._note(
            f"開いた(ネットワークとの相違 {len(found.differences)} 件)",
            f"opened ({len(found.differences)} differences from the network)",
            "restored",
        )
