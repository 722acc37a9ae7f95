"""``chukan client resident``: the call reaches its route; numbers come from a file and are quoted nowhere."""

from pathlib import Path
from typing import Any

import pytest

from chukan.errors import Problem
from chukan.ops import client_resident, client_run
from chukan.platform.wire.agency import LineResults
from chukan.platform.wire.resident import LIMITS, PersonRecords, ResidentAsk, ResidentRecords

from .conftest import Site

ASK = ResidentAsk(addressees=["A1"], deny_existence=True)
ANSWER = ResidentRecords(
    shows="nothing", persons=[PersonRecords(asked="/addressees/0")], cannot_show=[LIMITS["existence"]]
)


async def test_the_call_reaches_its_route_and_its_reply_comes_back(site: Site) -> None:
    site.set("residentRecords", ANSWER)
    assert await site.client().resident_records(ASK) == ANSWER
    (heard,) = site.east.heard
    assert (heard.operation, heard.body) == ("residentRecords", ASK)


def test_numbers_come_from_a_file_and_a_file_without_any_is_not_quoted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[Any] = []
    monkeypatch.setattr(client_resident, "run", lambda _target, work, _show: (sent.append(work), ANSWER)[1])
    target: Any = client_run.Target(agency="9901011002000001", as_json=True)
    numbers = tmp_path / "numbers"
    for content in (b"", b"\n \n", b"hidden\xff", b"hidden\n" * 2_000):
        numbers.write_bytes(content)
        with pytest.raises(Problem, match="setting_invalid") as refused:
            client_resident.records(numbers, target=target)
        assert "hidden" not in f"{refused.value.expected}{refused.value}"
    assert sent == []
    numbers.write_text("A1\n\nA1OLD\n", encoding="utf-8")
    assert client_resident.records(numbers, target=target) == 0
    assert len(sent) == 1


async def test_flags_are_set_for_the_numbers_of_a_file_or_for_everybody(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work: list[Any] = []
    monkeypatch.setattr(client_resident, "run", lambda _target, each, _show: work.append(each))
    target: Any = client_run.Target(agency="9901011002000001")
    (tmp_path / "numbers").write_text("A1\nA2\n")
    client_resident.keep_back(tmp_path / "numbers", target=target, kind="TM00000000000002", period="2026")
    client_resident.keep_back(target=target, kind="TM00000000000002", lift=True)
    site.set("postHolds", LineResults(lines=[]))
    for each in work:
        await each(site.client())
    first, second = (heard.body.lines for heard in site.east.heard)
    assert [(line.addressee, line.held, line.flag, line.period) for line in first] == [
        ("A1", True, "own_information", "2026"),
        ("A2", True, "own_information", "2026"),
    ]
    assert [(line.addressee, line.held, line.flag) for line in second] == [(None, False, "own_information")]


def test_an_answer_is_kept_for_its_owner_alone_and_one_that_proves_nothing_fails_the_check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_resident, "run", lambda *_: ANSWER)
    target: Any = client_run.Target(agency="9901011002000001", as_json=True)
    (tmp_path / "numbers").write_text("A1\n")
    (tmp_path / "keys").write_text("")
    out = tmp_path / "answer.json"
    with pytest.raises(Problem, match="setting_invalid"):
        client_resident.records(tmp_path / "numbers", target=target, keys=tmp_path / "none")
    code = client_resident.records(tmp_path / "numbers", target=target, keys=tmp_path / "keys", out=out)
    assert code == client_resident.EXIT_UNSOUND
    assert out.stat().st_mode & 0o777 == 0o600
    with pytest.raises(Problem, match="file_exists"):
        client_resident.records(tmp_path / "numbers", target=target, out=out)
