"""The simulated cell does what the real set functions do: random scripts of calls, each done on both.

Scripts are drawn from a few lines, messages, permits and persons, so that repeats, replays, late and impossible steps
come up all the time. After each script everything that rests is compared too, down to the leaves of the logs.
"""

import datetime as dt
import uuid
from typing import Any

import asyncpg
import pytest

from chukan.ops.simulation import code_rules, inquiry_rules, provision_rules, rules
from chukan.ops.simulation.tables import CodeEntry, CopyEntry
from chukan.replication.primary import translate
from chukan.tenants.rows import (
    AcceptBatch,
    CodeNumber,
    CodeOpen,
)
from chukan.tenants.states import InquiryState, LinkStatus, ProvisionState, Side
from tests.sim.drawn import AGENCIES, FUTURE, KINDS, PAST, Drawn, digest

STEPS = 220
OWNERS = ("a-0000000a", "a-0000000b", "a-b-0000000a", "c-0000000c")
"""Two processes of one name, and others whose names only look alike."""


def ordered(rows: list[Any]) -> list[Any]:
    """A set that was taken has no order."""
    return sorted(rows, key=lambda row: (row.agency, row.id))


async def sort(call: Any) -> list[Any]:
    return ordered(await call)


async def opened(admin: Any, epoch: int) -> None:
    try:
        await admin.execute("SELECT chukan.open_cell($1, '')", epoch)
    except asyncpg.PostgresError as error:
        raise translate(error) from None


