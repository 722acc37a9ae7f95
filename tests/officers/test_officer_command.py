"""``chukan officer`` against a served API over a real cell: an agency begins, signs in, and administers itself."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from chukan.chance import SystemChance
from chukan.errors import Problem
from chukan.ops import client_officer, personnel
from chukan.ops.client_run import Target
from chukan.ops.sandbox.clients import AgencyClient
from chukan.platform.exchange.officer_services import OfficerServices
from chukan.tenants.directory import Directory, Snapshot
from chukan.tenants.operations import Journal
from chukan.tests.http.conftest import authority, certificates, contexts, serve, server_tls  # noqa: F401 - fixtures
from chukan.tests.officers.conftest import BEGIN, CODE, PASSWORD, TERMINAL, Office, client

FILE = """\
act,officer,name,function,card
add,kanri-1,管理 一郎,,tanaka
grant,kanri-1,,administer,
add,kanri-2,管理 二郎,,suzuki
grant,kanri-2,,administer,
"""


@pytest.fixture
async def desk(office: Office, serve: Any, certificates: Any, authority: Any, tmp_path: Path) -> Any:  # noqa: F811
    """Call a command as somebody: ``await desk(name, command, …)`` returns the documents that it prints."""

    async def affairs(_agency: Any, _reference: Any) -> frozenset[str]:
        return frozenset()

    class Sets:
        async def operations_append(self, rows: Any) -> int:
            for row in rows:
                async with office.door(office.agency) as partition:
                    await partition.fetch("SELECT chukan.operate($1, $2, $3, $4, $5)", *row)
            return len(rows)

    services = OfficerServices(office.sessions, office.accounts, affairs)
    journal = Journal(lambda _n: office.keys, lambda _n: Sets(), SystemChance(office.clock))
    served = await serve(officers=services, operations=journal)
    clients = [client("tanaka"), client("suzuki"), TERMINAL]
    served.exchange.directory = Directory(
        Snapshot(number=1, made_at=BEGIN, agencies=[office.agency], clients=clients, stopped=[], law_number=1)
    )
    (tmp_path / "password").write_text(PASSWORD + "\n")

    def target(name: str) -> Target:
        issued = certificates[name]
        return Target(
            agency=CODE,
            url=(f"https://localhost:{served.port}",),
            ca=authority.trusted,
            certificate=issued.certificate,
            key=issued.key,
            session=tmp_path / name if (tmp_path / name).exists() else None,
            retry=0.0,
            as_json=True,
        )

    return target


def shown(capsys: Any) -> Any:
    return json.loads(capsys.readouterr().out.splitlines()[0])


@pytest.mark.requirement("AUT-01", "AUT-02", "AUT-03")
async def test_an_agency_begins_by_files_and_cards(desk: Any, office: Office, tmp_path: Path, capsys: Any) -> None:
    file, secret = tmp_path / "personnel.csv", tmp_path / "password"
    file.write_text(FILE, encoding="cp932")

    async def do(command: Any, *given: Any, **named: Any) -> Any:
        await asyncio.to_thread(command, *given, **named)
        return shown(capsys)

    proposed = await do(client_officer.propose, file, target=desk("tanaka"), charset="cp932", reason="初期登録")
    approved = await do(client_officer.approve, proposed["id"], target=desk("suzuki"))
    halves = {each["officer"]: each["half"] for each in proposed["codes"]}
    for name, half in ((each["officer"], each["half"]) for each in approved["codes"]):
        card = {"kanri-1": "tanaka", "kanri-2": "suzuki"}[name]
        codes = {"code_proposer": halves[name], "code_approver": half}
        await do(client_officer.enrol, name, target=desk(card), password_file=secret, **codes)

    # From here on the cards alone do nothing, and two administrators in sessions do everything.
    with pytest.raises(Problem, match="session_required"):
        await do(client_officer.listing, target=desk("tanaka"))
    with pytest.raises(Problem, match="setting_missing"):
        await do(client_officer.login, "kanri-1", target=desk("tanaka"), password_file=secret)
    for name, card in (("kanri-1", "tanaka"), ("kanri-2", "suzuki")):
        (tmp_path / card).touch()
        await asyncio.to_thread(client_officer.login, name, target=desk(card), password_file=secret)
        assert (tmp_path / card).stat().st_mode & 0o777 == 0o600
    capsys.readouterr()
    assert (await do(client_officer.me, target=desk("tanaka")))["rights"] == [{"function": "administer"}]
    file.write_text("act,officer,name\nadd,k-ito,伊藤 花\n", encoding="utf-8-sig")
    second = await do(client_officer.propose, file, target=desk("tanaka"))
    with pytest.raises(Problem, match="second_officer_required"):
        await do(client_officer.approve, second["id"], target=desk("tanaka"))
    await do(client_officer.approve, second["id"], target=desk("suzuki"))
    listed = await do(client_officer.listing, target=desk("suzuki"))
    assert [each["officer"] for each in listed["officers"]] == ["k-ito", "kanri-1", "kanri-2"]
    # The session of one card is nobody's with the other card.
    (tmp_path / "suzuki").write_bytes((tmp_path / "tanaka").read_bytes())
    with pytest.raises(Problem, match="session_ended"):
        await do(client_officer.me, target=desk("suzuki"))
    await do(client_officer.logout, target=desk("tanaka"))
    assert not (tmp_path / "tanaka").exists()
    kinds = [(actor, kind, outcome) for actor, kind, outcome, _ in await office.operations()]
    assert ("kanri-1", "session.login", "done") in kinds
    assert ("kanri-1", "call.approve_officer_change", "refused") in kinds
    assert ("kanri-1", "session.logout", "done") in kinds


async def test_a_client_without_a_session_file_hears_of_it(desk: Any, tmp_path: Path) -> None:
    with pytest.raises(Problem, match="session_required"):
        Target(agency=CODE, session=tmp_path / "nothing here").connect()
    async with AgencyClient(desk("tanaka").connect()) as officer:
        assert (await officer.officers()).officers == []


@pytest.mark.parametrize(
    ("text", "code", "line", "pointer"),
    [
        ("", "invalid_field", 1, None),
        ("officer,name\n", "invalid_field", 1, None),
        ("act,officer,salary\n", "invalid_field", 1, None),
        ("act,officer\n", "too_many_lines", None, None),
        ("act,officer\nadd\n", "invalid_field", 2, None),
        ("act,officer\nadd,k-ito\n\nfire,k-ito\n", "invalid_field", 4, "/act"),
        ("act,officer,first\nadd,k-ito,2027-02-30\n", "invalid_field", 2, "/first"),
        ("act,officer,function\ngrant,k-ito,everything\n", "invalid_field", 2, "/function"),
        ('act,officer\nadd,"k-ito\n', "settings_unreadable", None, None),
        ("act,officer\n" + "add,k-ito\n" * 1001, "too_many_lines", None, None),
    ],
)
def test_a_wrong_personnel_file_is_told_by_its_line(
    tmp_path: Path, text: str, code: str, line: int | None, pointer: str | None
) -> None:
    (tmp_path / "file").write_text(text)
    with pytest.raises(Problem) as caught:
        personnel.read(tmp_path / "file")
    assert (caught.value.code, caught.value.line, caught.value.pointer) == (code, line, pointer)
    assert "k-ito" not in str(caught.value.as_dict())
