"""A small running set, through the main flow and around it, with planted values of every kind: the search finds none.

Then each value is planted where it must not be, in a table, a log, a compressed backup and the name of a file, and the
same search finds each one there.
"""

import gzip
import uuid
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import generate_latest

from chukan.clock import ManualClock
from chukan.ops.leaks import running
from chukan.ops.leaks.needles import Needles
from chukan.ops.leaks.search import Search
from chukan.platform.wire.acquisition_asks import PersonFacts
from chukan.tenants import copies, incidents
from chukan.tenants.copies import Copy
from chukan.tenants.incidents import Facts
from chukan.tenants.notices import Notice, put
from chukan.tests.exchange.test_separation import dump, linkage_codes, one_of_each
from chukan.tests.officers.conftest import BEGIN, PASSWORD, Office, add, grant
from chukan.tests.support.nation import ASKS, GIVES, GIVES_WEST, LAW, TAX

NAME, AMOUNT, RESIDENT = "漏洩試験花子", "7391465082", "99000777770"
ADDRESSEE, DEPARTMENT, OFFICER = "739146508273916", "漏洩試験給付課", "漏洩試験職員太郎"
UNKNOWN_NAME, UNKNOWN_ADDRESS = "漏洩試験次郎", "漏洩試験県漏洩試験市一丁目"


class Staff(Office):
    """Officers of an agency of the nation."""

    nation: Any = None

    def door(self, agency: Any) -> Any:
        return self.nation.east.door(agency)


async def officers(nation: Any) -> list[str | bytes]:
    """Have two administrators take on an officer, who signs in; returns what is secret of it."""
    agency = nation.agency(ASKS)
    Staff.nation = nation
    staff = Staff(agency, nation.keys(ASKS), nation.sites["east"].cells, None, ManualClock(BEGIN))
    admins = await staff.administrators()
    codes = await staff.decide(
        add("k-leak", name=OFFICER, department=DEPARTMENT), grant("k-leak", "queries"), by=admins
    )
    await staff.enrol("k-leak", codes["k-leak"])
    signed_in = await staff.sign_in("k-leak")
    return [PASSWORD, signed_in.session, *codes["k-leak"], OFFICER]


async def main_flow(nation: Any) -> None:
    """A named person is lodged, asked for, answered and collected; others are held, refused, unknown."""
    for code in (ASKS, GIVES_WEST):
        await nation.acquire(code, [(ADDRESSEE, RESIDENT)])
    layout = LAW.layouts_in_force(TAX, nation.clock.now().date())[-1]
    named = b",".join(b'"%s":"%s"' % (item.encode(), (AMOUNT if n else NAME).encode())
                      for n, item in enumerate(sorted(layout.items)))  # fmt: skip
    copy = Copy(ADDRESSEE, TAX, layout.version, nation.clock.now().date(), "2026", b"{" + named + b"}")
    provider = nation.agency(GIVES_WEST)
    async with nation.west.door(provider) as partition:
        await copies.register(partition, nation.keys(GIVES_WEST), [copy], source="scan", at=nation.clock.now())
    batch = await nation.ask(ASKS, [nation.line(ADDRESSEE, GIVES_WEST, department=DEPARTMENT)])
    done = await nation.answered(ASKS, batch)
    assert [line.outcome for line in done.lines] == ["provided"]
    assert NAME in repr(await nation.west.inquiries.collect(nation.agency(ASKS), batch.batch))
    await one_of_each(nation, ASKS, GIVES)


async def no_code(nation: Any) -> None:
    """The provider is asked to acquire a code, with the four facts of a person."""
    addressee = f"{next(nation.tokens):015d}"
    await nation.acquire(ASKS, [(addressee, "99000000770")])
    done = await nation.answered(ASKS, await nation.ask(ASKS, [nation.line(addressee, GIVES_WEST)]))
    assert [line.reason for line in done.lines] == ["provider_has_no_code"]
    facts = PersonFacts(name=UNKNOWN_NAME, birth_date=BEGIN.date(), sex="male", address=UNKNOWN_ADDRESS)
    desk, agency = nation.east.acquisition_asks, nation.agency(ASKS)
    await desk.request(agency, nation.caller(ASKS), done.lines[0].id, facts)

    async def arrived() -> str:
        return str(len((await nation.west.acquisition_asks.list(nation.agency(GIVES_WEST))).requests))

    await nation.until(arrived, "1")


