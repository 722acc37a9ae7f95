"""Corrections of records (訂正): an amendment on each side and at the network; the record itself stays (REC-04)."""

import asyncio
import uuid
from dataclasses import replace

import pytest

from chukan.errors import Problem
from chukan.ops.reconcile import reconcile
from chukan.platform.exchange.context import Context
from chukan.platform.exchange.corrections import AGAIN
from chukan.platform.http.desks.records import _view
from chukan.platform.wire.code_changes import (
    CodeConfirm,
    CodeMerge,
    CodeRelink,
    ConfirmLine,
    MergeLine,
    RelinkLine,
)
from chukan.platform.wire.corrections import RecordCorrection
from chukan.platform.wire.registrations import Corrected, CorrectionNotice

ASKS, GIVES, GIVES_WEST = "9901131121000001", "9901011002000001", "9901401307000001"


async def provided(nation, gives: str) -> tuple[str, uuid.UUID]:
    addressee = await nation.person(ASKS, gives)
    done = await nation.answered(ASKS, await nation.ask(ASKS, [nation.line(addressee, gives)]))
    assert done.lines[0].outcome == "provided"
    return addressee, done.lines[0].id


async def correct(nation, code: str, record: uuid.UUID, *, key: str | None = None, via: str = "east", **words):
    service = nation.sites[via].exchange.corrections
    body = RecordCorrection(**words)
    return await service.correct(
        nation.agency(code), nation.officer(code, "first"), record, body, key or str(uuid.uuid4())
    )


async def compared(nation) -> list[str]:
    """What the three parties' records disagree about."""
    await nation.sequenced()
    books = {code: [_view(stored) for stored in await nation.records(code)] for code in (ASKS, GIVES, GIVES_WEST)}
    network = (await nation.network.records(0, 1000)).records
    return [one.kind for one in reconcile(books, network, as_of=nation.clock.now()).differences]


@pytest.mark.requirement("REC-04", "REC-05")
@pytest.mark.parametrize("gives", [GIVES, GIVES_WEST], ids=["same-cell", "other-cell"])
async def test_both_sides_and_the_network_know_of_a_correction_and_still_agree(nation, gives):
    _, line = await provided(nation, gives)
    key = str(uuid.uuid4())
    view = await correct(nation, ASKS, line, key=key, withheld=True, department="税務課")
    assert (view.amends, view.notified) == (line, True)
    again = await correct(nation, ASKS, line, key=key, via="west", withheld=True, department="税務課")
    assert again.id == view.id
    with pytest.raises(Problem, match="idempotency_key_reused"):
        await correct(nation, ASKS, line, key=key, withheld=False)

    await nation.until_records(gives, 2)
    base, amendment = (stored.fields for stored in await nation.records(gives))
    assert (base.withheld, base.department, base.amends) == (False, "給付課", None)
    assert (amendment.amends, amendment.reason) == (base.id, "corrected_by_counterpart")
    assert (amendment.withheld, amendment.department) == (True, "税務課")
    assert (amendment.outcome, amendment.reference, amendment.provided_at) == (
        base.outcome,
        base.reference,
        base.provided_at,
    )
    mine = [stored.fields for stored in await nation.records(ASKS)]
    assert [(fields.reason, fields.withheld) for fields in mine] == [(None, False), ("corrected", True)]
    (at_network,) = (await nation.network.records(0, 10)).records
    assert (at_network.withheld, at_network.department) == (True, "税務課")
    assert await compared(nation) == []


@pytest.mark.requirement("REC-04")
async def test_a_provider_corrects_too_and_the_inquirer_is_told(nation):
    _, line = await provided(nation, GIVES_WEST)
    (gave,) = await nation.records(GIVES_WEST)
    await correct(nation, GIVES_WEST, gave.fields.id, withheld=True)
    await nation.until_records(ASKS, 2)
    told = [stored.fields for stored in await nation.records(ASKS) if stored.fields.amends is not None]
    assert [(fields.amends, fields.withheld) for fields in told] == [(line, True)]
    assert await compared(nation) == []


@pytest.mark.requirement("REC-04")
async def test_the_notice_waits_for_a_network_that_is_away(nation):
    _, line = await provided(nation, GIVES)
    await nation.stop_network()
    view = await correct(nation, ASKS, line, withheld=True)
    assert view.notified is False
    assert len(await nation.records(ASKS)) == 2, "the correction stands at once"
    await nation.start_network()
    for centre in ("east", "west"):
        await nation.sites[centre].exchange.corrections.sweep("east")
    assert len(await nation.records(GIVES)) == 1, "a message is not due again at once"
    later = nation.clock.now() + AGAIN * 2
    sets = nation.east.sets["east"]
    _, due = await sets.take_corrections(0, later, later)
    assert [row.id for row in due] == [view.id]
    assert await nation.east.corrections._tell(sets, due) == 1
    async with asyncio.timeout(30):
        await nation.until_records(GIVES, 2)
    assert await sets.take_corrections(0, later + AGAIN * 2, later) == (0, [])
    assert await compared(nation) == []


