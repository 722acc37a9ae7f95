"""Whatever the network does to a message: one outcome, one record a side, and no server error (invariant 5)."""

import asyncio
import uuid
from typing import Any

import msgspec
import pytest

from chukan.ops.sandbox.endpoints import pause
from chukan.ops.sandbox.faults import FaultRule
from chukan.platform.wire.network import AnswerDelivery
from chukan.tests.support.nation import ASKS, GIVES, GIVES_WEST, WAIT_S

from .conftest import happened, plan, problems_of, quiet

pytestmark = pytest.mark.asyncio(loop_scope="module")
LINES = 6
CHAOS_S = 180.0
"""As long as 200 lines may take under every fault, on a machine that does other work too."""
CALLS = ("call permit-requests", "call answers")
PUSHES = ("push notices", "push answers")
BOTH = (*CALLS, *PUSHES)

# What is done to a message on its way, where, and what the exchanges must have counted of it.
ON_THE_WAY = [
    ("slow", BOTH),
    ("error_500", CALLS),
    ("error_503", CALLS),
    ("drop_before", BOTH),
    ("drop_after", BOTH),
    ("repeated", PUSHES),
    ("reordered", BOTH),
    ("fewer_items", BOTH),
    ("extra_item", BOTH),
    ("wrong_ids", BOTH),
    ("malformed", BOTH),
    ("oversized", BOTH),
    ("wrong_key", BOTH),
    ("stale", BOTH),
    ("unsigned", BOTH),
    ("truncated", BOTH),
]


@pytest.fixture(autouse=True)
def patience(hostile: Any, capfd: pytest.CaptureFixture[str]) -> Any:
    """The exchanges wait a second for the network, so that a slow one costs the test a second; afterwards it works.

    What a hostile network says is refused where it is read: no loop, worker or handler may run into it.
    """
    for site in hostile.sites.values():
        site.peer._timeout_s = 1.0
    yield
    plan(hostile)
    said = capfd.readouterr().err
    assert '"level": "error"' not in said


@pytest.fixture(scope="module")
def known() -> dict[str, str]:
    """Persons by provider; acquired once, while the network still works."""
    return {}


async def person(world: Any, known: dict[str, str], gives: str) -> str:
    if gives not in known:
        plan(world)
        known[gives] = await world.person(ASKS, gives)
    return known[gives]


async def records_of(world: Any, code: str) -> list[Any]:
    return [record.fields for record in await world.records(code)]


async def kept_by(world: Any) -> list[Any]:
    """All of the network's own records, page by page."""
    found: list[Any] = []
    while page := (await world.network.records(found[-1].position if found else 0, 1000)).records:
        found += page
    return found


async def check_records(world: Any, done: Any, gives: str, *, asked: str, gave: str) -> None:
    """Each line has one record a side with its outcome, and the network's own says the same; nothing was amended."""
    ids = {line.id for line in done.lines}
    mine = [record for record in await records_of(world, ASKS) if record.id in ids or record.amends in ids]
    assert sorted(record.id for record in mine) == sorted(ids)
    assert {record.outcome for record in mine} == {asked}
    references = {record.reference for record in mine}
    assert len(references) == len(ids)
    theirs = [record for record in await records_of(world, gives) if record.reference in references]
    assert sorted(record.reference for record in theirs) == sorted(references)
    assert {record.outcome for record in theirs} == {gave}
    kept = {str(record.reference): record.outcome for record in await kept_by(world)}
    assert {kept[reference] for reference in references} == {gave}


async def ask(world: Any, known: dict[str, str], gives: str, count: int = LINES) -> Any:
    addressee = await person(world, known, gives)
    return await world.ask(ASKS, [world.line(addressee, gives) for _ in range(count)])


@pytest.mark.requirement("TXR-03", "TXR-04", "TST-03")
@pytest.mark.parametrize(("fault", "places"), ON_THE_WAY, ids=[fault for fault, _ in ON_THE_WAY])
async def test_every_line_has_one_outcome_and_one_record_a_side(
    hostile: Any, known: dict[str, str], fault: str, places: tuple[str, ...]
) -> None:
    await person(hostile, known, GIVES_WEST)
    plan(hostile, *(FaultRule(fault=fault, at=(place,), times=1, delay_s=1.2) for place in places))
    done = await hostile.answered(ASKS, await ask(hostile, known, GIVES_WEST))
    assert [line.outcome for line in done.lines] == ["provided"] * LINES
    await quiet(hostile)
    assert happened(hostile) == {(fault, place): 1 for place in places}
    await check_records(hostile, done, GIVES_WEST, asked="provided", gave="provided")
    assert problems_of(hostile, "internal") == 0


