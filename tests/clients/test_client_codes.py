"""Repair of links and requests to acquire by the client and from the command line; facts come from a file alone."""

import datetime as dt
import uuid
from pathlib import Path
from typing import Any

import msgspec
import pytest

from chukan.errors import Problem
from chukan.ops import client_codes, client_run
from chukan.platform.wire import acquisition_asks as asks
from chukan.platform.wire import code_changes as changes

from .conftest import Site

ID = uuid.UUID("018f0000-0000-7000-8000-000000000001")
FACTS = asks.PersonFacts(
    name="見本 花子", birth_date=dt.date(1980, 4, 1), sex="female", address="見本県見本市一丁目一番"
)
LINES = changes.CodeChangeLines(lines=[changes.CodeChangeLine(line=0, status="open", change=ID)])
RELINK = changes.RelinkLine(addressee="A1", to="A2", reason="点検")
MERGE = changes.MergeLine(addressee="A1", into="A2", reason="二重登録")
CALLS: dict[str, tuple[Any, Any]] = {
    "relinkCode": (lambda c: c.relink([RELINK]), LINES),
    "mergeCodes": (lambda c: c.merge([MERGE]), LINES),
    "confirmLink": (lambda c: c.confirm_changes([ID], "apply"), LINES),
    "listCodeChanges": (lambda c: c.code_changes(), changes.CodeChanges(changes=[])),
    "codeHistory": (lambda c: c.code_history("A1"), changes.CodeChanges(changes=[])),
    "requestAcquisition": (
        lambda c: c.request_acquisition(ID, FACTS),
        asks.AskedToAcquire(id=ID, provider="1" * 16, status="requested"),
    ),
    "listAcquisitionRequests": (lambda c: c.acquisition_requests(), asks.AcquisitionAskViews(requests=[])),
    "fulfilAcquisitionRequest": (
        lambda c: c.answer_acquisition(ID, "A1"),
        asks.AcquisitionAnswered(id=ID, status="fulfilled"),
    ),
}


@pytest.mark.parametrize("operation", CALLS)
async def test_a_call_reaches_its_route_and_its_reply_comes_back(site: Site, operation: str) -> None:
    call, reply = CALLS[operation]
    site.set(operation, reply)

    assert await call(site.client()) == reply
    (heard,) = site.east.heard
    assert heard.operation == operation


@pytest.mark.requirement("INQ-04")
def test_facts_that_cannot_be_read_go_nowhere_and_are_not_quoted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[Any] = []
    monkeypatch.setattr(client_codes, "run", lambda _target, work, _show: sent.append(work))
    target: Any = client_run.Target
    file = tmp_path / "facts.json"
    for content, code in ((b'{"name":"hidden","sex":"x"}', "invalid_field"), (b"{", "settings_unreadable")):
        file.write_bytes(content)
        with pytest.raises(Problem) as refused:
            client_codes.request(ID, file, target=target)
        assert (refused.value.code, "hidden" in str(refused.value)) == (code, False)
    assert sent == []
    file.write_bytes(msgspec.json.encode(FACTS))
    client_codes.request(ID, file, target=target)
    assert len(sent) == 1
