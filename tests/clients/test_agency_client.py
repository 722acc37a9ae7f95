"""The client of the agency API: every call of the route table, the other exchange on failure, one key a request."""

import base64
import hashlib
import uuid
from pathlib import Path
from typing import Any

import pytest

from chukan.clock import SystemClock
from chukan.errors import Problem
from chukan.ops.certificates import Authority
from chukan.ops.sandbox.clients import AgencyClient, ClientError
from chukan.platform.http.routes import ROUTES
from chukan.platform.wire import agency as wire
from chukan.platform.wire.statistics import Statistics

from .conftest import AT, BREAK_OFF, Site, free_port

ID = uuid.UUID("018f0000-0000-7000-8000-000000000001")
LINE = wire.QueryLine(
    addressee="A1", kind="TM00000000000002", provider="9901131016000001", affair="JM01000000121000",
    procedure="JT01010000000214", department="税務課",
)  # fmt: skip
BATCH = wire.Batch(batch=ID, lines=[wire.QueryLineView(line=0, state="accepted", id=ID)])
LOAD = wire.Load(
    id=ID, kind="TM00000000000002", layout=202506, mode="full", period="2026", state="open", expected=1, staged=0,
    refused=0, parts=[],
)  # fmt: skip
REVIEW = wire.Review(
    id=ID, inquirer="1", affair="a", procedure="p", kind="k", items=[], asked_at=AT, expires_at=AT, state="held"
)
RESULTS = wire.LineResults(lines=[wire.LineResult(line=0, status="done")])
PAGE = wire.CopyPage(copies=[])
STATUSES = wire.CodeStatuses(lines=[wire.CodeStatus(line=0, status="requested", acquisition_number="A" * 25)])
COPY = wire.CopyLine(
    addressee="A1", kind="TM00000000000002", layout=202506, effective_from=AT.date(), items={"TK1": "1"}
)

CALLS: dict[str, tuple[Any, Any]] = {
    "openLoad": (lambda c: c.open_load(wire.LoadOpen(kind=LOAD.kind, layout=1, mode="full", expected=1)), LOAD),
    "getLoad": (lambda c: c.load(ID), LOAD),
    "putLoadPart": (lambda c: c.put_part(ID, 0, b'{"x":1}\n'), LOAD),
    "commitLoad": (lambda c: c.commit_load(ID, [b"d" * 32]), LOAD),
    "releaseLoad": (lambda c: c.release_load(ID, [b"d" * 32]), LOAD),
    "abortLoad": (lambda c: c.abort_load(ID), LOAD),
    "postCopies": (lambda c: c.register(wire.Copies(lines=[COPY])), RESULTS),
    "searchCopies": (lambda c: c.search_copies(wire.CopySearch(keys=[wire.CopyKey(addressee="A1")])), PAGE),
    "exportCopies": (lambda c: c.export_copies(wire.CopyExport(kind=LOAD.kind)), PAGE),
    "deleteCopies": (lambda c: c.delete_copies(wire.CopyDelete(keys=[wire.CopyKey(addressee="A1")])), RESULTS),
    "postHolds": (lambda c: c.hold([wire.HoldLine(addressee="A1")]), RESULTS),
    "askCodes": (lambda c: c.ask_codes(["A1"]), STATUSES),
    "searchCodes": (lambda c: c.search_codes(["A1"]), STATUSES),
    "postQueries": (lambda c: c.query(wire.Queries(lines=[LINE]), wait_s=5), BATCH),
    "listQueries": (lambda c: c.queries(state="held", after="x", limit=5), wire.QueryPage(lines=[])),
    "getQuery": (lambda c: c.view(ID, wait_s=5), BATCH),
    "collectQuery": (lambda c: c.collect(ID), BATCH),
    "cancelQuery": (lambda c: c.cancel(ID), BATCH),
    "resendQuery": (lambda c: c.resend(ID), BATCH),
    "listReviews": (lambda c: c.reviews(), wire.Reviews(reviews=[])),
    "prepareReview": (lambda c: c.prepare_review(ID, wire.ReviewPrepare(decision="provide")), REVIEW),
    "approveReview": (lambda c: c.approve_review(ID, note="n"), REVIEW),
    "refuseReview": (lambda c: c.refuse_review(ID), REVIEW),
    "listRecords": (lambda c: c.records(after="x", limit=7), wire.Records(records=[])),
    "searchRecords": (lambda c: c.records_of("A1"), wire.Records(records=[])),
}


