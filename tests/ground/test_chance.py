"""Randomness: ids in the order of time, and sequences that a seed repeats."""

import uuid
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chukan.chance import Chance, SeededChance, SystemChance, make_uuid7, uuid7_time
from chukan.clock import ManualClock

START = datetime(2026, 11, 23, 1, 2, 3, 456_789, tzinfo=UTC)


def test_the_example_of_the_standard() -> None:
    # RFC 9562, appendix A.6: 2022-02-22T19:22:22Z, rand_a 0xCC3, rand_b 0x18C4DC0C0C07398F.
    at = datetime(2022, 2, 22, 19, 22, 22, tzinfo=UTC)
    randomness = (0xCC3 << 62 | 0x18C4DC0C0C07398F).to_bytes(10, "big")
    made = make_uuid7(at, randomness)
    assert made == uuid.UUID("017F22E2-79B0-7CC3-98C4-DC0C0C07398F")
    assert uuid7_time(made) == at


@given(
    st.datetimes(min_value=datetime(1970, 1, 1), max_value=datetime(9999, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001
    st.binary(min_size=10, max_size=10),
)
def test_any_instant_and_any_bits_make_a_uuid7_of_that_millisecond(at: datetime, randomness: bytes) -> None:
    made = make_uuid7(at, randomness)
    assert (made.version, made.variant) == (7, uuid.RFC_4122)
    assert timedelta(0) <= at - uuid7_time(made) < timedelta(milliseconds=1)


def test_every_random_bit_arrives() -> None:
    assert make_uuid7(START, b"\xff" * 10).int & (0xFFF << 64 | (1 << 62) - 1) == 0xFFF << 64 | (1 << 62) - 1
    assert make_uuid7(START, b"\x00" * 10).int & (0xFFF << 64 | (1 << 62) - 1) == 0


def test_an_instant_before_the_epoch_has_no_id() -> None:
    with pytest.raises(ValueError, match="fit"):
        make_uuid7(datetime(1969, 12, 31, tzinfo=UTC), b"\0" * 10)


@pytest.mark.parametrize(
    "other", [uuid.UUID(int=0), uuid.UUID("f47ac10b-58cc-4372-8567-0e02b2c3d479"), uuid.uuid5(uuid.NAMESPACE_DNS, "x")]
)
def test_only_a_uuid7_has_a_time(other: uuid.UUID) -> None:
    with pytest.raises(ValueError, match="UUIDv7"):
        uuid7_time(other)


def test_an_id_of_after_the_year_9999_is_told_as_the_last_instant() -> None:
    assert uuid7_time(uuid.UUID("ffffffff-ffff-7000-8000-000000000000")).year == 9999


def test_ids_sort_by_time() -> None:
    clock = ManualClock(START)
    chance: Chance = SystemChance(clock)
    made = []
    for _ in range(50):
        made.append(chance.uuid7())
        clock.advance(0.001)
    assert made == sorted(made)
    assert len(set(made)) == 50


def test_the_system_draws_anew_each_time() -> None:
    chance = SystemChance(ManualClock(START))
    assert len(chance.token(16)) == 16
    assert chance.token(16) != chance.token(16)
    assert chance.uuid7() != chance.uuid7()


def test_a_seed_repeats_its_sequence_and_another_seed_does_not() -> None:
    def draw(seed: int) -> list[object]:
        chance = SeededChance(seed, ManualClock(START))
        return [chance.token(8), chance.uuid7(), chance.token(3), chance.uuid7()]

    assert draw(1) == draw(1)
    assert draw(1) != draw(2)
    assert len(set(draw(1))) == 4
