"""Look-up of holders through the exchange: providers that may be asked, and of nobody else that there is something."""

from typing import Any

import msgspec
import pytest

from chukan.errors import Problem
from chukan.ops.sandbox.admin import PiaEntry, PiaFlags, StopEntry, Stops
from chukan.platform.wire.holders import HolderAsk, HolderLine, HolderView
from chukan.platform.wire.network import HolderReply, HolderRequest
from chukan.tenants import directory

ASKS, GIVES, ASKS_WEST, GIVES_WEST = (
    "9901131121000001",
    "9901011002000001",
    "9901271004000001",
    "9901401307000001",
)
WORDS = {"affair": "JM01000000121000", "procedure": "JT01010000000214", "kind": "TM00000000000002"}


async def look_up(nation: Any, *addressees: str, **changes: str) -> list[HolderView]:
    lines = [HolderLine(addressee=addressee, **{**WORDS, **changes}) for addressee in addressees]
    return (await nation.east.holders.ask(nation.agency(ASKS), HolderAsk(lines=lines))).lines


@pytest.mark.requirement("INQ-03")
async def test_only_providers_that_may_be_asked_and_hold_a_code_are_named(nation: Any) -> None:
    known = await nation.person(ASKS, GIVES, copy=False)
    alone = f"{next(nation.tokens):015d}"
    await nation.acquire(ASKS, [(alone, "99000000070")])
    assert [(line.status, line.providers) for line in await look_up(nation, known, alone, "000000000099999")] == [
        ("answered", [GIVES]),
        ("answered", []),
        ("no_code", []),
    ]
    # Both hold a code now; one that has not published its assessment is not named.
    resident = f"99{int(known):08d}0"
    await nation.acquire(GIVES_WEST, [("000000000000777", resident)])
    (line,) = await look_up(nation, known)
    assert line.providers == [GIVES, GIVES_WEST]
    await nation.network.put_pia(PiaFlags(flags=[PiaEntry(agency=GIVES, published=False)]))
    (line,) = await look_up(nation, known)
    assert line.providers == [GIVES_WEST]
    await nation.network.put_pia(PiaFlags(flags=[PiaEntry(agency=ASKS, published=False)]))
    (line,) = await look_up(nation, known)
    assert (line.status, line.reason, line.providers) == ("not_permitted", "pia_unpublished", [])
    assert await nation.records(ASKS) == []


@pytest.mark.requirement("INQ-03")
async def test_what_the_network_names_is_held_against_our_own_list(nation: Any, monkeypatch: Any) -> None:
    known = await nation.person(ASKS, GIVES, copy=False)
    national = "9909000000000099"

    async def naming(items: Any) -> list[HolderReply]:
        asked = [msgspec.json.decode(item)["id"] for item in items]
        now = nation.clock.now()
        return [
            HolderReply(id=each, outcome="answered", answered_at=now, providers=[ASKS, GIVES, national])
            for each in asked
        ]

    monkeypatch.setattr(nation.sites["east"].peer, "holders", naming)
    (line,) = await look_up(nation, known)
    assert line.providers == [GIVES]


@pytest.mark.requirement("INQ-03", "BRE-03")
async def test_a_stop_and_what_is_unknown_are_said_line_by_line(nation: Any) -> None:
    known = await nation.person(ASKS, GIVES, copy=False)
    for field, value, code in (
        ("kind", "TM99999999999999", "unknown_kind"),
        ("affair", "JM99999999999999", "unknown_affair"),
        ("procedure", "JT99999999999999", "unknown_procedure"),
    ):
        (line,) = await look_up(nation, known, **{field: value})
        assert line.problem is not None
        assert (line.status, line.problem.code, line.problem.pointer) == ("refused", code, f"/{field}")
    await nation.network.put_stops(Stops(stops=[StopEntry(kind=WORDS["kind"])]))
    (line,) = await look_up(nation, known)
    assert line.status == "stopped"
    nation.snapshot = directory.stop(nation.snapshot, nation.clock.now(), kind=WORDS["kind"])
    await nation.publish()
    (line,) = await look_up(nation, known)
    assert (line.status, line.reason) == ("stopped", "kind_stopped")


async def test_without_the_network_nobody_is_named(nation: Any) -> None:
    known = await nation.person(ASKS, GIVES, copy=False)
    await nation.network_listener.stop()
    with pytest.raises(Problem, match="network_unavailable"):
        await look_up(nation, known)


@pytest.mark.requirement("INQ-03")
async def test_the_network_tells_nothing_to_who_is_not_the_inquirer(nation: Any) -> None:
    request = HolderRequest(id=nation.chance.uuid7(), inquirer=ASKS, code=b"a code of nobody", **WORDS)
    for route, reason in (("chukan", "unknown_code"), ("another", "not_your_agency")):
        (reply,) = await nation.network.holders(route, [msgspec.json.encode(request)])
        decoded = msgspec.json.decode(reply, type=HolderReply)
        assert (decoded.outcome, decoded.reason, decoded.providers) == ("bad_request", reason, [])