@pytest.mark.requirement("REC-04", "REC-02")
async def test_what_is_no_correction_is_refused_and_nothing_is_written(nation):
    _, line = await provided(nation, GIVES)
    refused = (
        ({}, "correction_empty"),
        ({"withheld": False}, "correction_empty"),
        ({"affair": "JMX9999999999999"}, "unknown_affair"),
        ({"procedure": "JTX0000000000004"}, "procedure_not_of_affair"),
        ({"items": ["TKX9999999999999"]}, "unknown_item"),
    )
    for words, code in refused:
        with pytest.raises(Problem, match=code):
            await correct(nation, ASKS, line, **words)
    for code, record in ((GIVES, line), (ASKS, uuid.uuid4())):
        with pytest.raises(Problem, match="not_found"):
            await correct(nation, code, record, withheld=True)
    assert len(await nation.records(ASKS)) == 1


@pytest.mark.requirement("REC-04")
async def test_a_line_that_never_reached_the_network_is_corrected_here_alone(nation):
    batch = await nation.ask(ASKS, [nation.line("000000000099999", GIVES)])
    view = await correct(nation, ASKS, batch.lines[0].id, department="税務課")
    assert view.notified is None
    second = await correct(nation, ASKS, view.id, department="給付課")
    assert second.amends == batch.lines[0].id, "an amendment's id names its record"
    words = [(stored.fields.department, stored.fields.amends) for stored in await nation.records(ASKS)]
    assert words == [("給付課", None), ("税務課", batch.lines[0].id), ("給付課", batch.lines[0].id)]
    assert await compared(nation) == []


async def repaired(nation, act: str, addressee: str, to: str) -> None:
    """Have one officer propose and another confirm that a code belongs to another number of the provider."""
    agency, desk = nation.agency(GIVES), nation.east.code_changes
    key, officer = str(uuid.uuid4()), nation.officer(GIVES, "first")
    if act == "merge":
        merge = CodeMerge(lines=[MergeLine(addressee=addressee, into=to, reason="点検")])
        (line,) = (await desk.merge(agency, officer, merge, key, b"x")).lines
    else:
        relink = CodeRelink(lines=[RelinkLine(addressee=addressee, to=to, reason="点検")])
        (line,) = (await desk.relink(agency, officer, relink, key, b"x")).lines
    confirm = CodeConfirm(lines=[ConfirmLine(change=line.change, decision="apply")])
    (done,) = (await desk.confirm(agency, nation.officer(GIVES, "second"), confirm)).lines
    assert done.status == "applied"


@pytest.mark.requirement("REC-04", "SYM-09")
async def test_a_correction_finds_its_record_whatever_became_of_the_code(nation):
    """The record keeps the label of the number that had the code then; the notice comes with the code alone."""
    for act in ("relink", "merge", "swap"):
        addressee, line = await provided(nation, GIVES)
        to = f"{next(nation.tokens):015d}"
        if act == "swap":
            to, _ = await provided(nation, GIVES)
            await repaired(nation, "relink", to, addressee)
            await repaired(nation, "relink", addressee, f"{next(nation.tokens):015d}")
        else:
            await repaired(nation, act, addressee, to)
        count = len(await nation.records(GIVES))
        assert (await correct(nation, ASKS, line, withheld=True)).notified is True
        await nation.until_records(GIVES, count + 1)
        told = [stored.fields for stored in await nation.records(GIVES) if stored.fields.amends is not None]
        assert [(fields.withheld, fields.reason) for fields in told][-1] == (True, "corrected_by_counterpart")


@pytest.mark.requirement("REC-04", "SYM-01")
async def test_a_number_that_nobody_may_keep_does_not_come_in_by_a_correction(nation):
    notice = CorrectionNotice(
        id=uuid.uuid4(),
        agency=GIVES,
        side="provider",
        reference="x",
        code=b"x",
        corrected=Corrected(department="１２３４ ５６７８ ９０１８"),
        corrected_at=nation.clock.now(),
    )
    (ack,) = await nation.east.corrections.take([notice])
    assert (ack.status, ack.reason) == ("refused", "individual_number_present")


@pytest.mark.requirement("REC-04")
async def test_one_agencys_lost_keys_and_one_bad_message_hold_nobody_elses_corrections_up(nation, monkeypatch):
    corrections, sets = nation.east.corrections, nation.east.sets["east"]
    (_, mine), (_, other) = await provided(nation, GIVES), await provided(nation, GIVES)
    gave = [stored.fields.id for stored in await nation.records(GIVES)]
    await nation.stop_network()
    told = [await correct(nation, ASKS, mine, withheld=True), await correct(nation, ASKS, other, withheld=True)]
    lost = await correct(nation, GIVES, gave[0], department="税務課")
    assert [view.notified for view in (*told, lost)] == [False] * 3
    await nation.start_network()
    later = nation.clock.now() + AGAIN * 2
    _, due = await sets.take_corrections(0, later, later)
    assert {row.id for row in due} == {view.id for view in (*told, lost)}

    without, keys = nation.agency(GIVES).number, Context.keys

    def keys_of(context: Context, number: int):
        if number == without:
            raise Problem("keys_unconfirmed")
        return keys(context, number)

    bad = [row if row.id != told[0].id else replace(row, sealed=sealed_otherwise(nation, row.id)) for row in due]
    with monkeypatch.context() as patch:
        patch.setattr(Context, "keys", keys_of)
        assert await corrections._tell(sets, bad) == 1
    _, left = await sets.take_corrections(0, later + AGAIN, later)
    assert {row.id for row in left} == {told[0].id, lost.id}


def sealed_otherwise(nation, amendment: uuid.UUID) -> bytes:
    """A message that the network does not understand, where an agency's message rests."""
    return nation.keys(ASKS).seal("correction", amendment.bytes, b'{"id":"nothing else"}')
