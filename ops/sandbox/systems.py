"""What an agency's systems do with the agency API, simulated: the addressee system and a business system.

``AddresseeSystem`` (団体内統合宛名システム) acquires linkage codes: it asks for acquisition numbers and has its own
resident-registry system (住基CS) hand them to the registry network together with resident codes, which the platform
never sees. ``BusinessSystem`` (業務システム) asks, waits, collects, and keeps a journal of every line that was
acknowledged, so that a checker can ask the platform afterwards for what it promised.

Invariant: the journal holds ids, outcomes and instants only, never a person or content, and a line stands in it, on
disk, before its caller hears of it.
"""

import asyncio
import os
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec

from chukan.ops.sandbox.agency_client import AgencyClient
from chukan.ops.sandbox.registry import RegistryClient
from chukan.platform.wire.agency import Batch, CodeStatus, Queries, QueryLine, QueryLineView
from chukan.platform.wire.network import LINES_MAX, Message

LONG_POLL_S: Final = 30
POLL_S: Final = 0.1
POLL_MAX_S: Final = 1.0
OPEN_STATES: Final = frozenset({"accepted", "permit_requested", "permitted", "held"})
_ANSWERED: Final = frozenset({"answered", "collected"})


class Entry(Message, frozen=True):
    """One line of a journal."""

    event: str
    """``accepted`` or ``collected``."""
    at: str
    agency: str
    batch: uuid.UUID
    line: uuid.UUID
    outcome: str | None = None


class Journal:
    """What a client was promised, one JSON object a line; on disk when ``write`` returns."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def write(self, entries: Sequence[Entry]) -> None:
        """Append entries and flush them to the disk."""
        if not entries:
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            os.write(descriptor, b"".join(msgspec.json.encode(entry) + b"\n" for entry in entries))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def read(self) -> list[Entry]:
        """Return all entries; a last line that a crash cut off is left out, for nobody was told of it."""
        if not self._path.exists():
            return []
        lines = self._path.read_bytes().split(b"\n")
        return [msgspec.json.decode(line, type=Entry) for line in lines[:-1]]


class AddresseeSystem:
    """Acquires linkage codes for people of one agency."""

    def __init__(self, client: AgencyClient, registry: RegistryClient) -> None:
        self._client = client
        self._registry = registry

    async def acquire(self, people: Mapping[str, str], *, timeout_s: float = 120.0) -> list[CodeStatus]:
        """Acquire the codes of people (addressee number → resident code); returns a status for each, in order.

        Asks and hands over list by list, then waits until no acquisition is open any more.

        Raises:
            ClientError: an exchange refused.
            Problem: network_unavailable, when the registry network could not hand over.
            TimeoutError: some acquisition is still open at the end of the time.
        """
        async with asyncio.timeout(timeout_s):
            addressees = list(people)
            found: list[CodeStatus] = []
            for start in range(0, len(addressees), LINES_MAX):
                found += await self._acquire_list(addressees[start : start + LINES_MAX], people)
            return found

    async def _acquire_list(self, addressees: list[str], people: Mapping[str, str]) -> list[CodeStatus]:
        asked = (await self._client.ask_codes(addressees)).lines
        pairs = [
            (line.acquisition_number, people[addressees[line.line]])
            for line in asked
            if line.acquisition_number is not None
        ]
        await self._registry.hand_over(pairs)
        pause_s = POLL_S
        while True:
            statuses = (await self._client.search_codes(addressees)).lines
            if all(line.status != "requested" for line in statuses):
                return statuses
            await asyncio.sleep(pause_s)
            pause_s = min(POLL_MAX_S, pause_s * 2)


class BusinessSystem:
    """Asks for an agency, single or in lists, and journals what it was promised."""

    def __init__(self, client: AgencyClient, journal: Journal | None = None) -> None:
        self._client = client
        self._journal = journal

    async def ask(self, line: QueryLine, *, wait_s: int = 10) -> QueryLineView:
        """Ask one line at the counter and return it as it stands after ``wait_s``, with content where it was answered.

        Raises ``ClientError``.
        """
        batch = await self._client.query(Queries(lines=[line], collect=True), wait_s=wait_s)
        self._note("accepted", batch)
        self._note("collected", batch)
        return batch.lines[0]

    async def ask_batch(self, lines: Sequence[QueryLine]) -> Batch:
        """Send at most 1,000 lines; returns as soon as they are accepted durably. Raises ``ClientError``."""
        batch = await self._client.query(Queries(lines=list(lines)))
        self._note("accepted", batch)
        return batch

    async def settle(self, batch: Batch, *, timeout_s: float = 120.0) -> Batch:
        """Wait until every line of a batch is final, or as it stands at the end of the time. Raises ``ClientError``.

        Lines that were refused before acceptance keep their problem from the first reply.
        """
        deadline_s = self._client.clock.monotonic() + timeout_s
        latest = batch
        while any(line.state in OPEN_STATES for line in latest.lines):
            left_s = deadline_s - self._client.clock.monotonic()
            if left_s <= 0:
                break
            wait_s = max(1, min(LONG_POLL_S, int(left_s)))
            latest = merge(latest, await self._client.view(batch.batch, wait_s=wait_s))
        return latest

    async def collect(self, batch: Batch) -> Batch:
        """Take the content of all answered lines of a settled batch. Raises ``ClientError``."""
        if not any(line.state in _ANSWERED for line in batch.lines):
            return batch
        collected = merge(batch, await self._client.collect(batch.batch))
        self._note("collected", collected)
        return collected

    def _note(self, event: str, batch: Batch) -> None:
        if self._journal is None:
            return
        at = self._client.clock.now().isoformat()
        entries = [
            Entry(event=event, at=at, agency=self._client.agency, batch=batch.batch, line=line.id, outcome=line.outcome)
            for line in batch.lines
            if line.id is not None and (event == "accepted" or line.state == "collected")
        ]
        self._journal.write(entries)


def merge(first: Batch, later: Batch) -> Batch:
    """Return the later state of every line; one that was refused before acceptance is in the first reply only."""
    lines = {line.line: line for line in first.lines}
    lines.update({line.line: line for line in later.lines})
    return msgspec.structs.replace(first, lines=[lines[number] for number in sorted(lines)])
