"""Acquisition of linkage codes (符号取得): who sees what, one open number, no second code, no number left behind."""

import msgspec
import pytest

from chukan.clock import ManualClock
from chukan.errors import Problem
from chukan.ops.sandbox.network_app import RESIDENT_CODES
from chukan.ops.sandbox.registry import RegistryClient
from chukan.platform.wire.network import (
    AcquiredCode,
    AcquisitionReply,
    AcquisitionRequest,
    ResidentCode,
)

from .conftest import ASKS, BOARD, GIVES, NATION, PERSON, STRANGER, Exchange, World


async def _number(exchange: Exchange, request: AcquisitionRequest) -> str:
    (reply,) = await exchange.peer.acquisitions([msgspec.json.encode(request)])
    return reply.number


@pytest.mark.requirement("SYM-02")
async def test_a_request_gets_the_same_number_while_it_is_open_and_another_one_another(world: World) -> None:
    east = await world.exchange("east")
    request = AcquisitionRequest(id=world.chance.uuid7(), agency=ASKS)
    first, again = await _number(east, request), await _number(east, request)
    other = await _number(east, AcquisitionRequest(id=world.chance.uuid7(), agency=ASKS))

    assert first == again != other
    assert (await world.network.state()).open_acquisitions == 2


@pytest.mark.requirement("SYM-02")
async def test_two_agencies_do_not_share_a_request_id(world: World) -> None:
    east = await world.exchange("east")
    request = world.chance.uuid7()
    numbers = {await _number(east, AcquisitionRequest(id=request, agency=agency)) for agency in (ASKS, GIVES)}

    assert len(numbers) == 2


@pytest.mark.requirement("SYM-03")
async def test_no_message_of_the_exchange_can_carry_a_resident_code(world: World) -> None:
    assert set(AcquisitionRequest.__struct_fields__) == {"id", "agency"}
    assert set(AcquisitionReply.__struct_fields__) == {"id", "number"}
    assert set(ResidentCode.__struct_fields__) == {"number", "resident_code"}
    assert set(AcquiredCode.__struct_fields__) == {"id", "agency", "number", "status", "code"}

    east = await world.exchange("east")
    acquired = await world.acquire(ASKS, PERSON, east)

    assert PERSON.encode() not in msgspec.json.encode(acquired)
    assert PERSON.encode() not in (acquired.code or b"")


@pytest.mark.requirement("SYM-03")
async def test_only_the_registry_network_may_hand_over_resident_codes(world: World) -> None:
    east = await world.exchange("east")
    number = await _number(east, AcquisitionRequest(id=world.chance.uuid7(), agency=ASKS))
    line = msgspec.json.encode(ResidentCode(number=number, resident_code=PERSON))

    with pytest.raises(Problem) as refused:
        await east.peer._call(RESIDENT_CODES, [msgspec.json.encode({"id": "x"}), line][:1], AcquisitionReply)
    impostor = msgspec.structs.replace(
        world.registry_config(),
        name="east",
        tls=world.keys.tls("east"),
        signing_key_file=world.keys.signing("east"),
    )
    client = RegistryClient(impostor, world.clock, world.chance)
    with pytest.raises(Problem):
        await client.hand_over([(number, PERSON)], deadline_s=5)
    await client.close()

    assert refused.value.reason == "unregistered_system"  # type: ignore[attr-defined]
    assert (await world.network.state()).codes == 0


@pytest.mark.requirement("SYM-03")
async def test_the_registry_may_hand_over_and_nothing_else(world: World) -> None:
    world.exchanges["registry"] = registry = Exchange(
        world.keys, "registry", world.network_url, world.ports["east"], world.clock
    )

    with pytest.raises(Problem) as refused:
        await _number(registry, AcquisitionRequest(id=world.chance.uuid7(), agency=ASKS))

    assert refused.value.reason == "unregistered_system"  # type: ignore[attr-defined]


@pytest.mark.requirement("SYM-05")
async def test_a_person_whose_code_the_agency_has_is_answered_already_acquired(world: World) -> None:
    east = await world.exchange("east")
    first = await world.acquire(ASKS, PERSON, east)
    second = await world.acquire(ASKS, PERSON, east)

    assert (first.status, second.status) == ("acquired", "already_acquired")
    assert first.code is not None
    assert second.code is None
    assert (await world.network.state()).codes == 1


