"""The agency API as a Python client: one method for each call of ``platform.wire.agency``.

It serves the demo, the drills and ``chukan client``, and works against a real installation as well: it needs the
exchanges' addresses, the trusted root, and a registered system's or officer's certificate. What an agency's systems do
with it stands in ``systems``.
"""

import datetime as dt
import hashlib
import uuid
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self, TypeVar

import msgspec

from chukan.chance import Chance
from chukan.clock import Clock
from chukan.ops.sandbox.code_calls import CodeCalls
from chukan.ops.sandbox.delegation_calls import DelegationCalls
from chukan.ops.sandbox.file_calls import FileCalls, content_digest, digest_of
from chukan.ops.sandbox.notice_calls import NoticeCalls
from chukan.ops.sandbox.officer_calls import OfficerCalls
from chukan.ops.sandbox.operation_calls import OperationCalls
from chukan.ops.sandbox.resident_calls import ResidentCalls
from chukan.ops.sandbox.transport import Connection, Request, Transport
from chukan.platform.http.params import RecordSearch
from chukan.platform.wire.agency import (
    Batch,
    CodeAsk,
    CodeLine,
    CodeStatuses,
    Copies,
    CopyDelete,
    CopyExport,
    CopyPage,
    CopySearch,
    HoldLine,
    Holds,
    LineResults,
    Load,
    LoadCommit,
    LoadOpen,
    Queries,
    QueryPage,
    Record,
    Records,
    Review,
    ReviewDecision,
    ReviewPrepare,
    Reviews,
)
from chukan.platform.wire.evidence import CheckpointView, ConsistencyProof
from chukan.platform.wire.incidents import Affected, AffectedSearch
from chukan.platform.wire.network import LINES_MAX
from chukan.platform.wire.statistics import ProcedureCount, ProcedureCounts, Statistics

NDJSON: Final = "application/x-ndjson"
_encode: Final = msgspec.json.encode
T = TypeVar("T")


