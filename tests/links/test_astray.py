"""Bytes that WireGuard refused: what came into a tunnel and cannot have come out of it, and never more."""

from hypothesis import given
from hypothesis import strategies as st

from chukan.vpn.gateway.astray import Astray, Passed

A, B = "131016-1", "131024-1"
PASS_S = 5.0


def test_what_never_came_out_is_counted_less_what_a_tunnel_needs() -> None:
    astray = Astray()
    for number in range(8):
        astray.add(PASS_S * number, {A: 100_000 * number}, {})
    # Windows of two passes between those two passes before and one after: four of them in eight readings.
    assert 4 * 99_000 < astray.counted[A] < 4 * 100_000


def test_handshakes_and_keepalives_are_no_packets_that_went_astray() -> None:
    astray = Astray()
    for number in range(50):
        astray.add(PASS_S * number, {A: 148 * number}, {})
    assert astray.counted == {}


def test_a_counter_that_began_anew_says_nothing() -> None:
    astray = Astray()
    for number in range(6):
        astray.add(PASS_S * number, {A: 10_000}, {A: Passed(100, 5_000)})
    for number in range(6, 12):
        astray.add(PASS_S * number, {A: 500, B: 0}, {A: Passed(1, 50)})
    assert astray.counted == {}


packets = st.lists(st.integers(min_value=20, max_value=1_420), max_size=40)


@given(st.lists(st.tuples(packets, packets, st.booleans()), min_size=6, max_size=12))
def test_honest_traffic_is_never_counted_whenever_it_is_read(passes: list[tuple[list[int], list[int], bool]]) -> None:
    """Each pass reads the peers either before or after the filter, with traffic in between."""
    astray, came_in, out = Astray(), 0, Passed()
    for number, (first, between, peers_first) in enumerate(passes):
        for half in (first, between):
            if half is between:
                early_in, early_out = came_in, out
            for size in half:
                came_in += size + 32 + -size % 16
                out = Passed(out.packets + 1, out.bytes + size)
        came_in += 240
        read = ({A: early_in}, {A: out}) if peers_first else ({A: came_in}, {A: early_out})
        astray.add(PASS_S * number, *read)
    assert astray.counted == {}
