"""National agencies outside the platform: a whole exchange between two of them over real sockets, and its records."""

import asyncio
import datetime as dt
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

from chukan.clock import ManualClock
from chukan.ops.sandbox import koseki, people
from chukan.ops.sandbox.admin import PiaEntry, PiaFlags
from chukan.ops.sandbox.config import AgencyConfig, CounterpartConfig, CounterpartsConfig, PeerConfig, RouteConfig
from chukan.ops.sandbox.counterpart import Counterpart, Question
from chukan.ops.sandbox.counterpart_store import View
from chukan.ops.sandbox.counterparts import AskedIds, AskedViews, Counterparts, RecordPage
from chukan.ops.sandbox.endpoints import pause
from chukan.platform.law import Decision, Law
from chukan.platform.permits import sign_list
from chukan.platform.wire.agency import AnswerContent, Record
from chukan.platform.wire.network import Condition, Notice, ProviderPermit

from .conftest import AFFAIR, NATION, PROCEDURE, TestLaw, World, free_port

PROVIDER = "9909000000000007"
KIND = "TM00000000000089"
BODY = "012025"
SEED = 11
PEOPLE = 12


class Permissive(Law):
    """The real law's data, with a list that lets the two counterparts exchange one kind under one procedure."""

    def decide(self, **named: Any) -> Decision:
        named["day"] = dt.date(2026, 11, 23)
        return TestLaw().decide(**named)

    def allowed_items(self, procedure: str, kind: str, day: dt.date) -> frozenset[str]:
        if procedure != PROCEDURE:
            return frozenset()
        return frozenset(["TKX0020000000001", "TKX0020000000040", *self.items_of_account(day)])

    def items_of_account(self, day: dt.date) -> list[str]:
        return sorted(code for layout in self.layouts_in_force(KIND, day) for code in layout.items)


@pytest.fixture(scope="module")
def law() -> Law:
    return Permissive.load()


class Scene:
    """The network and both counterparts."""

    def __init__(self, world: World, counterparts: Counterparts) -> None:
        self.world = world
        self.counterparts = counterparts
        self.people = list(people.generate(BODY, PEOPLE, SEED))

    @property
    def asks(self) -> Counterpart:
        return self.counterparts.agencies[NATION]

    @property
    def gives(self) -> Counterpart:
        return self.counterparts.agencies[PROVIDER]

    def person(self, place: int) -> str:
        return people.addressee_number(self.people[place], NATION)

    def question(self, place: int = 0, **changes: Any) -> Question:
        base = Question(
            person=self.person(place), provider=PROVIDER, affair=AFFAIR, procedure=PROCEDURE, kind=KIND,
            condition=Condition(),
        )  # fmt: skip
        return msgspec.structs.replace(base, **changes)

    async def until(self, ready: Any, timeout_s: float = 40.0) -> None:
        async with asyncio.timeout(timeout_s):
            while not await ready():
                await pause(0.02, asyncio.Event())

    async def settled(self, *ids: Any) -> list[View]:
        async def closed() -> bool:
            return all(view.outcome is not None for view in await self.asks.views(ids))

        await self.until(closed)
        return await self.asks.views(ids)


def _one(world: World, name: str, agency: str, **more: Any) -> CounterpartConfig:
    return CounterpartConfig(
        name=name, agency=agency, port=world.ports.setdefault(name, free_port()), tls=world.keys.tls(name),
        signing_key_file=world.keys.signing(name), people_body=BODY, people_count=PEOPLE, **more,
    )  # fmt: skip


@pytest.fixture
async def scene(tmp_path: Path, clock: ManualClock, law: Law, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Scene]:
    # One of the two acquires as the Minister of Justice does, so that both ways are gone.
    monkeypatch.setattr(koseki, "MINISTER", NATION)
    world = World(tmp_path, clock)
    world.keys.signing("accounts")
    world.ports["accounts"] = free_port()
    world.config.peers["accounts"] = PeerConfig(verify_key_file=world.keys.verify("accounts"), route="accounts")
    world.config.routes["accounts"] = RouteConfig(endpoints=[f"https://127.0.0.1:{world.ports['accounts']}"])
    world.config.agencies[PROVIDER] = AgencyConfig(name="口座", route="accounts")
    await world.start()
    world.network._core._on = world.network._core._on._replace(law=law)
    config = CounterpartsConfig(
        state_directory=tmp_path / "counterparts",
        admin_port=free_port(),
        network_url=world.network_url,
        network_verify_key_file=world.keys.verify("network"),
        registry=world.registry_config(),
        seed=SEED,
        counterparts=[_one(world, "nation", NATION), _one(world, "accounts", PROVIDER, provides=[KIND])],
    )
    made = Scene(world, Counterparts(config, law, clock, world.chance))
    await made.counterparts.start()

    async def everybody_has_a_code() -> bool:
        counts = [await one.counts() for one in (made.asks, made.gives)]
        return all(one["codes"] == PEOPLE for one in counts)

    await made.until(everybody_has_a_code)
    yield made
    await made.counterparts.stop()
    await world.close()


