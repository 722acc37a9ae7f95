"""``chukan master``, ``chukan notice`` and the kill switch that tells the bodies: an operator's way through them."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from chukan.ops.cli import run
from chukan.platform.law import Law

pytestmark = pytest.mark.requirement("SEC-02", "LAW-04", "OPS-03")

KIND = "TM00000000000002"
GAPS = "gap_codes.csv"


@pytest.mark.requirement("BRE-03")
def test_the_whole_way_on_the_command_line(
    pair: dict[str, Any], tmp_path: Path, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    site = asyncio.run(request.getfixturevalue("make_site")(pair, tmp_path))
    for cell in pair:
        for table in ("master_act", "master", "notice_read", "notice"):
            asyncio.run(site.fetch(cell, f"DELETE FROM chukan.{table}"))
    config = ["--config", str(site.config), "--json"]

    def chukan(*words: str, by: str | None = None, key: bool = False, status: int = 0) -> Any:
        given = [*words, *config]
        if by is not None:
            folder = site.authority.folder / "clients" / by
            given += ["--certificate", str(folder / "certificate.pem"), "--key", str(folder / "key.pem")]
        if key:
            given += ["--directory-key", str(site.directory_key)]
        capsys.readouterr()
        assert run(given) == status
        return json.loads(capsys.readouterr().out)

    for name in ("operator.aoki", "operator.baba"):
        site.authority.issue_client(name)
    assert run(["agency", "prepare-keystores", "--config", str(site.config)]) == 0
    chukan("master", "show", "0", "--into", str(tmp_path / "files"))
    with (tmp_path / "files" / GAPS).open("a", encoding="utf-8") as file:
        file.write("97,試行,trial\n")
    when = ["--effective-at", "2099-04-01T00:00+09:00", "--note", "改正"]
    assert chukan("master", "propose", str(tmp_path / "files"), *when, by="operator.aoki")["version"] == 1
    assert chukan("master", "diff", "1")["differences"][0]["added"] == ["97,試行,trial"]
    assert chukan("master", "approve", "1", by="operator.aoki", key=True, status=2)["code"] == "second_person"
    told = chukan("master", "approve", "1", by="operator.baba", key=True)
    assert told["effective_at"] == "2099-03-31T15:00:00Z"
    assert "chukan master show 1 --into" in told["note"], "a sandbox network goes by files of its own"
    chukan("master", "show", "1", "--into", str(tmp_path / "network"))
    assert "97" in Law.load(tmp_path / "network").gap_codes
    assert [each["state"] for each in chukan("master", "list")] == ["waiting"]
    told = chukan("master", "withdraw", "1", "--reason", "延期", by="operator.aoki", key=True)
    assert [each["state"] for each in chukan("master", "list")] == ["withdrawn"]
    chukan("master", "rollback", "1", *when, by="operator.baba")
    chukan("master", "reject", "2", "--reason", "誤り", by="operator.aoki")
    assert [each["state"] for each in chukan("master", "list")] == ["rejected", "withdrawn"]
    assert chukan("master", "propose", str(tmp_path / "files"), "--effective-at", "2099-04-01", "--note", "x",
                  by="operator.aoki", status=2)["code"] == "invalid_field"  # fmt: skip
    # The kill switch tells the bodies by itself, of its end too; and so did the approval.
    assert chukan("stop", "add", "--kind", KIND, key=True)["notified"] is True
    assert chukan("stop", "add", "--kind", KIND, key=True)["changed"] is False
    assert chukan("stop", "lift", "--kind", KIND, key=True)["notified"] is True
    notice = chukan("notice", "publish", "計画停止", "保守のため", "--sort", "planned", "--by", "aoki")["notice"]
    chukan("notice", "withdraw", notice, "--by", "aoki")
    assert [each["sort"] for each in chukan("notice", "list")] == ["planned", "resumed", "stop", "master"]
