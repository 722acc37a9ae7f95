"""The file of an export: only its recipient opens it, and it opens whole or not at all."""

import datetime as dt
import os
import uuid
from pathlib import Path
from typing import Any

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from chukan.chance import SystemChance
from chukan.clock import SystemClock
from chukan.errors import Problem
from chukan.tenants import export_file
from chukan.tenants.export_file import ExportWriter, Manifest, read_export

CHUNK = 64 * 1024
SEALED = CHUNK + 16


@pytest.fixture
def recipient() -> X25519PrivateKey:
    return X25519PrivateKey.generate()


def writer(path: Path, recipient: X25519PrivateKey) -> ExportWriter:
    return ExportWriter(
        path,
        order=uuid.UUID(int=7),
        agency="9901011002000001",
        recipient=recipient.public_key().public_bytes_raw(),
        made_at=dt.datetime(2026, 11, 23, tzinfo=dt.UTC),
        chance=SystemChance(SystemClock()),
    )


def write(path: Path, recipient: X25519PrivateKey, rows: int, size: int = 100) -> Manifest:
    with writer(path, recipient) as file:
        file.table("empty")
        for n in range(rows):
            file.row("copies", b'{"n":%d,"x":"%s"}' % (n, b"y" * size), readable=n != 1)
        return file.finish()[0]


def read(path: Path, recipient: X25519PrivateKey) -> list[Any]:
    return list(read_export(path, recipient))


@pytest.mark.parametrize(("rows", "size"), [(0, 1), (1, 1), (3, 100), (2000, 100), (3, 3 * CHUNK)])
def test_what_was_written_is_read(tmp_path: Path, recipient: X25519PrivateKey, rows: int, size: int) -> None:
    told = write(tmp_path / "export", recipient, rows, size)
    *found, manifest = read(tmp_path / "export", recipient)
    assert manifest == told
    assert [name for name, _ in found] == ["copies"] * rows
    assert found[:1] == [("copies", b'{"n":0,"x":"%s"}' % (b"y" * size))][:rows]
    assert manifest.tables["empty"].rows == 0
    if rows:
        assert (manifest.tables["copies"].rows, manifest.tables["copies"].unreadable) == (rows, int(rows > 1))


def test_content_that_fills_its_chunks_exactly_is_read(tmp_path: Path, recipient: X25519PrivateKey) -> None:
    write(tmp_path / "probe", recipient, 1, 1)
    rest = SEALED - ((tmp_path / "probe").stat().st_size - self_head(tmp_path / "probe"))
    for more in range(-2, 3):
        path = tmp_path / f"export{more}"
        write(path, recipient, 1, 1 + rest + more)
        assert path.stat().st_size - self_head(path) == SEALED + more + (16 if more > 0 else 0)
        assert len(read(path, recipient)) == 2


def self_head(path: Path) -> int:
    """The length of what stands before the chunks."""
    start = path.read_bytes()[:20]
    return 20 + int.from_bytes(start[16:], "big")


def test_nobody_else_opens_it(tmp_path: Path, recipient: X25519PrivateKey) -> None:
    write(tmp_path / "export", recipient, 3)
    with pytest.raises(Problem, match="export_unreadable"):
        read(tmp_path / "export", X25519PrivateKey.generate())
    assert b"yyyy" not in (tmp_path / "export").read_bytes()


def test_two_exports_share_no_key(tmp_path: Path, recipient: X25519PrivateKey) -> None:
    for name in ("a", "b"):
        write(tmp_path / name, recipient, 2000)
    first, second = ((tmp_path / name).read_bytes() for name in ("a", "b"))
    start = self_head(tmp_path / "a")
    grafted = first[:start] + second[start:]
    (tmp_path / "c").write_bytes(grafted)
    with pytest.raises(Problem, match="export_unreadable"):
        read(tmp_path / "c", recipient)


