"""Every set function called for one agency with the identifiers of another: nothing comes back, nothing is changed.

The victim has lines in several states of both sides, an open acquisition and a link; its values are marked. The
attacker names its own agency, as it must, and everything else is the victim's.
"""

import dataclasses
import datetime as dt
import itertools

import pytest

from chukan.errors import Problem
from chukan.tenants.rows import CodeNumber, CodeOpen, CodePut, DecideRow, LookupRow
from chukan.tenants.states import InquiryState, Outcome, ProvisionState, Side, shard_of

pytestmark = pytest.mark.requirement("TEN-01")

VICTIM, ATTACKERS = 1788, (1, 42)
MARK = b"belongs to 1788"


@dataclasses.dataclass
class Belongings:
    """What the victim has."""

    lines: list
    provisions: list
    person: bytes
    number: bytes
    code: bytes
    messages: list
    keys: list


@pytest.fixture
async def victim(bench, make):
    batch = make.batch(VICTIM)
    lines = [make.line(batch, n, request=MARK, outbox=MARK) for n in range(6)]
    await bench.sets.accept([batch], lines)
    answers = [make.answer(lines[1], answer=MARK), make.answer(lines[2], answer=MARK)]
    answers.append(make.answer(lines[3], Outcome.UNDER_REVIEW))
    await bench.sets.deliver_answers(answers)
    await bench.sets.collect(VICTIM, 1, [lines[2].id])
    await bench.sets.close_inquiries([make.settle(lines[4], InquiryState.CANCELLED, Outcome.CANCELLED)])
    opened = CodeOpen(VICTIM, 1, make.digest(), MARK, make.id())
    await bench.sets.open_codes([opened])
    number = make.digest()
    await bench.sets.set_numbers([CodeNumber(VICTIM, opened.person, opened.request, number, MARK)])
    linked = CodeOpen(VICTIM, 1, make.digest(), MARK, make.id())
    await bench.sets.open_codes([linked])
    other = make.digest()
    await bench.sets.set_numbers([CodeNumber(VICTIM, linked.person, linked.request, other, MARK)])
    code = make.digest()
    await bench.sets.put_codes([CodePut(VICTIM, make.id(), other, code, MARK)])
    provisions = [
        make.provide(VICTIM, notice=MARK, outbox=MARK, person=linked.person, link_version=2),
        make.provide(VICTIM, held=True, notice=MARK, outbox=MARK),
    ]
    assert await bench.sets.provide(provisions) == ["stored", "stored"]
    return Belongings(
        lines,
        provisions,
        linked.person,
        number,
        code,
        [answer.inbox for answer in answers] + [row.inbox for row in provisions],
        [batch.key],
    )


async def picture(bench):
    """Everything of the victim's, as text; the sequencer is not running."""
    seen = []
    tables = await bench.admin.fetch(
        "SELECT relname FROM pg_class WHERE relnamespace = $1::regnamespace AND relkind = 'r' ORDER BY 1",
        f"a{VICTIM:05d}",
    )
    for (table,) in tables:
        rows = await bench.admin.fetch(f"SELECT t::text FROM a{VICTIM:05d}.{table} t ORDER BY 1")
        seen.append((table, [row[0] for row in rows]))
    for table in ("inquiry_work", "provision_work", "to_sequence", "agencies"):
        rows = await bench.admin.fetch(f"SELECT t::text FROM chukan.{table} t WHERE agency = $1 ORDER BY 1", VICTIM)
        seen.append((table, [row[0] for row in rows]))
    return seen


