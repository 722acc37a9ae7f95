"""A real site as an installation: what its table says is possible, by which commands, and who may be its clients."""

import json
import sys
from pathlib import Path
from typing import ClassVar, Self

import msgspec
import pytest

from chukan.clock import SystemClock
from chukan.errors import Problem
from chukan.ops.centres.layout import lab_site, site_file
from chukan.ops.centres.picture import Picture
from chukan.ops.centres.wires import Loopback
from chukan.ops.certificates import Authority
from chukan.ops.drills import site_stage, sites
from chukan.ops.drills.acts import ACTS, acts
from chukan.ops.drills.ports import Stage
from chukan.ops.drills.scenario import _BRINGS_BACK, find, read_all
from chukan.ops.drills.site_stage import SiteStage
from chukan.ops.drills.vocabulary import WHEN
from chukan.replication import site_drills
from chukan.replication.site import Site, Topology
from chukan.replication.site_drills import UNDONE_BY, Action, DrillClients, Drills
from chukan.replication.site_file import parse
from chukan.settings import Environment

pytestmark = pytest.mark.requirement("PLT-04")

HAND = """
import os, sys
folder, words = sys.argv[1], sys.argv[2:]
with open(folder + "/calls", "a") as file:
    file.write(" ".join(words) + "\\n")
if os.path.exists(folder + "/refuse " + words[0]):
    sys.exit("some noise\\nno right to do that")
"""
PROCESSES: list[Action] = ["kill", "stop", "start", "freeze", "thaw"]


def table(folder: Path, actions: list[Action] | None = None, *, allowed: bool = True) -> Drills:
    hand = [sys.executable, "-IS", "-c", HAND, str(folder), "{action}", "{process}", "{site}", "{address}", "{other}"]
    clients = DrillClients(connection=folder / "connection.json", people=300, seed=7)
    return Drills(allowed=allowed, hand=hand, actions=PROCESSES if actions is None else actions, clients=clients)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return lab_site(tmp_path, "2+2", Loopback(tmp_path))


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    return tmp_path / "broken.json"


