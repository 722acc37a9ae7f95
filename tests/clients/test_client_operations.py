"""``chukan client operations`` from the command line: read, taken along as it comes, kept for its owner alone."""

import datetime as dt
import json
import uuid
from pathlib import Path

import pytest

from chukan.errors import Problem
from chukan.platform.wire.operations import OperationEntry, Operations

from .conftest import AT
from .test_client_command import Stage, _client, stage

__all__ = ["stage"]
pytestmark = pytest.mark.requirement("AUT-03")
ID = uuid.UUID("018f0000-0000-7000-8000-000000000001")
FILE = b'{"kind":"header"}\n{"kind":"checkpoint"}\n'


def test_the_log_is_listed_with_refusals_and_their_number(stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    entry = OperationEntry(
        position=7,
        id=ID,
        at=AT + dt.timedelta(seconds=1),
        actor="k-tanaka",
        kind="session.login",
        subject_class="session",
        outcome="refused",
        problem="login_refused",
        times=49,
    )
    stage.site.set("listOperations", Operations(entries=[entry], next=7))
    assert _client(stage, "operations", "list", "--after", "6", "--limit", "1") == 0
    shown = capsys.readouterr().out
    assert all(word in shown for word in ("k-tanaka", "refused: login_refused", "49", "next: --after 7"))
    assert stage.site.east.heard[0].params == {"after": "6", "limit": "1"}


def test_the_file_is_new_whole_and_its_owners(stage: Stage, tmp_path: Path) -> None:
    path = tmp_path / "log.ndjson"
    stage.site.set("exportOperations", FILE)
    assert _client(stage, "operations", "export", str(path)) == 0
    assert path.read_bytes() == FILE
    assert path.stat().st_mode & 0o777 == 0o600
    assert _client(stage, "operations", "export", str(path)) == 2
    other = tmp_path / "other.ndjson"
    stage.site.set("exportOperations", Problem("function_not_granted"))
    assert _client(stage, "operations", "export", str(other)) == 2
    assert not other.exists(), "nothing stays of what did not come whole"


def test_a_log_that_contradicts_what_was_kept_is_refused(
    stage: Stage, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keys = tmp_path / "keys"
    keys.write_text("")
    given = ["--keys", str(keys), "--keep", str(tmp_path / "kept"), "--json"]
    assert _client(stage, "operations", "checkpoint", *given) == 2
    assert json.loads(capsys.readouterr().out)["code"] == "setting_invalid"
