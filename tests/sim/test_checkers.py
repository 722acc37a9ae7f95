"""Each checker fails on a fault that breaks its promise, planted in the ground or in the exchange, and on nothing else.

A fault is planted by replacing one function; the worlds are the ordinary ones. The checker has to complain within a few
seeds, for a checker that needs luck finds nothing.
"""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from chukan.errors import Problem
from chukan.ops.simulation import inquiry_rules, provision_rules, rules
from chukan.ops.simulation.checkers import CHECKERS
from chukan.ops.simulation.run import run_seed
from chukan.platform.exchange.waiters import Waiters
from chukan.platform.flows import provision as flow
from chukan.tenants.states import ProvisionState

SEEDS_MAX = 80
Plant = Callable[[pytest.MonkeyPatch], None]


def complaining(name: str) -> list[str]:
    """What the named checker says about the first world that it does not like."""
    for seed in range(SEEDS_MAX):
        found = [text for checker, text in run_seed(seed).complaints if checker == name]
        if found:
            return found
    return []


def every(n: int) -> Callable[[], bool]:
    """True every n-th time."""
    count = iter(range(1, 1_000_000))
    return lambda: next(count) % n == 0


def lose_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """An acknowledged line is not stored."""
    store, now = inquiry_rules._store, every(9)
    monkeypatch.setattr(inquiry_rules, "_store", lambda *given: None if now() else store(*given))


def lose_a_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    """A notice is acknowledged, and its commit undone."""
    provide = provision_rules._provide

    def lost(cell: Any, tx: Any, row: Any, locked: Any) -> str:
        mark = len(tx._undo)
        word = provide(cell, tx, row, locked)
        while len(tx._undo) > mark:
            tx._undo.pop()()
        return word

    monkeypatch.setattr(provision_rules, "_provide", lost)


def forget_that_it_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """A late answer closes a line a second time."""
    deliver = inquiry_rules._deliver

    def again(cell: Any, tx: Any, row: Any) -> str:
        word = deliver(cell, tx, row)
        if word == "late" and row.state >= 50:
            inquiry_rules.put_event(cell, tx, 1, row.agency, row.id, 30, int(row.state))
        return word

    monkeypatch.setattr(inquiry_rules, "_deliver", again)


def never_settle(monkeypatch: pytest.MonkeyPatch) -> None:
    """A receipt is said to be stored and is not."""
    settle = provision_rules.settle_provisions

    def lazy(cell: Any, tx: Any, grants: Any, rows: Any) -> list[str]:
        kept = [row for row in rows if row.state is not ProvisionState.RECEIPTED]
        settle(cell, tx, grants, kept)
        return ["applied"] * len(rows)

    monkeypatch.setattr(provision_rules, "settle_provisions", lazy)
    monkeypatch.setattr("chukan.ops.simulation.run.LOOKS_MAX", 40)


def leave_out_records(monkeypatch: pytest.MonkeyPatch) -> None:
    """An effect without its record."""
    put, now = rules.put_record, every(6)

    def some(cell: Any, tx: Any, side: Any, agency: int, line: Any, outcome: int, record: Any) -> None:
        put(cell, tx, side, agency, line, outcome, None if now() else record)

    monkeypatch.setattr(inquiry_rules, "put_record", some)


def tell_nobody_of_the_lapse(monkeypatch: pytest.MonkeyPatch) -> None:
    """The provider's answer came too late, and its record is not amended."""
    settle = provision_rules.settle_provisions

    def silent(cell: Any, tx: Any, grants: Any, rows: Any) -> list[str]:
        words = settle(cell, tx, grants, rows)
        for row in rows:
            if row.record is not None and row.record.amends is not None:
                table = cell.agency(row.agency)
                tx.delete(table.records, row.record.id)
                for n in [n for n, waiting in cell.to_sequence.items() if waiting.record == row.record.id]:
                    tx.delete(cell.to_sequence, n)
        return words

    monkeypatch.setattr(provision_rules, "settle_provisions", silent)
    monkeypatch.setattr("chukan.ops.simulation.world.PERMIT_VALID_S", (1.0,))


def overlook_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    """The look-up does not see holds."""
    look_up = provision_rules._look_up

    def blind(table: Any, row: Any, snapshot: int) -> Any:
        holds, table.holds = table.holds, {}
        try:
            return look_up(table, row, snapshot)
        finally:
            table.holds = holds

    monkeypatch.setattr(provision_rules, "_look_up", blind)


def _judging_without_stops(judge: Any) -> Any:
    return lambda permit, **given: judge(permit, **{**given, "stopped": False})


def overlook_the_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    """The provider's flow does not ask whether the kind is stopped."""
    monkeypatch.setattr("chukan.platform.flows.provision.judge", _judging_without_stops(flow.judge))


