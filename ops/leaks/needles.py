"""Planted values in every form in which they could show, and the search for all of them at once in a stream of bytes.

A value is text, or bytes that are written ``hex:…``. Text is taken in UTF-8, UTF-16 and CP932; each of these, and
bytes, as it is, as hexadecimal, in base64 at each of its three offsets, escaped as PostgreSQL, JSON, URLs and Python
escape; a number besides as an integer of eight bytes. Of what is long, the beginning and the end are enough.

Invariant: memory is bounded by the values and one piece, whatever is searched. No value leaves this module: what is
found is told by the line of the value and the name of the form.
"""

import base64
import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import BinaryIO, Final
from urllib.parse import quote

from ahocorasick_rs import BytesAhoCorasick

from chukan.errors import Problem

VALUES_MAX: Final = 2_000
VALUE_BYTES_MIN: Final = 6
"""What is shorter turns up by chance anywhere, so that finding it would say nothing."""
VALUE_BYTES_MAX: Final = 4_096
FORM_BYTES_MIN: Final = 6
LONG: Final = 64
END: Final = 32
"""Of a longer value its first and last bytes are searched, so that a line break within it hides nothing."""
PIECE: Final = 1 << 20
_DIGITS: Final = range(11, 19)
"""How many digits a number has of which five bytes at least are not zero, and which fits into eight."""
_TEXTS: Final = ("utf-8", "utf-16-le", "utf-16-be", "cp932")
_ESCAPED_BELOW, _ESCAPED_ABOVE = 0x20, 0x7E


@dataclass(frozen=True, slots=True)
class Needle:
    """A value, by the line of the file that it stands in, and one form of it."""

    line: int
    form: str


def read_values(file: BinaryIO) -> dict[int, str | bytes]:
    """Read values, one a line; returns them by line.

    ``Problem`` scan_values: none, too many, too short, too long, or what is no UTF-8 and no hexadecimal.
    """
    values: dict[int, str | bytes] = {}
    number = 0
    while line := file.readline(2 * VALUE_BYTES_MAX + 16):
        number += 1
        if not (content := line.strip()):
            continue
        try:
            text = content.decode()
            value = bytes.fromhex(text[4:]) if text.startswith("hex:") else text
        except ValueError:
            raise Problem("scan_values", line=number, expected="UTF-8, or hex: and hexadecimal") from None
        length = len(value if isinstance(value, bytes) else value.encode())
        if not VALUE_BYTES_MIN <= length <= VALUE_BYTES_MAX:
            bounds = f"{VALUE_BYTES_MIN} to {VALUE_BYTES_MAX} bytes"
            raise Problem("scan_values", line=number, expected=bounds)
        values[number] = value
        if len(values) > VALUES_MAX:
            raise Problem("scan_values", limit=VALUES_MAX)
    if not values:
        raise Problem("scan_values", expected="a value a line")
    return values


def forms(value: str | bytes) -> dict[bytes, str]:
    """Return every form of a value that is long enough to mean something, each with its name."""
    found: dict[bytes, str] = {}
    for name, content in _encoded(value):
        for part in (content,) if len(content) <= LONG else (content[:END], content[-END:]):
            for how, form in _shown(part):
                if len(form) >= FORM_BYTES_MIN:
                    found.setdefault(form, f"{name} {how}".strip())
    if isinstance(value, str):
        for how, form in _escaped(value):
            if len(form) >= FORM_BYTES_MIN:
                found.setdefault(form, how)
    return found


def _encoded(value: str | bytes) -> Iterator[tuple[str, bytes]]:
    if isinstance(value, bytes):
        yield "bytes", value
        return
    for name in _TEXTS:
        try:
            yield name, value.encode(name)
        except UnicodeEncodeError:
            continue
    if value.isascii() and value.isdigit() and len(value) in _DIGITS:
        yield "integer, little-endian", int(value).to_bytes(8, "little")
        yield "integer, big-endian", int(value).to_bytes(8, "big")


def _shown(content: bytes) -> Iterator[tuple[str, bytes]]:
    yield "", content
    yield "hex", content.hex().encode()
    yield "HEX", content.hex().upper().encode()
    for offset, first in ((0, 0), (1, 2), (2, 3)):
        # Of the characters only those that no neighbouring byte has a part in.
        last = (offset + len(content)) * 8 // 6
        yield f"base64+{offset}", base64.b64encode(bytes(offset) + content)[first:last]
        yield f"base64url+{offset}", base64.urlsafe_b64encode(bytes(offset) + content)[first:last]
    yield "octal", _octal(content, rb"\%03o", rb"\\")
    yield "octal in a dump", _octal(content, rb"\\%03o", rb"\\\\")
    yield "Python", repr(content)[2:-1].encode()
    yield "URL", quote(content, safe="").encode()


def _octal(content: bytes, escape: bytes, backslash: bytes) -> bytes:
    """Return bytes as PostgreSQL's ``bytea_output = escape`` shows them."""
    return b"".join(
        backslash if byte == ord("\\") else bytes([byte]) if _ESCAPED_BELOW <= byte <= _ESCAPED_ABOVE else escape % byte
        for byte in content
    )


def _escaped(value: str) -> Iterator[tuple[str, bytes]]:
    short = value[: END // 2] if len(value) > LONG else value
    escaped = json.dumps(short)[1:-1]
    yield "JSON", escaped.encode()
    yield "JSON", escaped.replace("\\u", "\0").upper().replace("\0", "\\u").encode() if "\\u" in escaped else b""
    yield "JSON", json.dumps(short, ensure_ascii=False)[1:-1].encode()


class Needles:
    """All forms of all values, ready to be searched for. ``Problem`` scan_values where it does not find its own."""

    def __init__(self, values: Mapping[int, str | bytes]) -> None:
        known: dict[bytes, Needle] = {}
        for line, value in values.items():
            for form, name in forms(value).items():
                known.setdefault(form, Needle(line, name))
        self._needles = list(known.values())
        self._automaton = BytesAhoCorasick(list(known))
        self.longest = max(map(len, known))
        self.count = len(known)
        for line, value in values.items():
            # A search that does not find what is there must not say that nothing is.
            if not self.within(value if isinstance(value, bytes) else value.encode()):
                raise Problem("scan_values", line=line, expected="a value that the search finds")

    def within(self, content: bytes) -> Counter[Needle]:
        """Count what a short content holds."""
        stream = self.stream()
        stream.feed(content)
        return stream.found

    def stream(self) -> "Stream":
        """Begin to search one stream."""
        return Stream(self)

    def matches(self, content: bytes) -> Iterable[tuple[Needle, int]]:
        """Yield each needle and where it ends, also within another one."""
        for which, _, end in self._automaton.find_matches_as_indexes(content, overlapping=True):
            yield self._needles[which], end


@dataclass(slots=True)
class Stream:
    """One stream that is searched piece by piece, what lies across two pieces included."""

    needles: Needles
    found: Counter[Needle] = field(default_factory=Counter)
    read: int = 0
    _tail: bytes = b""

    def feed(self, piece: bytes) -> None:
        """Search the next bytes."""
        self.read += len(piece)
        content = self._tail + piece
        for needle, end in self.needles.matches(content):
            if end > len(self._tail):
                self.found[needle] += 1
        self._tail = content[-(self.needles.longest - 1) :]


def standard_input() -> BinaryIO:
    """Return where values come from that are in no file."""
    return sys.stdin.buffer
