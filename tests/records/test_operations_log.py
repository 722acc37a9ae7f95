"""The operations log on a real cell: acts of officers and operators are entered, placed, signed and exported."""

import dataclasses
import io
from typing import Any

import msgspec
import pytest

from chukan.errors import Problem
from chukan.tenants import evidence_check, evidence_file, operations
from chukan.tenants.evidence import Signer
from chukan.tenants.evidence_report import Rules
from chukan.tenants.operations import OPERATORS, Journal, Operation, make_operation
from chukan.tenants.operations_export import AgencyLog, OperatorsLog, export_operations, read_entries
from chukan.tenants.operations_tree import OperationTrees, log_name
from chukan.tenants.records import RecordError
from chukan.tenants.sealing import SealError
from chukan.tests.records.acting import NAME, ORIGIN, act, place
from chukan.tests.records.bending import CHANCE, CODE, KEYS


def journal(shelf: Any) -> Journal:
    return Journal(lambda _: shelf.keys, lambda _: shelf.sets, CHANCE)


async def entries(shelf: Any, after: int = 0) -> list[Any]:
    return await read_entries(AgencyLog(shelf.open), shelf.keys, after, 100)


@pytest.mark.requirement("AUT-03")
async def test_an_act_is_entered_sealed_and_read_back_as_it_was_told(shelf: Any) -> None:
    subject = CHANCE.uuid7()
    told = act(shelf.agency, second="officer-2", subject=subject)
    await journal(shelf).append(told)
    await journal(shelf).append(act(shelf.agency, kind="session.login", outcome="refused", code="forbidden", times=3))
    await place(shelf)
    (first, entry), (second, refused) = await entries(shelf)
    assert (first, second) == (1, 2)
    assert (entry.actor, entry.second, entry.kind, entry.subject, entry.at) == (
        told.actor, told.second, told.kind, subject, told.at,
    )  # fmt: skip
    assert (refused.outcome, refused.code, refused.times) == ("refused", "forbidden", 3)
    row = await shelf.admin.fetchrow(f"SELECT * FROM {shelf.schema}.operations WHERE id = $1", entry.id)
    assert not any(word in row["body"] for word in (b"officer", b"review", subject.bytes))
    with pytest.raises(SealError):
        shelf.keys.open("record", entry.id.bytes, row["body"])


async def test_an_entry_and_its_act_are_one_commit(shelf: Any) -> None:
    async def fails() -> None:
        async with shelf.open() as partition:
            await operations.append(partition, shelf.keys, CHANCE, act(shelf.agency))
            raise RuntimeError("the act fails")

    with pytest.raises(RuntimeError, match="the act fails"):
        await fails()
    async with shelf.open() as partition:
        await operations.append(partition, shelf.keys, CHANCE, act(shelf.agency, "officer-7"))
    await place(shelf)
    assert [entry.actor for _, entry in await entries(shelf)] == ["officer-7"]


async def test_no_agency_enters_for_another_one_or_for_the_operators(shelf: Any, neighbour: Any) -> None:
    row = make_operation(neighbour.keys, CHANCE, act(neighbour.agency))
    for number in (neighbour.agency, OPERATORS):
        with pytest.raises(Problem):
            async with shelf.open() as partition:
                await partition.fetch("SELECT chukan.operate($1, $2, $3, $4, $5)", number, *row[1:])
    with pytest.raises(ValueError, match="keys"):
        make_operation(shelf.keys, CHANCE, act(neighbour.agency))
    with pytest.raises(Problem):
        async with shelf.open() as partition:
            await partition.fetch("SELECT * FROM chukan_operators.operations")
    with pytest.raises(Problem):
        async with shelf.open() as partition:
            await partition.execute(f"DELETE FROM {partition.table('operations')}")


