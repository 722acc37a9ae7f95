"""Requests for permits: every outcome, the two faces of a permit, and that asking again gets the same bytes."""

from typing import Any

import msgspec
import pytest

from chukan.ops.sandbox.admin import Agencies, AgencyEntry, PiaEntry, PiaFlags, StopEntry, Stops
from chukan.platform.wire.network import InquirerPermit

from .conftest import ASKS, BOARD, GIVES, ITEMS, KIND, NATION, PERSON, PROCEDURE, STRANGER, Pair


@pytest.mark.requirement("PRV-02", "TXR-01")
async def test_a_permit_tells_each_side_its_own_code_and_the_rest_of_the_notice(pair: Pair) -> None:
    request, reply = await pair.ask(withheld=True)
    await pair.nation.inbox.until(lambda: bool(pair.nation.inbox.notices_))
    notice = pair.nation.verifier.verify_provider(pair.nation.inbox.notices_[0].permit)
    face = pair.east.verifier.verify_inquirer(reply.permit)

    assert reply.outcome == "permitted"
    assert reply.reference == str(notice.permit) == str(face.permit)
    assert notice.code == pair.gives_code != pair.asks_code
    assert pair.gives_code not in reply.permit.body
    assert (notice.inquirer, notice.provider) == (ASKS, NATION) == (face.inquirer, face.provider)
    assert (notice.items, notice.kind, notice.procedure) == (ITEMS, KIND, PROCEDURE)
    assert (notice.department, notice.affair) == (request.department, request.affair)
    assert notice.asked_at == request.asked_at
    assert notice.withheld
    assert face.withheld
    assert notice.condition == request.condition
    assert (notice.expires_at - notice.issued_at).total_seconds() == 900
    assert notice.expires_at == face.expires_at
    assert notice.answer_key_public == pair.world.answer_private.public_key().public_bytes_raw()
    assert face.request == request.id
    assert request.id.bytes not in pair.nation.inbox.notices_[0].permit.body


@pytest.mark.requirement("TXR-03")
async def test_asking_again_with_the_same_id_gets_the_same_bytes_and_no_second_notice(pair: Pair) -> None:
    body = msgspec.json.encode(pair.world.request(pair.asks_code))
    network = pair.world.network
    first = await network.permit_requests("platform", [body])
    second = await network.permit_requests("platform", [body])
    await pair.nation.inbox.until(lambda: bool(pair.nation.inbox.notices_))
    pair.world.clock.advance(86_400)
    third = await network.permit_requests("platform", [body])
    await pair.ask()
    await pair.nation.inbox.until(lambda: len(pair.nation.inbox.notices_) >= 2)

    assert first == second == third
    assert len(pair.nation.inbox.notices_) == 2
    assert (await network.records(0, 10)).next is None
    assert len((await network.records(0, 10)).records) == 2


async def test_the_same_id_twice_in_one_list_is_one_request(pair: Pair) -> None:
    body = msgspec.json.encode(pair.world.request(pair.asks_code))
    replies = await pair.world.network.permit_requests("platform", [body, body])

    assert replies[0] == replies[1]
    assert len((await pair.world.network.records(0, 10)).records) == 1


async def test_an_id_that_comes_again_with_another_body_is_refused_and_the_first_stands(pair: Pair) -> None:
    request, first = await pair.ask()
    changed = msgspec.structs.replace(request, items=ITEMS[:1])
    (reply,) = await pair.east.peer.permit_requests([msgspec.json.encode(changed)])
    (again,) = await pair.east.peer.permit_requests([msgspec.json.encode(request)])

    assert (reply.outcome, reply.reason) == ("bad_request", "id_reused")
    assert again == first


async def test_a_whole_list_is_answered_line_by_line_under_one_signature(pair: Pair) -> None:
    good = [pair.world.request(pair.asks_code) for _ in range(20)]
    bad = pair.world.request(pair.asks_code, procedure="JTX0000000000001")
    lines = [*good[:10], bad, *good[10:]]
    replies = await pair.east.peer.permit_requests([msgspec.json.encode(line) for line in lines])
    faces = [pair.east.verifier.verify_inquirer(reply.permit) for reply in replies if reply.permit is not None]

    assert [reply.outcome for reply in replies].count("permitted") == 20
    assert replies[10].outcome == "not_permitted"
    assert len({reply.permit.list_id for reply in replies if reply.permit is not None}) == 1
    assert [face.request for face in faces] == [line.id for line in good]


@pytest.mark.requirement("TST-03", "REC-01")
@pytest.mark.parametrize(
    ("changes", "outcome", "reason"),
    [
        ({"procedure": "JTX0000000000001"}, "not_permitted", "not_on_list"),
        ({"kind": "TMX0000000000099"}, "not_permitted", "list_unknown"),
        ({"items": ["TKX0990000000001"]}, "not_permitted", "item_not_allowed"),
        ({"provider": GIVES}, "no_code", "provider_has_no_code"),
        ({"provider": "9999999999999999"}, "bad_request", "unknown_agency"),
        ({"code": b"never given to this agency"}, "bad_request", "unknown_code"),
        ({"answer_key": "k2"}, "bad_request", "unknown_answer_key"),
    ],
)
async def test_what_may_not_be_asked_gets_its_outcome_and_a_record(
    pair: Pair, changes: dict[str, Any], outcome: str, reason: str
) -> None:
    request, reply = await pair.ask(**changes)
    (record,) = (await pair.world.network.records(0, 10)).records

    assert (reply.outcome, reply.reason, reply.permit) == (outcome, reason, None)
    assert (record.outcome, record.reason, str(record.reference)) == (outcome, reason, reply.reference)
    assert (record.request, record.provider) == (request.id, request.provider)
    assert record.closed_at == record.decided_at == reply.decided_at
    assert pair.nation.inbox.notices_ == []


