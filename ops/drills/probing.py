"""A client of a drill: it asks, registers, looks and lists at a steady pace, whatever becomes of its earlier requests.

Open loop: a request leaves at its time even while others hang, so that an outage is measured by what clients see and
not by how long the first of them is willing to wait. A request is sent once. What became of one without an answer is
asked for by its key when the drill is over (``ask_again``), never before.

Each client is the only one that registers copies about its own subjects, with a version that grows: whoever reads one
of them, by a question or by a search, tells which registration was in force.
"""

import asyncio
import uuid
from collections.abc import Iterator, Mapping, Sequence
from itertools import cycle, islice
from typing import Final, TypeVar

import msgspec

from chukan import log
from chukan.chance import Chance
from chukan.clock import Clock
from chukan.errors import Problem
from chukan.ops.drills.calls import Ask, Caller, Reply
from chukan.ops.drills.cases import Case, marks_of
from chukan.ops.drills.journal import WRITES, Act, Entry, Journal, Line
from chukan.ops.drills.route import Routes
from chukan.platform.wire.agency import (
    Batch,
    Copies,
    CopyKey,
    CopyPage,
    CopySearch,
    LineResults,
    ProblemBody,
    Queries,
    QueryLineView,
    QueryPage,
)

WAIT_S: Final = 2
IN_FLIGHT_MAX: Final = 80
LIST_MAX: Final = 50
BACK_MAX: Final = 30
"""A client looks back at so many of its own lines."""
PATTERN: Final[tuple[Act, ...]] = (
    "register", "query", "register", "look", "register", "query", "register", "search", "register", "query",
    "register", "list",
)  # fmt: skip
"""Every other request is a registration: it is answered as soon as it is durable, so that an outage is seen at once."""
REPEAT_TRIES_MAX: Final = 20
_REPEAT_PAUSE_S: Final = 1.0
_encode: Final = msgspec.json.encode
_log = log.get("drills.probing")
T = TypeVar("T")


