"""``chukan agency`` and ``chukan stop``: an operator's whole day on the command line, and an officer's part in it."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from chukan.ops.cli import run
from chukan.tenants import orders

SAPPORO, BOARD, OWN = "9901011002000001", "9902011002000001", "9903011002000001"
TAX = "TM00000000000002"

CHANGING = {("client", "add"), ("client", "remove")}

Command = Callable[..., Any]


@pytest.fixture
def site_files(pair: dict[str, Any], tmp_path: Path, request: pytest.FixtureRequest) -> Any:
    """The site for commands, which run event loops of their own."""
    maker = request.getfixturevalue("make_site")
    made = asyncio.run(maker(pair, tmp_path))
    assert run(["agency", "prepare-keystores", "--config", str(made.config)]) == 0
    return made


@pytest.fixture
def chukan(site_files: Any, capsys: pytest.CaptureFixture[str]) -> Command:
    """Run a command with ``--json`` and return its document; ``status`` is what it must end with."""

    def command(*words: str, status: int = 0, key: bool = True) -> Any:
        given = [*words, "--config", str(site_files.config), "--json"]
        changing = words[1] in ("add", "close", "destroy", "lift") or words[1:3] in (
            ("client", "add"),
            ("client", "remove"),
        )
        if key and changing:
            given += ["--directory-key", str(site_files.directory_key)]
        capsys.readouterr()
        assert run(given) == status
        return json.loads(capsys.readouterr().out)

    return command


def officers(site: Any, chukan: Command) -> None:
    for officer in site.officers():
        chukan(
            "agency", "client", "add", officer.id, "--kind", "officer", "--name", "職員", "--agency", SAPPORO,
            "--function", "order", "reviews.approve",
        )  # fmt: skip


def order_file(site: Any, action: orders.Action) -> str:
    path = site.folder / f"order-{action}.json"
    path.write_bytes(orders.encode(site.order(action)))
    return str(path)


def test_an_agency_is_added_listed_and_shown(site_files: Any, chukan: Command) -> None:
    added = chukan("agency", "add", "--code", SAPPORO)
    assert (added["cell"], added["state"], added["name"]) == ("east", "open", "札幌市長")
    assert chukan("agency", "add", SAPPORO) == added
    board = chukan("agency", "add", BOARD, "--cell", "west")
    assert board["cell"] == "west"
    listed = chukan("agency", "list")
    assert [row["code"] for row in listed["agencies"] if row["state"] == "open"] == [SAPPORO, BOARD]
    chukan("agency", "client", "add", "system", "--kind", "system", "--name", "業務", "--agency", SAPPORO, BOARD,
           "--function", "queries", "copies")  # fmt: skip
    shown = chukan("agency", "show", SAPPORO)
    assert shown["clients"] == [{"id": "system", "kind": "system", "functions": ["copies", "queries"]}]
    assert (shown["state"], shown["in_cell"], shown["keys"]) == ("open", "open", True)
    assert shown["counts"]["copies"] == 0
    assert {row["id"] for row in chukan("agency", "client", "list")["clients"]} == {"system"}
    assert chukan("agency", "client", "remove", "system")["removed"] == "system"
    assert chukan("agency", "client", "remove", "system", status=2)["code"] == "unregistered_system"


def test_a_code_of_ones_own_needs_name_body_and_cell(site_files: Any, chukan: Command) -> None:
    assert chukan("agency", "add", OWN, status=2)["code"] == "invalid_field"
    added = chukan("agency", "add", OWN, "--name", "組合", "--body", "011002", "--cell", "east")
    assert (added["name"], added["body"]) == ("組合", "011002")


def test_a_national_counterpart_is_no_agency_of_the_platform(site_files: Any, chukan: Command) -> None:
    assert chukan("agency", "add", "1419900000002200", status=2)["pointer"] == "/code"


def test_what_changes_the_common_data_needs_its_key(site_files: Any, chukan: Command) -> None:
    told = chukan("agency", "add", SAPPORO, status=2, key=False)
    assert (told["code"], told["expected"]) == ("setting_missing", "--directory-key FILE")


def test_an_agency_leaves_by_order(site_files: Any, chukan: Command, tmp_path: Path) -> None:
    chukan("agency", "add", SAPPORO)
    officers(site_files, chukan)
    out = str(tmp_path / "handed")
    assert chukan("agency", "export", SAPPORO, "--out", out, status=2)["code"] == "order_required"
    assert chukan("agency", "destroy", SAPPORO, status=2)["code"] == "order_required"

    order = order_file(site_files, "export")
    assert chukan("agency", "order", "show", order)["accepted"] == "yes"
    told = chukan("agency", "export", SAPPORO, "--order", order, "--out", out)
    tables = ("copies", "holds", "own_information_flags", "codes", "records", "statistics", "log")
    assert told["rows"] == dict.fromkeys(tables, 0)
    assert json.loads(Path(f"{out}.manifest.json").read_text())["sha256"] == told["sha256"]
    assert (
        chukan("agency", "export", SAPPORO, "--order", order, "--out", f"{out}2", status=2)["code"] == "order_invalid"
    )

    assert chukan("agency", "close", SAPPORO)["state"] == "closed"
    admin = ["--admin-password-file", str(tmp_path / "admin")]
    destroy = ["agency", "destroy", SAPPORO, "--order"]
    assert chukan(*destroy, order, *admin, status=2)["code"] == "order_invalid"
    order = order_file(site_files, "destroy")
    assert chukan(*destroy, order, status=2)["code"] == "setting_missing"
    assert chukan(*destroy, order, *admin)["state"] == "destroyed"
    shown = chukan("agency", "show", SAPPORO)
    assert (shown["state"], shown["in_cell"], shown["keys"], shown["clients"]) == ("destroyed", None, False, [])


def test_the_agency_unpacks_what_it_was_handed(
    site_files: Any, chukan: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str], content: Any
) -> None:
    chukan("agency", "add", SAPPORO)
    officers(site_files, chukan)

    async def fill() -> None:
        async with site_files.open() as installation:
            snapshot = await installation.snapshot()
            row = next(each for each in snapshot.agencies if each.code == SAPPORO)
            await content(installation, row).copies("addressee-1")

    asyncio.run(fill())
    out = tmp_path / "handed"
    chukan("agency", "export", SAPPORO, "--order", order_file(site_files, "export"), "--out", str(out))
    unpack = ["agency", "unpack", str(out), "--key", str(tmp_path / "export-key.pem"), "--out", str(tmp_path / "open")]
    assert run([*unpack, "--json"]) == 0
    (row,) = [json.loads(line) for line in (tmp_path / "open" / "copies.jsonl").read_text().splitlines()]
    assert row["addressee"] == "addressee-1"
    assert json.loads((tmp_path / "open" / "manifest.json").read_text())["tables"]["copies"]["rows"] == 1
    assert (tmp_path / "open").stat().st_mode & 0o777 == 0o700
    capsys.readouterr()
    assert run(unpack) == 2
    assert "file_exists" in capsys.readouterr().err


def test_an_order_that_would_be_refused_is_shown_so(site_files: Any, chukan: Command) -> None:
    chukan("agency", "add", SAPPORO)
    told = chukan("agency", "order", "show", order_file(site_files, "export"), status=1)
    assert told["accepted"] == "officers of this agency with the function order"


def test_a_kill_switch_is_set_listed_and_lifted(site_files: Any, chukan: Command) -> None:
    told = chukan("stop", "add", "--kind", TAX)
    assert (told["stopped"], told["missing"]) == ({"kind": TAX, "procedure": None}, [])
    assert chukan("stop", "add", "--everything")["stopped"] == {"kind": None, "procedure": None}
    assert chukan("stop", "list")["stopped"] == [{"kind": None, "procedure": None}, {"kind": TAX, "procedure": None}]
    assert chukan("stop", "lift", "--everything")["changed"] is True
    assert chukan("stop", "lift", "--everything")["changed"] is False
    assert chukan("stop", "list")["stopped"] == [{"kind": TAX, "procedure": None}]


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ([], "invalid_field"),
        (["--everything", "--kind", TAX], "invalid_field"),
        (["--kind", "TM99999999999999"], "unknown_kind"),
        (["--procedure", "JT99999999999999"], "unknown_procedure"),
    ],
)
def test_a_kill_switch_is_not_set_by_mistake(site_files: Any, chukan: Command, words: list[str], code: str) -> None:
    assert chukan("stop", "add", *words, status=2)["code"] == code


def test_a_cell_that_did_not_hear_of_a_stop_is_named(site_files: Any, chukan: Command) -> None:
    name = site_files.cells["west"].settings.database
    limit = "ALTER DATABASE {} CONNECTION LIMIT {}"
    asyncio.run(site_files.fetch("west", limit.format(name, 0)))
    try:
        told = chukan("stop", "add", "--kind", TAX, status=1)
    finally:
        asyncio.run(site_files.fetch("west", limit.format(name, -1)))
    assert told["missing"] == ["west"]


def test_people_are_told_in_words(site_files: Any, chukan: Command, capsys: pytest.CaptureFixture[str]) -> None:
    chukan("agency", "add", SAPPORO)
    config = ["--config", str(site_files.config)]
    for words in (["agency", "list"], ["agency", "show", SAPPORO]):
        assert run([*words, *config]) == 0
        assert "札幌市長" in capsys.readouterr().out
    assert run(["agency", "destroy", SAPPORO, *config]) == 2
    said = capsys.readouterr().err
    assert "機関の職員二名が署名した指示書が必要です" in said
    assert "An order signed by two officers of the agency is required" in said