@pytest.fixture(autouse=True)
def answering(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody runs at the sites of these tests: whatever is started answers."""
    monkeypatch.setattr(site_stage, "_answers", lambda _picture, _name: True)
    monkeypatch.setattr(site_stage, "Painter", _Silent)


class _Silent:
    def __init__(self, _site: Site) -> None:
        pass

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def paint(self) -> Picture:
        return Picture("x", "2+2", strict=True, cells=[], etcd={}, exchanges=[])


def stage(site: Site, notes: Path, drill: Drills | None = None) -> SiteStage:
    return SiteStage(site, drill or table(notes.parent), notes)


def calls(notes: Path) -> list[str]:
    path = notes.parent / "calls"
    return [" ".join(line.split()[:3]) for line in path.read_text("utf-8").splitlines()] if path.exists() else []


def noted(notes: Path) -> tuple[object, int]:
    return json.loads(notes.read_bytes()), notes.stat().st_mode & 0o777


# ---------------------------------------------------------------- what the hands are told


async def test_each_act_is_a_command_for_its_process_at_its_place(site: Site, notes: Path) -> None:
    made = stage(site, notes)
    await made.kill("postgres-e1")
    await made.freeze("patroni-ew1")
    await made.thaw("patroni-ew1")
    await made.stop("exchange-west")
    await made.start("exchange-west")
    assert calls(notes) == [
        "kill postgres-e1 east", "freeze patroni-ew1 west", "thaw patroni-ew1 west", "stop exchange-west west",
        "start exchange-west west",
    ]  # fmt: skip
    assert site.address("east-1") in (notes.parent / "calls").read_text("utf-8")
    assert await made.heal() == []


async def test_what_was_broken_by_one_who_is_gone_is_mended_by_the_next(site: Site, notes: Path) -> None:
    first = stage(site, notes)
    await first.freeze("patroni-e1")
    await first.kill("exchange-east")
    await first.kill("etcd-east")
    before = len(calls(notes))
    assert await stage(site, notes).heal() == []
    assert calls(notes)[before:] == ["thaw patroni-e1 east", "start etcd-east east", "start exchange-east east"]
    assert noted(notes) == ([], 0o600)


async def test_what_is_about_to_break_is_noted_even_when_the_hand_fails(site: Site, notes: Path) -> None:
    (notes.parent / "refuse freeze").touch()
    made = stage(site, notes)
    with pytest.raises(Problem) as told:
        await made.freeze("patroni-e1")
    assert (told.value.code, told.value.expected) == ("drill_hand_failed", "freeze patroni-e1: no right to do that")
    await made.heal()
    assert calls(notes)[-1] == "thaw patroni-e1 east"


async def test_what_cannot_be_mended_is_said_and_stays_noted(site: Site, notes: Path) -> None:
    made = stage(site, notes)
    await made.stop("exchange-east")
    (notes.parent / "refuse start").touch()
    assert await made.heal() == ["start exchange-east"]
    (notes.parent / "refuse start").unlink()
    assert await stage(site, notes).heal() == []


async def test_a_lost_centre_is_everything_in_it_and_comes_back_etcd_first(site: Site, notes: Path) -> None:
    made = stage(site, notes)
    await made.lose_centre("west")
    killed = {call.split()[1] for call in calls(notes)}
    assert killed == {
        "etcd-west", "exchange-west",
        *(f"{part}-{node}" for part in ("patroni", "postgres") for node in ("w1", "w2", "ew1", "ew2")),
    }  # fmt: skip
    before = len(calls(notes))
    await made.heal()
    back = calls(notes)[before:]
    assert back[0] == "start etcd-west west"
    assert len(back) == len(killed) - 4  # their Patronis start the servers


async def test_a_hand_that_hangs_has_its_time(site: Site, notes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(site_stage, "CALL_S", 0.3)
    hanging = msgspec.structs.replace(table(notes.parent), hand=["/bin/sleep", "30"])
    with pytest.raises(Problem) as told:
        await stage(site, notes, hanging).kill("etcd-east")
    assert told.value.expected == "kill etcd-east: not done within 0 s"
    missing = msgspec.structs.replace(table(notes.parent), hand=["/nowhere/at/all"])
    with pytest.raises(Problem) as told:
        await stage(site, notes, missing).kill("etcd-east")
    assert told.value.code == "drill_hand_failed"


# ---------------------------------------------------------------- what is possible


def refused(made: SiteStage) -> set[str]:
    return {name for name, one in read_all().items() if not all(made.does(act, target) for act, target in acts(one))}


def test_what_no_hand_does_is_not_possible(site: Site, notes: Path) -> None:
    elsewhere = {"centre-isolated", "interconnect-cut", "disk-full", "network-outage", "gateway-loss"}
    assert refused(stage(site, notes)) == elsewhere
    frozen = table(notes.parent, ["kill", "start"])
    assert refused(stage(site, notes, frozen)) == elsewhere | {
        "frozen-primary", "frozen-patroni", "sequencer-frozen", "exchange-drain", "rolling-restart",
    }  # fmt: skip
    # What cannot be mended is not broken.
    assert refused(stage(site, notes, table(notes.parent, ["kill", "freeze"]))) >= {"node-loss", "frozen-patroni"}
    cutting = msgspec.structs.replace(table(notes.parent), hands={"cut": ["x"], "mend": ["x"]})
    assert refused(stage(site, notes, cutting)) == elsewhere - {"interconnect-cut"}


def test_every_sentence_that_breaks_says_which_act_it_needs() -> None:
    needing = {sentence.verb for sentence in WHEN if sentence.needs not in {"", "namespaces", "small disks"}}
    assert set(_BRINGS_BACK) - needing <= set(ACTS)
    assert {act for of in ACTS.values() for act, _ in of} <= set(UNDONE_BY)
    assert {*UNDONE_BY, *UNDONE_BY.values()} <= {name for name in vars(Stage) if not name.startswith("_")}
    assert list(acts(find("exchange-drain"))) == [("stop", "exchange-east")]


def test_a_table_that_cannot_be_meant_is_refused(tmp_path: Path) -> None:
    wrong = msgspec.structs.replace(table(tmp_path), hand=[])
    assert [(each.code, each.pointer) for each in site_drills.check(wrong)] == [("setting_missing", "/drill/hand")]
    wrong = msgspec.structs.replace(table(tmp_path), hands={"cut": ["ip", "{centre}"]})
    assert [(each.code, each.pointer) for each in site_drills.check(wrong)] == [("setting_invalid", "/drill/hands/cut")]
    assert list(site_drills.check(table(tmp_path))) == []


# ---------------------------------------------------------------- on what, and as whom


def described(
    tmp_path: Path, environment: Environment, *, allowed: bool = True, agencies: str = "[]", topology: Topology = "2+1"
) -> Path:
    """Write a site file with its table and the clients' connection file; the site is in a sandbox, as its clients."""
    made = lab_site(tmp_path / "lab", topology, Loopback(tmp_path))
    authority = Authority.create(tmp_path / "pki", "drills", SystemClock(), environment)
    city = {"name": "x", "certificate": "c.pem", "key": "k.pem"}
    connection = {"ca": str(authority.trusted), "exchanges": [], "agencies": {"0110020000000001": city}}
    (tmp_path / "connection.json").write_bytes(msgspec.json.encode(connection))
    text = site_file(made).replace("drills = true", "drills = false")
    text += f"""
[drill]
allowed = {str(allowed).lower()}
hand = ["true"]
actions = ["kill", "start"]
[drill.clients]
connection = "connection.json"
agencies = {agencies}
people = 300
seed = 7
"""
    path = tmp_path / "site.toml"
    path.write_text(text, "utf-8")
    return path


async def problem(path: Path, store: Path) -> str:
    with pytest.raises(Problem) as told:
        async with sites.real_site(path, store):
            pass
    return told.value.code


async def test_clients_of_production_are_refused(tmp_path: Path) -> None:
    assert await problem(described(tmp_path, "production"), tmp_path) == "other_environment"


async def test_a_site_of_production_is_refused(tmp_path: Path) -> None:
    path = described(tmp_path, "sandbox", topology="2+2")
    tokens = "".join(
        f'[key_tokens.{centre}]\nmodule = "hsm.so"\ntoken = "{centre}"\npin_file = "pin"\n'
        for centre in ("east", "west")
    )
    text = path.read_text("utf-8").replace("sandbox = true", "sandbox = false")
    path.write_text(f"{text}\n{tokens}", "utf-8")
    assert await problem(path, tmp_path) == "other_environment"


async def test_a_site_without_the_table_and_an_agency_that_is_not_the_clients_are_refused(tmp_path: Path) -> None:
    path = described(tmp_path, "sandbox", agencies='["1310100000000001"]')
    assert await problem(path, tmp_path) == "unknown_agency"
    path.write_text(path.read_text("utf-8").partition("[drill]")[0], "utf-8")
    assert await problem(path, tmp_path) == "setting_missing"


@pytest.mark.parametrize("allowed", [True, False])
async def test_the_mark_is_the_tables_own(tmp_path: Path, allowed: bool, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: FBT001
    class Quiet(_Silent):
        patroni: ClassVar[dict[str, object]] = {}

    monkeypatch.setattr("chukan.ops.drills.lab.Painter", Quiet)
    monkeypatch.setattr("chukan.ops.drills.lab.make_cases", lambda *_: [])
    monkeypatch.setattr(sites, "enter", lambda _: None)
    path = described(tmp_path, "sandbox", allowed=allowed)
    assert await problem(path, tmp_path) == "file_unwritable"
    (tmp_path / "lab" / "operator").mkdir(parents=True)
    async with sites.real_site(path, tmp_path) as found:
        assert await problem(path, tmp_path / "another store") == "drill_running"
        assert (found.marked, found.topology) == (allowed, "2+1")
        assert (found.does("kill", "etcd-east"), found.does("freeze", "patroni")) == (True, False)
        assert not found.offers("namespaces")


def test_a_site_file_with_the_table_reads_back(tmp_path: Path) -> None:
    path = described(tmp_path, "sandbox")
    found = parse(path.read_text("utf-8"), tmp_path)
    assert found.drill is not None
    assert found.drill.clients.connection == tmp_path / "connection.json"
    assert found.drill.does("kill")
    assert not found.drill.does("freeze")
