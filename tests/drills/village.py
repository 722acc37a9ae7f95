"""A platform of one page for tests of the drills: two exchanges over one store in memory, and faults to be planted.

It keeps what it acknowledges, until a fault is planted: then it forgets, repeats, or shows what is over. It is asked
over HTTP through the very clients of a drill; what a stage does to it is as simple as can be.
"""

import asyncio
import contextlib
import uuid
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from aiohttp import web

from chukan.chance import SystemChance
from chukan.clock import SystemClock
from chukan.errors import Problem
from chukan.ops.certificates import Authority
from chukan.ops.drills.cases import Case, make_cases
from chukan.ops.drills.ports import Exchange, Node, View
from chukan.ops.sandbox.admin import NetworkRecord
from chukan.ops.sandbox.transport import Connection
from chukan.platform.wire.agency import (
    AnswerContent,
    AnsweredCopy,
    Batch,
    Copies,
    CopyLine,
    CopyPage,
    Queries,
    QueryLineView,
    Record,
    StoredCopy,
)

ITEMS_MAX = 4
CLOCK = SystemClock()
CHANCE = SystemChance(CLOCK)


class Village:
    """The store, the exchanges, and the stage that breaks them; it is an installation to drill on."""

    name, topology, marked, routed = "village", "2+1", True, False

    def __init__(self, cases: Sequence[Case], folder: Path) -> None:
        self._cases = cases
        self.copies: dict[tuple[str, str], CopyLine] = {}
        self.old_copies: dict[tuple[str, str], CopyLine] = {}
        self.lines: dict[str, dict[uuid.UUID, QueryLineView]] = defaultdict(dict)
        self.batches: dict[str, Batch] = {}
        self.records: dict[str, list[Record]] = defaultdict(list)
        self.network: list[NetworkRecord] = []
        self.leader = {"east": "e1", "west": "w1"}
        self.timeline = {"east": 1, "west": 1}
        self.away: set[str] = set()
        self.frozen: set[str] = set()
        self.down: set[str] = set()
        self.cannot_heal: list[str] = []
        self.cannot_do: set[str] = set()
        self.done: list[str] = []
        self.broken = asyncio.Event()
        self.plant: set[str] = set()
        self.ports: dict[str, int] = {}
        authority = Authority.create(folder / "pki", "village", CLOCK)
        self._issued = authority.issue_client("system-1")
        self._trusted = authority.trusted
        self.stage = self.steering = self

    # ------------------------------------------------------------ installation

    def offers(self, need: str) -> bool:
        return need == "namespaces"

    def does(self, act: str, target: str) -> bool:
        return f"{act} {target}" not in self.cannot_do

    def home(self, cell: str) -> str:
        return {"east": "east", "west": "west"}[cell]

    def exchanges(self) -> Mapping[str, Exchange]:
        return {
            f"exchange-{centre}": Exchange(
                f"exchange-{centre}", centre, f"http://127.0.0.1:{port}", f"http://127.0.0.1:{port}"
            )
            for centre, port in self.ports.items()
        }

    def connection(self, agency: str, exchange: str) -> Connection:
        url = self.exchanges()[exchange].agency_url
        return Connection(agency, [url], self._trusted, self._issued.certificate, self._issued.key)

    def cases(self) -> Sequence[Case]:
        return self._cases

    async def view(self) -> View:
        nodes = []
        for cell, far in (("east", "ew1"), ("west", "we1")):
            for name in (f"{cell[0]}1", f"{cell[0]}2", far):
                leads = name == self.leader[cell] and f"postgres-{name}" not in self.down
                centre = self.home(cell) if name != far else next(one for one in self.ports if one != self.home(cell))
                nodes.append(Node(name, cell, centre, "primary" if leads else "sync", self.timeline[cell]))
        return View(tuple(nodes), {"etcd-witness": "etcd-witness" not in self.down})

    async def network_records(self) -> Sequence[NetworkRecord]:
        return self.network

    # ------------------------------------------------------------ stage and steering

    async def kill(self, name: str) -> None:
        if "stumble" in self.plant:
            raise ZeroDivisionError
        self.done.append(f"kill {name}")
        self.down.add(name)
        self.broken.set()
        cell = next((cell for cell, leader in self.leader.items() if name == f"postgres-{leader}"), None)
        if cell is not None:
            await self._move(cell, f"{cell[0]}2")

    async def _move(self, cell: str, to: str) -> None:
        if "lose" in self.plant:
            for agency, lines in self.lines.items():
                gone = list(lines)[-2:]
                self.lines[agency] = {line: view for line, view in lines.items() if line not in gone}
        if "stale" in self.plant:
            self.old_copies = dict(self.copies)
        self.leader[cell] = to
        self.timeline[cell] += 1

    async def start(self, name: str) -> None:
        self.done.append(f"start {name}")
        self.down.discard(name)

    async def stop(self, name: str) -> None:
        await self.kill(name)

    async def freeze(self, name: str) -> None:
        self.frozen.add(name)

    async def thaw(self, name: str) -> None:
        self.frozen.discard(name)

    async def switchover(self, cell: str, leader: str, candidate: str) -> None:
        assert self.leader[cell] == leader
        await self._move(cell, candidate)

    async def fence(self, cell: str) -> None:
        self.done.append(f"fence {cell}")

    async def isolate(self, centre: str) -> None:
        raise Problem("not_possible_here", expected="a village")

    async def heal(self) -> list[str]:
        self.done.append("heal")
        self.frozen.clear()
        self.down.clear()
        return list(self.cannot_heal)

    async def settled(self, timeout_s: float) -> None:
        if self.frozen or self.down - {name for name in self.down if name.startswith("postgres-")}:
            raise TimeoutError

    # ------------------------------------------------------------ the agency API

    def _busy(self) -> web.Response:
        problem = Problem("no_primary", retry_after_s=1)
        return web.json_response(problem.as_dict(), status=problem.status)

    async def query(self, request: web.Request) -> web.Response:
        if "network" in self.down:
            return self._busy()
        agency, key = request.match_info["agency"], request.headers["Idempotency-Key"]
        if key in self.batches and "twice" not in self.plant:
            return _reply(self.batches[key])
        asked = msgspec.json.decode(await request.read(), type=Queries).lines[0]
        case = next(one for one in self._cases if one.question == asked)
        copy = self.copies[case.provider, case.copy.addressee]
        items = dict(list(copy.items.items())[-ITEMS_MAX:]) | {case.mark: copy.items[case.mark]}
        if "wrong" in self.plant:
            items[case.mark] = "777777"
        content = AnswerContent(copy.kind, [AnsweredCopy(copy.layout, copy.effective_from, items, copy.period)])
        line = QueryLineView(0, "collected", "provided", CHANCE.uuid7(), content=content)
        assert line.id is not None
        batch = self.batches[key] = Batch(CHANCE.uuid7(), [line])
        self.lines[agency][line.id] = line
        self._record(agency, case, line.id)
        return _reply(batch, self.leader["east"], self.timeline["east"])

    def _record(self, agency: str, case: Case, line: uuid.UUID) -> None:
        now, reference = CLOCK.now(), str(uuid.UUID(int=line.int ^ 1))
        said: dict[str, Any] = {
            "inquirer": agency, "provider": case.provider, "department": "x", "affair": "x", "procedure": "x",
            "kind": "x", "items": [], "outcome": "provided", "asked_at": now, "closed_at": now, "withheld": False,
        }  # fmt: skip
        times = 2 if "two records" in self.plant else 1
        for place in range(times):
            self._add(Record(id=line, side="inquirer", reference=reference, position=None, **said), agency, place)
        self._add(
            Record(id=CHANCE.uuid7(), side="provider", reference=reference, position=None, **said), case.provider, 0
        )
        self.network.append(
            NetworkRecord(
                position=len(self.network), reference=uuid.UUID(reference), request=line, inquirer=agency,
                inquirer_name="x", provider=case.provider, provider_name="x", department="x", affair="x",
                procedure="x", kind="x", items=[], asked_at=now, decided_at=now, outcome="provided", expires_at=now,
                notified_at=now, provided_at=now, closed_at=now, delivered_at=now,
            )
        )  # fmt: skip

    def _add(self, record: Record, agency: str, _place: int) -> None:
        of = self.records[agency]
        of.append(msgspec.structs.replace(record, position=len(of)))

    async def register(self, request: web.Request) -> web.Response:
        agency = request.match_info["agency"]
        for copy in msgspec.json.decode(await request.read(), type=Copies).lines:
            self.copies[agency, copy.addressee] = copy
        return web.json_response({"lines": [{"line": 0, "status": "done"}]})

    async def search(self, request: web.Request) -> web.Response:
        agency = request.match_info["agency"]
        addressee = msgspec.json.decode(await request.read())["keys"][0]["addressee"]
        copy = self.old_copies.get((agency, addressee)) or self.copies[agency, addressee]
        stored = StoredCopy(
            copy.addressee, copy.kind, copy.layout, copy.effective_from, copy.items, copy.period, review=False,
            registered_at=CLOCK.now(), source="drill",
        )  # fmt: skip
        return _reply(CopyPage([stored]))

    async def page(self, request: web.Request) -> web.Response:
        lines = self.lines[request.match_info["agency"]]
        after = uuid.UUID(request.query["after"])
        limit = int(request.query["limit"])
        found = sorted((view for line, view in lines.items() if line > after), key=lambda view: str(view.id))[:limit]
        return _reply({"lines": [msgspec.to_builtins(view) | {"content": None} for view in found],
                       "next": str(found[-1].id) if len(found) == limit else None})  # fmt: skip

    async def one(self, request: web.Request) -> web.Response:
        line = self.lines[request.match_info["agency"]].get(uuid.UUID(request.match_info["query"]))
        if line is None:
            return web.json_response({}, status=404)
        return _reply(Batch(uuid.UUID(int=1), [line]))

    async def recorded(self, request: web.Request) -> web.Response:
        return _reply({"records": [msgspec.to_builtins(one) for one in self.records[request.match_info["agency"]]]})

    async def ready(self, _request: web.Request) -> web.Response:
        return web.json_response({})

    def application(self) -> web.Application:
        app = web.Application()
        base = "/v1/agencies/{agency}"
        app.router.add_post(f"{base}/queries", self.query)
        app.router.add_get(f"{base}/queries", self.page)
        app.router.add_get(base + "/queries/{query}", self.one)
        app.router.add_post(base + "/queries/{query}/collect", self.one)
        app.router.add_post(f"{base}/copies", self.register)
        app.router.add_post(f"{base}/copies/search", self.search)
        app.router.add_get(f"{base}/records", self.recorded)
        app.router.add_get("/readyz", self.ready)
        return app


def _reply(document: object, leader: str = "", timeline: int = 0) -> web.Response:
    headers = {"Chukan-Durability": f"both; leader={leader}; timeline={timeline}"} if leader else {}
    return web.Response(body=msgspec.json.encode(document), content_type="application/json", headers=headers)


@contextlib.asynccontextmanager
async def village(folder: Path, population: Any, law: Any) -> AsyncIterator[Village]:
    """Build one, with an exchange at each centre."""
    built = Village(tuple(make_cases(population, law)), folder)
    runners = []
    try:
        for centre in ("east", "west"):
            runner = web.AppRunner(built.application())
            runners.append(runner)
            await runner.setup()
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            built.ports[centre] = runner.addresses[0][1]
        yield built
    finally:
        for runner in runners:
            await runner.cleanup()
