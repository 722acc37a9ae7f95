"""What is over and still there, by class: seen by the caller's clock, gone after one round of deleting."""

import datetime as dt
import uuid
from typing import Any

import pytest

from chukan.clock import ManualClock, SystemClock, today_jst
from chukan.ops.retention_report import over_at
from chukan.ops.specs import retention
from chukan.platform.exchange import fact_purge, forgetting
from chukan.platform.exchange.fact_purge import FactPurge
from chukan.platform.exchange.forgetting import Forgetting
from chukan.tenants import acquisition_asks
from chukan.tenants.retention import CLASSES, FACTS_DAYS, FILES_DAYS, KEYS_DAYS, STAYING, limits_of
from chukan.tests.records.test_retention import back, put

pytestmark = pytest.mark.requirement("REC-02")
NOW = SystemClock().now()
RESULT_DAYS = 14


async def seen(shelf: Any, now: dt.datetime = NOW) -> dict[str, int]:
    async with shelf.cells.steward("here") as steward:
        rows = await over_at(steward, shelf.agency, limits_of(now, today_jst(ManualClock(now)), RESULT_DAYS))
    return {row["class"]: row["over"] for row in rows if row["over"]}


async def fill(shelf: Any, days_before: float) -> None:
    """One of each class, so many days older than what is kept."""

    def ago(days: float) -> dt.datetime:
        return NOW - dt.timedelta(days=days + days_before)

    schema, run = shelf.schema, shelf.admin.execute
    await run(
        "INSERT INTO chukan.inquiry_work (agency, id, batch, ordinal, state, outcome, outbox, due, deadline,"
        " updated_at) VALUES ($1, gen_random_uuid(), gen_random_uuid(), 1, 80, 1, false, $2, $2, $2)",
        shelf.agency, ago(RESULT_DAYS),
    )  # fmt: skip
    sql = (
        f"INSERT INTO {schema}.idempotency (agency, key, body, outcome, at) VALUES ($1, $2, $2, gen_random_uuid(), $3)"
    )
    await run(sql, shelf.agency, bytes(32), ago(KEYS_DAYS))
    sql = f"INSERT INTO {schema}.acquisition_asks (id, sealed, received_at) VALUES (gen_random_uuid(), 'x', $1)"
    await run(sql, ago(FACTS_DAYS))
    sql = f"INSERT INTO {schema}.officer_sessions (digest, officer, body, seen_at, until) VALUES ($1, 'o', 'x', $2, $2)"
    await run(sql, bytes(32), ago(0))


async def keep(shelf: Any, month: dt.date, record: uuid.UUID | None) -> None:
    """A list of messages of a month, and in it one of a record's, if any."""
    sql = f"INSERT INTO {shelf.schema}.messages (id, line, list, sealed, at) VALUES ($1, $2, $3, 'x', $4)"
    kept, at = uuid.uuid4(), dt.datetime(month.year, month.month, 15, 3, tzinfo=dt.UTC)
    await shelf.admin.execute(sql, kept, None, None, at)
    if record is not None:
        await shelf.admin.execute(sql, uuid.uuid4(), record, kept, at)


async def test_what_is_over_is_counted_by_class_and_one_round_deletes_it(
    shelf: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (forgetting, fact_purge):
        monkeypatch.setattr(module, "PAGE_S", 0)
    assert await seen(shelf) == {}
    await fill(shelf, -1)
    await keep(shelf, back(0), await put(shelf, back(0)))
    assert await seen(shelf) == {}, "nothing is over a day before its time"
    await keep(shelf, back(1), await put(shelf, back(1)))
    await keep(shelf, back(1), None)
    # What belongs to a record is over only with it: of the messages, so far, the list in which none is left.
    over = {"results": 1, "keys": 1, "facts": 1, "sessions": 1, "records": 1, "messages": 1}
    assert await seen(shelf, NOW + dt.timedelta(days=2)) == over
    later = ManualClock(NOW + dt.timedelta(days=2))
    await Forgetting({"here": shelf.sets}, later).round("here")
    await FactPurge({"here": shelf.sets}, later).round("here")
    # Keys go by the server's own clock, results by the exchange's lease: neither hurries for another clock.
    assert await seen(shelf, later.now()) == {"results": 1, "keys": 1}
    assert await seen(shelf) == {}
    assert await shelf.admin.fetchval(f"SELECT count(*) FROM {shelf.schema}.messages") == 2, "those of the kept record"
    await shelf.admin.execute("DELETE FROM chukan.inquiry_work WHERE agency = $1", shelf.agency)


def test_the_page_says_what_is_deleted_by_the_numbers_that_delete() -> None:
    page = retention()
    for kept in CLASSES:
        assert f"| `{kept.name}` |" in page
        assert (kept.name in STAYING) is (kept.by == "")
    assert "14 days (`exchange.result_keep_days`)" in page
    assert dt.timedelta(days=FACTS_DAYS) == acquisition_asks.KEEP
    assert FILES_DAYS == KEYS_DAYS + 60