@pytest.mark.requirement("TST-03", "TXR-01", "REC-01", "SYM-03")
async def test_a_whole_exchange_between_two_agencies_outside_the_platform(scene: Scene, law: Law) -> None:
    (line,) = await scene.asks.ask([scene.question(3, withheld=True)])
    (view,) = await scene.settled(line)
    content = msgspec.json.decode(view.content or b"", type=AnswerContent)
    layout = law.layouts_in_force(KIND, scene.world.clock.now().date())[-1]
    expected = people.copy_values(scene.people[3], KIND, layout, content.copies[0].effective_from.year, SEED)
    ((_, asked),) = await scene.asks.records(0, 10)
    ((_, given),) = await scene.gives.records(0, 10)
    (record,) = (await scene.world.network.records(0, 10)).records

    assert view.outcome in {"provided", "provided_with_gaps"}
    assert {code: expected[code] for code in content.copies[0].items if code in expected} == {
        code: value for code, value in content.copies[0].items.items() if code in expected
    }
    assert (asked.side, given.side) == ("inquirer", "provider")
    assert asked.reference == given.reference == str(record.reference) == view.reference
    assert asked.outcome == given.outcome == record.outcome == view.outcome
    assert asked.items == given.items == record.items
    assert (asked.withheld, given.withheld, record.withheld) == (True, True, True)
    assert asked.id == line == record.request
    assert given.id not in {line, record.reference}


@pytest.mark.requirement("SYM-10")
async def test_one_acquires_by_way_of_the_registered_domicile_and_the_other_by_itself(scene: Scene) -> None:
    assert (scene.asks._mayor is None, scene.gives._mayor is None) == (False, True)
    mine, theirs = await scene.asks.counts(), await scene.gives.counts()
    assert mine["codes"] == theirs["codes"] == PEOPLE


async def test_many_lines_are_answered_each_about_its_own_person(scene: Scene) -> None:
    lines = await scene.asks.ask([scene.question(place) for place in range(PEOPLE)] * 3)
    views = await scene.settled(*lines)
    by_person = {view.person: view.content for view in views}

    assert len(views) == 36
    assert len(set(by_person.values())) == PEOPLE
    assert (await scene.gives.counts())["given"] == 36
    assert (await scene.asks.counts())["records"] == 36


@pytest.mark.requirement("TXR-03")
async def test_a_notice_that_comes_twice_is_answered_once_and_a_replayed_permit_is_refused(scene: Scene) -> None:
    first = _notice(scene)
    replay = msgspec.structs.replace(first, id=scene.world.chance.uuid7())
    acks = [(await scene.gives.notices([notice]))[0] for notice in (first, first, replay, replay)]

    assert [ack.status for ack in acks] == ["accepted", "accepted", "refused", "refused"]
    assert acks[-1].reason == "permit_replayed"
    counts = await scene.gives.counts()
    assert (counts["given"], counts["records"]) == (1, 1)


async def test_a_permit_that_is_forged_or_for_another_agency_is_refused(scene: Scene) -> None:
    forged = _notice(scene)
    forged = msgspec.structs.replace(
        forged, permit=msgspec.structs.replace(forged.permit, body=forged.permit.body.replace(b'"d"', b'"e"'))
    )
    foreign = _notice(scene, provider=NATION)
    acks = await scene.gives.notices([forged, foreign])

    assert [(ack.status, ack.reason) for ack in acks] == [
        ("refused", "permit_forged"),
        ("refused", "permit_not_for_us"),
    ]
    assert (await scene.gives.counts())["given"] == 0


def _notice(scene: Scene, **changes: Any) -> Notice:
    """A notice about a person that nobody knows, with a permit that the network really signed."""
    now = scene.world.clock.now()
    face = ProviderPermit(
        permit=scene.world.chance.uuid7(), code=b"x" * 32, inquirer=NATION, provider=PROVIDER, department="d",
        affair=AFFAIR, procedure=PROCEDURE, kind=KIND, items=["TKX0890000000001"], condition=Condition(),
        asked_at=now, issued_at=now, expires_at=now + dt.timedelta(minutes=15), answer_key="k",
        answer_key_public=bytes(range(32)), route="r",
    )  # fmt: skip
    face = msgspec.structs.replace(face, **changes)
    key = scene.world.network.signer._key
    (signed,) = sign_list([msgspec.json.encode(face)], list_id=scene.world.chance.uuid7(), key_id="network", key=key)
    return Notice(id=scene.world.chance.uuid7(), permit=signed)


