"""``chukan client`` and ``chukan reconcile`` from the command line, against exchanges on real sockets."""

import asyncio
import json
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import web

from chukan.errors import Problem
from chukan.ops import client_run
from chukan.ops.cli import run
from chukan.ops.reconcile import app as reconcile_app
from chukan.ops.sandbox.admin import NetworkRecord, NetworkRecords
from chukan.ops.sandbox.connection_file import read_connection
from chukan.ops.sandbox.listener import Listener
from chukan.platform.http import notices
from chukan.platform.wire import agency as wire
from chukan.platform.wire.compare import CopyDifference, DifferenceCounts, LoadDifferences
from chukan.platform.wire.files import QueryFile
from chukan.platform.wire.statistics import Statistics, StatisticsLine

from .conftest import AGENCY, AT, Site

SHOWN = {route.name: route.shows[0].value for route in notices.ROUTES}
ID = uuid.UUID("018f0000-0000-7000-8000-000000000001")
AFFAIR = {
    "affair": "JM01000000121000",
    "procedure": "JT01010000000214",
    "kind": "TM00000000000002",
    "inquirer": AGENCY,
    "provider": "9901131016000001",
    "examples": ["A42"],
}
CONTENT = wire.AnswerContent(
    kind="TM00000000000002",
    copies=[
        wire.AnsweredCopy(
            layout=202506,
            effective_from=AT.date(),
            period="2026",
            items={"TKX0020000000001": "2026", "TKX0020000000002": wire.Gap(gap="01")},
        )
    ],
)
BATCH = wire.Batch(
    batch=ID,
    lines=[wire.QueryLineView(line=0, state="collected", outcome="provided", id=ID, content=CONTENT)],
)
QUERY_FILE = QueryFile(
    id=ID, name="N1", charset="utf-8", state="accepted", received_at=AT, lines=1, refused=1, batches=[ID],
    states={"accepted": 1}, outcomes={"no_code": 1},
    problems=(msgspec.convert(Problem("bad_line", line=2, pointer="/5").as_dict(), wire.ProblemBody),),
)  # fmt: skip
RECORD = wire.Record(
    id=ID, side="inquirer", inquirer=AGENCY, provider="9901131016000001", department="d", affair="a", procedure="p",
    kind="k", items=["i"], outcome="provided", asked_at=AT, closed_at=AT, withheld=False, reference=str(ID),
)  # fmt: skip


COUNTS = Statistics(
    first="2026-04",
    last="2026-05",
    records=3,
    amendments=0,
    lines=[
        StatisticsLine(month="2026-05", fiscal_year=2026, side="provider", outcome="refused", records=3, amendments=0)
    ],
)


