"""Every call that decodes bytes is tried by a row of the table of decoders, or is listed with a reason.

The rows' own seeds must go through the line of the call: a row that ends before it does not count. A place of the list
that has no such call any more is a complaint too, so that reasons do not outlive what they excuse.
"""

import functools
import tomllib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from chukan.tests.support.decode_calls import DecodeCall, found_in, lines_reached
from chukan.tests.support.decoder_forms import Decoder
from chukan.tests.support.decoders import all_decoders

LIST = Path(__file__).with_name("decode_reasons.toml")
LISTED = {place for reason in tomllib.loads(LIST.read_text("utf-8")).values() for place in reason["places"]}


@functools.cache
def calls_of(source: Any) -> tuple[DecodeCall, ...]:
    """The decode calls of a source; parsed once."""
    return tuple(found_in(source.name, source.tree))


def is_listed(call: DecodeCall, listed: Iterable[str]) -> bool:
    """Whether a call's function, or a folder that holds its file, is on the list."""
    return any(call.place == place or (place.endswith("/*") and call.source.startswith(place[:-1])) for place in listed)


def complaints(calls: Iterable[DecodeCall], reached: dict[str, set[int]], listed: Iterable[str]) -> Iterator[str]:
    """Yield every call that no row goes through and no reason excuses."""
    for call in calls:
        if not reached.get(call.source, set()) & set(call.lines) and not is_listed(call, listed):
            yield f"{call.place} (line {call.lines.start}): no row of tests/support/decoders reaches this decode call"


def test_every_decode_call_has_a_row_or_a_reason(rooms: list[Any]) -> None:
    calls = [call for source in rooms for call in calls_of(source)]
    reached = lines_reached(list(all_decoders().values()), {call.source for call in calls})
    found = list(complaints(calls, reached, LISTED))
    assert not found, "\n" + "\n".join(found)


def test_every_reason_excuses_something(rooms: list[Any]) -> None:
    calls = [call for source in rooms for call in calls_of(source)]
    idle = [place for place in LISTED if not any(is_listed(call, [place]) for call in calls)]
    assert not idle, sorted(idle)


def test_a_decode_call_that_nobody_tries_is_found(plant: Callable[[str, str], Any]) -> None:
    texts = {
        "import msgspec\ndef f(raw):\n    return msgspec.json.decode(raw)": "f",
        "from base64 import b64decode as read\nclass A:\n    def f(self, raw):\n        return read(raw)": "A.f",
        "import tomllib as t\nx = t.loads('')": "<module>",
        "from cryptography import x509\ndef f(raw):\n    return [x509.load_der_x509_crl(raw) for _ in raw]": "f",
        "async def f(raw):\n    return lambda: int.from_bytes(raw)": "f",
        "import uuid\ndef f(text):\n    return uuid.UUID(hex=text)": "f",
    }
    for text, function in texts.items():
        (call,) = found_in("platform/x.py", plant("platform/x.py", text).tree)
        assert call.function == function
        assert list(complaints([call], {"platform/x.py": {99}}, LISTED))
        assert not list(complaints([call], {"platform/x.py": {call.lines.start}}, LISTED))
        assert not list(complaints([call], {}, [f"platform/x.py:{function}"]))
        assert not list(complaints([call], {}, ["platform/*"]))


def test_what_was_made_in_the_same_breath_is_no_decode_call(plant: Callable[[str, str], Any]) -> None:
    for text in ("x.encode().decode()", "uuid.UUID(int=5)", "keys.open(a, b).decode()", "convert({}, int)"):
        assert not list(found_in("x.py", plant("x.py", f"import uuid\nfrom msgspec import convert\n{text}").tree))


def test_only_lines_that_seeds_go_through_count() -> None:
    def refusing(raw: bytes) -> object:
        return all_decoders()["order"].call(raw)

    whole = all_decoders()["order"].seeds
    source = {"tenants/orders.py"}
    both = [lines_reached([Decoder("planted", refusing, seeds)], source) for seeds in ((b"",), whole)]
    assert both[1]["tenants/orders.py"] - both[0]["tenants/orders.py"]
