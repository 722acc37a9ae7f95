"""The seeds of kept messages verify to their end, so that what fuzzing bends is tried where judgements are made."""

from typing import Any

import pytest

from chukan.tests.support import decoder_messages
from chukan.tests.support.decoders import all_decoders

ROWS = [row for row in decoder_messages.message_decoders() if row.name != "messages in evidence"]


def test_every_file_of_the_seeds_verifies_and_all_that_can_be_said_stands_in_one() -> None:
    row = all_decoders()["messages in evidence"]
    reports: list[Any] = [row.call(seed) for seed in row.seeds]
    assert [each.findings for each in reports] == [[]] * len(reports)
    assert {word for each in reports for word in each.bound} == {"notice", "answer", "reply"}
    assert {word for each in reports for word in each.others} == {"receipt"}
    assert max(each.permits for each in reports) == 2


@pytest.mark.requirement("TXR-04")
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_what_lies_behind_a_signature_is_judged_all_the_same(row: Any) -> None:
    for seed in row.seeds[:1]:
        assert row.call(seed).sound
        for bent in (b"", b"{}", b"[" * 5_000, b"\xff", seed[:-1], seed.replace(b"0199d8d4", b"0199d8d5")):
            assert not row.call(bent).sound