def test_the_client_has_every_call_of_the_agency_wire() -> None:
    """A call belongs to it by the type of its reply; files of queries have a wire of their own."""
    of_the_wire = {
        route.name for route in ROUTES if route.reply is not None and route.reply.__module__ == wire.__name__
    }

    assert set(CALLS) == of_the_wire


@pytest.mark.requirement("TST-03")
@pytest.mark.parametrize("operation", CALLS)
async def test_a_call_reaches_its_route_and_its_reply_comes_back(site: Site, operation: str) -> None:
    call, reply = CALLS[operation]
    site.set(operation, reply)

    assert await call(site.client()) == reply
    (heard,) = site.east.heard
    assert heard.operation == operation
    assert heard.peer == "urn:chukan:client:tax"


async def test_statistics_are_asked_for_by_months_or_by_a_fiscal_year(site: Site) -> None:
    reply = Statistics(first="2026-04", last="2027-03", records=0, amendments=0, lines=[])
    site.set("getStatistics", reply)
    client = site.client()

    assert await client.statistics(first="2026-04", last="2026-05") == reply
    assert await client.statistics(fiscal_year=2026) == reply
    assert [heard.params for heard in site.east.heard] == [
        {"from": "2026-04", "to": "2026-05"},
        {"fiscal_year": "2026"},
    ]


@pytest.mark.requirement("TXR-03")
async def test_the_other_exchange_gets_the_same_key_and_the_same_bytes(site: Site) -> None:
    """The first exchange takes the request in and breaks off before it has answered."""

    site.east.replies["postQueries"] = BREAK_OFF
    site.west.replies["postQueries"] = BATCH
    reply = await site.client().query(wire.Queries(lines=[LINE]))

    assert reply == BATCH
    (first,), (second,) = site.east.heard, site.west.heard
    assert first.headers["Idempotency-Key"] == second.headers["Idempotency-Key"]
    assert first.raw == second.raw


async def test_an_exchange_that_is_down_is_passed_over_and_the_one_that_answered_is_kept(site: Site) -> None:
    site.west.replies["getQuery"] = BATCH
    assert site.east.listener is not None
    await site.east.listener.stop()
    client = site.client()

    assert await client.view(ID) == BATCH
    assert client._transport._preferred == 1
    assert await client.view(ID) == BATCH


async def test_two_requests_have_two_keys(site: Site) -> None:
    site.set("postQueries", BATCH)
    client = site.client()
    for _ in range(2):
        await client.query(wire.Queries(lines=[LINE]))
    await client.query(wire.Queries(lines=[LINE]), key="a-key-of-ones-own")
    first, second, third = (heard.headers["Idempotency-Key"] for heard in site.east.heard)

    assert first != second
    assert uuid.UUID(first).version == 7
    assert third == "a-key-of-ones-own"


async def test_a_problem_comes_back_as_one_and_quotes_nothing(site: Site) -> None:
    site.set("postQueries", Problem("too_many_lines", limit=1000, pointer="/lines"))

    with pytest.raises(ClientError) as raised:
        await site.client().query(wire.Queries(lines=[LINE]))

    assert (raised.value.code, raised.value.status, str(raised.value)) == ("too_many_lines", 413, "too_many_lines")
    assert not raised.value.retryable
    problem = raised.value.as_problem()
    assert (problem.code, problem.limit, problem.pointer) == ("too_many_lines", 1000, "/lines")
    assert site.west.heard == []


async def test_what_may_be_repeated_is_repeated_with_the_same_key_until_it_succeeds(site: Site) -> None:
    site.east.replies["askCodes"] = [Problem("busy", retry_after_s=0), Problem("no_primary", retry_after_s=0), STATUSES]

    assert await site.client(retry_s=10).ask_codes(["A1"]) == STATUSES
    assert len({heard.headers["Idempotency-Key"] for heard in site.east.heard}) == 1
    assert len(site.east.heard) == 3


