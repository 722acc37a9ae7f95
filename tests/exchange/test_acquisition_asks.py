"""Request to acquire a code (符号取得の依頼): from the refusal to the answer, sealed on its way, gone after 28 days."""

import datetime as dt
import uuid
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
import pytest_asyncio

from chukan.clock import ManualClock
from chukan.errors import Problem
from chukan.platform.exchange.fact_purge import FactPurge
from chukan.platform.peer import NetworkTrouble
from chukan.platform.sealed import seal_facts
from chukan.platform.wire.acquisition_asks import AcquisitionAnswer, AcquisitionAskView, PersonFacts
from chukan.platform.wire.agency import CodeAsk, CodeLine
from chukan.platform.wire.network_asks import AcquisitionAsk, AcquisitionAskReply, AcquisitionNotice
from chukan.tenants.numbers import synthetic_individual_number
from chukan.tests.support.nation import running

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module", name="nation")
async def shared(embedded_server: Any, tmp_path_factory: Any) -> AsyncIterator[Any]:
    """One world for all tests of this file: each has people of its own."""
    async with running(embedded_server, tmp_path_factory.mktemp("nation")) as world:
        yield world


ASKS, GIVES, GIVES_WEST = "9901131121000001", "9901011002000001", "9901401307000001"
FACTS = PersonFacts(name="見本 花子", birth_date=dt.date(1980, 4, 1), sex="female", address="見本県見本市一丁目一番")


async def refused(nation: Any, resident: str, gives: str = GIVES_WEST) -> tuple[str, uuid.UUID]:
    """A person whom the provider has no code of, and the line that ended so."""
    addressee = f"{next(nation.tokens):015d}"
    await nation.acquire(ASKS, [(addressee, resident)])
    done = await nation.answered(ASKS, await nation.ask(ASKS, [nation.line(addressee, gives)]))
    assert [(line.outcome, line.reason) for line in done.lines] == [("no_code", "provider_has_no_code")]
    return addressee, done.lines[0].id


async def arrived(nation: Any, count: int, gives: str = GIVES_WEST) -> list[AcquisitionAskView]:
    async def look() -> str:
        return str(len((await nation.west.acquisition_asks.list(nation.agency(gives))).requests))

    await nation.until(look, str(count))
    return (await nation.east.acquisition_asks.list(nation.agency(gives))).requests


async def ask(nation: Any, line: uuid.UUID, code: str = ASKS) -> Any:
    return await nation.east.acquisition_asks.request(nation.agency(code), nation.caller(code), line, FACTS)


@pytest.mark.requirement("INQ-04")
async def test_a_provider_without_a_code_is_asked_acquires_it_and_the_next_query_is_answered(nation: Any) -> None:
    addressee, line = await refused(nation, "99000000770")
    said = await ask(nation, line)
    assert (said.id, said.provider, said.status) == (line, GIVES_WEST, "requested")
    await ask(nation, line)  # said again: no second request comes of it
    (request,) = await arrived(nation, 1)
    assert (request.facts, request.inquirer) == (FACTS, ASKS)
    assert request.until - request.received_at == dt.timedelta(days=28)

    # The provider's staff find the person under a number of their own, and acquire.
    provider, caller = nation.agency(GIVES_WEST), nation.caller(GIVES_WEST)
    here = f"{next(nation.tokens):015d}"
    done = await nation.west.acquisition_asks.answer(
        provider, caller, request.id, AcquisitionAnswer(addressee=here), str(uuid.uuid4())
    )
    assert (done.status, done.link.status) == ("fulfilled", "requested")
    assert await nation.registry.hand_over([(done.link.acquisition_number, "99000000770")]) == 1

    async def status() -> str:
        known = CodeAsk(lines=[CodeLine(addressee=here)])
        return (await nation.east.codes.search(provider, known)).lines[0].status

    await nation.until(status, "active")
    assert await arrived(nation, 0) == []
    with pytest.raises(Problem, match="already_final"):
        await nation.east.acquisition_asks.answer(provider, caller, request.id, AcquisitionAnswer(), str(uuid.uuid4()))
    await nation.register(GIVES_WEST, here)
    again = await nation.answered(ASKS, await nation.ask(ASKS, [nation.line(addressee, GIVES_WEST)]))
    assert [line.outcome for line in again.lines] == ["provided"]
    # Asking for an acquisition was no provision: each side has the records of its lines and no other.
    assert [record.fields.outcome for record in await nation.records(ASKS)] == ["no_code", "provided"]
    assert [record.fields.outcome for record in await nation.records(GIVES_WEST)] == ["provided"]