class AgencyClient(CodeCalls, DelegationCalls, FileCalls, NoticeCalls, OfficerCalls, OperationCalls, ResidentCalls):
    """Calls of one system or officer of one agency. Every method raises ``ClientError``."""

    def __init__(self, connection: Connection, *, clock: Clock | None = None, chance: Chance | None = None) -> None:
        self._transport = Transport(connection, clock=clock, chance=chance)
        self.agency = connection.agency
        self.clock = self._transport.clock

    async def __aenter__(self) -> Self:
        """Return itself."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        await self.close()

    async def close(self) -> None:
        """Close all connections."""
        await self._transport.close()

    # ------------------------------------------------------------ copies: 副本

    async def register(self, body: Copies, *, key: str | None = None) -> LineResults:
        """Register a difference (異動), at most 1,000 copies."""
        return await self._post("/copies", body, LineResults, key)

    async def search_copies(self, body: CopySearch) -> CopyPage:
        """The agency's own view of copies."""
        return await self._post("/copies/search", body, CopyPage)

    async def export_copies(self, body: CopyExport) -> CopyPage:
        """A page of all copies of a kind (原本照合)."""
        return await self._post("/copies/export", body, CopyPage)

    async def delete_copies(self, body: CopyDelete, *, key: str | None = None) -> LineResults:
        """Delete copies."""
        return await self._post("/copies/delete", body, LineResults, key)

    async def hold(self, lines: Sequence[HoldLine], *, key: str | None = None) -> LineResults:
        """Set or lift 自動応答不可."""
        return await self._post("/holds", Holds(lines=list(lines)), LineResults, key)

    # ------------------------------------------------------------ loads: 副本登録

    async def open_load(self, body: LoadOpen, *, key: str | None = None) -> Load:
        """Begin a load session."""
        return await self._post("/loads", body, Load, key)

    async def put_part(self, load: uuid.UUID, part: int, content: bytes | Path, *, media_type: str = NDJSON) -> Load:
        """Send one part, from memory or streamed from a file; the same bytes may be sent again."""
        headers = {"Content-Type": media_type, "Content-Digest": content_digest(digest_of(content))}
        return await self._transport.call(Request("PUT", f"/loads/{load}/parts/{part}", content, headers), Load)

    async def load(self, load: uuid.UUID) -> Load:
        """Show a load session."""
        return await self._transport.call(Request("GET", f"/loads/{load}"), Load)

    async def commit_load(self, load: uuid.UUID, digests: Sequence[bytes], *, key: str | None = None) -> Load:
        """Put a session into force; ``digests`` are the parts' SHA-256 digests in order."""
        whole = hashlib.sha256(b"".join(digests)).hexdigest()
        return await self._post(f"/loads/{load}/commit", LoadCommit(digest=whole), Load, key)

    async def release_load(self, load: uuid.UUID, digests: Sequence[bytes], *, key: str | None = None) -> Load:
        """Put a held session into force, by an officer's credential."""
        whole = hashlib.sha256(b"".join(digests)).hexdigest()
        return await self._post(f"/loads/{load}/release", LoadCommit(digest=whole), Load, key)

    async def abort_load(self, load: uuid.UUID, *, key: str | None = None) -> Load:
        """Drop what was staged."""
        return await self._post(f"/loads/{load}/abort", None, Load, key)

    # ------------------------------------------------------------ linkage codes: 符号

    async def ask_codes(self, addressees: Sequence[str], *, key: str | None = None) -> CodeStatuses:
        """Acquire linkage codes, at most 1,000; the reply has the acquisition numbers."""
        return await self._post("/codes", _code_ask(addressees), CodeStatuses, key)

    async def search_codes(self, addressees: Sequence[str]) -> CodeStatuses:
        """Status of links."""
        return await self._post("/codes/search", _code_ask(addressees), CodeStatuses)

    # ------------------------------------------------------------ queries: 情報照会

    async def query(self, body: Queries, *, wait_s: int = 0, key: str | None = None) -> Batch:
        """Ask, at most 1,000 lines; ``wait_s`` is what the exchange is asked to wait for the answers."""
        headers = {"Prefer": f"wait={wait_s}"} if wait_s else {}
        if key is not None:
            headers["Idempotency-Key"] = key
        return await self._transport.call(Request("POST", "/queries", _encode(body), headers, wait_s=wait_s), Batch)

    async def view(self, reference: uuid.UUID, *, wait_s: int = 0) -> Batch:
        """A batch or a line, after waiting for it where wanted."""
        params = {"wait": str(wait_s)} if wait_s else {}
        return await self._transport.call(Request("GET", f"/queries/{reference}", params=params, wait_s=wait_s), Batch)

    async def queries(self, *, state: str | None = None, after: str | None = None, limit: int = 100) -> QueryPage:
        """Lines by state."""
        params = _params(state=state, after=after, limit=str(limit))
        return await self._transport.call(Request("GET", "/queries", params=params), QueryPage)

    async def collect(self, reference: uuid.UUID) -> Batch:
        """Take the content of answered lines."""
        return await self._post(f"/queries/{reference}/collect", None, Batch)

    async def cancel(self, reference: uuid.UUID) -> Batch:
        """Take open lines back (中断)."""
        return await self._post(f"/queries/{reference}/cancel", None, Batch)

    # ------------------------------------------------------------ reviews and records

    async def reviews(self) -> Reviews:
        """What waits for an officer."""
        return await self._transport.call(Request("GET", "/reviews"), Reviews)

    async def prepare_review(self, review: uuid.UUID, body: ReviewPrepare) -> Review:
        """Propose a decision, as a first officer."""
        return await self._post(f"/reviews/{review}/prepare", body, Review)

    async def approve_review(
        self, review: uuid.UUID, *, note: str = "", prepared_at: dt.datetime | None = None
    ) -> Review:
        """Carry the proposal out, as a second officer; ``prepared_at`` names the one that was looked at."""
        body = ReviewDecision(note=note, prepared_at=prepared_at)
        return await self._post(f"/reviews/{review}/approve", body, Review)

    async def refuse_review(self, review: uuid.UUID, *, note: str = "") -> Review:
        """Refuse the provision, as a second officer."""
        return await self._post(f"/reviews/{review}/refuse", ReviewDecision(note=note), Review)

    async def records(self, *, after: str | None = None, limit: int = 100) -> Records:
        """A page of the agency's provision records, in the order of its log."""
        return await self._transport.call(
            Request("GET", "/records", params=_params(after=after, limit=str(limit))), Records
        )

    async def records_of(self, addressee: str, *, for_person: bool = False) -> Records:
        """The records of one person; ``for_person`` leaves out what is withheld from them (不開示)."""
        return await self._post("/records/search", RecordSearch(addressee=addressee, for_person=for_person), Records)

    async def checkpoint(self) -> CheckpointView:
        """The newest checkpoint of the agency's log."""
        return await self._transport.call(Request("GET", "/checkpoint"), CheckpointView)

    async def consistency(self, first: int) -> ConsistencyProof:
        """The proof that the log continues the one of ``first`` leaves."""
        params = {"from": str(first)}
        return await self._transport.call(Request("GET", "/checkpoint/consistency", params=params), ConsistencyProof)

    async def affected(self, body: AffectedSearch) -> Affected:
        """Find whom the records of a period are about."""
        return await self._post("/incidents/affected", body, Affected)

    async def statistics(
        self, *, first: str | None = None, last: str | None = None, fiscal_year: int | None = None
    ) -> Statistics:
        """Counts of the provision records (統計) from month to month (``2026-04``), or of a fiscal year."""
        year = None if fiscal_year is None else str(fiscal_year)
        params = _params(**{"from": first, "to": last, "fiscal_year": year})
        return await self._transport.call(Request("GET", "/statistics", params=params), Statistics)

    async def procedure_statistics(
        self,
        *,
        first: str | None = None,
        last: str | None = None,
        fiscal_year: int | None = None,
        limit: int | None = None,
        steps_max: int = 100_000,
    ) -> ProcedureCounts:
        """Counts by procedure and kind too, all steps added up; ``limit`` is how many leaves each looks at."""
        year = None if fiscal_year is None else str(fiscal_year)
        period = {"from": first, "to": last, "fiscal_year": year, "limit": None if limit is None else str(limit)}
        found: dict[tuple[str, ...], ProcedureCount] = {}
        after: int | None = -1
        for _ in range(steps_max):
            params = _params(**period, after=str(after))
            request = Request("GET", "/statistics/procedures", params=params)
            step = await self._transport.call(request, ProcedureCounts)
            for line in step.lines:
                what = line.month, line.side, line.procedure, line.kind, line.outcome
                records, amendments = line.records, line.amendments
                if what in found:
                    records, amendments = records + found[what].records, amendments + found[what].amendments
                found[what] = msgspec.structs.replace(line, records=records, amendments=amendments)
            if step.next is None:
                break
            after = step.next
        return msgspec.structs.replace(step, lines=[found[what] for what in sorted(found)])

    async def all_records(self, *, pages_max: int = 10_000) -> list[Record]:
        """All records of the agency, page by page."""
        found: list[Record] = []
        after: str | None = None
        for _ in range(pages_max):
            page = await self.records(after=after, limit=LINES_MAX)
            found += page.records
            if page.next is None:
                break
            after = page.next
        return found

    async def _post(self, path: str, body: msgspec.Struct | None, kind: type[T], key: str | None = None) -> T:
        headers = {} if key is None else {"Idempotency-Key": key}
        return await self._transport.call(Request("POST", path, None if body is None else _encode(body), headers), kind)


def _code_ask(addressees: Sequence[str]) -> CodeAsk:
    return CodeAsk(lines=[CodeLine(addressee=addressee) for addressee in addressees])


def _params(**given: str | None) -> dict[str, str]:
    return {name: value for name, value in given.items() if value is not None}
