"""Telling the network of the agencies' checkpoints (チェックポイントの通知), so that it keeps what was signed.

Once a minute each exchange tells what has grown since, with the proof from the size that the network keeps. Two
exchanges may tell the same: what is kept already is kept. Where the network keeps a tree that this log does not
continue, the leaf of a restore is sent along; if that does not explain it, the log is refused, loudly.

Invariant: nothing is told that is not durable, and nothing but signed notes, hashes and leaves of restores.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Final, Protocol

import msgspec

from chukan import log
from chukan.chance import Chance
from chukan.errors import Problem
from chukan.platform.exchange.context import Context
from chukan.platform.peer import NetworkTrouble
from chukan.platform.wire.checkpoints import CheckpointReply, CheckpointTold, RestoredLeaf
from chukan.tenants import merkle
from chukan.tenants.evidence import EvidenceError, hash_ranges
from chukan.tenants.merkle import Need, TileName
from chukan.tenants.restored import read_leaf
from chukan.tenants.sets.evidence import LastCheckpoint

TELL_S: Final = 60.0
PAGE: Final = 100
"""Logs in one call."""
TRIES_MAX: Final = 3
"""Of one log in one round: without a proof, with it, and with the leaf of a restore."""
_log = log.get("telling")


class TellingSets(Protocol):
    """What is read of a cell's logs."""

    async def evidence_signed(self, after: int, limit: int) -> dict[int, int]:
        """Return the sizes of the last checkpoints of the next agencies."""
        ...

    async def evidence_last(self, agency: int) -> LastCheckpoint | None:
        """Return an agency's last checkpoint."""
        ...

    async def evidence_read(self, agency: int, need: Need) -> tuple[dict[TileName, bytes], dict[int, bytes]]:
        """Return tiles and leaf hashes."""
        ...

    async def evidence_restored(self, agency: int) -> list[tuple[int, bytes]]:
        """Return the leaves of restores."""
        ...

    async def confirm(self) -> None:
        """Return once everything that was read so far is durable."""
        ...


class KeepingPeer(Protocol):
    """The network, as far as it keeps checkpoints."""

    async def checkpoints(self, items: Sequence[bytes]) -> list[CheckpointReply]:
        """Tell it of checkpoints."""
        ...


class Teller:
    """Tells the network of one cell's logs."""

    def __init__(
        self,
        sets: TellingSets,
        peer: KeepingPeer,
        code_of: Callable[[int], str | None],
        chance: Chance,
        on_refused: Callable[[int], None],
    ) -> None:
        """``on_refused`` is told of how many logs the network says that they are not the ones it saw."""
        self._sets = sets
        self._peer = peer
        self._code_of = code_of
        self._chance = chance
        self._on_refused = on_refused
        self._told: dict[int, int] = {}
        self._kept: dict[int, int] = {}
        self.refused: set[int] = set()

    async def run(self) -> None:
        """Work until cancelled."""
        while True:
            try:
                await self.tell_due()
            except NetworkTrouble as trouble:
                _log.info("checkpoints were not told", reason=trouble.reason)
            except Exception as error:  # noqa: BLE001 - a task's boundary: whatever failed, it is tried again
                if not (isinstance(error, Problem) and error.code == "cell_restored"):
                    _log.warning("checkpoints were not told", exc_info=error)
            self._on_refused(len(self.refused))
            await asyncio.sleep(TELL_S)

    async def tell_due(self) -> int:
        """Tell of every log that has grown since; return how many the network keeps. Raises ``NetworkTrouble``."""
        count, after = 0, 0
        while page := await self._sets.evidence_signed(after, PAGE):
            after = max(page)
            due = {agency: code for agency, size in page.items() if self._told.get(agency) != size
                   and (code := self._code_of(agency)) is not None}  # fmt: skip
            count += await self._tell(due)
        return count

    async def _tell(self, due: Mapping[int, str]) -> int:
        left, kept = dict(due), 0
        for turn in range(TRIES_MAX):
            lasts = {agency: last for agency in left if (last := await self._sets.evidence_last(agency)) is not None}
            if not lasts:
                break
            await self._sets.confirm()
            told = {agency: await self._item(agency, left[agency], last) for agency, last in lasts.items()}
            items = [msgspec.json.encode(each) for each in told.values()]
            for agency, reply in zip(told, await self._peer.checkpoints(items), strict=True):
                self._kept[agency] = reply.size
                if reply.status == "kept":
                    self._told[agency] = reply.size
                    self.refused.discard(agency)
                    kept += 1
                if reply.status in {"kept", "unknown"}:
                    del left[agency]
                elif reply.status == "contradicted" and turn == TRIES_MAX - 1:
                    self._say(agency)
        return kept

    def _say(self, agency: int) -> None:
        if agency not in self.refused:
            _log.critical("the network has seen another log", agency=agency)
        self.refused.add(agency)

    async def _item(self, agency: int, code: str, last: LastCheckpoint) -> CheckpointTold:
        async def read(need: Need) -> tuple[dict[TileName, bytes], dict[int, bytes]]:
            return await self._sets.evidence_read(agency, need)

        first, path = self._kept.get(agency, 0), list[bytes]()
        try:
            if 0 < first < last.size:
                path = await hash_ranges(read, merkle.consistency_ranges(first, last.size), last.size)
            restored = None
            if first > 0:
                for position, data in _newest_first(await self._sets.evidence_restored(agency), first, last.size):
                    ranges = merkle.inclusion_ranges(position - 1, last.size)
                    restored = RestoredLeaf(position, data, await hash_ranges(read, ranges, last.size))
                    break
        except EvidenceError:
            # The signer says so loudly; told without a proof, the network asks for it again.
            first, path, restored = 0, [], None
        return CheckpointTold(self._chance.uuid7(), code, last.note.decode(), first, path, restored)


def telling_loops(
    context: Context, peer: KeepingPeer, on_broken: Callable[[str, str, int], None]
) -> Iterator[tuple[str, Coroutine[Any, Any, None]]]:
    """Yield the loops of this exchange by name, none where no log is signed here."""
    if context.settings.evidence.signing_key_file is None:
        return

    for cell, sets in context.sets.items():
        yield (
            f"teller {cell}",
            Teller(sets, peer, context.code_of, context.chance, partial(on_broken, cell, "network")).run(),
        )


def _newest_first(leaves: Sequence[tuple[int, bytes]], kept: int, size: int) -> Iterator[tuple[int, bytes]]:
    """Yield the leaves of restores that may explain a kept tree, in the tree of ``size`` leaves, the newest first."""
    for position, data in reversed(leaves):
        found = read_leaf(position, data)
        if found is not None and position <= size and position <= kept <= found.size:
            yield position, data
