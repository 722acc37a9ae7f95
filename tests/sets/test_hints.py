"""A hint says where to look, and what cannot be read says "everywhere": a release that says less harms nobody."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chukan.tenants.hints import EVERYWHERE, Hint, read

SHARDS = st.frozensets(st.sampled_from(sorted(EVERYWHERE)))


@given(st.from_regex(r"[a-z0-9-]{0,40}", fullmatch=True), SHARDS, SHARDS)
def test_what_is_told_is_what_is_read(origin, work, done):
    hint = Hint(origin, work, done)
    assert read(hint.payload()) == hint
    assert len(hint.payload()) < 8000, "more does not go into a notification"


@pytest.mark.parametrize("payload", ["", "x", ";;;", "a;1,2", "a;1;b", "a;64;", "a;-1;", "a;1.5;2", "a;;1;2"])
def test_what_cannot_be_read_says_everywhere(payload):
    assert read(payload) == Hint()


@given(st.text(max_size=200))
def test_any_text_is_read(payload):
    found = read(payload)
    assert found.work <= EVERYWHERE
    assert found.done <= EVERYWHERE
