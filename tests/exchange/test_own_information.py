"""Own information (自己情報提供): the portal asks for the signed-in person; as a provision, which flags stop."""

import asyncio
import datetime as dt
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
import pytest_asyncio

from chukan.errors import Problem
from chukan.ops import client_resident
from chukan.ops.sandbox import config as sandbox
from chukan.ops.sandbox.counterpart import Question
from chukan.ops.sandbox.counterparts import Counterparts
from chukan.ops.sandbox.endpoints import pause
from chukan.ops.sandbox.people import addressee_number, generate
from chukan.ops.sandbox.portal import OwnQuestion
from chukan.platform.wire.agency import AnswerContent, ReviewDecision, ReviewPrepare
from chukan.tenants import own_flags
from chukan.tests.support.nation import ASKS, GIVES, LAW, TAX, WAIT_S, World, free_port, pem

pytestmark = pytest.mark.asyncio(loop_scope="module")

(OWN,) = LAW.own.rows
BODY, PEOPLE, SEED = "011002", 9, 5
SHOWN = ("provided", "provided_with_gaps")


class PortalWorld(World):
    """The nation, with a portal outside the platform that knows a few people of it."""

    def __init__(self, folder: Path, server: Any) -> None:
        super().__init__(folder, server)
        self.signing["portal"] = pem(folder, "portal")
        self.ports["portal"] = free_port()
        self.people = list(generate(BODY, PEOPLE, SEED))
        self.used = iter(self.people)

    async def start_network(self) -> None:
        known = self.network_config
        known.peers["portal"] = sandbox.PeerConfig(verify_key_file=self.signing["portal"][1], route="portal")
        known.routes["portal"] = sandbox.RouteConfig(endpoints=[f"https://127.0.0.1:{self.ports['portal']}"])
        known.agencies[OWN.portal] = sandbox.AgencyConfig(name="portal", route="portal")
        await super().start_network()
        url = f"https://127.0.0.1:{known.port}"
        verify = self.signing["network"][1]
        registry = sandbox.RegistryConfig(
            network_url=url, network_verify_key_file=verify, tls=self.tls("registry"),
            signing_key_file=self.signing["registry"][0],
        )  # fmt: skip
        portal = sandbox.CounterpartConfig(
            name="portal", agency=OWN.portal, port=self.ports["portal"], tls=self.tls("portal"), portal=True,
            signing_key_file=self.signing["portal"][0], people_body=BODY, people_count=PEOPLE,
        )  # fmt: skip
        config = sandbox.CounterpartsConfig(
            state_directory=self.folder / "counterparts", admin_port=free_port(), network_url=url,
            network_verify_key_file=verify, registry=registry, seed=SEED, counterparts=[portal],
        )  # fmt: skip
        self.admin_url = f"http://127.0.0.1:{config.admin_port}/admin/{OWN.portal}"
        self.counterparts = Counterparts(config, LAW, self.clock, self.chance)
        await self.counterparts.start()

    async def stop_network(self) -> None:
        await self.counterparts.stop()
        await super().stop_network()

    @property
    def portal(self) -> Any:
        return self.counterparts.portals[OWN.portal]

    async def resident(self, *, copy: bool = True, **changes: Any) -> tuple[str, str]:
        """The next person, known to the provider, with a copy; returns the numbers at the provider and the portal."""
        person = next(self.used)
        addressee, theirs = addressee_number(person, GIVES), addressee_number(person, OWN.portal)
        await self.acquire(GIVES, [(addressee, person.resident_code)])
        if copy:
            await self.register(GIVES, addressee, **changes)
        return addressee, theirs

    async def see(self, person: str, *, session: str | None = None) -> Any:
        """What the person sees of their tax once it is final."""
        session = session or await self.portal.sign_in(person)
        lines = await self.portal.ask(session, [OwnQuestion(provider=GIVES, kind=TAX)])
        return await self.final(session, lines)

    async def final(self, session: str, lines: Any) -> Any:
        async with asyncio.timeout(WAIT_S):
            while (view := (await self.portal.answers(session, lines))[0]).outcome is None:
                await pause(0.02, asyncio.Event())
        return view

    async def flag(self, addressee: str | None, kind: str | None = None, period: str | None = None,
                   effective_from: dt.date | None = None, *, flagged: bool = True) -> None:  # fmt: skip
        async with self.east.door(self.agency(GIVES)) as partition:
            wanted = own_flags.Wanted(addressee, kind, period, effective_from, flagged)
            await own_flags.set_flags(partition, self.keys(GIVES), [wanted])

    async def last_record(self) -> Any:
        return max((await self.records(GIVES)), key=lambda stored: stored.fields.closed_at).fields


