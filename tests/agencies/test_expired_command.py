"""``chukan records expired``: an operator shows of which months records were deleted when their time was over."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from chukan.ops.cli import run

SAPPORO, BOARD = "9901011002000001", "9902011002000001"


@pytest.mark.requirement("REC-02")
def test_what_was_deleted_is_told_of_one_agency_or_of_all(
    pair: dict[str, Any], tmp_path: Path, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    make_site: Callable[..., Any] = request.getfixturevalue("make_site")
    site = asyncio.run(make_site(pair, tmp_path))
    assert run(["agency", "prepare-keystores", "--config", str(site.config)]) == 0
    numbers = {}
    for code in (SAPPORO, BOARD):
        capsys.readouterr()
        given = ["agency", "add", code, "--config", str(site.config), "--directory-key", str(site.directory_key)]
        assert run([*given, "--json"]) == 0
        numbers[code] = json.loads(capsys.readouterr().out)["number"]

    def told(*words: str) -> list[tuple[str, str, str]]:
        capsys.readouterr()
        assert run(["records", "expired", *words, "--config", str(site.config), "--json"]) == 0
        document = json.loads(capsys.readouterr().out)
        assert document["kept_years"] == 7
        return [(each["agency"], each["month"], each["count"]) for each in document["expired"]]

    assert told() == []
    for code, month, count in ((SAPPORO, "2017-03-01", 2), (SAPPORO, "2017-03-01", 3), (BOARD, "2017-04-01", 1)):
        row = f"VALUES ({numbers[code]}, '{month}', {count})"
        asyncio.run(site.fetch("east", f"INSERT INTO chukan.expired (agency, month, count) {row}"))
    try:
        assert told(SAPPORO) == [(SAPPORO, "2017-03", "5")]
        assert sorted(told()) == [(SAPPORO, "2017-03", "5"), (BOARD, "2017-04", "1")]
    finally:
        asyncio.run(site.fetch("east", "DELETE FROM chukan.expired"))

    def retention(status: int, *words: str) -> dict[str, Any]:
        capsys.readouterr()
        assert run(["records", "retention", *words, "--config", str(site.config), "--json"]) == status
        return {each["name"]: each for each in json.loads(capsys.readouterr().out)["classes"]}

    assert {each["there"] for name, each in retention(0).items() if name != "operations"} == {0}
    session = (
        f"INSERT INTO a{numbers[SAPPORO]:05d}.officer_sessions (digest, officer, body, seen_at, until)"
        " VALUES (sha256('x'), 'o', 'x', now(), now() - make_interval(hours => {}))"
    )
    asyncio.run(site.fetch("east", session.format(1)))
    found = retention(0, SAPPORO)["sessions"]
    assert (found["there"], found["late"]) == (1, False), "the next round takes it"
    asyncio.run(site.fetch("east", f"DELETE FROM a{numbers[SAPPORO]:05d}.officer_sessions"))
    asyncio.run(site.fetch("east", session.format(30)))
    found = retention(1)["sessions"]
    assert (found["there"], found["late"]) == (1, True), "nobody deletes"
    capsys.readouterr()
    words = ["records", "rebuild-map", SAPPORO, "--by", "operator-1", "--config", str(site.config), "--json"]
    assert run(words) == 2
    assert json.loads(capsys.readouterr().out)["code"] == "proof_pending"