@pytest.mark.parametrize(
    "changes",
    [
        {"actor": "山田"}, {"actor": "a b"}, {"actor": ""}, {"kind": "Approve!"}, {"subject_class": "9"},
        {"code": "what it was"}, {"second": "x" * 201}, {"times": 0},
    ],
    ids=["name", "blank", "empty", "kind", "class", "code", "second", "times"],
)  # fmt: skip
def test_what_might_be_a_value_is_no_entry(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="wrong form") as caught:
        make_operation(None, CHANCE, act(None, **changes))
    assert not any(str(value) in str(caught.value) for value in changes.values() if len(str(value)) > 1)


async def test_a_repeat_is_entered_once(shelf: Any) -> None:
    rows = [make_operation(shelf.keys, CHANCE, act(shelf.agency)) for _ in range(3)]
    assert await shelf.sets.operations_append(rows[:2]) == 2
    assert await shelf.sets.operations_append(rows) == 3
    await place(shelf)
    assert len(await entries(shelf)) == 3
    with pytest.raises(Problem):
        await shelf.sets.operations_append(rows * 70)


async def test_a_lost_entry_stops_nobody_and_is_not_forgotten(shelf: Any) -> None:
    rows = [make_operation(shelf.keys, CHANCE, act(shelf.agency, f"officer-{n}")) for n in range(3)]
    await shelf.sets.operations_append(rows)
    _, before = await shelf.sets.operations_age()
    await shelf.admin.execute(f"DELETE FROM {shelf.schema}.operations WHERE id = $1", rows[1].id)
    await place(shelf)
    assert [entry.actor for _, entry in await entries(shelf)] == ["officer-0", "officer-2"]
    assert (await shelf.sets.operations_age())[1] == before + 1
    await shelf.admin.execute("DELETE FROM chukan.operations_waiting")


async def test_what_waits_for_its_place_comes_through_a_freeze(shelf: Any) -> None:
    await journal(shelf).append(act(shelf.agency))
    assert await shelf.admin.fetchval("SELECT chukan.move_freeze($1, 1)", shelf.agency)
    await place(shelf)
    with pytest.raises(Problem):
        await journal(shelf).append(act(shelf.agency))
    await shelf.admin.execute("SELECT chukan.move_thaw($1)", shelf.agency)
    await place(shelf)
    assert len(await entries(shelf)) == 1


async def test_a_log_that_came_from_elsewhere_is_signed_on(shelf: Any) -> None:
    """As after a move: what counts is the log itself, the hint is made anew."""
    signer = Signer(OperationTrees(shelf.sets), KEYS, {shelf.agency: NAME}.get, lambda _: None)
    for size in (1, 2):
        await journal(shelf).append(act(shelf.agency))
        await place(shelf)
        await shelf.admin.execute("DELETE FROM chukan.operation_heads WHERE agency = $1", shelf.agency)
        await place(shelf)
        for _ in range(20):  # a few hints a round, for all agencies of the cell
            if shelf.agency in await shelf.sets.operations_grown(1000):
                break
            await shelf.sets.operations_sequence(1)
        assert await signer.sign_due() == 1
        last = await shelf.sets.operations_last(shelf.agency)
        assert last is not None
        assert last.size == size
        assert await signer.sign_due() == 0


async def test_a_changed_entry_is_not_read(shelf: Any) -> None:
    await journal(shelf).append(act(shelf.agency))
    other = make_operation(shelf.keys, CHANCE, act(shelf.agency, "officer-9"))
    await place(shelf)
    ((_, entry),) = await entries(shelf)
    sealed = shelf.keys.seal("operation", entry.id.bytes, shelf.keys.open("operation", other.id.bytes, other.body))
    await shelf.admin.execute(f"UPDATE {shelf.schema}.operations SET body = $2 WHERE id = $1", entry.id, sealed)
    with pytest.raises(RecordError):
        await entries(shelf)
    await shelf.admin.execute(f"DELETE FROM {shelf.schema}.operations")
    with pytest.raises(RecordError):
        await entries(shelf)