async def test_a_line_that_the_network_refuses_is_closed_with_its_reason_and_reference(scene: Scene) -> None:
    flags = PiaFlags(flags=[PiaEntry(agency=PROVIDER, published=False)])
    await scene.world.network.put_pia(flags)
    (line,) = await scene.asks.ask([scene.question()])
    (view,) = await scene.settled(line)
    ((_, record),) = await scene.asks.records(0, 10)
    (networks,) = (await scene.world.network.records(0, 10)).records

    assert (view.outcome, view.reason) == ("not_permitted", "pia_unpublished")
    assert record.pia_refusal
    assert record.reference == str(networks.reference)
    assert (await scene.gives.counts())["records"] == 0


async def test_what_the_provider_has_no_copy_of_is_answered_so(scene: Scene) -> None:
    (line,) = await scene.asks.ask([scene.question(kind="TM00000000000002", items=["TKX0020000000001"])])
    (view,) = await scene.settled(line)

    assert (view.outcome, view.reason, view.content) == ("no_record", "no_copy", None)


@pytest.mark.requirement("PRV-03")
async def test_a_line_that_nobody_answers_expires_at_the_inquirer_as_well(scene: Scene, clock: ManualClock) -> None:
    scene.gives._answering.answer = lambda permits, known: []  # type: ignore[method-assign]
    (line,) = await scene.asks.ask([scene.question()])

    async def permitted() -> bool:
        return (await scene.asks.views([line]))[0].state == "permitted"

    await scene.until(permitted)
    clock.advance(900 + 31)
    (view,) = await scene.settled(line)
    await scene.world.until(lambda state: state.exchanges == {"expired": 1})

    assert (view.outcome, view.reason) == ("expired", "deadline")


async def test_a_restart_goes_on_where_it_was(scene: Scene) -> None:
    (before,) = await scene.asks.ask([scene.question()])
    await scene.settled(before)
    codes = await scene.asks.counts()
    await scene.counterparts.stop()
    again = Counterparts(scene.counterparts._config, scene.counterparts._ports[0], *scene.counterparts._ports[1:])
    scene.counterparts = again
    await again.start()
    (after,) = await scene.asks.ask([scene.question()])
    views = await scene.settled(before, after)

    assert views[0].content == views[1].content
    assert (await scene.asks.counts())["codes"] == codes["codes"]


async def test_the_admin_endpoint_asks_and_shows(scene: Scene) -> None:
    base = scene.counterparts.admin.url
    async with aiohttp.ClientSession() as session:

        async def call(method: str, path: str, body: object = None) -> tuple[int, bytes]:
            data = None if body is None else msgspec.json.encode(body)
            async with session.request(method, base + path, data=data) as response:
                return response.status, await response.read()

        _, reply = await call("POST", f"/admin/{NATION}/ask", {"lines": [msgspec.to_builtins(scene.question())]})
        ids = msgspec.json.decode(reply, type=AskedIds).ids
        await scene.settled(*ids)
        _, views = await call("POST", f"/admin/{NATION}/asked", {"ids": [str(one) for one in ids]})
        _, records = await call("GET", f"/admin/{NATION}/records")
        _, state = await call("GET", "/admin/state")
        unknown, _ = await call("GET", "/admin/9999999999999999/records")
        nobody, _ = await call(
            "POST", f"/admin/{NATION}/ask", {"lines": [msgspec.to_builtins(scene.question(person="nobody"))]}
        )

    (view,) = msgspec.json.decode(views, type=AskedViews).lines
    (record,) = msgspec.json.decode(records, type=RecordPage).records
    assert view.content is not None
    assert view.content.kind == KIND
    assert record.id == ids[0]
    assert isinstance(record, Record)
    assert msgspec.json.decode(state)[NATION]["asked"] == 1
    assert (unknown, nobody) == (422, 409)


@pytest.mark.requirement("SYM-06")
async def test_no_acquisition_number_is_left_at_the_agency(scene: Scene) -> None:
    left = await scene.asks._store.read(
        lambda c: c.execute("SELECT count(*) FROM people WHERE number IS NOT NULL").fetchone()[0]
    )

    assert left == 0
    assert (await scene.world.network.state()).open_acquisitions == 0