class Prober:
    """One client: ``begin`` once, ``run`` until told to end, ``ask_again`` and ``put_back`` afterwards."""

    def __init__(
        self,
        caller: Caller,
        journal: Journal,
        *,
        asks: Sequence[Case],
        owns: Sequence[Case],
        preferred: str,
        routes: Routes,
        epoch: "Epoch",
        chance: Chance,
        salt: bytes,
    ) -> None:
        """``asks`` are questions that this agency may ask, ``owns`` copies of its own that it registers again."""
        self._caller, self._journal, self._routes = caller, journal, routes
        self._asks, self._owns, self._preferred = asks, owns, preferred
        self._epoch, self._chance, self._salt = epoch, chance, salt
        self._client = journal.client
        self._questions: Iterator[Case] = cycle(asks)
        self._turn: Iterator[Case] = cycle(owns)
        self._searched: Iterator[Case] = cycle(owns)
        self._versions = {case.subject: 0 for case in owns}
        self._lines: list[Line] = []
        self._acknowledged: list[tuple[float, Line]] = []
        self._requests: dict[int, tuple[Ask, Act]] = {}
        self._n = 0
        self._flying: set[asyncio.Task[None]] = set()
        self.skipped = 0
        """Requests that were not sent because too many were on their way."""
        self.failed = 0
        self.refused = 0
        self.acknowledged_at: list[float] = []
        """Instants at which a write was acknowledged."""

    # ------------------------------------------------------------ while the drill runs

    async def begin(self) -> None:
        """Register every own copy once, so that its first version is known. Raises ``Problem`` site_not_settled."""
        for case in self._owns:
            await self._register(case)
        if self.failed or self.refused:
            raise Problem("site_not_settled", expected="registrations of a drill's own copies are taken")

    async def run(self, every_s: float, offset_s: float, phase: int) -> None:
        """Send one request each ``every_s`` until cancelled; then let what is on its way come back.

        ``phase`` is where in the pattern this client begins: two of a group do not register at the same moment.
        """
        loop = asyncio.get_running_loop()
        due = loop.time() + offset_s
        try:
            for act in islice(cycle(PATTERN), phase, None):
                await asyncio.sleep(max(0.0, due - loop.time()))
                due += every_s
                if len(self._flying) >= IN_FLIGHT_MAX:
                    self.skipped += 1
                    continue
                task = asyncio.create_task(self._act(act))
                self._flying.add(task)
                task.add_done_callback(self._landed)
        finally:
            if self._flying:
                await asyncio.wait(set(self._flying))

    def _landed(self, task: "asyncio.Task[None]") -> None:
        self._flying.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self.failed += 1
            _log.error("a client of the drill failed", exc_info=task.exception())

    async def _act(self, act: Act) -> None:
        if act == "query" and self._asks:
            await self._query(next(self._questions))
        elif act == "register" and self._owns:
            await self._register(next(self._turn))
        elif act == "search" and self._owns:
            await self._search(next(self._searched))
        elif act == "look" and self._lines:
            await self._look(self._lines[-1 - self._n % min(len(self._lines), BACK_MAX)])
        elif act == "list" and len(self._lines) > 1:
            await self._list(self._lines[-min(len(self._lines), BACK_MAX)])

    async def _query(self, case: Case) -> None:
        body = _encode(Queries(lines=[case.question], collect=True))
        ask = Ask("POST", "/queries", body, key=str(self._chance.uuid7()), wait_s=WAIT_S)
        entry, reply = await self._send("query", ask, subject=case.subject)
        batch = _decoded(reply, Batch)
        lines = [] if batch is None else self._noted(batch.lines)
        if reply.good and batch is None:
            reply = Reply(0, code="unreadable")
        elif reply.good and not lines:
            reply = Reply(422, code="refused_line")
        await self._tell(entry, reply, batch=None if batch is None else batch.batch, lines=lines)
        self._lines += lines
        self._acknowledged += [(self._epoch.now(), line) for line in lines]

    async def _register(self, case: Case) -> None:
        self._versions[case.subject] += 1
        version = self._versions[case.subject]
        copy = case.registration(version)
        ask = Ask("POST", "/copies", _encode(Copies(lines=[copy], source="drill")), key=str(self._chance.uuid7()))
        marks = marks_of(copy.items, self._salt)
        entry, reply = await self._send("register", ask, subject=case.subject, version=version, marks=marks)
        results = _decoded(reply, LineResults)
        if results is not None and any(line.status == "refused" for line in results.lines):
            reply = Reply(422, code="refused_line")
        await self._tell(entry, reply)

    async def _search(self, case: Case) -> None:
        key = CopyKey(addressee=case.copy.addressee, kind=case.copy.kind)
        entry, reply = await self._send("search", _search(key, self._chance), subject=case.subject)
        await self._tell(entry, reply, marks=self._found(case, reply))

    def _found(self, case: Case, reply: Reply) -> dict[str, str]:
        page = _decoded(reply, CopyPage)
        same = [] if page is None else [
            copy
            for copy in page.copies
            if (copy.period, copy.effective_from) == (case.copy.period, case.copy.effective_from)
        ]  # fmt: skip
        return marks_of(same[0].items, self._salt) if same else {}

    async def _look(self, line: Line) -> None:
        entry, reply = await self._send("look", Ask("GET", f"/queries/{line.id}"), after=str(line.id))
        batch = _decoded(reply, Batch)
        await self._tell(entry, reply, lines=[] if batch is None else self._noted(batch.lines))

    async def _list(self, since: Line) -> None:
        params = {"after": str(since.id), "limit": str(LIST_MAX)}
        entry, reply = await self._send("list", Ask("GET", "/queries", params=params), after=str(since.id))
        page = _decoded(reply, QueryPage)
        lines = [] if page is None else self._noted(page.lines)
        await self._tell(entry, reply, lines=lines, more=page is not None and page.next is not None)

    def acknowledged_since(self, since: float) -> set[uuid.UUID]:
        """Return the lines acknowledged since an instant."""
        return {line.id for at, line in self._acknowledged if at >= since}

    # ------------------------------------------------------------ one request

    async def _send(
        self, act: Act, ask: Ask, *, subject: str = "", version: int = 0, marks: Mapping[str, str] | None = None,
        after: str = "",
    ) -> tuple[Entry, Reply]:  # fmt: skip
        self._n += 1
        n = self._n
        exchange = self._routes.choose(self._preferred, self._client.cell)
        entry = Entry(
            "sending", self._epoch.now(), n, act, exchange, ask.key, subject, version, dict(marks or {}), after=after
        )
        if act in WRITES:
            self._requests[n] = (ask, act)
        await self._journal.write(entry)
        return entry, await self._caller.send(exchange, ask)

    async def _tell(
        self,
        sent: Entry,
        reply: Reply,
        *,
        batch: uuid.UUID | None = None,
        lines: Sequence[Line] = (),
        marks: Mapping[str, str] | None = None,
        more: bool = False,
    ) -> None:
        at = self._epoch.now()
        event = "told" if reply.good else "refused" if reply.refused else "in_doubt"
        await self._journal.write(
            msgspec.structs.replace(
                sent,
                event=event,
                at=at,
                marks=dict(marks or {}),
                status=reply.status,
                code=reply.code or _code(reply),
                batch=batch,
                lines=list(lines),
                next=more,
                leader=reply.leader,
                timeline=reply.timeline,
                durability=reply.durability,
                retry_after_s=reply.retry_after_s,
            )
        )
        self.failed += event == "in_doubt"
        self.refused += event == "refused"
        if event == "told" and sent.act in WRITES:
            self.acknowledged_at.append(at)

    def _noted(self, views: Sequence[QueryLineView]) -> list[Line]:
        return [Line(view.id, view.state, view.outcome, self._marks(view)) for view in views if view.id is not None]

    def _marks(self, view: QueryLineView) -> dict[str, str]:
        copies = [] if view.content is None else view.content.copies
        return marks_of(copies[0].items, self._salt) if len(copies) == 1 else {}

    # ------------------------------------------------------------ when it is over

    async def ask_again(self, numbers: Sequence[int]) -> None:
        """Send writes again under their own keys, to find out what came of them; each until it is answered.

        Raises ``Problem`` site_not_settled when one is still not answered.
        """
        for n in numbers:
            ask, act = self._requests[n]
            reply = await self._until_answered(ask)
            batch = _decoded(reply, Batch) if act == "query" else None
            lines = [] if batch is None else self._noted(batch.lines)
            await self._journal.write(
                Entry("settled", self._epoch.now(), n, act, key=ask.key, status=reply.status, code=_code(reply),
                      batch=None if batch is None else batch.batch, lines=lines)
            )  # fmt: skip

    async def _until_answered(self, ask: Ask) -> Reply:
        for _ in range(REPEAT_TRIES_MAX):
            for exchange in self._routes.names:
                reply = await self._caller.send(exchange, ask)
                if reply.good or (reply.refused and not _come_back(reply)):
                    return reply
            await asyncio.sleep(_REPEAT_PAUSE_S)
        raise Problem("site_not_settled", expected="requests of the drill are answered when it is over")

    async def put_back(self) -> None:
        """Register every own copy as it was before the drill."""
        for case in self._owns:
            body = _encode(Copies(lines=[case.copy], source="drill"))
            await self._until_answered(Ask("POST", "/copies", body, key=str(self._chance.uuid7())))

    async def final_copies(self) -> dict[str, dict[str, str]]:
        """Return the marks of every own copy as it stands now, by subject."""
        found: dict[str, dict[str, str]] = {}
        for case in self._owns:
            key = CopyKey(addressee=case.copy.addressee, kind=case.copy.kind)
            found[case.subject] = self._found(case, await self._until_answered(_search(key, self._chance)))
        return found

    async def contents(self, line: Line) -> Line | None:
        """Collect one line once more; None where it has no content to hand out."""
        ask = Ask("POST", f"/queries/{line.id}/collect", key=str(self._chance.uuid7()))
        batch = _decoded(await self._until_answered(ask), Batch)
        lines = [] if batch is None else self._noted(batch.lines)
        return next((one for one in lines if one.id == line.id and one.marks), None)


class Epoch:
    """Monotonic seconds since a drill began."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._start = clock.monotonic()

    def now(self) -> float:
        """Return the seconds, to the millisecond."""
        return round(self._clock.monotonic() - self._start, 3)


def _search(key: CopyKey, chance: Chance) -> Ask:
    return Ask("POST", "/copies/search", _encode(CopySearch(keys=[key])), key=str(chance.uuid7()))


def _decoded(reply: Reply, kind: type[T]) -> T | None:
    """Return the body of a good reply, None for any other; a body that is none of ours is as good as no answer."""
    if not reply.good:
        return None
    try:
        return msgspec.json.decode(reply.body, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None


def _code(reply: Reply) -> str:
    if reply.good or not reply.body:
        return reply.code
    try:
        return msgspec.json.decode(reply.body, type=ProblemBody).code
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return reply.code


def _come_back(reply: Reply) -> bool:
    """Whether a refusal only says: later (too many requests, or the same one is still running)."""
    return reply.status in {409, 429}
