"""Exchanges go by the version of the master data that the common data names, from its instant on, and by no other."""

import asyncio
import datetime as dt
from pathlib import Path
from typing import Any

import pytest

from chukan.clock import JST
from chukan.errors import Problem
from chukan.ops.certificates import Authority, Issued, read_certificates, read_identity
from chukan.ops.sandbox.endpoints import pause
from chukan.platform.law.masters import complete
from chukan.tenants import births, masters, publishing
from chukan.tenants.changes import Changes
from chukan.tenants.masters import Content, Master
from chukan.tests.support.nation import ASKS, GIVES, PROCEDURE, TAX, WAIT_S, World

pytestmark = pytest.mark.requirement("SEC-02")

CLOSED = """
[[function]]
name = "online"
outside = "queue"
hours = [{ days = ["mon", "tue", "wed", "thu", "fri", "sat", "sun", "holiday"], open = "OPEN", close = "CLOSE" }]
"""


class Publishing:
    """Signs versions as two persons do, and has the nation's common data name them."""

    def __init__(self, world: World, folder: Path) -> None:
        self.world = world
        environment = world.sites["east"].settings.site.environment
        authority = Authority.create(folder / "pki", "Example", world.clock, environment)
        for site in world.sites.values():
            ca_file = site.settings.exchange.tls_ca_file
            root = (authority.folder / "ca.pem").read_bytes()
            if root not in ca_file.read_bytes():
                ca_file.write_bytes(ca_file.read_bytes() + root)
        self.environment = environment
        self.people = []
        for name in ("operator.aoki", "operator.baba"):
            authority.issue_client(name)
            at = authority.folder / "clients" / name
            issued = Issued(at / "certificate.pem", at / "key.pem")
            self.people.append((read_certificates(issued.certificate), read_identity(issued).key))

    def version(self, number: int, files: dict[str, str]) -> Master:
        now = self.world.clock.now()
        body = masters.pack(
            Content(
                version=number,
                base=0,
                environment=self.environment,
                note="改正",
                effective_at=now,
                files=complete(files, None),
            )
        )
        digest = masters.digest_of(body)
        first, second = (
            masters.sign(act, digest, *who, now) for act, who in zip(("propose", "approve"), self.people, strict=True)
        )
        return Master(digest, number, body, first, second)

    async def put(self, cell: str, master: Master) -> None:
        admin = await self.world.admin(self.world.databases[cell])
        sql = "SELECT chukan.master_put($1, $2, $3, $4, $5)"
        await admin.fetch(sql, master.digest, master.version, master.body, master.proposal, master.approval)
        await admin.close()

    async def name(self, master: Master, at: dt.datetime | None = None) -> None:
        change = Changes().set_law(masters.name_in_force(master.version, master.digest))
        current = self.world.east.directory.snapshot
        snapshot = change.apply(current, self.world.clock.now())
        signed = publishing.directory.sign(snapshot, self.world.signing["directory"][2])
        row = births.PlannedSnapshot(snapshot.number, signed.body, signed.signature, signed.key, at)
        for database in self.world.databases.values():
            admin = await self.world.admin(database)
            await births.plan_snapshots(admin, [row], [])
            await admin.close()

    async def refresh(self) -> None:
        for site in self.world.sites.values():
            await site.exchange.common.refresh()

    async def everywhere(self, master: Master, at: dt.datetime | None = None) -> None:
        for cell in self.world.databases:
            await self.put(cell, master)
        await self.name(master, at)
        await self.refresh()


@pytest.fixture
def versions(nation: World, tmp_path: Path) -> Publishing:
    return Publishing(nation, tmp_path)


def without_the_items() -> dict[str, str]:
    """A version by which this procedure may receive nothing of the kind."""
    text = complete({}, None)["allowed_items.csv"]
    kept = [line for line in text.splitlines() if not (PROCEDURE in line and TAX in line)]
    assert len(kept) < len(text.splitlines())
    return {"allowed_items.csv": "\n".join(kept) + "\n"}