@pytest_asyncio.fixture(scope="module", loop_scope="module", name="town")
async def shared(embedded_server: Any, tmp_path_factory: Any) -> AsyncIterator[PortalWorld]:
    """One world for all tests of this file: each has people of its own."""
    world = PortalWorld(tmp_path_factory.mktemp("portal"), embedded_server)
    try:
        await world.start()
        async with asyncio.timeout(WAIT_S):
            while (await world.counterparts.agencies[OWN.portal].counts())["codes"] < PEOPLE:
                await pause(0.05, asyncio.Event())
        yield world
    finally:
        await world.stop()


@pytest.mark.requirement("REC-01", "REC-03")
async def test_a_person_sees_all_that_an_agency_would_answer_and_it_is_recorded_as_such(town: PortalWorld) -> None:
    _, person = await town.resident()
    view = await town.see(person)
    assert view.outcome in SHOWN
    (copy,) = msgspec.json.decode(view.content, type=AnswerContent).copies
    layout = LAW.layout(TAX, copy.layout)
    assert layout is not None
    # What an older layout in force has beside it comes with a reason, never as nothing.
    assert {item for item, value in copy.items.items() if value == "0"} == layout.items.keys()
    asked = LAW.allowed_items(OWN.procedure, TAX, dt.date(2026, 11, 23))
    assert copy.items.keys() == asked
    record = await town.last_record()
    assert (record.inquirer, record.affair, record.procedure) == (OWN.portal, OWN.affair, OWN.procedure)
    assert (record.outcome, record.withheld, record.items) == (view.outcome, False, sorted(asked))
    # The command that plays the portal's adapter asks through its own session and shows the same.
    question = OwnQuestion(provider=GIVES, kind=TAX)
    (shown,) = (await client_resident._own(town.admin_url, person, [question])).lines
    assert (shown.outcome, shown.content) == (view.outcome, msgspec.json.decode(view.content, type=AnswerContent))
    with pytest.raises(Problem, match="not_found"):
        await client_resident._own(town.admin_url, "nobody", [question])
    theirs, _ = [each for _, each in await town.counterparts.agencies[OWN.portal].records(0, 1000)]
    assert (theirs.provider, theirs.outcome, theirs.affair) == (GIVES, view.outcome, OWN.affair)


@pytest.mark.requirement("PRV-06")
async def test_a_flag_stops_the_portal_and_nobody_else(town: PortalWorld) -> None:
    addressee, person = await town.resident()
    since = dt.date(2026, 6, 1)
    flags: list[tuple[Any, ...]] = [
        (addressee,), (None, TAX), (addressee, TAX), (addressee, TAX, "2026"), (addressee, TAX, None, since),
        (addressee, TAX, "2026", since),
    ]  # fmt: skip
    for flag in flags:
        await town.flag(*flag)
        view = await town.see(person)
        assert (view.outcome, view.reason, view.content) == ("refused", "own_information_flagged", None), flag
        assert (await town.last_record()).outcome == "refused"
        await town.flag(*flag, flagged=False)
    for beside in (("other",), (None, "TM00000000000001"), (addressee, TAX, "2025"),
                   (addressee, TAX, None, dt.date(2025, 6, 1))):  # fmt: skip
        await town.flag(*beside)
    # A copy that is registered anew lifts nothing.
    assert (await town.see(person)).outcome in SHOWN
    await town.flag(addressee)
    await town.register(GIVES, addressee)
    assert (await town.see(person)).outcome == "refused"
    resident = next(each for each in town.people if addressee_number(each, GIVES) == addressee)
    await town.acquire(ASKS, [("000000000000042", resident.resident_code)])
    batch = await town.ask(ASKS, [town.line("000000000000042", GIVES)])
    assert (await town.answered(ASKS, batch)).lines[0].outcome == "provided"