@pytest.mark.requirement("SYM-04", "SYM-08")
async def test_every_agency_and_every_person_gets_another_code(world: World) -> None:
    east, nation = await world.exchange("east"), await world.exchange("nation")
    codes = [
        (await world.acquire(agency, person, nation if agency == NATION else east)).code
        for agency in (ASKS, BOARD, GIVES, NATION)
        for person in (PERSON, STRANGER)
    ]

    assert len(set(codes)) == 8


@pytest.mark.requirement("SYM-06")
async def test_a_used_number_is_left_nowhere_but_as_a_keyed_digest(world: World) -> None:
    east = await world.exchange("east")
    acquired = await world.acquire(ASKS, PERSON, east)
    await world.until_empty()
    held = await world.everything()
    digests = await world.network.store.read(lambda c: c.execute("SELECT count(*) FROM numbers_used").fetchone()[0])

    assert acquired.number not in held
    assert PERSON not in held
    assert digests == 1
    assert (await world.network.state()).open_acquisitions == 0


@pytest.mark.requirement("SYM-06", "TXR-03")
async def test_a_number_works_once_and_handing_it_over_again_changes_nothing(world: World) -> None:
    east = await world.exchange("east")
    acquired = await world.acquire(ASKS, PERSON, east)
    assert world.registry is not None

    assert await world.registry.hand_over([(acquired.number, PERSON)]) == 1
    assert await world.registry.hand_over([(acquired.number, STRANGER)]) == 1
    assert await world.registry.hand_over([("A" + "B" * 24, PERSON)]) == 0
    await world.until_empty()
    assert len(east.inbox.codes_) == 1
    assert (await world.network.state()).codes == 1


async def test_an_agency_of_another_route_gets_no_number(world: World) -> None:
    nation = await world.exchange("nation")

    with pytest.raises(Problem) as refused:
        await _number(nation, AcquisitionRequest(id=world.chance.uuid7(), agency=ASKS))

    assert refused.value.reason == "wrong_agency"  # type: ignore[attr-defined]
    assert (await world.network.state()).open_acquisitions == 0


async def test_a_number_that_nobody_used_is_forgotten(world: World, clock: ManualClock) -> None:
    east = await world.exchange("east")
    number = await _number(east, AcquisitionRequest(id=world.chance.uuid7(), agency=ASKS))
    clock.advance(7 * 86_400 + 1)
    await world.network.store.write(world.network._acquisitions.sweep)
    client = RegistryClient(world.registry_config(), clock, world.chance)

    assert await client.hand_over([(number, PERSON)]) == 0
    assert number not in await world.everything()
    await client.close()


async def test_a_thousand_and_one_people_are_handed_over_in_two_lists(world: World) -> None:
    east = await world.exchange("east")
    requests = [AcquisitionRequest(id=world.chance.uuid7(), agency=ASKS) for _ in range(1001)]
    numbers = [
        reply.number
        for start in (0, 1000)
        for reply in await east.peer.acquisitions([msgspec.json.encode(one) for one in requests[start : start + 1000]])
    ]
    client = RegistryClient(world.registry_config(), world.clock, world.chance)

    assert await client.hand_over([(number, f"99{place:09d}") for place, number in enumerate(numbers)]) == 1001
    await east.inbox.until(lambda: len(east.inbox.codes_) == 1001, 30)
    assert len({one.code for one in east.inbox.codes_}) == 1001
    await client.close()


@pytest.mark.requirement("TST-01")
async def test_a_resident_code_that_may_be_a_real_persons_is_refused_before_any_effect(world: World) -> None:
    east = await world.exchange("east")
    number = await _number(east, AcquisitionRequest(id=world.chance.uuid7(), agency=ASKS))
    synthetic = ResidentCode(number=number, resident_code=PERSON)
    real = ResidentCode(number=number, resident_code="12345678903")
    client = RegistryClient(world.registry_config(), world.clock, world.chance)

    with pytest.raises(Problem) as by_the_registry:
        await client.hand_over([(number, PERSON), (number, real.resident_code)])
    await client.close()
    with pytest.raises(Problem) as by_the_network:
        await world.network.resident_codes([msgspec.json.encode(line) for line in (synthetic, real)])

    for refused in (by_the_registry.value, by_the_network.value):
        assert (refused.code, refused.line) == ("number_not_synthetic", 2)
        assert real.resident_code not in str(refused.as_dict())
    assert (await world.network.state()).codes == 0
