"""A business system that asks by file: it sends a file until it is through, follows it, and fetches the result.

Each try streams the whole file to one exchange and takes the first answer. Cut off or put off, it sends the same file
to the other one, in turn under the first Idempotency-Key and under a fresh one: a file is known by its name and its
content. A result that is cut off is continued behind its last whole line. Every word is in the journal, on disk,
before the next request leaves.
"""

import asyncio
import uuid
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from chukan.ops.demo import cast
from chukan.ops.demo.bring_up import EXCHANGES
from chukan.ops.sandbox.transport import ClientError
from chukan.platform.wire.files import QueryFile
from chukan.tests.crash.customers import POLL_S, RETRY_S, SETTLE_S, client_of
from chukan.tests.crash.evidence import Count
from chukan.tests.crash.journal import Entry, Journal, Told, notes
from chukan.tests.crash.layout import Result
from chukan.tests.crash.town import LOOK_S, Town, wait

TIMEOUT_S: Final = 20.0


class ToSend(NamedTuple):
    """A file: whose it is, what it is called, where it lies, and how many lines it has."""

    agency: str
    name: str
    path: Path
    charset: str
    lines: int


class FileCustomer:
    """One file of one agency; ``send`` it, ``follow`` it, ``fetch`` its result."""

    def __init__(self, town: Town, journal: Journal, file: ToSend) -> None:
        self._town, self._journal, self._file = town, journal, file
        self._key = str(uuid.uuid4())
        self._ids: dict[int, uuid.UUID] = {}
        self.cuts: Counter[str] = Counter()
        """How often a request was cut off or put off, by what it was and the code of the answer."""

    async def send(self) -> QueryFile:
        """Send the file until an exchange says that it has it; then ask for the ids of its lines."""
        self._journal.write(Entry("sending", self._file.name, self._file.agency, count=self._file.lines))
        sent = await self._through()
        async with client_of(self._town, self._file.agency, timeout_s=TIMEOUT_S) as client:
            for batch in sent.batches:
                self._heard("told", notes((await client.view(batch)).lines))
        return sent

    async def again(self) -> None:
        """Send it once more: the same file, and as many lines, must come back (journalled)."""
        await self._through()

    async def _through(self) -> QueryFile:
        home = cast.home(self._file.agency)
        names = sorted(EXCHANGES, key=lambda name: EXCHANGES[name] != home)
        async with asyncio.timeout(RETRY_S):
            tries = 0
            while True:
                key = str(uuid.uuid4()) if tries % 2 else self._key
                try:
                    sent = await self._once(names[tries % len(names)], key)
                except ClientError as error:
                    if not error.retryable:
                        raise
                    self.cuts[f"send {error.code}"] += 1
                else:
                    self._journal.write(
                        Entry("accepted", self._file.name, self._file.agency, sent.lines + sent.refused, sent.id)
                    )
                    return sent
                tries += 1
                await wait(LOOK_S)

    async def _once(self, exchange: str, key: str) -> QueryFile:
        file = self._file
        async with client_of(self._town, file.agency, [exchange], timeout_s=TIMEOUT_S) as client:
            return await client.send_query_file(file.name, file.path, charset=file.charset, key=key)

    async def follow(self, sent: QueryFile) -> None:
        """Ask part by part, until every line has its outcome, and look into the result in between."""
        async with asyncio.timeout(SETTLE_S):
            for index, batch in enumerate(sent.batches):
                await self._follow(batch)
                if index == len(sent.batches) // 2:
                    self._heard("told", (await self._result(sent, Count())).lines())

    async def _follow(self, batch: uuid.UUID) -> None:
        known: set[int] = set()
        async with client_of(self._town, self._file.agency, timeout_s=TIMEOUT_S) as client:
            while True:
                latest = notes((await client.view(batch, wait_s=POLL_S)).lines)
                self._heard("told", [told for told in latest if told.final and told.line not in known])
                known |= {told.line for told in latest if told.final}
                if len(known) == len(latest):
                    return

    async def fetch(self, sent: QueryFile, rows: Count) -> None:
        """Fetch the whole result; ``rows`` counts the ends of rows as they come."""
        async with asyncio.timeout(SETTLE_S):
            result = await self._result(sent, rows)
        self._heard("collected", result.lines(), count=self._file.lines)

    async def _result(self, sent: QueryFile, rows: Count) -> Result:
        result = Result(self._file.charset)
        async with client_of(self._town, self._file.agency, list(EXCHANGES), timeout_s=TIMEOUT_S) as client:
            while True:
                try:
                    async for piece in client.query_file_result(sent.id, after=result.after):
                        result.add(piece)
                        await rows.more(piece.count(b"\r\n"))
                except ClientError as error:
                    if not error.retryable:
                        raise
                    self.cuts[f"result {error.code}"] += 1
                    result.end(cut=True)
                    await wait(LOOK_S)
                else:
                    result.end(cut=False)
                    return result

    def _heard(self, event: str, lines: Sequence[Told], count: int = 0) -> None:
        """Note what was said; a line that a result names by its number has the id that its view told."""
        self._ids.update({told.line: told.id for told in lines if told.id is not None})
        named = [Told(told.line, told.state, told.outcome, self._ids.get(told.line), told.content) for told in lines]
        if named:
            self._journal.write(Entry(event, self._file.name, self._file.agency, count=count, lines=named))  # type: ignore[arg-type]