class Stage:
    """A site that runs in a thread with a loop of its own, because a command has its own as well."""

    def __init__(self, folder: Path) -> None:
        self.site = Site(folder)
        self.records = NetworkRecords(records=[])
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._admin = Listener(self._network(), "127.0.0.1", 0)
        self.do(self.site.start())
        self.do(self._admin.start())
        for name in ("tax", "suzuki"):
            self.site.connection(name)
        self.path = folder / "connection.json"
        self.write()

    def do(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(20)

    def _network(self) -> web.Application:
        async def records(_request: web.Request) -> web.Response:
            return web.Response(body=msgspec.json.encode(self.records), content_type="application/json")

        app = web.Application()
        app.router.add_get("/admin/records", records)
        return app

    def write(self) -> None:
        def files(name: str) -> dict[str, str]:
            # Relative to the file, as a person who copies a folder would have it.
            folder = self.site.authority.folder.relative_to(self.path.parent) / "clients" / name
            return {"certificate": f"{folder}/certificate.pem", "key": f"{folder}/key.pem"}

        officers = [{"id": "suzuki", **files("suzuki")}]
        document = {
            "ca": str(self.site.authority.trusted),
            "exchanges": [
                {"name": name, "agency_url": url, "health_url": "x"}
                for name, url in zip(self.site.exchanges, self.site.urls, strict=True)
            ],
            "network_admin_url": self._admin.url,
            "agencies": {
                AGENCY: {"name": "市長", "cell": "east", **files("tax"), "officers": officers, "examples": []}
            },
            "affairs": [AFFAIR],
        }
        self.path.write_text(json.dumps(document), encoding="utf-8")

    def close(self) -> None:
        self.do(self.site.close())
        self.do(self._admin.stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    monkeypatch.setenv("COLUMNS", "200")
    made = Stage(tmp_path)
    yield made
    made.close()


def _client(stage: Stage, *words: str) -> int:
    return run(["client", *words, "--agency", AGENCY, "--connection", str(stage.path), "--retry", "0"])


def _json(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out)


def test_a_query_asks_waits_and_shows_the_answer_with_the_items_names(
    stage: Stage, capsys: pytest.CaptureFixture[str]
) -> None:
    stage.site.set("postQueries", BATCH)

    assert _client(stage, "query", "--wait", "5") == 0
    shown = capsys.readouterr().out
    (heard,) = stage.site.east.heard
    assert heard.body.lines[0].addressee == "A42"
    assert heard.body.lines[0].provider == AFFAIR["provider"]
    assert heard.body.collect
    assert heard.headers["Prefer"] == "wait=5"
    assert "課税年度" in shown
    assert "未申告" in shown
    assert "provided" in shown


def test_what_was_given_wins_over_the_example(stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    stage.site.set("postQueries", BATCH)
    words = [f"--{name}={AFFAIR[name]}" for name in ("affair", "procedure", "kind", "provider")]

    assert _client(stage, "query", "B7", *words, "--year", "2025", "--item", "TK1", "--withheld", "--json") == 0
    line = stage.site.east.heard[0].body.lines[0]
    assert (line.addressee, line.items, line.withheld) == ("B7", ["TK1"], True)
    assert (line.condition.period, line.condition.year) == ("1", "2025")
    assert _json(capsys) == msgspec.to_builtins(BATCH)


@pytest.mark.parametrize(
    "words", [["query", "--kind", "TMX0000000000011"], ["query", "not a number!"], ["query", "A1", "--year", "20x5"]]
)
def test_what_cannot_be_asked_is_said_without_quoting_it(
    stage: Stage, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    assert _client(stage, *words, "--json") == 2
    document = _json(capsys)
    assert document["code"] in {"setting_missing", "invalid_field"}
    assert "not a number" not in json.dumps(document)
    assert stage.site.east.heard == []


def test_a_refusal_ends_with_its_problem(stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    stage.site.set("postQueries", Problem("function_not_granted"))

    assert _client(stage, "query", "--json") == 2
    assert _json(capsys)["code"] == "function_not_granted"
    assert _client(stage, "query") == 2
    assert "機関の管理者に" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "operation", "reply"),
    [
        (["show", str(ID)], "getQuery", BATCH),
        (["collect", str(ID)], "collectQuery", BATCH),
        (["cancel", str(ID)], "cancelQuery", BATCH),
        (["queries", "--state", "held"], "listQueries", wire.QueryPage(lines=BATCH.lines, next="n")),
        (["codes", "A1"], "searchCodes", wire.CodeStatuses(lines=[wire.CodeStatus(line=0, status="active")])),
        (["codes", "A1", "--acquire"], "askCodes", wire.CodeStatuses(lines=[wire.CodeStatus(line=0, status="none")])),
        (["copies", "A1"], "searchCopies", wire.CopyPage(copies=[])),
        (["records"], "listRecords", wire.Records(records=[RECORD], next="n")),
        (["records", "A1"], "searchRecords", wire.Records(records=[RECORD])),
        (["statistics", "--from", "2026-04", "--to", "2026-05"], "getStatistics", COUNTS),
        (["statistics", "--fiscal-year", "2026"], "getStatistics", COUNTS),
        (["notices", "--limit", "2"], "listNotices", SHOWN["listNotices"]),
        (["read-notice", str(ID)], "readNotice", SHOWN["readNotice"]),
        (["calendar"], "getCalendar", SHOWN["getCalendar"]),
        (["reviews", "list"], "listReviews", wire.Reviews(reviews=[])),
    ],
)
def test_each_command_calls_its_route_and_shows_the_reply_both_ways(
    stage: Stage, capsys: pytest.CaptureFixture[str], words: list[str], operation: str, reply: Any
) -> None:
    stage.site.set(operation, reply)

    assert _client(stage, *words) == 0
    assert capsys.readouterr().out.strip()
    assert _client(stage, *words, "--json") == 0
    assert _json(capsys) == msgspec.to_builtins(reply)
    assert [heard.operation for heard in stage.site.east.heard] == [operation] * 2


def test_an_officer_acts_with_a_credential_of_their_own(stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    review = wire.Review(
        id=ID, inquirer=AGENCY, affair="a", procedure="p", kind="k", items=[], asked_at=AT, expires_at=AT,
        state="prepared", prepared_by="suzuki",
    )  # fmt: skip
    for operation in ("prepareReview", "approveReview", "refuseReview"):
        stage.site.set(operation, review)
    officer = ["--officer", "suzuki"]

    assert _client(stage, "reviews", "prepare", str(ID), "--decision", "provide", "--withheld", *officer) == 0
    assert _client(stage, "reviews", "approve", str(ID), *officer) == 0
    assert _client(stage, "reviews", "refuse", str(ID), "--note", "n", *officer) == 0
    assert {heard.peer for heard in stage.site.east.heard} == {"urn:chukan:client:suzuki"}
    assert (stage.site.east.heard[0].body.decision, stage.site.east.heard[0].body.withheld) == ("provide", True)
    capsys.readouterr()
    assert _client(stage, "reviews", "approve", str(ID), "--officer", "nobody", "--json") == 2
    assert _json(capsys)["code"] == "unregistered_system"


def test_copies_and_loads_are_registered_from_files(stage: Stage, tmp_path: Path) -> None:
    stage.site.set("postCopies", wire.LineResults(lines=[wire.LineResult(line=0, status="done")]))
    load = wire.Load(
        id=ID, kind="TM00000000000002", layout=202506, mode="full", period="2026", state="open", expected=3, staged=0,
        refused=0, parts=[],
    )  # fmt: skip
    for operation in ("openLoad", "putLoadPart", "commitLoad"):
        stage.site.set(operation, load)
    line = {"addressee": "A1", "kind": "TM00000000000002", "layout": 202506, "effective_from": "2026-06-01"}
    copies = tmp_path / "copies.json"
    copies.write_text(json.dumps({"lines": [{**line, "items": {"TK1": "1"}}]}), encoding="utf-8")
    parts = [tmp_path / "one.ndjson", tmp_path / "two.ndjson"]
    parts[0].write_bytes(b'{"a":1}\n{"a":2}\n')
    parts[1].write_bytes(b'{"a":3}')

    assert _client(stage, "register", str(copies)) == 0
    words = ["--kind", "TM00000000000002", "--layout", "202506", "--period", "2026", "--mode", "full"]
    assert _client(stage, "load", *map(str, parts), *words) == 0
    heard = stage.site.east.heard
    assert [one.operation for one in heard] == ["postCopies", "openLoad", "putLoadPart", "putLoadPart", "commitLoad"]
    assert (heard[1].body.expected, heard[1].body.mode, heard[1].body.period) == (3, "full", "2026")
    assert [one.raw for one in heard[2:4]] == [part.read_bytes() for part in parts]


def test_a_real_installation_is_reached_without_a_connection_file(
    stage: Stage, capsys: pytest.CaptureFixture[str]
) -> None:
    stage.site.set("listReviews", wire.Reviews(reviews=[]))
    known = stage.site.connection("tax")
    files = ["--ca", str(known.ca), "--certificate", str(known.certificate), "--key", str(known.key)]
    urls = [word for url in known.urls for word in ("--url", url)]
    words = ["client", "reviews", "list", "--agency", AGENCY, "--json"]

    assert run([*words, *urls, *files]) == 0
    assert _json(capsys) == {"reviews": []}
    assert run([*words, *urls]) == 2
    assert _json(capsys)["code"] == "setting_missing"


def test_a_connection_file_is_read_with_paths_relative_to_it(stage: Stage, tmp_path: Path) -> None:
    file = read_connection(stage.path)

    assert file.connect(AGENCY).certificate == tmp_path / "ca" / "clients" / "tax" / "certificate.pem"
    assert file.connect(AGENCY, "suzuki").key.parent.name == "suzuki"
    assert file.connect(AGENCY).urls == stage.site.urls
    with pytest.raises(Problem, match="unknown_agency"):
        file.connect("9999999999999999")
    stage.path.write_text("{", encoding="utf-8")
    with pytest.raises(Problem, match="settings_unreadable"):
        read_connection(stage.path)


@pytest.mark.requirement("REC-05")
def test_reconcile_reads_all_parties_and_ends_with_one_where_something_differs(
    stage: Stage, capsys: pytest.CaptureFixture[str]
) -> None:
    network = NetworkRecord(
        position=1, reference=ID, request=ID, inquirer=AGENCY, inquirer_name="a", provider="9901131016000001",
        provider_name="b", department="d", affair="a", procedure="p", kind="k", items=["i"], asked_at=AT,
        decided_at=AT, outcome="provided", closed_at=AT, delivered_at=AT, notified_at=AT, expires_at=AT,
    )  # fmt: skip
    stage.records = NetworkRecords(records=[network])
    stage.site.set("listRecords", wire.Records(records=[RECORD]))
    words = ["reconcile", "--connection", str(stage.path)]

    assert run([*words, "--json"]) == 0
    agreed = _json(capsys)
    stage.site.set("listRecords", wire.Records(records=[]))
    assert run([*words, "--json"]) == 1
    differing = _json(capsys)
    assert run([*words, "--agency", AGENCY]) == 1
    shown = capsys.readouterr().out
    stage.site.set("listRecords", Problem("function_not_granted"))
    assert run([*words, "--json"]) == 2

    assert (agreed["agreed"], agreed["differences"]) == (1, [])
    assert differing["counts"] == {"missing_at_inquirer": 1}
    assert "missing_at_inquirer" in shown
    assert _json(capsys)["code"] == "function_not_granted"
    assert reconcile_app.name == ("reconcile",)


def test_lines_of_a_file_are_counted_with_and_without_a_last_line_end(tmp_path: Path) -> None:
    path = tmp_path / "f"
    counts = {}
    for content in (b"", b"x", b"x\n", b"x\ny", b"x\ny\n"):
        path.write_bytes(content)
        counts[content] = client_run.count_lines(path)

    assert counts == {b"": 0, b"x": 1, b"x\n": 1, b"x\ny": 2, b"x\ny\n": 2}


def test_a_query_file_is_shown_with_its_progress_and_its_refused_lines(
    stage: Stage, capsys: pytest.CaptureFixture[str]
) -> None:
    stage.site.set("getQueryFile", QUERY_FILE)
    assert _client(stage, "query-files", "show", str(ID)) == 0
    shown = capsys.readouterr().out
    assert "1 lines, 1 refused" in shown
    assert "bad_line" in shown
    assert _client(stage, "query-files", "show", str(ID), "--json") == 0
    assert msgspec.convert(_json(capsys), QueryFile) == QUERY_FILE


def test_a_query_file_is_sent_by_its_name_and_its_result_written_to_a_file(stage: Stage, tmp_path: Path) -> None:
    stage.site.set("postQueryFile", QUERY_FILE)
    stage.site.set("getQueryFileResult", b"line\r\n")
    path, into = tmp_path / "N1.DAT", tmp_path / "result.csv"
    path.write_bytes(b"one\r\n")
    assert _client(stage, "query-files", "send", str(path), "--charset", "cp932") == 0
    assert _client(stage, "query-files", "send", str(path), "--name", "N2") == 0
    assert _client(stage, "query-files", "send", str(tmp_path / "none")) == 2
    assert _client(stage, "query-files", "result", str(ID), str(into)) == 0
    assert _client(stage, "query-files", "result", str(ID), str(into)) == 2
    first, second, *_ = stage.site.east.heard
    assert (first.params["name"], second.params["name"], first.raw) == ("N1.DAT", "N2", b"one\r\n")
    assert first.headers["Content-Type"] == "text/plain; charset=cp932"
    assert into.read_bytes() == b"line\r\n"


def test_events_are_written_as_they_come(stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    stage.site.set("followEvents", b"event: line\ndata: {}\n\n")
    assert _client(stage, "events", "--last-id", "c1") == 0
    assert capsys.readouterr().out == "event: line\ndata: {}\n\n"
    assert stage.site.east.heard[0].headers["Last-Event-ID"] == "c1"


@pytest.mark.requirement("REP-04")
def test_the_original_is_compared_page_by_page_and_the_load_is_dropped(
    stage: Stage, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    load = wire.Load(
        id=ID, kind="TM00000000000002", layout=202506, mode="full", period="2026", state="open", expected=2, staged=2,
        refused=0, parts=[0],
    )  # fmt: skip
    for operation in ("openLoad", "putLoadPart", "abortLoad"):
        stage.site.set(operation, load)
    counts = DifferenceCounts(missing_here=1, missing_there=0, differing=1)
    one, two = (
        CopyDifference(difference=kind, addressee=person, effective_from=AT.date())
        for kind, person in (("missing_here", "A1"), ("differing", "A2"))
    )
    pages = [
        LoadDifferences(load=ID, differences=[one], counts=counts, next="c1"),
        LoadDifferences(load=ID, differences=[two]),
    ]
    stage.site.set("compareLoad", pages)
    part = tmp_path / "one.ndjson"
    part.write_bytes(b'{"a":1}\n{"a":2}\n')
    words = ["--kind", "TM00000000000002", "--layout", "202506", "--period", "2026"]
    assert _client(stage, "compare", str(part), *words, "--json") == 0
    shown = msgspec.convert(_json(capsys), LoadDifferences)
    assert (shown.counts, shown.differences) == (counts, [one, two])
    operations = [heard.operation for heard in stage.site.east.heard]
    assert operations == ["openLoad", "putLoadPart", "compareLoad", "compareLoad", "abortLoad"]
    assert stage.site.east.heard[3].body.after == "c1"