async def test_both_exchanges_change_over_at_the_instant(nation: World, versions: Publishing) -> None:
    addressee = await nation.person(ASKS, GIVES)
    before = await nation.ask(ASKS, [nation.line(addressee, GIVES)])
    assert (await nation.answered(ASKS, before)).lines[0].outcome == "provided"
    began = nation.clock.monotonic()
    master = versions.version(1, without_the_items())
    await versions.everywhere(master, nation.clock.now() + dt.timedelta(seconds=4))
    held = {site.exchange.context.masters.of(site.exchange.directory).version for site in nation.sites.values()}
    assert held == {0}
    async with asyncio.timeout(WAIT_S):
        while {e.context.masters.of(e.directory).version for e in (nation.east, nation.west)} != {1}:
            await pause(0.02, asyncio.Event())
    assert nation.clock.monotonic() - began >= 4.0
    after = await nation.ask(ASKS, [nation.line(addressee, GIVES)])
    assert (await nation.answered(ASKS, after)).lines[0].outcome == "not_permitted"


async def test_the_provider_judges_what_was_asked_before_by_the_version_in_force(
    nation: World, versions: Publishing, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The line was accepted by the old list; what would leave is judged by the new one (invariant 4)."""
    addressee = await nation.person(ASKS, GIVES)
    for worker in (nation.east, nation.west):
        monkeypatch.setattr(worker.peer, "permit_requests", _no_network)
    asked = await nation.ask(ASKS, [nation.line(addressee, GIVES)])
    await versions.everywhere(versions.version(1, without_the_items()))
    monkeypatch.undo()
    assert (await nation.answered(ASKS, asked)).lines[0].outcome in ("not_permitted", "refused")


async def _no_network(_bodies: Any) -> list[Any]:
    raise Problem("network_unavailable")


async def test_without_the_version_that_is_named_nothing_is_accepted_or_provided(
    nation: World, versions: Publishing
) -> None:
    addressee = await nation.person(ASKS, GIVES)
    master = versions.version(1, {})
    await versions.name(master)
    await versions.refresh()
    assert nation.east.common.age_s() == float("inf")
    with pytest.raises(Problem, match="common_data_stale"):
        await nation.ask(ASKS, [nation.line(addressee, GIVES)])
    for cell in nation.databases:
        await versions.put(cell, master)
    await versions.refresh()
    assert nation.east.common.age_s() < 10
    asked = await nation.ask(ASKS, [nation.line(addressee, GIVES)])
    assert (await nation.answered(ASKS, asked)).lines[0].outcome == "provided"


async def test_a_version_that_one_person_signed_is_gone_by_nowhere(nation: World, versions: Publishing) -> None:
    """Whoever has the key of the common data and the cells' logins, alone, changes no law."""
    master = versions.version(1, without_the_items())
    await versions.everywhere(master._replace(approval=None))
    with pytest.raises(Problem, match="common_data_stale"):
        _ = nation.east.context.law
    for cell in nation.databases:
        await versions.put(cell, master)
    await versions.refresh()
    assert nation.east.context.masters.of(nation.east.directory).version == 1


@pytest.mark.requirement("OPS-01")
async def test_what_comes_outside_the_hours_waits_for_them(nation: World, versions: Publishing) -> None:
    addressee = await nation.person(ASKS, GIVES)
    opens = nation.clock.now().astimezone(JST) + dt.timedelta(hours=2)
    closes = opens + dt.timedelta(minutes=1)
    if closes.date() != opens.date():
        opens, closes = opens - dt.timedelta(hours=1), closes - dt.timedelta(hours=1)
    calendar = CLOSED.replace("OPEN", f"{opens:%H:%M}").replace("CLOSE", f"{closes:%H:%M}")
    await versions.everywhere(versions.version(1, {"calendar.toml": calendar}))
    asked = await nation.ask(ASKS, [nation.line(addressee, GIVES)])
    (line,) = (await nation.east.inquiries.wait(nation.agency(ASKS), asked.batch, 2.0)).lines
    assert line.state == "accepted"
    reopens = nation.east.context.calendar.standing("online", nation.clock.now()).reopens
    admin = await nation.admin(nation.databases[nation.agency(ASKS).cell])
    row = await admin.fetchrow("SELECT due, deadline FROM chukan.inquiry_work WHERE batch = $1", asked.batch)
    assert row["due"] == reopens
    assert row["deadline"] > reopens
    await admin.execute("UPDATE chukan.inquiry_work SET due = now() WHERE batch = $1", asked.batch)
    await admin.close()
    assert (await nation.answered(ASKS, asked)).lines[0].outcome == "provided"
    view = nation.east.notices.calendar(nation.agency(ASKS))
    assert (view.version, [each.open for each in view.standings]) == (1, [False, True])