class Script(Drawn):
    """Draws calls; the pools are small, so that ids meet again."""

    # ------------------------------------------------------------ inquirer

    async def accept(self) -> None:
        batches, lines = [], []
        for _ in range(self.draw.randint(1, 3)):
            agency = self.draw.choice(AGENCIES)
            old = self.draw.choice(self.batches) if self.batches and self.chance(0.3) else None
            batches.append(
                AcceptBatch(
                    agency=old.agency if old else agency,
                    generation=self.generation(),
                    key=old.key if old else digest(self.fresh()),
                    body=old.body if old and self.chance(0.7) else digest(self.fresh()),
                    batch=self.fresh(),
                )
            )
            lines += [self.line(batches[-1], n) for n in range(self.draw.randint(0, 3))]
        twin = self.twin
        await twin.both(
            twin.sets.accept(batches, lines), lambda tx: inquiry_rules.accept(twin.model, tx, batches, lines), batches
        )
        self.batches += batches
        self.inquiries += [(line.agency, line.id) for line in lines]

    async def settle_inquiries(self) -> None:
        twin, rows = self.twin, self.some(self.inquiry_step)
        grants = list(self.grants[Side.INQUIRER])
        await twin.both(
            twin.sets.settle_inquiries(grants, rows),
            lambda tx: inquiry_rules.settle_inquiries(twin.model, tx, grants, rows),
            rows,
        )

    async def close_inquiries(self) -> None:
        twin, rows = self.twin, self.some(self.inquiry_step)
        await twin.both(
            twin.sets.close_inquiries(rows), lambda tx: inquiry_rules.close_inquiries(twin.model, tx, rows), rows
        )

    async def deliver_answers(self) -> None:
        twin, rows = self.twin, self.some(self.answer, 5)
        await twin.both(
            twin.sets.deliver_answers(rows), lambda tx: inquiry_rules.deliver_answers(twin.model, tx, rows), rows
        )

    async def collect(self) -> None:
        twin, (agency, line) = self.twin, self.inquiry()
        generation = self.generation()
        ids = [line, *(other for _, other in self.inquiries[-3:]), line]
        await twin.both(
            twin.sets.collect(agency, generation, ids),
            lambda tx: inquiry_rules.collect(twin.model, tx, agency, generation, ids),
            ids,
        )

    async def read_inquiries(self) -> None:
        twin, (agency, line) = self.twin, self.inquiry()
        batch = self.draw.choice(self.batches).batch if self.batches else self.fresh()
        for asked in (
            {"batch": batch, "ids": None, "state": None, "after": None, "limit": 1000},
            {"batch": None, "ids": [line], "state": None, "after": None, "limit": 1000},
            {"batch": None, "ids": None, "state": InquiryState.ACCEPTED, "after": None, "limit": 3},
            {"batch": None, "ids": None, "state": None, "after": line, "limit": 2},
        ):
            await twin.both(
                twin.sets.inquiry_views(agency, **asked),
                lambda _tx, asked=asked: inquiry_rules.inquiry_views(twin.model, agency, **asked),
                asked,
            )
        pairs = [self.inquiry() for _ in range(3)]
        await twin.both(
            twin.sets.read_requests(pairs), lambda _tx: inquiry_rules.read_requests(twin.model, pairs), pairs
        )

    async def take(self) -> None:
        twin, limit = self.twin, self.draw.choice((1, 2, 5, 100))
        asking, giving = list(self.grants[Side.INQUIRER]), list(self.grants[Side.PROVIDER])
        await twin.both(
            sort(twin.sets.take_inquiries(asking, limit)),
            lambda tx: ordered(inquiry_rules.take_inquiries(twin.model, tx, asking, limit) if asking else []),
            limit,
        )
        await twin.both(
            sort(twin.sets.take_provisions(giving, limit)),
            lambda tx: ordered(provision_rules.take_provisions(twin.model, tx, giving, limit) if giving else []),
            limit,
        )

    async def purge(self) -> None:
        twin, grants = self.twin, list(self.grants[Side.INQUIRER])
        before = self.draw.choice((PAST, PAST, FUTURE))
        await twin.both(
            twin.sets.purge_results(grants, before, 1000),
            lambda tx: inquiry_rules.purge_results(twin.model, tx, grants, before, 1000) if grants else 0,
            before,
        )

    # ------------------------------------------------------------ provider

    async def provide(self) -> None:
        twin, rows = self.twin, self.some(self.notice, 4)
        await twin.both(twin.sets.provide(rows), lambda tx: provision_rules.provide(twin.model, tx, rows), rows)

    async def settle_provisions(self) -> None:
        twin, rows = self.twin, self.some(self.provision_step)
        grants = list(self.grants[Side.PROVIDER])
        await twin.both(
            twin.sets.settle_provisions(grants, rows),
            lambda tx: provision_rules.settle_provisions(twin.model, tx, grants, rows),
            rows,
        )

    async def decide(self) -> None:
        twin, rows = self.twin, self.some(self.decision)
        await twin.both(
            twin.sets.decide_provisions(rows), lambda tx: provision_rules.decide_provisions(twin.model, tx, rows), rows
        )

    async def read_provisions(self) -> None:
        twin, (agency, line) = self.twin, self.provision()
        for asked in (
            {"state": ProvisionState.HELD, "ids": None, "limit": 3},
            {"state": None, "ids": [line], "limit": 1000},
            {"state": None, "ids": None, "limit": 1000},
        ):
            await twin.both(
                twin.sets.provision_views(agency, **asked),
                lambda _tx, asked=asked: provision_rules.provision_views(twin.model, agency, **asked),
                asked,
            )

    async def lookup(self) -> None:
        twin, rows = self.twin, self.some(self.lookup_row, 4)
        await twin.both(twin.sets.lookup(rows), lambda _tx: provision_rules.lookup(twin.model, rows), rows)

    # ------------------------------------------------------------ codes

    async def codes(self) -> None:
        twin = self.twin
        opens = self.some(
            lambda: CodeOpen(
                self.draw.choice(AGENCIES), self.generation(), self.draw.choice(self.persons), b"-", self.fresh()
            )
        )
        await twin.both(twin.sets.open_codes(opens), lambda tx: code_rules.open_codes(twin.model, tx, opens), opens)
        pairs = [(self.draw.choice(AGENCIES), self.draw.choice(self.persons)) for _ in range(3)]
        found = await twin.both(
            twin.sets.find_codes(pairs), lambda _tx: code_rules.find_codes(twin.model, pairs), pairs
        )
        numbers = [
            CodeNumber(agency, person, row.request, digest(f"number {agency} {row.request}"), b"number")
            for (agency, person), row in zip(pairs, found, strict=True)
            if row is not None and row.request is not None
        ]
        await twin.both(
            twin.sets.set_numbers(numbers),
            lambda tx: code_rules.set_numbers(twin.model, tx, numbers) if numbers else [],
            numbers,
        )
        open_numbers = [
            (number, entry.number_digest)
            for number in AGENCIES
            for entry in twin.model.agency(number).codes.values()
            if entry.number_digest is not None
        ]
        puts = [
            self.code_put(*(self.draw.choice(open_numbers) if open_numbers else (1, digest("none")))) for _ in range(2)
        ]
        await twin.both(twin.sets.put_codes(puts), lambda tx: code_rules.put_codes(twin.model, tx, puts), puts)

    # ------------------------------------------------------------ shared

    async def lease(self) -> None:
        twin, side = self.twin, self.draw.choice(list(Side))
        owner, ttl_s = self.draw.choice(OWNERS), self.draw.choice((0.0, 60.0, 60.0))
        want = await twin.both(
            twin.sets.worker_share(owner, side, ttl_s),
            lambda tx: rules.worker_share(twin.model, tx, owner, side, ttl_s),
            owner,
        )
        want = self.draw.choice((want, 64, 0))
        granted = await twin.both(
            twin.sets.lease(owner, side, want, ttl_s),
            lambda tx: rules.lease(twin.model, tx, owner, side, want, ttl_s),
            (owner, want, ttl_s),
        )
        if granted and self.chance(0.8):
            self.grants[side] = granted

    async def all_leases(self) -> None:
        """So that most steps are not stale."""
        twin = self.twin
        for side in Side:
            for owner in OWNERS:
                await twin.both(
                    twin.sets.release(owner), lambda tx, owner=owner: rules.release(twin.model, tx, owner), owner
                )
            self.grants[side] = await twin.both(
                twin.sets.lease(OWNERS[0], side, 64, 60.0),
                lambda tx, side=side: rules.lease(twin.model, tx, OWNERS[0], side, 64, 60.0),
                side,
            )

    async def succeed(self) -> None:
        twin, side = self.twin, self.draw.choice(list(Side))
        owner = self.draw.choice((*OWNERS, "a-0000000d", "nobody"))
        await twin.both(
            twin.sets.succeed(owner, side), lambda tx: rules.succeed(twin.model, tx, owner, side), (owner, side)
        )

    async def fail_over(self) -> None:
        twin = self.twin
        await twin.both(twin.sets.raise_epochs(), lambda tx: rules.raise_epochs(twin.model, tx), "epochs")

    async def open_again(self) -> None:
        """As after a restore; an epoch that was there already is refused by both."""
        twin, epoch = self.twin, self.twin.model.epoch + self.draw.choice((0, 1, 1, 2))
        await twin.both(opened(twin.admin, epoch), lambda tx: rules.open_cell(twin.model, tx, epoch) and None, epoch)

    async def sequence(self) -> None:
        twin, limit = self.twin, self.draw.choice((1, 3, 1000))
        await twin.both(twin.sets.sequence("a", limit), lambda tx: rules.sequence(twin.model, tx, limit), limit)

    async def fold(self) -> None:
        """All of an agency's rows, or fewer than there are: then which ones is the database's choice."""
        twin, after = self.twin, self.draw.choice((0, 0, 1))
        count, limit = self.draw.choice((1, 2, 50)), self.draw.choice((3, 50_000))
        await twin.both(
            twin.sets.fold_statistics(after, agencies=count, limit=limit),
            lambda tx: rules.fold_statistics(twin.model, tx, after, count, limit),
            (after, count, limit),
        )

    async def hold(self) -> None:
        """What an agency does at door 1, on both."""
        agency = self.draw.choice(AGENCIES)
        table = self.twin.model.agency(agency)
        key = (self.draw.choice([None, *self.persons]), self.draw.choice([None, *KINDS]))
        table.hold_version += 1
        admin = self.twin.admin
        if key in table.holds:
            del table.holds[key]
            await admin.execute(
                f"DELETE FROM a{agency:05d}.holds"
                " WHERE person IS NOT DISTINCT FROM $1 AND kind IS NOT DISTINCT FROM $2",
                *key,
            )
        else:
            table.holds[key] = True
            await admin.execute(f"INSERT INTO a{agency:05d}.holds (person, kind) VALUES ($1, $2)", *key)
        await admin.execute("UPDATE chukan.agencies SET hold_version = hold_version + 1 WHERE agency = $1", agency)

    async def prepare(self) -> None:
        """Codes and copies to find, on both."""
        for agency in AGENCIES:
            table = self.twin.model.agency(agency)
            schema = f"a{agency:05d}"
            for n, person in enumerate(self.persons[:3]):
                status = self.draw.choice((LinkStatus.ACTIVE, LinkStatus.SUSPENDED))
                entry = CodeEntry(person, status, 1, b"-", code_digest=digest(f"code {n}"), code=b"code")
                table.codes[person] = entry
                await self.twin.admin.execute(
                    f"INSERT INTO {schema}.codes (person, status, version, addressee, code_digest, code)"
                    " VALUES ($1, $2, 1, $3, $4, $5)",
                    person,
                    int(status),
                    b"-",
                    entry.code_digest,
                    b"code",
                )
                for _ in range(self.draw.randint(0, 6)):
                    await self.copy(agency, person)

    async def copy(self, agency: int, person: bytes) -> None:
        year = self.draw.choice((2024, 2025, 2026))
        copy = CopyEntry(
            id=self.fresh(),
            person=person,
            kind=self.draw.choice(KINDS),
            period=str(self.draw.choice((2024, 2025, 2026))),
            effective_from=dt.date(year, self.draw.randint(1, 12), 1),
            layout=self.draw.randint(1, 2),
            body=b"body",
            review=self.chance(0.2),
        )
        known = self.twin.model.agency(agency).copies.setdefault((person, copy.kind), [])
        if any(
            (c.period, c.effective_from, c.layout) == (copy.period, copy.effective_from, copy.layout) for c in known
        ):
            return
        known.append(copy)
        await self.twin.admin.execute(
            f"INSERT INTO a{agency:05d}.copies"
            " (id, person, kind, period, effective_from, layout, body, content, review)"
            " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
            copy.id,
            person,
            copy.kind,
            copy.period,
            copy.effective_from,
            copy.layout,
            copy.body,
            digest("content"),
            copy.review,
        )

    async def run(self) -> None:
        await self.prepare()
        await self.all_leases()
        calls = [self.accept] * 4 + [self.settle_inquiries] * 3 + [self.deliver_answers] * 4 + [self.provide] * 4
        calls += [self.settle_provisions] * 3 + [self.decide] * 2 + [self.close_inquiries, self.collect, self.take]
        calls += [self.read_inquiries, self.read_provisions, self.lookup, self.codes, self.lease, self.sequence]
        calls += [self.hold, self.all_leases, self.all_leases, self.fold, self.succeed]
        for _ in range(STEPS):
            await self.draw.choice(calls)()
            if self.chance(0.02):
                await self.fail_over()
            if self.chance(0.01):
                await self.purge()
            if self.chance(0.02):
                await self.open_again()
        await self.sequence()


