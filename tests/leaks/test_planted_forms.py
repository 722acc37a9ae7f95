"""The forms that a planted value can take, the stream that is searched for them, and what is told of a find."""

import base64
import bz2
import gzip
import io
import json
import lzma
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chukan.errors import Problem
from chukan.ops.leaks.needles import PIECE, VALUES_MAX, Needles, read_values
from chukan.ops.leaks.search import Search

NAME, NUMBER, KEY = "漏洩試験 花子", "739146508273916", bytes(range(130, 162))
VALUES: dict[int, str | bytes] = {1: NAME, 2: NUMBER, 3: KEY}


def octal(content: bytes) -> bytes:
    return b"".join(b"\\%03o" % byte for byte in content)


SHOWN: dict[str, Callable[[bytes], bytes]] = {
    "as it is": bytes,
    "hex": lambda value: value.hex().encode(),
    "HEX": lambda value: value.hex().upper().encode(),
    "bytea": lambda value: b"\\\\x" + value.hex().encode(),
    "base64 at 0": lambda value: base64.b64encode(b"abc" + value + b"x"),
    "base64 at 1": lambda value: base64.b64encode(b"abcd" + value + b"xy"),
    "base64 at 2": lambda value: base64.b64encode(b"abcde" + value + b"xyz"),
    "base64url": lambda value: base64.urlsafe_b64encode(b"a" + value),
    "Python": lambda value: repr(value).encode(),
}


@pytest.mark.parametrize("how", SHOWN)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16-le", "utf-16-be", "cp932"])
def test_each_form_of_a_text_is_found(how: str, encoding: str) -> None:
    needles = Needles(VALUES)
    found = needles.within(b"before " + SHOWN[how](NAME.encode(encoding)) + b" after")
    assert {needle.line for needle in found} == {1}


@pytest.mark.parametrize("how", SHOWN)
def test_each_form_of_a_key_is_found(how: str) -> None:
    assert {needle.line for needle in Needles(VALUES).within(SHOWN[how](KEY))} == {3}


def test_what_programs_escape_is_found() -> None:
    needles = Needles(VALUES)
    shown = [
        (1, json.dumps(NAME).encode()),
        (1, quote(NAME).encode()),
        (1, b" ".join(octal(part.encode()) for part in NAME.split())),
        (3, octal(KEY)),
        (3, octal(KEY).replace(b"\\", b"\\\\")),
        (2, int(NUMBER).to_bytes(8, "little")),
        (2, int(NUMBER).to_bytes(8, "big")),
    ]
    for line, content in shown:
        assert {needle.line for needle in needles.within(b"<" + content + b">")} == {line}


@given(st.binary(max_size=200))
def test_what_is_not_there_is_not_found(content: bytes) -> None:
    assert not Needles(VALUES).within(content)


@given(st.integers(0, 400), st.lists(st.integers(1, 60), min_size=1, max_size=8))
def test_what_lies_across_pieces_is_found_once(before: int, cuts: list[int]) -> None:
    stream = Needles(VALUES).stream()
    rest = bytes(before) + NAME.encode() + bytes(50)
    for cut in cuts:
        stream.feed(rest[:cut])
        rest = rest[cut:]
    stream.feed(rest)
    assert sum(stream.found.values()) == 1


def test_memory_does_not_grow_with_what_is_searched() -> None:
    stream = Needles(VALUES).stream()
    for _ in range(64):
        stream.feed(bytes(PIECE))
        assert len(stream._tail) < stream.needles.longest < 4_096
    assert stream.read == 64 * PIECE


def test_values_are_read_by_line_and_bad_ones_refused_without_being_quoted() -> None:
    file = io.BytesIO(f"{NAME}\n\n  {NUMBER} \nhex:{KEY.hex()}\n".encode())
    assert read_values(file) == {1: NAME, 3: NUMBER, 4: KEY}
    for content in (
        b"",
        b"short\n",
        b"hex:zz00\n",
        b"\xff\xfe123456\n",
        b"x" * 4_097,
        b"value-%d\n" * (VALUES_MAX + 1),
    ):
        with pytest.raises(Problem) as caught:
            read_values(io.BytesIO(content))
        assert caught.value.code == "scan_values"


@pytest.mark.parametrize("squeeze", [gzip.compress, bz2.compress, lzma.compress])
def test_compressed_files_are_opened(tmp_path: Path, squeeze: Any) -> None:
    (tmp_path / "backup").write_bytes(squeeze(b"a page of text " * 999 + NAME.encode()))
    search = Search(Needles(VALUES))
    search.folder("backup", tmp_path)
    assert [(hit.line, hit.times) for hit in search.hits] == [(1, 1)]
    assert search.hits[0].place.endswith("(opened)")


def test_what_cannot_be_searched_is_no_proof(tmp_path: Path) -> None:
    (tmp_path / "a.zst").write_bytes(b"\x28\xb5\x2f\xfd" + os.urandom(40))
    (tmp_path / "b.gz").write_bytes(gzip.compress(os.urandom(1000))[:-20])
    os.mkfifo(tmp_path / "pipe")
    search = Search(Needles(VALUES))
    search.folder("backup", tmp_path)
    search.folder("backup", tmp_path / "nowhere")
    assert not search.clean
    assert not search.hits
    assert len(search.unread) == 3


def test_a_value_in_the_name_of_a_file_is_found_and_not_told(tmp_path: Path) -> None:
    folder = tmp_path / f"export-{NUMBER}"
    folder.mkdir()
    (folder / "log").write_bytes(NAME.encode())
    search = Search(Needles(VALUES))
    search.folder("log", tmp_path)
    assert {hit.line for hit in search.hits} == {1, 2}
    assert not any(value in repr(search.hits) for value in (NAME, NUMBER))


def test_the_file_of_values_is_not_a_find(tmp_path: Path) -> None:
    values = tmp_path / "values"
    values.write_text(NAME, encoding="utf-8")
    stood = values.stat()
    search = Search(Needles(VALUES), past=frozenset({(stood.st_dev, stood.st_ino)}))
    search.folder("temporary files", tmp_path)
    assert search.clean