def calls(bench, make, victim, attacker, grants):
    """Every set function, for the attacker, with ids, persons, digests, messages and keys of the victim."""
    sets = bench.sets
    ids = [line.id for line in victim.lines] + [row.id for row in victim.provisions]
    day = dt.date(2026, 11, 1)
    foreign = [dataclasses.replace(line, agency=attacker) for line in victim.lines]
    provided = [dataclasses.replace(row, agency=attacker, person=None) for row in victim.provisions]
    yield sets.inquiry_views(attacker, ids=ids)
    yield sets.inquiry_views(attacker, batch=victim.lines[0].batch)
    yield sets.collect(attacker, 1, ids)
    yield sets.read_requests([(attacker, each) for each in ids])
    yield sets.close_inquiries([make.settle(line, InquiryState.CANCELLED, Outcome.CANCELLED) for line in foreign])
    yield sets.settle_inquiries(
        grants[Side.INQUIRER],
        [make.settle(line, InquiryState.PERMITTED, Outcome.NONE, permit=b"p") for line in foreign],
    )
    yield sets.deliver_answers([make.answer(line) for line in foreign])
    yield sets.deliver_answers([make.answer(foreign[0], inbox=message) for message in victim.messages])
    yield sets.provision_views(attacker, ids=ids)
    yield sets.settle_provisions(
        grants[Side.PROVIDER], [make.receipt(row, ProvisionState.RECEIPTED, Outcome.PROVIDED) for row in provided]
    )
    yield sets.decide_provisions(
        [
            DecideRow(attacker, 1, row.id, Outcome.PROVIDED, None, victim.person, 2, 0, 0, b"x", make.record(row.id))
            for row in provided
        ]
    )
    yield sets.provide([make.provide(attacker, person=victim.person, link_version=2)])
    yield sets.lookup([LookupRow(attacker, victim.code, "TM1", "0", None, day, None, None)])
    yield sets.find_codes([(attacker, victim.person)])
    yield sets.put_codes([CodePut(attacker, make.id(), victim.number, make.digest(), b"x")])
    yield sets.take_inquiries([each for each in grants[Side.INQUIRER] if each.shard != shard_of(VICTIM)], 5000)
    yield sets.take_provisions([each for each in grants[Side.PROVIDER] if each.shard != shard_of(VICTIM)], 5000)


def texts(result):
    """Everything in a result, flattened to text."""
    if dataclasses.is_dataclass(result):
        return [part for field in dataclasses.fields(result) for part in texts(getattr(result, field.name))]
    if isinstance(result, list | tuple):
        return list(itertools.chain.from_iterable(texts(each) for each in result))
    return [result]


@pytest.mark.parametrize("attacker", ATTACKERS)
async def test_no_set_function_reads_or_changes_another_agency(bench, make, victim, attacker):
    grants = {side: await bench.all_grants(side) for side in Side}
    before = await picture(bench)
    secrets = {MARK, *(line.person for line in victim.lines)}
    made = 0
    for call in calls(bench, make, victim, attacker, grants):
        result = texts(await call)
        assert not secrets & {each for each in result if isinstance(each, bytes)}
        assert not {"applied", "stored", "repeat", "duplicate"} & {each for each in result if isinstance(each, str)}
        made += 1
    assert made == 17
    assert await picture(bench) == before


async def test_the_victim_itself_would_get_it(bench, make, victim):
    """The same calls find something when they are the victim's own, so the silence above means something."""
    found = await bench.sets.collect(VICTIM, 1, [line.id for line in victim.lines])
    assert MARK in texts(found)
    assert await bench.sets.find_codes([(VICTIM, victim.person)]) != [None]
    assert (await bench.sets.provision_views(VICTIM, ids=[row.id for row in victim.provisions]))[0].notice == MARK


async def test_a_number_that_is_no_agency_is_refused_everywhere(bench, make):
    for agency in (0, -1, 100_000, 4321):
        batch = make.batch(agency)
        line = make.line(batch)
        for call in (
            bench.sets.accept([batch], [line]),
            bench.sets.deliver_answers([make.answer(line)]),
            bench.sets.close_inquiries([make.settle(line, InquiryState.CANCELLED, Outcome.CANCELLED)]),
            bench.sets.collect(agency, 1, [line.id]),
            bench.sets.provide([make.provide(agency)]),
            bench.sets.find_codes([(agency, make.digest())]),
        ):
            with pytest.raises(Problem, match="agency_moved"):
                await call
        assert await bench.sets.inquiry_views(agency, ids=[line.id]) == []
        assert await bench.sets.provision_views(agency, ids=[line.id]) == []
