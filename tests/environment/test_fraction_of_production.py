"""A test environment of 1/N is planned from production's settings, brought up, and carries a load of 1/N."""

import asyncio
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from chukan import settings
from chukan.errors import Problem
from chukan.ops import cli
from chukan.ops.demo.model import derive, read_model
from chukan.ops.demo.place import Place
from chukan.ops.environment import databases_of
from chukan.platform.admission import Limits

N = 4
POPULATION, QUERIES = 1600, 600
TIMEOUT_S = 180

pytestmark = pytest.mark.requirement("TST-01")


@pytest.fixture
def production(tmp_path: Path) -> Path:
    """Settings of a production exchange; no file that they name is there to be read."""
    path = tmp_path / "production.toml"
    cells = "".join(
        f"""
[cells.{name}]
host = "{name}.example"
port = 5432
broker_password_file = "secret"
app_password_file = "secret"
broker_connections = {connections}
app_connections = 6
"""
        for name, connections in (("east", 8), ("west", 5))
    )
    path.write_text(f"""
[site]
centre = "east"
{cells}
[exchange]
name = "exchange-east"
in_flight_max = 254
tls_certificate_file = "secret"
tls_key_file = "secret"
tls_ca_file = "secret"
signing_key_file = "secret"
directory_key_file = "secret"
[network]
url = "https://network.example"
ca_file = "secret"
verify_key_file = "secret"
[keystores]
east = "keys"
""")
    return path


@pytest.fixture
def planned(production: Path, tmp_path: Path) -> Iterator[Path]:
    """A test environment as the command made it; its databases are removed at the end."""
    to = tmp_path / "sandbox"
    words = ["environment", "plan", "--production", str(production), "--fraction", f"1/{N}", "--to", str(to)]
    assert cli.run([*words, "--population", str(POPULATION), "--queries", str(QUERIES), "--json"]) == 0
    yield to
    shutil.rmtree(databases_of(to), ignore_errors=True)


def test_the_numbers_are_divided_and_never_less_than_one(production: Path) -> None:
    read = settings.load(production, {})
    model = derive(read, N, population=POPULATION, queries=QUERIES)
    assert (model.fraction, model.people, model.queries) == (4, 400, 150)
    assert (model.in_flight_max, model.broker_connections, model.app_connections) == (64, 2, 2)
    tiny = derive(read, 1000, population=400_000, queries=100_000)
    assert (tiny.in_flight_max, tiny.broker_connections, tiny.app_connections) == (1, 1, 1)


@pytest.mark.parametrize(("population", "queries", "pointer"), [(399, 100, "population"), (400, 99, "queries")])
def test_too_little_to_rehearse_with_is_told(production: Path, population: int, queries: int, pointer: str) -> None:
    with pytest.raises(Problem) as raised:
        derive(settings.load(production, {}), 1, population=population, queries=queries)
    assert (raised.value.code, raised.value.pointer) == ("setting_invalid", f"/{pointer}")


def test_a_sandbox_is_nobodys_production(production: Path) -> None:
    with pytest.raises(Problem, match="setting_forbidden"):
        derive(settings.load(production, {"CHUKAN__SITE__SANDBOX": "1"}), N, population=POPULATION, queries=QUERIES)


def test_what_an_agency_may_use_is_divided_too() -> None:
    whole = Limits(in_flight_max=64)
    part = whole.divided_by(N)
    assert [share.at_once for share in part.shares] == [16, 4, 2]
    assert [share.lines_per_s for share in part.shares] == [share.lines_per_s / N for share in whole.shares]
    assert (part.queue_max, part.parked_max, part.parked_per_agency) == (128, 1024, 32)
    assert (part.in_flight_max, part.queue_wait_s) == (whole.in_flight_max, whole.queue_wait_s)
    assert {share.at_once for share in whole.divided_by(10**6).shares} == {1}
    assert whole.divided_by(1) == whole


@pytest.mark.parametrize("fraction", ["1/0", "4", "2/4", "1/4 ", "1/-4"])
def test_a_fraction_is_one_over_something(production: Path, tmp_path: Path, fraction: str, capsys: Any) -> None:
    words = [
        "environment",
        "plan",
        "--production",
        str(production),
        f"--fraction={fraction}",
        "--to",
        str(tmp_path / "s"),
    ]
    assert cli.run([*words, "--population", str(POPULATION), "--queries", str(QUERIES), "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["pointer"] == "/fraction"
    assert not (tmp_path / "s").exists()


def test_a_plan_has_keys_and_lists_of_its_own_and_overwrites_nothing(
    planned: Path, production: Path, capsys: Any
) -> None:
    place = Place(planned)
    assert read_model(place) == derive(settings.load(production, {}), N, population=POPULATION, queries=QUERIES)
    assert (place.law / "lists.toml").exists()
    assert (place.pki / "ca.pem").exists()
    assert (place.signing / "directory.pem").exists()
    assert not any("secret" in path.name for path in planned.rglob("*"))
    words = ["environment", "plan", "--production", str(production), "--fraction", "1/4", "--to", str(planned)]
    capsys.readouterr()
    assert cli.run([*words, "--population", str(POPULATION), "--queries", str(QUERIES), "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["code"] == "file_exists"


def test_a_place_without_a_plan_is_told(tmp_path: Path, capsys: Any) -> None:
    assert cli.run(["environment", "run", "--at", str(tmp_path), "--once", "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["code"] == "settings_unreadable"


async def test_the_scaled_load_runs_and_production_has_no_way_in(planned: Path) -> None:
    result = await _chukan("environment", "run", "--at", str(planned), "--once", "--json")
    assert result.returncode == 0, result.stderr[-3000:]
    told = json.loads(result.stdout.splitlines()[-1])
    assert told["queries"] >= QUERIES / N * 0.9
    assert told["copies"] > POPULATION / N
    assert told["differences"] == {}
    assert told["records_reconciled"] == told["records_network"] > 0

    place = Place(planned)
    for name in ("exchange-east", "exchange-west"):
        read = settings.load(place.config / f"{name}.toml", {})
        assert (read.site.environment, read.site.fraction) == ("sandbox", N)
        assert {(cell.broker_connections, cell.app_connections) for cell in read.cells.values()} == {(2, 2)}
        assert read.exchange.in_flight_max == 64
        assert read.data.law_directory == place.law
        assert planned in read.exchange.tls_ca_file.parents
    # An exchange and an operator's command that take themselves for production's find a root of another environment.
    production = {
        "CHUKAN__SITE__SANDBOX": "false", "CHUKAN__SITE__FRACTION": "1", "CHUKAN__SITE__ADDRESS_CHECK": "true",
    }  # fmt: skip
    for words, config in ((("exchange",), "exchange-east"), (("agency", "list"), "operator")):
        refused = await _chukan(*words, "--config", str(place.config / f"{config}.toml"), **production)
        assert (refused.returncode, "other_environment" in refused.stderr) == (2, True), refused.stderr


async def _chukan(*words: str, **overlay: str) -> "subprocess.CompletedProcess[str]":
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("CHUKAN", "PYTEST"))}
    return await asyncio.to_thread(
        subprocess.run, [sys.executable, "-m", "chukan.ops.cli", *words], env={**environment, **overlay},
        capture_output=True, text=True, timeout=TIMEOUT_S, check=False,
    )  # fmt: skip
