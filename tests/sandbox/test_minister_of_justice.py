"""The Minister of Justice (法務大臣, 施行令27条の2・27条の3) acquires by way of the mayor of the domicile."""

import msgspec
import pytest

from chukan.ops.sandbox.koseki import AnnexEntry, DomicileMayor, KosekiNotice, KosekiReply, Minister
from chukan.ops.sandbox.registry import RegistryClient
from chukan.tenants.numbers import synthetic_resident_code

from .conftest import ASKS, NATION, World

DOMICILE = "131016"
RESIDENT, AWAY = synthetic_resident_code(41), synthetic_resident_code(42)
ANNEX = {
    "本籍-1": AnnexEntry(resident_code=RESIDENT),
    "本籍-2": AnnexEntry(resident_code=AWAY, specified_non_resident=True),
    "本籍-3": AnnexEntry(resident_code=None),
}


@pytest.fixture
async def minister(world: World) -> Minister:
    world.registry = RegistryClient(world.registry_config(), world.clock, world.chance)
    nation = await world.exchange("nation")
    mayor = DomicileMayor(ANNEX, world.registry)
    return Minister(nation.peer, {DOMICILE: mayor}, world.chance, agency=NATION)


@pytest.mark.requirement("SYM-10")
async def test_the_code_comes_by_way_of_the_annex_to_the_family_register(world: World, minister: Minister) -> None:
    await minister.acquire([("本籍-1", DOMICILE)])
    inbox = (await world.exchange("nation")).inbox
    await inbox.until(lambda: len(inbox.codes_) == 1)
    assert [ack.status for ack in await minister.codes(inbox.codes_)] == ["accepted"]
    # The same person has another code at every agency, and none of them shows the resident code.
    city = await world.acquire(ASKS, RESIDENT, await world.exchange("east"))
    assert city.code is not None
    assert minister.codes_of["本籍-1"] not in {city.code, RESIDENT.encode()}
    assert minister.open_numbers == 0
    assert [ack.status for ack in await minister.codes(inbox.codes_)] == ["accepted"], "a repeat"
    assert "本籍-1" not in await world.everything()


@pytest.mark.requirement("SYM-10")
async def test_a_specified_non_resident_is_refused_by_the_mayor_and_nothing_goes_on(
    world: World, minister: Minister
) -> None:
    await minister.acquire([("本籍-2", DOMICILE), ("本籍-3", DOMICILE), ("本籍-9", DOMICILE)])
    assert minister.refused == {
        "本籍-2": "specified_non_resident",
        "本籍-3": "specified_non_resident",
        "本籍-9": "not_in_annex",
    }
    assert (minister.open_numbers, minister.codes_of) == (0, {})
    state = await world.network.state()
    assert (state.codes, state.outbox) == (0, {})


@pytest.mark.requirement("SYM-10", "SYM-03")
async def test_no_message_of_this_route_shows_more_than_it_must(world: World, minister: Minister) -> None:
    assert set(KosekiNotice.__struct_fields__) == {"number", "reference"}
    assert set(KosekiReply.__struct_fields__) == {"reference", "status"}
    made_up = KosekiNotice(number="A234567234567234567234567", reference="本籍-1")
    (reply,) = await minister._mayors[DOMICILE].notices([made_up])
    assert reply.status == "unknown_number"
    assert RESIDENT not in msgspec.json.encode(reply).decode()
    stranger = await world.acquire(ASKS, RESIDENT, await world.exchange("east"))
    assert [ack.reason for ack in await minister.codes([stranger])] == ["not_found"]
