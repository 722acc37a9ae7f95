"""Whatever bytes come from outside: each decoder returns, or raises what it says that it raises, within bounds.

``tests/support/decoders`` is the table. Bytes are made from nothing and by bending good ones; bombs are bytes that cost
a careless reader much more than they are long. A watch ends a decoder that does not end by itself.
"""

import base64
import signal
import tracemalloc
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chukan.tests.support.decoder_forms import Decoder
from chukan.tests.support.decoders import all_decoders, message_kinds

DECODERS = all_decoders()
OTHERS = [each for each in DECODERS.values() if not each.name.startswith(("message ", "parameters "))]
SPEAKING = [each for each in DECODERS.values() if each.name.startswith(("message ", "parameters "))]
HANG_S = 20
"""No decoder works so long on what a test gives it, on the slowest machine; one that does hangs."""


class HangingError(BaseException):
    """A decoder did not end. No ``Exception``, so that nobody on the way takes it for a refusal."""


@contextmanager
def watched() -> Iterator[None]:
    """End what does not end by itself."""

    def end(_signal: int, _frame: FrameType | None) -> None:
        raise HangingError

    before = signal.signal(signal.SIGALRM, end)
    signal.alarm(HANG_S)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def tried(decoder: Decoder, raw: bytes) -> bool:
    """Let a decoder read; tell whether it took the bytes. Whatever it does not say that it raises goes through."""
    try:
        decoder.call(raw)
    except decoder.allowed:
        return False
    return True


# ---------------------------------------------------------------- bytes

WORDS = [
    b"{", b"}", b"[", b"]", b'"', b"\\u0000", b"\0", b"\n", b"\r\n", b",", b":", b"=", b"-", b"/", b"null", b"true",
    b"0001-01-01T00:00:00+14:00", b"9999-12-31T23:59:59-14:00", b"9" * 30, b"-1", b"1e999", b"NaN", b"\xff",
    b"\xed\xa0\x80", "一".encode(), "一".encode("cp932"), "\u2028".encode(), b"\x30\x82\xff\xff",
    b"\x06\x03\x2a\x03\x04", b"====",
]  # fmt: skip


@st.composite
def bent(draw: st.DrawFn, seeds: tuple[bytes, ...]) -> bytes:
    """Good bytes with a few places cut, doubled, replaced, or filled with what decoders stumble over."""
    raw = draw(st.sampled_from(seeds))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(raw)))
        to = min(len(raw), at + draw(st.integers(0, 8)))
        put = draw(st.sampled_from(WORDS) | st.binary(max_size=6) | st.just(raw[at:to] * 3))
        raw = raw[:at] + put + raw[to:]
    return raw


def outside(decoder: Decoder) -> st.SearchStrategy[bytes]:
    """Bytes for a decoder."""
    return bent(decoder.seeds) | st.binary(max_size=120) | st.lists(st.sampled_from(WORDS), max_size=30).map(b"".join)


SLOW_EXAMPLES = 6
"""Of a file of the law, with which all the others are read."""
QUIET = settings(
    max_examples=60,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


@pytest.mark.requirement("TST-03")
@pytest.mark.parametrize("decoder", OTHERS, ids=lambda each: each.name.replace(" ", "-"))
def test_a_decoder_returns_or_refuses(decoder: Decoder) -> None:
    @settings(QUIET, max_examples=SLOW_EXAMPLES if decoder.name.startswith("master file") else QUIET.max_examples)
    @given(raw=outside(decoder))
    def run(raw: bytes) -> None:
        with watched():
            tried(decoder, raw)

    for seed in decoder.seeds:
        tried(decoder, seed)
    run()


@pytest.mark.full
@pytest.mark.requirement("TST-03")
@pytest.mark.parametrize("decoder", OTHERS, ids=lambda each: each.name.replace(" ", "-"))
def test_a_decoder_returns_or_refuses_with_many_examples(decoder: Decoder) -> None:
    @settings(QUIET, max_examples=100 if decoder.name.startswith("master file") else 2_000)
    @given(raw=outside(decoder))
    def run(raw: bytes) -> None:
        with watched():
            tried(decoder, raw)

    run()


@pytest.mark.requirement("TST-03")
@settings(QUIET, max_examples=600)
@given(data=st.data())
def test_a_message_is_decoded_or_refused(data: Any) -> None:
    decoder = data.draw(st.sampled_from(SPEAKING))
    with watched():
        tried(decoder, data.draw(outside(decoder)))


# ---------------------------------------------------------------- bombs

MANY = 10_000
BOMBS = {
    "deep lists": b"[" * MANY,
    "deep objects": b'{"a":' * MANY,
    "deep toml": b"a=" + b"[" * MANY,
    "a long number": b"9" * MANY,
    "a long number in a list": b"[" + b"9" * MANY + b"]",
    "commas": b"," * MANY,
    "line ends": b"\n" * MANY,
    "quotes": b'"' * (MANY + 1),
    "NUL": b"\0" * MANY,
    "dashes": b"-" * MANY,
    "spaces": b" " * MANY + b"x",
    "semicolons": b"a;" * MANY,
    "dots": b"a." * MANY + b"=1",
    "base64": base64.b64encode(b"\0" * MANY),
    "a long word": b"a" * MANY,
    "a packed nothing": zlib.compress(b" " * (64 * 1024 * 1024), 9),
    "deep DER": b"\x30\x80" * MANY,
    "PEM without end": b"-----BEGIN X509 CRL-----\n" * 1_000,
}
MEMORY_BYTES = 48 * 1024 * 1024
"""More than any decoder needs for a bomb, and less than what the packed one unpacks to."""


@pytest.mark.requirement("TST-03")
@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_costs_no_more_than_its_bounds(name: str) -> None:
    bomb = BOMBS[name]
    for decoder in [each for each in [*OTHERS, *SPEAKING[::10]] if not each.name.startswith("master file")]:
        for raw in (bomb, decoder.seeds[0][: len(decoder.seeds[0]) // 2] + bomb):
            tracemalloc.start()
            try:
                with watched():
                    tried(decoder, raw)
                assert tracemalloc.get_traced_memory()[1] < MEMORY_BYTES, decoder.name
            finally:
                tracemalloc.stop()


# ---------------------------------------------------------------- the table


def test_the_table_has_every_message_and_takes_its_own_seeds() -> None:
    assert {f"message {kind.__name__}" for kind in message_kinds()} <= DECODERS.keys()
    taken = [each.name for each in OTHERS if any(tried(each, seed) for seed in each.seeds)]
    assert len(taken) > len(OTHERS) * 0.75, sorted({each.name for each in OTHERS} - set(taken))


def test_a_decoder_that_raises_something_else_is_found() -> None:
    def careless(raw: bytes) -> object:
        return raw.decode("ascii")

    planted = Decoder("planted", careless, (b"abc",))
    with pytest.raises(UnicodeDecodeError):
        run_planted(planted)


def run_planted(decoder: Decoder) -> None:
    @QUIET
    @given(raw=outside(decoder))
    def run(raw: bytes) -> None:
        tried(decoder, raw)

    run()