@pytest.mark.parametrize("place", ["magic", "length", "header", "first chunk", "last chunk"])
def test_a_changed_byte_shows(tmp_path: Path, recipient: X25519PrivateKey, place: str) -> None:
    path = tmp_path / "export"
    write(path, recipient, 2000)
    content = bytearray(path.read_bytes())
    start = self_head(path)
    at = {"magic": 3, "length": 18, "header": 40, "first chunk": start + 5, "last chunk": len(content) - 1}[place]
    content[at] ^= 1
    path.write_bytes(content)
    with pytest.raises(Problem, match="export_unreadable"):
        read(path, recipient)


@pytest.mark.parametrize("how", ["no last chunk", "half a chunk", "a chunk less", "swapped", "twice", "more", "empty"])
def test_lost_moved_and_added_chunks_show(tmp_path: Path, recipient: X25519PrivateKey, how: str) -> None:
    path = tmp_path / "export"
    write(path, recipient, 4000)
    content = path.read_bytes()
    start = self_head(path)
    chunks = [content[at : at + SEALED] for at in range(start, len(content), SEALED)]
    assert len(chunks) > 3
    altered = {
        "no last chunk": chunks[:-1],
        "half a chunk": [*chunks[:-1], chunks[-1][:-20]],
        "a chunk less": [chunks[0], *chunks[2:]],
        "swapped": [chunks[1], chunks[0], *chunks[2:]],
        "twice": [chunks[0], *chunks],
        "more": [*chunks, os.urandom(40)],
        "empty": [],
    }[how]
    path.write_bytes(content[:start] + b"".join(altered))
    with pytest.raises(Problem, match="export_unreadable"):
        read(path, recipient)
    # By the cipher itself, before anybody looks at the content.
    with path.open("rb") as file, pytest.raises(InvalidTag):
        list(export_file._chunks(file, recipient))


def test_no_nonce_serves_twice() -> None:
    nonces = {export_file._nonce(number, last=last) for number in range(300) for last in (False, True)}
    assert len(nonces) == 600
    assert {len(nonce) for nonce in nonces} == {12}
    with pytest.raises(ValueError, match="bounded"):
        export_file._nonce(2**32, last=False)


def test_what_does_not_fit_its_manifest_is_refused(
    tmp_path: Path, recipient: X25519PrivateKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A writer that miscounts is found out by the reader, which counts for itself."""
    real = export_file.TableSum

    def wrong(*, rows: int, unreadable: int, sha256: str) -> Any:
        return real(rows=rows + 1, unreadable=unreadable, sha256=sha256)

    with monkeypatch.context() as patch:
        patch.setattr(export_file, "TableSum", wrong)
        write(tmp_path / "export", recipient, 3)
    with pytest.raises(Problem, match="export_unreadable"):
        read(tmp_path / "export", recipient)


def test_what_is_no_export_is_refused(tmp_path: Path, recipient: X25519PrivateKey) -> None:
    (tmp_path / "text").write_text("hello")
    (tmp_path / "long").write_bytes(b"chukan-export-1\n\xff\xff\xff\xff" + bytes(100))
    for name in ("text", "long", "none"):
        with pytest.raises(Problem, match="export_unreadable"):
            read(tmp_path / name, recipient)


def test_an_interrupted_export_leaves_nothing(tmp_path: Path, recipient: X25519PrivateKey) -> None:
    with writer(tmp_path / "export", recipient) as file:
        file.row("copies", b"{}")
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_came_meanwhile_is_not_replaced(tmp_path: Path, recipient: X25519PrivateKey) -> None:
    with writer(tmp_path / "export", recipient) as file:
        (tmp_path / "export").write_text("mine")
        with pytest.raises(Problem, match="file_exists"):
            file.finish()
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("export", "mine")]


def test_a_place_that_cannot_be_written_is_a_problem(tmp_path: Path, recipient: X25519PrivateKey) -> None:
    with pytest.raises(Problem, match="file_unwritable"), writer(tmp_path / "none" / "export", recipient):
        pass


def test_the_file_is_its_owners_alone(tmp_path: Path, recipient: X25519PrivateKey) -> None:
    write(tmp_path / "export", recipient, 1)
    assert (tmp_path / "export").stat().st_mode & 0o777 == 0o600
