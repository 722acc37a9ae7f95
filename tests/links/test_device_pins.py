"""The marks by which connections stay on their way: what is written for nft, and that nft takes it."""

import subprocess

import pytest

from chukan.vpn.device import pins

NUMBERS = {"east": pins.BASE, "west": pins.BASE + 1}


def rules(active: str, gone: tuple[str, ...] = ()) -> list[str]:
    """Return the rules of one of the two chains; they are the same."""
    text = pins.ruleset("10.255.255.1", NUMBERS, active, gone)
    found = [line.strip() for line in text.splitlines() if "daddr" in line]
    half = len(found) // 2
    assert found[:half] == found[half:]
    return found[:half]


def test_what_begins_is_marked_with_the_active_centre_and_follows_its_mark() -> None:
    assert rules("west") == [
        "ip daddr 10.255.255.1 ct mark 0x0 ct mark set 0x6b02",
        "ip daddr 10.255.255.1 meta mark set ct mark",
    ]


def test_connections_of_a_centre_that_is_gone_are_let_go_first() -> None:
    assert rules("west", ("east",))[0] == "ip daddr 10.255.255.1 ct mark 0x6b01 ct mark set 0x0"
    assert len(rules("west", ("east",))) == 3


def test_the_active_centre_is_never_let_go() -> None:
    assert rules("east", ("east",)) == rules("east")
    assert rules("east", ("east", "west"))[0] == "ip daddr 10.255.255.1 ct mark 0x6b02 ct mark set 0x0"


@pytest.mark.parametrize("gone", [(), ("east",), ("east", "west")])
def test_nft_takes_it(gone: tuple[str, ...]) -> None:
    text = pins.ruleset("10.255.255.1", NUMBERS, "west", gone)
    checked = subprocess.run(
        ["/usr/sbin/nft", "-c", "-f", "-"], input=text.encode(), capture_output=True, check=False, timeout=20
    )
    assert (checked.returncode, checked.stderr) == (0, b"")