def take_every_item(monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer carries whatever the copy has."""
    content = flow.content

    def greedy(permit: Any, law: Any, allowed: Any, copies: Any) -> Any:
        return content(msgspec.structs.replace(permit, items=sorted(allowed)), law, allowed, copies)

    monkeypatch.setattr("chukan.platform.flows.provision.content", greedy)


def use_a_permit_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Used permits are not remembered."""
    provide = provision_rules._provide

    def forgetful(cell: Any, tx: Any, row: Any, locked: Any) -> str:
        cell.agency(row.agency).permits_used.pop(row.permit, None)
        return provide(cell, tx, row, locked)

    monkeypatch.setattr(provision_rules, "_provide", forgetful)


def mix_up_agencies(monkeypatch: pytest.MonkeyPatch) -> None:
    """The look-up brings another agency's copies."""
    look_up = provision_rules._look_up
    tables: list[Any] = []

    def mixed(table: Any, row: Any, snapshot: int) -> Any:
        hit = look_up(table, row, snapshot)
        if table not in tables:
            tables.append(table)
        others = [copy for other in tables if other is not table for found in other.copies.values() for copy in found]
        for copy in hit.copies[:1] if others else ():
            object.__setattr__(copy, "body", others[0].body)
        return hit

    monkeypatch.setattr(provision_rules, "_look_up", mixed)


def mix_up_people(monkeypatch: pytest.MonkeyPatch) -> None:
    """A value of a copy is somebody else's."""
    monkeypatch.setattr("chukan.ops.simulation.world.value_of", lambda *_given: "7")


def let_anybody_write(monkeypatch: pytest.MonkeyPatch) -> None:
    """The cell does not look at epochs."""
    for module in (rules, inquiry_rules, provision_rules):
        monkeypatch.setattr(module, "check_leases", lambda *_given: None)
        monkeypatch.setattr(module, "check_grants", lambda *_given: None, raising=False)


def give_one_shard_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lease is given away before its term is over."""
    lease = rules.lease

    def early(cell: Any, tx: Any, owner: str, side: Any, want: int, ttl_s: float) -> Any:
        cell.terms.clear()
        for number, row in enumerate(cell.leases[side]):
            if row.owner not in {None, owner}:
                cell.leases[side][number] = row._replace(owner=None)
        return lease(cell, tx, owner, side, 64, ttl_s)

    monkeypatch.setattr(rules, "lease", early)


def number_with_gaps(monkeypatch: pytest.MonkeyPatch) -> None:
    """A position of the log is left out."""
    sequence = rules.sequence

    def gappy(cell: Any, tx: Any, limit: int) -> int:
        done = sequence(cell, tx, limit)
        for table in cell.agencies.values():
            table.head += 1
        return done

    monkeypatch.setattr(rules, "sequence", gappy)


def fork_a_chain(monkeypatch: pytest.MonkeyPatch) -> None:
    """A person's leaves do not follow each other."""
    monkeypatch.setattr(rules, "reversed", lambda _log: iter(()), raising=False)


def leave_out_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A record without its count."""
    count, now = rules.count_record, every(5)

    def some(tx: Any, table: Any, counted: Any) -> None:
        if not now():
            count(tx, table, counted)

    monkeypatch.setattr(rules, "count_record", some)


def count_amendments_as_records(monkeypatch: pytest.MonkeyPatch) -> None:
    """An amended line counts twice."""
    count = rules.count_record
    monkeypatch.setattr(
        rules, "count_record", lambda tx, table, counted: count(tx, table, counted._replace(amendment=False))
    )


def fold_too_much(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is folded is left in one row, whatever it counted before."""
    folded = rules.folded
    monkeypatch.setattr(rules, "folded", lambda rows: [row._replace(records=1) for row in folded(rows)])


def succeed_a_namesake_of_another_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process takes over from everybody."""
    monkeypatch.setattr(rules, "_succeeds", lambda owner, other: owner != other)


def wait_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """A waiter forgets its deadline."""
    until = Waiters.until

    async def patient(self: Any, cell: str, agency: int, look: Any, timeout_s: float, *rest: Any) -> Any:
        return await until(self, cell, agency, look, timeout_s + 60, *rest)

    monkeypatch.setattr(Waiters, "until", patient)


PLANTS: list[tuple[str, Plant]] = [
    ("loss", lose_a_line),
    ("loss", lose_a_commit),
    ("outcomes", forget_that_it_is_over),
    ("outcomes", never_settle),
    ("records", leave_out_records),
    ("records", tell_nobody_of_the_lapse),
    ("leaving", overlook_holds),
    ("leaving", overlook_the_stop),
    ("leaving", take_every_item),
    ("permits", use_a_permit_twice),
    ("separation", mix_up_agencies),
    ("separation", mix_up_people),
    ("writers", let_anybody_write),
    ("writers", give_one_shard_twice),
    ("writers", succeed_a_namesake_of_another_name),
    ("statistics", leave_out_counts),
    ("statistics", count_amendments_as_records),
    ("statistics", fold_too_much),
    ("logs", number_with_gaps),
    ("logs", fork_a_chain),
    ("waits", wait_too_long),
]


@pytest.mark.parametrize(("name", "plant"), PLANTS, ids=[plant.__name__ for _, plant in PLANTS])
def test_a_planted_fault_is_found(monkeypatch: pytest.MonkeyPatch, name: str, plant: Plant) -> None:
    plant(monkeypatch)
    assert complaining(name)


def test_every_checker_has_been_shown_to_fail() -> None:
    assert {name for name, _ in PLANTS} == {checker.name for checker in CHECKERS}


def test_a_fault_that_the_exchange_catches_is_a_complaint_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_given: Any) -> Any:
        raise ZeroDivisionError

    monkeypatch.setattr("chukan.platform.flows.inquiry.on_permit_reply", broken)
    monkeypatch.setattr("chukan.ops.simulation.run.LOOKS_MAX", 40)
    assert any("ZeroDivisionError" in text for text in complaining("run"))


def test_a_world_that_does_not_come_to_rest_is_a_complaint(monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_given: Any) -> Any:
        raise Problem("unavailable")

    monkeypatch.setattr(inquiry_rules, "take_inquiries", away)
    monkeypatch.setattr("chukan.ops.simulation.run.LOOKS_MAX", 40)
    assert any(text.startswith("not settled: inquiries") for text in complaining("run"))