async def test_a_flag_that_is_set_while_a_line_is_decided_counts(town: PortalWorld) -> None:
    addressee, person = await town.resident()
    looked = 0

    def late(exchange: Any) -> Any:
        read = exchange._provisions._flags

        async def reading(agency: Any, lines: Any) -> Any:
            nonlocal looked
            found = await read(agency, lines)
            looked += 1
            if looked == 1:
                await town.flag(addressee)
            return found

        return reading

    before = {site: site.exchange._provisions._flags for site in town.sites.values()}
    for site in town.sites.values():
        site.exchange._provisions._flags = late(site.exchange)
    try:
        view = await town.see(person)
    finally:
        for site, flags in before.items():
            site.exchange._provisions._flags = flags
    assert (view.outcome, looked > 1) == ("refused", True)


@pytest.mark.requirement("PRV-05")
async def test_a_held_line_waits_for_officers_and_a_flag_stops_it_even_then(town: PortalWorld) -> None:
    outcomes = []
    for flagged in (False, True):
        addressee, person = await town.resident(review=True)
        session = await town.portal.sign_in(person)
        lines = await town.portal.ask(session, [OwnQuestion(provider=GIVES, kind=TAX)])
        agency = town.agency(GIVES)
        review = await town.until_some(town.east.reviews.list, agency)
        first, second = town.officer(GIVES, "first"), town.officer(GIVES, "second")
        await town.east.reviews.prepare(agency, first, review.id, ReviewPrepare(decision="provide"))
        if flagged:
            await town.flag(addressee)
        await town.east.reviews.approve(agency, second, review.id, ReviewDecision())
        outcomes.append((await town.final(session, lines)).outcome)
    assert outcomes == ["provided_with_gaps", "refused"]


async def test_a_portal_asks_for_nobody_but_the_person_of_the_session(town: PortalWorld) -> None:
    _, person = await town.resident()
    _, another = await town.resident(copy=False)
    session, foreign = await town.portal.sign_in(person), await town.portal.sign_in(another)
    lines = await town.portal.ask(session, [OwnQuestion(provider=GIVES, kind=TAX)])
    assert (await town.final(session, lines)).outcome in SHOWN
    with pytest.raises(Problem, match="not_found"):
        await town.portal.answers(foreign, lines)
    for wrong in ("", "no session"):
        with pytest.raises(Problem, match="session_required"):
            await town.portal.answers(wrong, lines)
    with pytest.raises(Problem, match="not_found"):
        await town.portal.sign_in("nobody")
    assert (await town.see(another)).outcome == "no_record"


async def test_beside_own_information_the_network_gives_a_portal_nothing(town: PortalWorld) -> None:
    _, person = await town.resident()
    counterpart = town.counterparts.agencies[OWN.portal]
    base = Question(person=person, provider=GIVES, affair=OWN.affair, procedure=OWN.procedure, kind=TAX)
    questions = [
        msgspec.structs.replace(base, affair="JM01000000121000", procedure="JT01010000000214"),
        msgspec.structs.replace(base, withheld=True),
    ]
    before = len(await town.records(GIVES))
    lines = await counterpart.ask(questions)
    async with asyncio.timeout(WAIT_S):
        while None in [view.outcome for view in await counterpart.views(lines)]:
            await pause(0.02, asyncio.Event())
    views = await counterpart.views(lines)
    said = [(view.outcome, view.reason) for view in views]
    assert said == [("not_permitted", "not_on_list"), ("not_permitted", "own_information_withheld")]
    assert len(await town.records(GIVES)) == before
    # Its admin endpoint lets nobody ask, or look, but through a session.
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=WAIT_S)) as http:
        for call, content in (("ask", {"lines": [base]}), ("asked", {"ids": lines})):
            body = msgspec.json.encode(content)
            async with http.post(f"{town.admin_url}/{call}", data=body) as reply:
                assert (await reply.json(content_type=None))["code"] == "function_not_granted"