@pytest.mark.requirement("INQ-05")
@pytest.mark.parametrize("unpublished", [ASKS, NATION])
async def test_an_unpublished_assessment_of_either_side_is_refused_and_recorded(pair: Pair, unpublished: str) -> None:
    network = pair.world.network
    await network.put_pia(PiaFlags(flags=[PiaEntry(agency=unpublished, published=False)]))
    _, refused = await pair.ask()
    await network.put_pia(PiaFlags(flags=[PiaEntry(agency=unpublished, published=True)]))
    _, permitted = await pair.ask()
    first, second = (await network.records(0, 10)).records

    assert (refused.outcome, refused.reason) == ("not_permitted", "pia_unpublished")
    assert permitted.outcome == "permitted"
    assert first.pia_refusal
    assert not second.pia_refusal


@pytest.mark.parametrize(
    ("stop", "reason"),
    [
        (StopEntry(kind=KIND), "kind_stopped"),
        (StopEntry(procedure=PROCEDURE), "procedure_stopped"),
        (StopEntry(kind=KIND, procedure=PROCEDURE), "procedure_stopped"),
        (StopEntry(), "kind_stopped"),
    ],
)
async def test_a_stop_holds_from_the_next_line_until_it_is_lifted(pair: Pair, stop: StopEntry, reason: str) -> None:
    network = pair.world.network
    await network.put_stops(Stops(stops=[stop]))
    _, stopped = await pair.ask()
    await network.put_stops(Stops(stops=[StopEntry(kind="TMX0000000000011"), StopEntry(procedure="JTX0000000000001")]))
    _, permitted = await pair.ask()

    assert (stopped.outcome, stopped.reason) == ("stopped", reason)
    assert permitted.outcome == "permitted"


@pytest.mark.requirement("TXR-01")
async def test_a_peer_speaks_for_the_agencies_of_its_own_route_only(pair: Pair) -> None:
    stolen = pair.world.request(pair.asks_code)
    (reply,) = await pair.nation.peer.permit_requests([msgspec.json.encode(stolen)])
    (own,) = await pair.east.peer.permit_requests([msgspec.json.encode(stolen)])

    assert (reply.outcome, reply.reason) == ("bad_request", "not_your_agency")
    assert own.outcome == "permitted"


@pytest.mark.requirement("SYM-08")
async def test_the_code_of_the_mayor_is_worth_nothing_at_the_board_of_education(pair: Pair) -> None:
    await pair.world.announce(BOARD, pair.east)
    board = await pair.world.acquire(BOARD, PERSON, pair.east)
    _, with_own = await pair.ask(inquirer=BOARD, code=board.code)
    _, with_the_mayors = await pair.ask(inquirer=BOARD)

    assert board.code != pair.asks_code
    assert with_own.outcome == "permitted"
    assert (with_the_mayors.outcome, with_the_mayors.reason) == ("bad_request", "unknown_code")


async def test_the_core_translates_between_the_two_codes_of_one_person(pair: Pair) -> None:
    stranger_asks = await pair.world.acquire(ASKS, STRANGER, pair.east)
    stranger_gives = await pair.world.acquire(NATION, STRANGER, pair.nation)
    await pair.ask(code=stranger_asks.code)
    await pair.nation.inbox.until(lambda: bool(pair.nation.inbox.notices_))
    notice = pair.nation.verifier.verify_provider(pair.nation.inbox.notices_[0].permit)

    assert notice.code == stranger_gives.code != pair.gives_code


@pytest.mark.requirement("REC-06", "REC-01")
async def test_the_networks_record_names_the_person_by_the_management_code_only(pair: Pair) -> None:
    await pair.ask()
    await pair.ask(code=(await pair.world.acquire(ASKS, STRANGER, pair.east)).code)
    one, other = (await pair.world.network.records(0, 10)).records
    text = msgspec.json.encode([one, other])

    assert one.management_code != other.management_code
    assert pair.asks_code.hex() not in text.decode()
    assert PERSON.encode() not in text
    assert (one.inquirer_name, one.provider_name) == ("照会市長", "国の機関")
    assert one.items == ITEMS


async def test_a_line_that_cannot_be_read_refuses_its_list_and_nothing_has_happened(pair: Pair) -> None:
    good = msgspec.json.encode(pair.world.request(pair.asks_code))
    bad = msgspec.json.encode({"id": str(pair.world.chance.uuid7()), "inquirer": ASKS})

    with pytest.raises(Exception, match="network_unavailable") as raised:
        await pair.east.peer.permit_requests([good, bad])

    assert raised.value.reason == "invalid_field"  # type: ignore[attr-defined]
    assert raised.value.about_items  # type: ignore[attr-defined]
    assert (await pair.world.network.records(0, 10)).records == []


async def test_an_agency_can_be_added_while_the_network_runs(pair: Pair) -> None:
    network = pair.world.network
    new = "9901131016000002"
    _, before = await pair.ask(provider=new)
    await network.put_agencies(Agencies(agencies=[AgencyEntry(code=new, name="新市長", route="platform")]))
    _, after = await pair.ask(provider=new)

    assert before.reason == "unknown_agency"
    assert after.outcome == "no_code"


async def test_the_two_faces_of_a_permit_cannot_be_taken_for_each_other(pair: Pair) -> None:
    _, reply = await pair.ask()

    assert isinstance(pair.east.verifier.verify(reply.permit), InquirerPermit)
    with pytest.raises(Exception, match="permit_forged"):
        pair.east.verifier.verify_provider(reply.permit)
