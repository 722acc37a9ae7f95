"""The cable that makes the link between the centres long: its order, its time, its measure; and where there is none."""

import math
from pathlib import Path

import pytest

from chukan.errors import Problem
from chukan.ops import cli
from chukan.ops.centres.delay import Cable
from chukan.ops.centres.wires import Loopback

DELAY_S = 0.005


class Watch:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_nothing_comes_out_before_its_time_and_everything_at_it() -> None:
    watch = Watch()
    cable = Cable(DELAY_S, watch)
    assert cable.put(b"first")
    watch.now += DELAY_S * 0.99
    assert cable.take() is None
    wait_s = cable.wait_s()
    assert wait_s is not None
    assert math.isclose(wait_s, DELAY_S * 0.01, rel_tol=1e-3)
    watch.now += DELAY_S * 0.02
    assert (cable.wait_s(), cable.take(), cable.take(), cable.wait_s()) == (0.0, b"first", None, None)


def test_many_are_on_their_way_at_once_and_keep_their_order() -> None:
    watch = Watch()
    cable = Cable(DELAY_S, watch)
    frames = [f"frame {number}".encode() for number in range(1000)]
    for frame in frames:
        cable.put(frame)
        watch.now += DELAY_S / 2000
    # They went in over half of the delay: at one and a quarter of it, half of them are out.
    watch.now += DELAY_S * 0.75
    early = list(iter(cable.take, None))
    assert 0 < len(early) < len(frames)
    watch.now += DELAY_S
    assert early + list(iter(cable.take, None)) == frames


def test_what_does_not_fit_is_lost_and_there_is_room_again_when_something_is_out() -> None:
    watch = Watch()
    cable = Cable(DELAY_S, watch, bytes_max=10)
    assert [cable.put(b"12345") for _ in range(3)] == [True, True, False]
    watch.now += DELAY_S * 2
    assert cable.take() == b"12345"
    assert cable.put(b"12345")


def test_a_lab_on_loopback_has_no_cable(tmp_path: Path) -> None:
    with pytest.raises(Problem) as refused:
        Loopback(tmp_path).build((1,), cable=True)
    assert refused.value.code == "not_possible_here"


def test_a_delay_without_centres_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["demo", "--delay", "5", "--json"]) == 2
    assert '"/delay"' in capsys.readouterr().out