async def test_a_probe_hears_the_first_answer(site: Site) -> None:
    site.east.replies["askCodes"] = Problem("busy", retry_after_s=0)

    with pytest.raises(ClientError, match="busy"):
        await site.client().ask_codes(["A1"])
    assert len(site.east.heard) == 1


async def test_nobody_there_is_an_error_with_a_code_of_its_own(site: Site) -> None:
    client = site.client(urls=[f"https://127.0.0.1:{free_port()}"])

    with pytest.raises(ClientError) as raised:
        await client.reviews()

    assert raised.value.code == "unreachable"
    assert raised.value.retryable
    assert raised.value.as_problem().code == "unavailable"


async def test_an_exchange_under_another_authority_is_not_talked_to(site: Site, tmp_path: Path) -> None:
    stranger = Authority.create(tmp_path / "other", "other", SystemClock())
    site.set("listReviews", wire.Reviews(reviews=[]))

    with pytest.raises(ClientError, match="unreachable"):
        await site.client(ca=stranger.trusted).reviews()
    assert site.east.heard == site.west.heard == []


async def test_a_part_is_streamed_from_a_file_whole_to_each_exchange_with_its_digest(
    site: Site, tmp_path: Path
) -> None:
    path = tmp_path / "part.ndjson"
    content = b"".join(b'{"line": %d}\n' % number for number in range(60_000))
    path.write_bytes(content)
    assert site.east.listener is not None
    await site.east.listener.stop()
    site.west.replies["putLoadPart"] = LOAD
    await site.client().put_part(ID, 3, path)
    (heard,) = site.west.heard

    assert heard.raw == content
    assert heard.headers["Content-Type"] == "application/x-ndjson"
    digest = hashlib.sha256(content).digest()
    assert heard.headers["Content-Digest"] == f"sha-256=:{base64.b64encode(digest).decode()}:"


async def test_the_digest_of_a_load_is_over_the_parts_digests(site: Site) -> None:
    site.set("commitLoad", LOAD)
    parts = [hashlib.sha256(part).digest() for part in (b"one", b"two")]
    await site.client().commit_load(ID, parts)

    assert site.east.heard[0].body.digest == hashlib.sha256(b"".join(parts)).hexdigest()


async def test_waiting_is_asked_for_in_the_header_and_in_the_parameter(site: Site) -> None:
    site.set("postQueries", BATCH)
    site.set("getQuery", BATCH)
    client = site.client()
    await client.query(wire.Queries(lines=[LINE]), wait_s=7)
    await client.view(ID, wait_s=8)
    await client.view(ID)

    assert site.east.heard[0].headers["Prefer"] == "wait=7"
    assert [heard.params for heard in site.east.heard[1:]] == [{"wait": "8"}, {}]


async def test_records_are_read_page_by_page_to_the_end(site: Site) -> None:
    record = wire.Record(
        id=ID, side="inquirer", inquirer="1", provider="2", department="d", affair="a", procedure="p", kind="k",
        items=[], outcome="provided", asked_at=AT, closed_at=AT, withheld=False,
    )  # fmt: skip
    pages = {None: ("1", 2), "1": ("2", 2), "2": (None, 1)}

    def page(heard: Any) -> wire.Records:
        following, count = pages[heard.params.get("after")]
        return wire.Records(records=[record] * count, next=following)

    site.set("listRecords", page)

    assert len(await site.client().all_records()) == 5


async def test_addresses_of_persons_never_stand_in_a_url(site: Site) -> None:
    site.set("searchRecords", wire.Records(records=[]))
    site.set("searchCopies", PAGE)
    site.set("searchCodes", STATUSES)
    async with AgencyClient(site.connection()) as client:
        await client.records_of("A987654321")
        await client.search_copies(wire.CopySearch(keys=[wire.CopyKey(addressee="A987654321")]))
        await client.search_codes(["A987654321"])

    assert all(b"A987654321" in heard.raw and heard.params == {} for heard in site.east.heard)