async def test_the_operators_log_is_fed_by_the_audit_rows_and_checked_offline(shelf: Any) -> None:
    """Whoever was refused, a link's change and an order each leave an entry in the commit of their own."""
    await shelf.admin.execute(
        "SELECT chukan.enter_refusals(ARRAY[$1::uuid], ARRAY[now()], ARRAY[now()], ARRAY['exchange-1'],"
        " ARRAY['client 1'], ARRAY['131016'], ARRAY['13101'], ARRAY['agency_mismatch'], ARRAY[4])",
        CHANCE.uuid7(),
    )
    await shelf.admin.execute(
        "INSERT INTO chukan.link_change (link, act, who, second, generation)"
        " VALUES ('131016-1', 'suspend', 'operator-1', 'operator-2', 1)"
    )
    order = CHANCE.uuid7()
    async with shelf.admin.transaction():
        await shelf.admin.execute("SET LOCAL session_replication_role = replica")
        await shelf.admin.execute("SELECT chukan.order_begin($1, $2, 'export', $3)", order, shelf.agency, bytes(32))
    await journal(shelf).append(act(None, "operator-3", kind="keys.rotate", subject_class="keys"))
    await place(shelf)
    cell = Signer(
        OperationTrees(shelf.sets), KEYS, lambda n: log_name(n, "here", {}.get), lambda _: None
    )  # no agency has a code: the operators' alone is signed
    assert await cell.sign_due() == 1
    reader = OperatorsLog(shelf.cells, "here")
    fields = [entry for _, entry in await read_entries(reader, None, 0, 1000)]
    assert [(each.actor, each.kind, each.outcome, each.code, each.times) for each in fields[-4:]] == [
        ("client_1", "access.refused", "refused", "agency_mismatch", 4),
        ("operator-1", "link.suspend", "done", None, 1),
        (f"order:{order}", "order.export.begun", "done", None, 1),
        ("operator-3", "keys.rotate", "done", None, 1),
    ]
    assert fields[-2].subject == order
    origin = KEYS.origin("operators/here")
    lines = [line async for line in export_operations(reader, origin, None, clear=True)]
    rules = Rules(KEYS.known("operators/here"), need_cosigned=False)
    report = evidence_check.check(iter(lines), rules)
    assert (report.sound, report.records) == (True, report.leaves - len(report.restores))
    # Another log's keys, or the provision records' origin, prove nothing of it.
    assert not evidence_check.check(iter(lines), Rules(KEYS.known(CODE), need_cosigned=False)).sound


async def test_a_file_of_an_agency_opens_only_with_its_keys(shelf: Any, neighbour: Any) -> None:
    await journal(shelf).append(act(shelf.agency))
    await place(shelf)
    signer = Signer(OperationTrees(shelf.sets), KEYS, {shelf.agency: NAME}.get, lambda _: None)
    assert await signer.sign_due() == 1

    async def export(keys: Any) -> list[Any]:
        return [line async for line in export_operations(AgencyLog(shelf.open), ORIGIN, keys, clear=False)]

    rules = Rules(KEYS.known(NAME), need_cosigned=False)
    for keys, records in ((shelf.keys, 1), (None, 0)):
        file = io.BytesIO(b"".join(evidence_file.encode(await export(keys))))
        report = evidence_check.check(evidence_file.decode(file), rules)
        assert (report.sound, report.leaves, report.records) == (True, 1, records)
    foreign = dataclasses.replace(neighbour).keys
    assert not evidence_check.check(iter(await export(foreign)), rules).sound


def test_the_names_of_the_logs_are_apart() -> None:
    assert log_name(OPERATORS, "east", {}.get) == "operators/east"
    assert log_name(7, "east", {7: CODE}.get) == f"{CODE}/operations"
    assert log_name(8, "east", {7: CODE}.get) is None
    assert len({KEYS.origin(CODE), KEYS.origin(f"{CODE}/operations"), KEYS.origin("operators/east")}) == 3
    assert Operation.__struct_fields__[0] == "agency"
    assert "agency" not in msgspec.structs.asdict(
        operations.decode_operation(make_operation(None, CHANCE, act(None)).body[32:])
    )