async def compare(twin: Any) -> None:
    """Everything that rests, table by table."""
    work = await twin.admin.fetch("SELECT * FROM chukan.inquiry_work")
    assert {(row["agency"], row["id"]): tuple(row[name] for name in _WORK) for row in work} == {
        key: tuple(getattr(row, name) for name in _WORK) for key, row in twin.model.inquiries.items()
    }
    work = await twin.admin.fetch("SELECT * FROM chukan.provision_work")
    names = [name for name in _WORK if name != "due"]  # a provision's first due instant is the commit's own
    assert {(row["agency"], row["id"]): tuple(row[name] for name in names) for row in work} == {
        key: tuple(getattr(row, name) for name in names) for key, row in twin.model.provisions.items()
    }
    for number in AGENCIES:
        table, schema = twin.model.agency(number), f"a{number:05d}"

        async def rows(name: str, columns: str, schema: str = schema) -> list[tuple[Any, ...]]:
            return [tuple(row) for row in await twin.admin.fetch(f"SELECT {columns} FROM {schema}.{name}")]

        assert set(await rows("records", "id, commitment, amends")) == {
            (row.id, row.commitment, row.amends) for row in table.records.values()
        }
        assert sorted(await rows("log", "seq, record, leaf_data, leaf_hash")) == [
            (leaf.seq, leaf.record, leaf.data, leaf.hash) for leaf in table.log
        ]
        assert dict(await rows("inbox", "id, tries")) == table.inbox
        assert dict(await rows("outbox", "id, sealed")) == table.outbox
        assert dict(await rows("answers", "id, sealed")) == table.answers
        assert dict(await rows("permits", "id, sealed")) == table.permits
        assert set(await rows("idempotency", "key, body, outcome, tries")) == {
            (key, *row) for key, row in table.idempotency.items()
        }
        assert set(await rows("permits_used", "permit, message, until")) == {
            (permit, *row) for permit, row in table.permits_used.items()
        }
        assert {row[0] for row in await rows("provisions", "id")} == set(table.provisions)
        counts = await rows(
            "statistics GROUP BY month, side, outcome, amendment", "month, side, outcome, amendment, sum(count)::int"
        )
        assert sorted(counts) == sorted(tuple(row) for row in rules.folded(table.statistics))
        steps: dict[uuid.UUID, list[tuple[int | None, int]]] = {}
        for event in table.events:
            steps.setdefault(event.id, []).append((event.before, event.after))
        found: dict[uuid.UUID, list[tuple[int | None, int]]] = {}
        for row in await twin.admin.fetch(f"SELECT id, from_state, to_state FROM {schema}.events ORDER BY n"):
            found.setdefault(row["id"], []).append((row["from_state"], row["to_state"]))
        assert found == steps


_WORK = ("state", "outcome", "reason", "outbox", "due", "deadline", "tries")


@pytest.mark.parametrize("seed", range(2))
async def test_the_model_and_the_database_give_the_same(twin: Any, seed: int) -> None:
    await Script(seed, twin).run()
    await compare(twin)
    assert twin.calls > STEPS


async def test_the_comparison_finds_a_difference(twin: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provision_rules, "same_link", lambda *_given: True)
    with pytest.raises(AssertionError):
        await Script(0, twin).run()
