"""The clock: one instant everywhere, Japan's calendar at the edge."""

from datetime import UTC, date, datetime, timedelta, timezone

import pytest

from chukan.clock import JST, Clock, ManualClock, SystemClock, to_jst, today_jst

NOON = datetime(2026, 4, 1, 12, 0, tzinfo=UTC)


def test_the_system_clock_is_aware_in_utc_and_its_durations_never_go_back() -> None:
    clock = SystemClock()
    assert clock.now().utcoffset() == timedelta(0)
    readings = [clock.monotonic() for _ in range(100)]
    assert readings == sorted(readings)


def test_both_hands_of_a_manual_clock_move_together_and_only_when_told() -> None:
    clock: Clock = ManualClock(NOON)
    assert (clock.now(), clock.monotonic()) == (NOON, 0.0)
    assert isinstance(clock, ManualClock)
    clock.advance(1.5)
    clock.advance(0)
    assert (clock.now(), clock.monotonic()) == (NOON + timedelta(seconds=1.5), 1.5)


def test_a_manual_clock_keeps_the_instant_not_the_zone_that_it_was_given() -> None:
    clock = ManualClock(NOON.astimezone(timezone(timedelta(hours=-5))))
    assert clock.now() == NOON
    assert clock.now().tzinfo is UTC


def test_time_does_not_go_back() -> None:
    with pytest.raises(ValueError, match="back"):
        ManualClock(NOON).advance(-0.001)


def test_a_naive_datetime_names_no_instant() -> None:
    naive = NOON.replace(tzinfo=None)
    with pytest.raises(ValueError, match="aware"):
        ManualClock(naive)
    with pytest.raises(ValueError, match="naive"):
        to_jst(naive)


def test_the_same_instant_in_japan() -> None:
    local = to_jst(NOON)
    assert local == NOON
    assert local.isoformat() == "2026-04-01T21:00:00+09:00"
    assert local.tzinfo is JST


def test_the_day_in_japan_begins_nine_hours_before_the_day_in_utc() -> None:
    clock = ManualClock(datetime(2026, 3, 31, 14, 59, 59, tzinfo=UTC))
    assert today_jst(clock) == date(2026, 3, 31)
    clock.advance(1)
    assert today_jst(clock) == date(2026, 4, 1)