FORGED = [
    ("forged_permit", "permit_forged"),
    ("wrong_signature", "permit_forged"),
    ("swapped_path", "permit_forged"),
    ("foreign_permit", "unknown_agency"),
    ("other_face", "permit_not_for_us"),
    ("replayed", "permit_replayed"),
    ("expired_permit", "permit_expired"),
]


@pytest.mark.requirement("PRV-01", "PRV-03", "TXR-04")
@pytest.mark.parametrize(("fault", "code"), FORGED, ids=[fault for fault, _ in FORGED])
async def test_nothing_leaves_for_a_wrong_permit_and_an_alarm_is_raised(
    hostile: Any, known: dict[str, str], fault: str, code: str
) -> None:
    await hostile.answered(ASKS, await ask(hostile, known, GIVES, 1))
    await quiet(hostile)
    before, alarms = await sent(hostile, GIVES), problems_of(hostile, code)
    plan(hostile, FaultRule(fault=fault, at=("push notices",), times=1))
    done = await hostile.answered(ASKS, await ask(hostile, known, GIVES, 2))
    await quiet(hostile)
    assert happened(hostile) == {(fault, "push notices"): 1}
    await check_records(hostile, done, GIVES, asked="provided", gave="provided")
    assert problems_of(hostile, code) == alarms + 1
    after = await sent(hostile, GIVES)
    # Only the two genuine lines had a receipt; a dead permit leaves a record that says so, and nothing else a trace.
    assert after["receipts"] == before["receipts"] + 2
    assert after["provided"] == before["provided"] + 2
    assert after["expired"] == before["expired"] + (fault == "expired_permit")


async def sent(world: Any, gives: str) -> dict[str, int]:
    """What the provider let out: the network's receipts, and its own records by outcome."""
    rows = await world.network.store.read(lambda c: c.execute("SELECT count(*) FROM receipts").fetchone())
    outcomes = [record.outcome for record in await records_of(world, gives)]
    return {"receipts": rows[0], "provided": outcomes.count("provided"), "expired": outcomes.count("expired")}


@pytest.mark.requirement("TXR-03", "TXR-04", "TEN-01")
@pytest.mark.parametrize(
    ("fault", "code"),
    [
        ("forged_permit", "permit_forged"),
        ("wrong_signature", "permit_forged"),
        ("swapped_path", "permit_forged"),
        ("foreign_permit", "not_found"),
        ("replayed", None),
    ],
)
async def test_a_wrong_or_old_answer_changes_nothing(
    hostile: Any, known: dict[str, str], fault: str, code: str | None
) -> None:
    await hostile.answered(ASKS, await ask(hostile, known, GIVES, 1))
    await quiet(hostile)
    records = {who: len(await records_of(hostile, who)) for who in (ASKS, GIVES)}
    alarms = 0.0 if code is None else problems_of(hostile, code)
    plan(hostile, FaultRule(fault=fault, at=("push answers",), times=1))
    done = await hostile.answered(ASKS, await ask(hostile, known, GIVES, 2))
    await quiet(hostile)
    assert happened(hostile) == {(fault, "push answers"): 1}
    await check_records(hostile, done, GIVES, asked="provided", gave="provided")
    assert {who: len(await records_of(hostile, who)) for who in (ASKS, GIVES)} == {
        who: count + 2 for who, count in records.items()
    }
    if code is not None:
        assert problems_of(hostile, code) == alarms + 1


@pytest.mark.requirement("TXR-04", "PRV-08")
async def test_an_answer_under_the_permit_of_another_line_is_forged(hostile: Any, known: dict[str, str]) -> None:
    await hostile.answered(ASKS, await ask(hostile, known, GIVES, 2))
    await quiet(hostile)
    pushed = list(hostile.network.faults.seen["answers"])[-2:]
    one, other = (msgspec.json.decode(item, type=AnswerDelivery) for item in pushed)
    moved = msgspec.structs.replace(one, id=uuid.uuid4(), permit=other.permit)
    count = len(await records_of(hostile, ASKS))
    (ack,) = await hostile.west.inbox.answers([moved])
    assert (ack.status, ack.reason) == ("refused", "permit_forged")
    await quiet(hostile)
    assert len(await records_of(hostile, ASKS)) == count