@pytest.mark.requirement("INQ-04", "SEC-01")
async def test_the_facts_are_in_no_store_in_the_clear_and_gone_after_28_days(nation: Any) -> None:
    _, line = await refused(nation, "99000000760")
    await ask(nation, line)
    await arrived(nation, 1)
    hidden = [FACTS.name.encode(), FACTS.address.encode()]
    admin = await nation.admin(nation.databases["west"])
    agency = nation.agency(GIVES_WEST)
    rows = await admin.fetch(f"SELECT * FROM a{agency.number:05d}.acquisition_asks")
    for row in rows:
        assert len(row["sealed"]) > 100
        assert not any(value in bytes(row["sealed"]) for value in hidden)
    kept = b"".join(path.read_bytes() for path in (nation.folder / "network").iterdir())
    assert line.bytes in kept, "the network's store was read"
    assert not any(value in kept for value in hidden)

    late = ManualClock(nation.clock.now() + dt.timedelta(days=28, minutes=-5))
    purge = FactPurge(nation.east.sets, late)
    assert await purge.round("west") == 0
    late.advance(600.0)
    assert await purge.round("west") == len(rows) > 0
    assert await admin.fetchval(f"SELECT count(*) FROM a{agency.number:05d}.acquisition_asks") == 0
    await admin.close()
    assert await arrived(nation, 0) == []


@pytest.mark.requirement("INQ-04")
async def test_only_a_line_that_ended_for_want_of_the_providers_code_can_be_followed(
    nation: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    person = await nation.person(ASKS, GIVES)
    done = await nation.answered(ASKS, await nation.ask(ASKS, [nation.line(person, GIVES)]))
    (closed,) = (await nation.ask(ASKS, [nation.line("000000000099999", GIVES)])).lines
    for line in (done.lines[0].id, closed.id):
        with pytest.raises(Problem, match="acquisition_not_askable"):
            await ask(nation, line)
    with pytest.raises(Problem, match="not_found"):
        await ask(nation, uuid.uuid4())
    # Whoever asks the network past the exchange is refused as well; another agency's line is not its own.
    _, line = await refused(nation, "99000000750")
    with pytest.raises(Problem, match="not_found"):
        await ask(nation, line, GIVES)
    for inquirer, request, route, reason in (
        (ASKS, done.lines[0].id, "chukan", "unknown_request"),
        (GIVES, line, "chukan", "unknown_request"),
        (ASKS, line, "elsewhere", "not_your_agency"),
        (ASKS, line, "chukan", "unknown_answer_key"),
    ):
        item = AcquisitionAsk(
            id=uuid.uuid4(), inquirer=inquirer, request=request, asked_at=nation.clock.now(), key="ak-0", sealed=b"-"
        )
        (reply,) = await nation.network.acquisition_asks(route, [msgspec.json.encode(item)])
        assert msgspec.json.decode(reply, type=AcquisitionAskReply).reason == reason

    async def away(_items: Any) -> Any:
        raise NetworkTrouble("unreachable")

    monkeypatch.setattr(nation.sites["east"].peer, "acquisition_asks", away)
    with pytest.raises(Problem, match="network_unavailable"):
        await ask(nation, line)


@pytest.mark.requirement("INQ-04", "SYM-01")
async def test_what_cannot_be_opened_or_holds_an_individual_number_is_refused_by_the_provider(nation: Any) -> None:
    keys = nation.keys(GIVES)

    def notice(facts: bytes, *, inquirer: str = ASKS) -> AcquisitionNotice:
        return AcquisitionNotice(
            id=uuid.uuid4(),
            provider=GIVES,
            inquirer=ASKS,
            affair="JM01000000121000",
            kind="TM00000000000002",
            asked_at=nation.clock.now(),
            key=keys.answer_key_id(),
            sealed=seal_facts(keys.answer_public(), inquirer, GIVES, facts),
        )

    number = synthetic_individual_number(7)
    good = notice(msgspec.json.encode(FACTS))
    acks = await nation.east.acquisition_asks.take(
        [
            good,
            notice(msgspec.json.encode(FACTS), inquirer=GIVES_WEST),
            notice(b"no facts"),
            notice(msgspec.json.encode(msgspec.structs.replace(FACTS, address=f"見本県 {number}"))),
            msgspec.structs.replace(good, id=uuid.uuid4(), provider="9909000000000099"),
        ]
    )
    assert [(ack.status, ack.reason) for ack in acks] == [
        ("accepted", None),
        ("refused", "invalid_field"),
        ("refused", "invalid_field"),
        ("refused", "individual_number_present"),
        ("refused", "unknown_agency"),
    ]
    assert [ack.reason for ack in await nation.west.acquisition_asks.take([good])] == ["repeat"]
    assert len(await arrived(nation, 1, GIVES)) == 1


async def test_a_request_for_somebody_unknown_is_declined_and_leaves_the_list(nation: Any) -> None:
    _, line = await refused(nation, "99000000740")
    await ask(nation, line)
    (request,) = await arrived(nation, 1)
    provider, caller = nation.agency(GIVES_WEST), nation.caller(GIVES_WEST)
    for _ in range(2):
        done = await nation.east.acquisition_asks.answer(
            provider, caller, request.id, AcquisitionAnswer(), str(uuid.uuid4())
        )
        assert (done.status, done.link) == ("declined", None)
    assert await arrived(nation, 0) == []
    with pytest.raises(Problem, match="not_found"):
        await nation.east.acquisition_asks.answer(
            provider, caller, uuid.uuid4(), AcquisitionAnswer(), str(uuid.uuid4())
        )
