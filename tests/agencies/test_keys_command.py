"""``chukan keys``: an operator looks and rotates; destruction is the agency's, by the same order as always."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from chukan.chance import SystemChance
from chukan.clock import SystemClock
from chukan.ops.cli import run
from chukan.ops.installation import open_installation
from chukan.tenants import orders
from chukan.tenants.keystore import KeyStores
from chukan.tenants.sets import CellSets
from chukan.tests.support.tokens import MODULE, Tokens

SAPPORO, BOARD = "9901011002000001", "9902011002000001"
Command = Callable[..., Any]


@pytest.fixture
def keys_site(pair: dict[str, Any], tmp_path: Path, request: pytest.FixtureRequest) -> Any:
    """The site for commands, which run event loops of their own."""
    maker = request.getfixturevalue("make_site")
    return asyncio.run(maker(pair, tmp_path))


@pytest.fixture
def tokens(keys_site: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tokens:
    """Master keys of that site in tokens."""
    made = Tokens(tmp_path / "softhsm")
    monkeypatch.setenv("SOFTHSM2_CONF", str(made.conf))
    lines = [keys_site.config.read_text()]
    for centre in ("east", "west"):
        lines += [f"[key_tokens.{centre}]", f'module = "{MODULE}"', f'token = "{centre}"']
        lines += [f'pin_file = "{made.pin_file(centre)}"']
    keys_site.config.write_text("\n".join(lines))
    return made


@pytest.fixture
def chukan(keys_site: Any, capsys: pytest.CaptureFixture[str]) -> Command:
    """Run a command with ``--json`` and return its document; ``status`` is what it must end with."""

    def command(*words: str, status: int = 0, key: bool = False) -> Any:
        given = [*words, "--config", str(keys_site.config), "--json"]
        given += ["--directory-key", str(keys_site.directory_key)] if key else []
        capsys.readouterr()
        assert run(given) == status
        return json.loads(capsys.readouterr().out)

    return command


def add(site: Any, chukan: Command) -> None:
    assert run(["agency", "prepare-keystores", "--config", str(site.config)]) == 0
    for code in (SAPPORO, BOARD):
        chukan("agency", "add", code, key=True)


def stores(site: Any) -> KeyStores:
    """Open the key stores as another process does."""
    return KeyStores.of(site.settings, chance=SystemChance(SystemClock()))


@pytest.mark.requirement("SEC-01")
def test_keys_are_shown_and_rotated_in_both_centres(keys_site: Any, chukan: Command) -> None:
    add(keys_site, chukan)
    row = chukan("agency", "show", SAPPORO)
    before = stores(keys_site).load(row["number"])
    old = before.seal("copy", b"row", b"old")
    assert chukan("keys", "rotate", SAPPORO) == [{"agency": SAPPORO, "purpose": "data", "version": 2}]
    chukan("keys", "rotate", SAPPORO, "--purpose", "answer")
    shown = chukan("keys", "status", SAPPORO)
    assert [(each["centre"], each["state"], each["data"], each["answer"]) for each in shown] == [
        ("east", "confirmed", [1, 2], [1, 2]),
        ("west", "confirmed", [1, 2], [1, 2]),
    ]
    after = stores(keys_site).load(row["number"])
    assert after.seal("copy", b"row", b"new")[1:5] == b"\0\0\0\x02"
    assert after.open("copy", b"row", old) == b"old"
    rotated = chukan("keys", "rotate", "--all-agencies")
    assert {each["agency"]: each["version"] for each in rotated} == {SAPPORO: 3, BOARD: 2}
    assert chukan("keys", "rotate", status=2)["code"] == "invalid_field"

    (keys_site.folder / "keys-west").rename(keys_site.folder / "gone")
    states = {each["centre"]: each["state"] for each in chukan("keys", "status", SAPPORO, status=1)}
    assert states == {"east": "confirmed", "west": "away"}
    refused = chukan("keys", "rotate", SAPPORO, status=2)
    assert (refused["code"], refused["expected"]) == ("keys_unconfirmed", "the key store of west")


@pytest.mark.requirement("SEC-04", "REP-08")
def test_keys_are_destroyed_on_the_order_of_two_officers_and_on_nothing_less(keys_site: Any, chukan: Command) -> None:
    add(keys_site, chukan)
    for officer in keys_site.officers():
        chukan(
            "agency", "client", "add", officer.id, "--kind", "officer", "--name", "職員", "--agency", SAPPORO,
            "--function", "order", key=True,
        )  # fmt: skip
    numbers = {code: chukan("agency", "show", code)["number"] for code in (SAPPORO, BOARD)}
    mine, theirs = (stores(keys_site).load(number).seal("copy", b"row", b"value") for number in numbers.values())
    files = {}
    for action in ("destroy", "export"):
        files[action] = str(keys_site.folder / f"order-{action}.json")
        Path(files[action]).write_bytes(orders.encode(keys_site.order(action)))

    assert chukan("keys", "destroy", SAPPORO, status=2)["code"] == "order_required"
    assert chukan("keys", "destroy", SAPPORO, "--order", files["export"], status=2)["code"] == "order_invalid"
    assert chukan("keys", "destroy", BOARD, "--order", files["destroy"], status=2)["code"] == "order_invalid"
    assert chukan("keys", "destroy", SAPPORO, "--order", files["destroy"], status=2)["code"] == "agency_open"
    assert stores(keys_site).load(numbers[SAPPORO]).open("copy", b"row", mine) == b"value"

    chukan("agency", "close", SAPPORO, key=True)
    assert chukan("keys", "destroy", SAPPORO, "--order", files["destroy"])["keys"] == "destroyed"
    states = {(each["agency"], each["state"]) for each in chukan("keys", "status", status=1)}
    assert {(SAPPORO, "destroyed"), (BOARD, "confirmed")} <= states
    with pytest.raises(Exception, match="agency_closed"):
        stores(keys_site).load(numbers[SAPPORO])
    assert stores(keys_site).load(numbers[BOARD]).open("copy", b"row", theirs) == b"value"
    # The tables go under the same order.
    done = chukan(
        "agency", "destroy", SAPPORO, "--order", files["destroy"],
        "--admin-password-file", str(keys_site.folder / "admin"), key=True,
    )  # fmt: skip
    assert done["state"] == "destroyed"


@pytest.mark.requirement("SEC-01")
def test_tokens_are_shown_used_and_missed_by_their_names(keys_site: Any, tokens: Tokens, chukan: Command) -> None:
    add(keys_site, chukan)
    assert {each["state"] for each in chukan("keys", "tokens")} == {"works"}
    assert chukan("keys", "rotate", SAPPORO)[0]["version"] == 2
    tokens.take("west")
    states = {each["centre"]: each["state"] for each in chukan("keys", "tokens", status=1)}
    assert states == {"east": "works", "west": "the token is not there"}
    refused = chukan("keys", "rotate", SAPPORO, status=2)
    assert refused["expected"] == "the key store of west: the token is not there"
    tokens.give_back("west")
    tokens.set_pin("west", "wrong-24680")
    refused = chukan("keys", "rotate", SAPPORO, status=2)
    assert "the token refused the PIN" in refused["expected"]
    assert "24680" not in json.dumps(refused)


@pytest.mark.requirement("AUT-05")
def test_a_refused_command_stands_in_the_operators_log(keys_site: Any, chukan: Command) -> None:
    """Without an order nothing is destroyed; that somebody tried is there to read, and nothing of what he typed."""

    def commands() -> list[Any]:
        asyncio.run(place_operations(keys_site))
        pages = [chukan("operations", "list", cell) for cell in sorted(keys_site.settings.cells)]
        entries = [each["entry"] for page in pages for each in page]
        return [each for each in entries if each["kind"].startswith("command.")]

    add(keys_site, chukan)
    before = [each["id"] for each in commands()]
    assert chukan("keys", "destroy", SAPPORO, status=2)["code"] == "order_required"
    assert chukan("agency", "show", "no-such-agency", status=2)["code"] != "order_required"
    found = [each for each in commands() if each["id"] not in before]
    assert [(each["kind"], each["outcome"], each["code"], each["actor"]) for each in found] == [
        ("command.keys.destroy", "refused", "order_required", "operator:unknown")
    ]
    assert SAPPORO not in json.dumps(found)


async def place_operations(site: Any) -> None:
    """Give what waits its place, as an exchange does within a second."""
    async with open_installation(site.settings) as installation:
        for cell in installation.cells.names:
            await CellSets(installation.cells.primary(cell).broker).operations_sequence(200)