@pytest.mark.requirement("TXR-03")
async def test_content_that_cannot_be_opened_fails_its_line_alone(hostile: Any, known: dict[str, str]) -> None:
    await person(hostile, known, GIVES)
    plan(hostile, FaultRule(fault="unreadable_answer", times=1))
    done = await hostile.answered(ASKS, await ask(hostile, known, GIVES, 3))
    await quiet(hostile)
    assert happened(hostile) == {("unreadable_answer", "push answers"): 1}
    assert sorted(line.outcome for line in done.lines) == ["failed", "provided", "provided"]
    (failed,) = [line for line in done.lines if line.outcome == "failed"]
    mine = [record for record in await records_of(hostile, ASKS) if record.id == failed.id]
    assert [(record.outcome, record.reason) for record in mine] == [("failed", "unreadable")]


@pytest.mark.requirement("TXR-03", "PRV-08", "TST-03")
async def test_a_network_that_does_everything_at_once_is_survived(hostile: Any, known: dict[str, str]) -> None:
    await chaos(hostile, known, seed=20_261_123, lines=30)


@pytest.mark.full
@pytest.mark.requirement("TXR-03", "TST-03")
@pytest.mark.parametrize("seed", range(12))
async def test_a_network_that_does_everything_at_once_is_survived_by_other_seeds(
    hostile: Any, known: dict[str, str], seed: int
) -> None:
    await chaos(hostile, known, seed=seed, lines=200)


async def chaos(world: Any, known: dict[str, str], *, seed: int, lines: int) -> None:
    """Every fault but one that decides an outcome, in a part of all messages, until the last line is answered."""
    for gives in (GIVES, GIVES_WEST):
        await person(world, known, gives)
    rare = [fault for fault, _ in ON_THE_WAY if fault not in {"slow", "oversized"}] + [fault for fault, _ in FORGED]
    rules = [FaultRule(fault=fault, share=0.12, times=6) for fault in rare]
    plan(world, *rules, FaultRule(fault="slow", share=0.2, delay_s=0.1), seed=seed)
    batches = [await ask(world, known, gives, lines // 2) for gives in (GIVES, GIVES_WEST)]
    inquiries = world.sites["east"].exchange.inquiries
    done = [await inquiries.wait(world.agency(ASKS), batch.batch, CHAOS_S) for batch in batches]
    struck = happened(world)
    plan(world)
    await quiet(world, CHAOS_S)
    assert sum(struck.values()) >= 10, struck
    for gives, batch in zip((GIVES, GIVES_WEST), done, strict=True):
        assert {line.outcome for line in batch.lines} == {"provided"}
        await check_records(world, batch, gives, asked="provided", gave="provided")
    assert problems_of(world, "internal") == 0


@pytest.mark.requirement("TXR-03", "PRV-03")
async def test_a_line_whose_permit_never_arrives_ends_at_its_deadline(hostile: Any, known: dict[str, str]) -> None:
    batch = await silent(hostile, known)
    admin = await hostile.admin(hostile.databases["east"])
    async with asyncio.timeout(WAIT_S):
        # A worker that has the line in its hands at this moment puts the old deadline back: it is set until it is over.
        while await hostile.state_of(ASKS, batch) != "expired":
            await admin.execute("UPDATE chukan.inquiry_work SET due = now(), deadline = now() WHERE state < 50")
            await pause(0.1, asyncio.Event())
    await admin.close()
    done = await hostile.answered(ASKS, batch)
    assert [(line.state, line.outcome) for line in done.lines] == [("expired", "expired")]
    mine = [record for record in await records_of(hostile, ASKS) if record.id == batch.lines[0].id]
    assert [record.outcome for record in mine] == ["expired"]


async def silent(world: Any, known: dict[str, str]) -> Any:
    """A line whose permit requests have no reply, however often they are repeated."""
    await person(world, known, GIVES)
    plan(world, FaultRule(fault="drop_before", at=("call permit-requests",)))
    batch = await ask(world, known, GIVES, 1)
    async with asyncio.timeout(WAIT_S):
        while sum(happened(world).values()) < 2:
            await pause(0.02, asyncio.Event())
    assert await world.state_of(ASKS, batch) == "permit_requested"
    return batch