async def operators(nation: Any) -> None:
    """An incident is opened and counted, a notice published: by people who can read nothing."""
    cells, now = nation.sites["east"].cells, nation.clock.now()
    facts = Facts(title="外部からの不正な接続", known_at=now)
    await incidents.enter(cells, "east", uuid.uuid4(), "open", "operator-1", facts)
    number = nation.agency(ASKS).number
    count = await incidents.count_affected(cells, "east", number, BEGIN.replace(year=2026), BEGIN.replace(year=2028))
    assert count.records >= 2
    await put(cells, "east", uuid.uuid4(), now, Notice("general", "計画停止", "夜間に停止します。", "operator-1"))


async def live(nation: Any) -> dict[int, str | bytes]:
    """Let everything happen; returns what must be readable nowhere."""
    await main_flow(nation)
    await no_code(nation)
    secrets = [NAME, AMOUNT, RESIDENT, ADDRESSEE, DEPARTMENT, UNKNOWN_NAME, UNKNOWN_ADDRESS, *await officers(nation)]
    await operators(nation)
    store = nation.keystores.stores["east"]
    keys = [held.secret for row in nation.snapshot.agencies for held in store.read(row.number).values()]
    await nation.sequenced()
    return dict(enumerate([*secrets, *linkage_codes(nation), *keys], 1))


async def everywhere(nation: Any, values: dict[int, str | bytes], written: str, backups: Path) -> Search:
    """Search a running set as ``chukan scan leaks`` does."""
    search = Search(Needles(values))
    for name, database in nation.databases.items():
        admin = await nation.admin(database)
        await running.cell(search, name, admin)
        await admin.close()
    search.folder("log", nation.server.log_file)
    search.folder("backup", backups)
    for centre in ("east", "west"):
        search.folder("key store", nation.folder / f"keys-{centre}")
    search.bytes_in("log", "the exchanges' log", written.encode())
    for name, site in nation.sites.items():
        search.bytes_in("page", f"metrics of {name}", generate_latest(site.metrics.registry))
    return search


@pytest.mark.requirement("TEN-02", "SEC-01")
async def test_no_planted_value_is_found_in_a_running_set_and_each_where_it_is_planted(
    nation: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    values = await live(nation)
    backups = tmp_path / "backups"
    backups.mkdir()
    for name, database in nation.databases.items():
        (backups / f"{name}.gz").write_bytes(gzip.compress(dump(nation, database), 1))
    written = "".join(capfd.readouterr())
    assert "a cell's opening" in written

    search = await everywhere(nation, values, written, backups)
    assert [(hit.sort, hit.place, hit.line, hit.form) for hit in search.hits] == []
    assert search.clean, search.unread
    searched = search.searched
    assert set(searched) == {"table", "data directory and WAL", "log", "backup", "key store", "page"}
    assert searched["table"].places > 2 * 60
    assert all(each.read > 1_000 for each in searched.values())

    admin = await nation.admin(nation.databases["west"])
    await admin.execute("CREATE TABLE public.forgotten (a text, b bytea)")
    for value in values.values():
        shown = value.hex() if isinstance(value, bytes) else value
        raw = value if isinstance(value, bytes) else value.encode("utf-16-le")
        await admin.execute("INSERT INTO public.forgotten VALUES ($1, $2)", shown, raw)
        await admin.execute(f"DO $$ BEGIN RAISE LOG '%', '{shown}'; END $$")
    await admin.close()
    lines = "\n".join(value.hex() if isinstance(value, bytes) else value for value in values.values())
    (backups / "unsealed.gz").write_bytes(gzip.compress(lines.encode()))
    (backups / f"export-{ADDRESSEE}").write_bytes(b"")

    search = await everywhere(nation, values, written + lines, backups)
    for sort in ("table", "data directory and WAL", "log", "backup"):
        assert {hit.line for hit in search.hits if hit.sort == sort} == set(values), sort
    assert any("the name of a file" in hit.place for hit in search.hits)
    told = repr(search.hits)
    assert not any(value in told for value in values.values() if isinstance(value, str))
