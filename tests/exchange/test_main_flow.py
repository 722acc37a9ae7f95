"""The main job through two exchanges, two cells and the network: each outcome, with its record on each side."""

import pytest

ASKS, GIVES, ASKS_WEST, GIVES_WEST = (
    "9901131121000001",
    "9901011002000001",
    "9901271004000001",
    "9901401307000001",
)


@pytest.mark.requirement("PRV-04", "TXR-01", "REC-01")
@pytest.mark.parametrize("gives", [GIVES, GIVES_WEST], ids=["same-cell", "other-cell"])
async def test_a_query_is_answered_from_the_copy_and_both_sides_hold_the_record(nation, gives):
    addressee = await nation.person(ASKS, gives)
    batch = await nation.ask(ASKS, [nation.line(addressee, gives)])
    assert [line.state for line in batch.lines] == ["accepted"]
    done = await nation.answered(ASKS, batch)
    assert [(line.state, line.outcome) for line in done.lines] == [("answered", "provided")]
    collected = await nation.west.inquiries.collect(nation.agency(ASKS), batch.batch)
    content = collected.lines[0].content
    assert content is not None
    assert set(content.copies[0].items.values()) == {"0"}
    (asked,) = await nation.records(ASKS)
    (gave,) = await nation.records(gives)
    assert (asked.fields.outcome, gave.fields.outcome) == ("provided", "provided")
    assert asked.fields.reference == gave.fields.reference is not None
    assert asked.fields.items == gave.fields.items
    assert asked.fields.id != gave.fields.id
