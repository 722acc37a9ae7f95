"""Files through the client: sent with what they are known by, fetched piece by piece, never a part for the whole."""

import hashlib
import uuid
from base64 import b64encode
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from chukan.errors import Problem
from chukan.ops.client_files import _write
from chukan.ops.sandbox.clients import ClientError
from chukan.platform.wire.files import CodeFile, QueryFile
from chukan.platform.wire.holders import HolderLine, HolderView, HolderViews

from .conftest import AT, BREAK_OFF, Site

ID = uuid.UUID("018f0000-0000-7000-8000-000000000001")
FILE = QueryFile(
    id=ID, name="N1", charset="cp932", state="accepted", received_at=AT, lines=2, refused=0, batches=[ID],
    states={"accepted": 2}, outcomes={},
)  # fmt: skip


@pytest.mark.requirement("CON-03")
async def test_a_query_file_goes_with_its_name_its_charset_and_its_digest(site: Site, tmp_path: Path) -> None:
    site.set("postQueryFile", FILE)
    site.set("getQueryFile", FILE)
    path = tmp_path / "P640R110_20261123093000_0001.DAT"
    path.write_bytes(b"one\r\ntwo\r\n")
    client = site.client()
    assert await client.send_query_file(path.name, path, charset="cp932", key="a-key-of-ones-own") == FILE
    assert await client.query_file(ID) == FILE
    sent, _ = site.east.heard
    assert sent.raw == path.read_bytes()
    assert sent.params == {"name": path.name}
    assert sent.headers["Content-Type"] == "text/plain; charset=cp932"
    digest = b64encode(hashlib.sha256(sent.raw).digest()).decode()
    assert sent.headers["Content-Digest"] == f"sha-256=:{digest}:"
    assert sent.headers["Idempotency-Key"] == "a-key-of-ones-own"


async def test_a_result_is_fetched_into_a_new_file(site: Site, tmp_path: Path) -> None:
    site.set("getQueryFileResult", b"line\r\n5\r\n")
    into = tmp_path / "result.csv"
    assert await _write(into, site.client().query_file_result(ID, after=4)) == {"bytes": 9}
    assert into.read_bytes() == b"line\r\n5\r\n"
    assert site.east.heard[0].params == {"after": "4"}
    with pytest.raises(Problem, match="file_exists"):
        await _write(into, site.client().query_file_result(ID))
    with pytest.raises(Problem, match="file_unwritable"):
        await _write(tmp_path / "nowhere" / "result.csv", site.client().query_file_result(ID))


async def test_an_exchange_that_does_not_answer_is_passed_over_for_a_result(site: Site) -> None:
    site.east.replies["getQueryFileResult"] = BREAK_OFF
    site.west.replies["getQueryFileResult"] = b"whole"
    assert [piece async for piece in site.client().query_file_result(ID)] == [b"whole"]
    site.set("getQueryFileResult", Problem("file_incomplete"))
    with pytest.raises(ClientError, match="file_incomplete"):
        await anext(site.client().query_file_result(ID))


@pytest.mark.requirement("CON-03")
async def test_a_result_that_breaks_off_is_an_error_and_not_asked_again_from_the_start(site: Site) -> None:
    """The rest of a broken reply must not be taken from another exchange: it would begin at the first line again."""

    async def broken() -> AsyncIterator[bytes]:
        yield b"line\r\n1\r\n"
        raise ConnectionResetError

    site.set("getQueryFileResult", lambda _heard: broken())
    pieces = site.client().query_file_result(ID)
    assert await anext(pieces) == b"line\r\n1\r\n"
    with pytest.raises(ClientError, match="unreachable"):
        await anext(pieces)


async def test_events_are_followed_from_an_id_on(site: Site) -> None:
    site.set("followEvents", b"retry: 2000\n\n")
    assert [piece async for piece in site.client().events(last_id="c1")] == [b"retry: 2000\n\n"]
    assert [piece async for piece in site.client().events()] == [b"retry: 2000\n\n"]
    first, second = site.east.heard
    assert first.headers["Last-Event-ID"] == "c1"
    assert "Last-Event-ID" not in second.headers


@pytest.mark.requirement("INQ-03")
async def test_holders_are_asked_for_line_by_line(site: Site) -> None:
    reply = HolderViews(lines=[HolderView(line=0, status="answered", providers=["9901131016000001"])])
    site.set("askHolders", reply)
    line = HolderLine(addressee="A1", affair="JM01000000121000", procedure="JT01010000000214", kind="TM00000000000002")
    assert await site.client().ask_holders([line]) == reply
    assert site.east.heard[0].body.lines == [line]


@pytest.mark.requirement("SYM-07")
async def test_a_code_file_goes_the_same_way(site: Site) -> None:
    file = CodeFile(
        id=ID, name="C1", charset="utf-8", state="accepted", received_at=AT, lines=1, refused=0, statuses={"active": 1}
    )
    site.set("postCodeFile", file)
    site.set("getCodeFile", file)
    site.set("getCodeFileResult", b"line\r\n")
    client = site.client()
    assert await client.send_code_file("C1", b"000000000000001\r\n") == file
    assert await client.code_file(ID) == file
    assert [piece async for piece in client.code_file_result(ID, after=3)] == [b"line\r\n"]
    sent, _, fetched = site.east.heard
    assert (sent.params, sent.raw, fetched.params) == ({"name": "C1"}, b"000000000000001\r\n", {"after": "3"})
