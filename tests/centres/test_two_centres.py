"""A real lab of 2+1: six PostgreSQL under Patroni, three etcd, two exchanges; and what is left of it when it breaks."""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from chukan.clock import SystemClock
from chukan.ops import certificate_life, patroni_settings
from chukan.ops.centres.picture import CellPicture, Painter, Picture
from chukan.ops.centres.pki import hand_out
from chukan.ops.certificates import Authority, Issued, read_certificates
from chukan.ops.demo import cast
from chukan.ops.demo.bring_up import EXCHANGES
from chukan.platform.wire.agency import Queries
from chukan.replication.etcd import Etcd
from chukan.replication.primary import member_context
from chukan.tests.centres.asking import Journal, ask_while, client, look_again
from chukan.tests.centres.conftest import StandingLab

SETTLED_S = 90.0
BEFORE = 20
AFTER = 20
OUTAGE_MAX_S = 20.0
"""Far above what the drills demand on a quiet machine (5 s), far below the end of a lease (20 s) and an election."""
ANSWERED = {"provided", "provided_with_gaps", "no_record"}


def cell_of(picture: Picture, name: str) -> CellPicture:
    return next(cell for cell in picture.cells if cell.name == name)


async def under_load(lab: StandingLab, breaks: Callable[[], Awaitable[object]], moved: str) -> tuple[Journal, float]:
    """Do something while clients ask; returns their journal and their longest time without an answer at ``moved``."""
    journal, done = Journal(), asyncio.Event()
    asking = asyncio.ensure_future(ask_while(lab.running, lab.planned, journal, done))
    before = cell_of(await lab.stage.picture(), moved).leader
    async with asyncio.timeout(SETTLED_S):
        await journal.more(BEFORE, moved)
    begun = time.monotonic()
    await breaks()
    async with asyncio.timeout(SETTLED_S):
        while cell_of(await lab.stage.picture(), moved).leader in {None, before}:
            await journal.more(1)
        await journal.more(AFTER, moved)
    done.set()
    await asking
    gap_s = journal.gap_s(moved, begun, time.monotonic())
    await lab.stage.settled(SETTLED_S)
    return journal, gap_s


def judge(lab: StandingLab, journal: Journal, gap_s: float) -> None:
    assert journal.told, journal.failed
    outcomes = lab.run(look_again(lab.running, journal))
    assert set(outcomes) <= ANSWERED, outcomes
    assert outcomes.total() == len(journal.told)
    assert gap_s < OUTAGE_MAX_S


@pytest.mark.requirement("PLT-01")
def test_everything_stands_as_the_site_says(lab: StandingLab) -> None:
    picture = lab.run(lab.stage.picture())
    assert picture.complaints() == []
    assert [(cell.name, cell.leader, cell.leader_centre) for cell in picture.cells] == [
        ("east", "e1", "east"),
        ("west", "w1", "west"),
    ]
    assert [set(cell.sync) for cell in picture.cells] == [{"e2", "ew1"}, {"w2", "we1"}]
    assert set(picture.etcd.values()) == {True}
    assert {name.partition("-")[0] for name in lab.stage.pids()} == {
        "etcd", "patroni", "postgres", "exchange", "network", "counterparts",
    }  # fmt: skip


def test_settings_that_patroni_keeps_otherwise_are_found_and_set(lab: StandingLab) -> None:
    site = lab.running.site
    assert lab.run(patroni_settings.look(site)) == []

    async def change() -> None:
        async with Painter(site) as painter:
            await painter.patroni["west"].patch_config({"postgresql": {"parameters": {"wal_keep_size": "64MB"}}})

    lab.run(change())
    changed = ("west", "postgresql.parameters.wal_keep_size", "128MB", "64MB")
    assert lab.run(patroni_settings.look(site)) == [changed]
    lab.run(patroni_settings.put(site, "west"))
    assert lab.run(patroni_settings.look(site)) == []


