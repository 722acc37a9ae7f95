"""Devices are called in groups, after all peers are there; nothing else about the steps changes."""

import pytest

from chukan.vpn.gateway.calling import GROUP, in_groups
from chukan.vpn.model import Put, Remove, Step, Wanted


def put(number: int, *, endpoint: bool = True, new: bool = True) -> Put:
    wanted = Wanted(
        link=f"131016-{number}",
        public_key=number.to_bytes(32, "big"),
        preshared_key=b"p" * 32,
        allowed=frozenset({f"10.64.{number // 250}.{number % 250}/32"}),
        endpoint="192.0.2.1:51820" if endpoint else None,
        keepalive_s=25 if endpoint else 0,
    )
    return Put(wanted=wanted, new=new, psk=new, allowed=new, endpoint=endpoint, keepalive=True)


@pytest.mark.parametrize("count", [0, 1, GROUP])
def test_few_calls_are_left_where_they_are(count: int) -> None:
    steps: list[Step] = [Remove(b"x" * 32), *(put(n) for n in range(count))]
    assert in_groups(steps) == (steps, [])


def test_many_are_made_first_and_called_afterwards_each_once() -> None:
    steps: list[Step] = [Remove(b"x" * 32), *(put(n) for n in range(3 * GROUP + 1)), put(999, endpoint=False)]
    first, groups = in_groups(steps)
    assert first[0] == steps[0]
    made = [step for step in first[1:] if isinstance(step, Put)]
    assert [step.wanted for step in made] == [step.wanted for step in steps[1:] if isinstance(step, Put)]
    assert all(step.new and step.psk and step.allowed for step in made)
    assert [(step.endpoint, step.keepalive) for step in made] == [(False, False)] * (3 * GROUP + 1) + [(False, True)]
    assert [len(group) for group in groups] == [GROUP, GROUP, GROUP, 1]
    called = [step for group in groups for step in group if isinstance(step, Put)]
    assert [step.wanted for step in called] == [step.wanted for step in made[:-1]]
    for step in called:
        assert (step.new, step.psk, step.allowed, step.endpoint, step.keepalive) == (False, False, False, True, True)


def test_a_peer_that_is_only_called_is_in_no_earlier_message() -> None:
    first, groups = in_groups([put(n, new=False) for n in range(GROUP + 1)])
    assert first == []
    assert sum(map(len, groups)) == GROUP + 1