@pytest.mark.requirement("PLT-01")
@pytest.mark.parametrize("exchange", EXCHANGES)
@pytest.mark.parametrize("home", ["east", "west"])
def test_either_exchange_serves_the_agencies_of_both_halves(lab: StandingLab, exchange: str, home: str) -> None:
    query = next(query for query in lab.planned if cast.home(query.inquirer) == home)

    async def ask() -> str | None:
        async with client(lab.running, query.inquirer, exchange) as one:
            batch = await one.query(Queries(lines=[query.line]), wait_s=10)
            return batch.lines[0].outcome

    assert lab.run(ask()) in ANSWERED


async def answered(lab: StandingLab, issued: Issued, trusted: Path) -> tuple[bool, bool]:
    """Tell whether Patroni's REST API and etcd in the east answer the holder of a certificate."""
    context, site = member_context(trusted, *issued), lab.running.site
    _, node = next((cell, node) for cell, node in site.nodes() if site.where(node.host) == "east")
    member = next(each for each in site.etcd.members if site.where(each.host) == "east")
    said = b""
    with contextlib.suppress(OSError):
        async with asyncio.timeout(SETTLED_S):
            reader, writer = await asyncio.open_connection(site.address(node.host), node.rest_port, ssl=context)
            writer.write(b"GET /liveness HTTP/1.0\r\n\r\n")
            said = await reader.read()
            writer.close()
    etcd = Etcd([f"https://{site.address(member.host)}:{site.etcd.client_port}"], context)
    try:
        return said.startswith(b"HTTP/1.0 200"), all((await etcd.health()).values())
    finally:
        await etcd.close()


@pytest.mark.requirement("CON-01")
def test_a_stolen_certificate_opens_neither_patroni_nor_etcd_once_the_days_lists_are_there(
    lab: StandingLab, tmp_path: Path
) -> None:
    site = lab.running.site
    places = (*site.centres, site.witness.name)
    authorities = {name: Authority(site.directory(name) / "pki", SystemClock()) for name in places}
    issued = authorities["west"].issue_peer("stolen", tmp_path / "stolen")
    trusted = site.directory("west") / "pki" / "sites.pem"
    assert lab.run(answered(lab, issued, trusted)) == (True, True)
    serial = read_certificates(issued.certificate)[0].serial_number
    certificate_life.revoke(authorities["west"], [f"{serial:x}"], "keyCompromise")
    hand_out(site, authorities, SystemClock())
    assert lab.run(answered(lab, issued, trusted)) == (False, False)
    assert lab.run(lab.stage.picture()).complaints() == []


@pytest.mark.requirement("PLT-02")
def test_a_planned_switchover_loses_nothing(lab: StandingLab) -> None:
    async def switch() -> str:
        async with Painter(lab.running.site) as painter:
            return await painter.patroni["west"].switchover("w1", "we1")

    journal, gap_s = lab.run(under_load(lab, switch, "west"))
    judge(lab, journal, gap_s)
    assert cell_of(lab.run(lab.stage.picture()), "west").leader == "we1"


@pytest.mark.requirement("PLT-02", "PLT-03")
def test_a_killed_primary_loses_nothing(lab: StandingLab) -> None:
    before = cell_of(lab.run(lab.stage.picture()), "east")
    journal, gap_s = lab.run(under_load(lab, lambda: lab.stage.kill(f"postgres-{before.leader}"), "east"))
    judge(lab, journal, gap_s)
    after = cell_of(lab.run(lab.stage.picture()), "east")
    assert after.timeline is not None
    assert before.timeline is not None
    assert after.timeline > before.timeline


def test_the_picture_names_what_is_down_and_healing_brings_it_back(lab: StandingLab) -> None:
    async def down() -> list[str]:
        await lab.stage.kill("etcd-witness")
        await lab.stage.kill("patroni-e2")
        return (await lab.stage.picture()).complaints()

    complaints = lab.run(down())
    assert any("etcd-witness" in complaint for complaint in complaints)
    assert any("e2 is silent" in complaint for complaint in complaints)
    assert lab.run(lab.stage.heal()) == []
    lab.run(lab.stage.settled(SETTLED_S))
