"""The directory answers from one signed, numbered snapshot, and denies whatever the snapshot does not grant."""

import datetime as dt
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from chukan.errors import Problem
from chukan.tenants import directory
from chukan.tenants.directory import FUNCTIONS, OFFICER_FUNCTIONS, ClientRow, Directory, SignedSnapshot, Snapshot

AT = dt.datetime(2026, 11, 23, tzinfo=dt.UTC)
MAYOR, BOARD, OTHER = "9901131016000001", "9902131016000001", "9901141003000001"
KEY = Ed25519PrivateKey.from_private_bytes(b"\x05" * 32)
KIND, PROCEDURE = "TM00000000000002", "JT00000000000001"


def snapshot() -> Snapshot:
    made = directory.first(AT, 20260401)
    made = directory.add_agency(made, AT, code=MAYOR, body="131016", name="千代田区長", cell="east")
    made = directory.add_agency(made, AT, code=BOARD, body="131016", name="千代田区教育委員会", cell="east")
    made = directory.add_agency(made, AT, code=OTHER, body="141003", name="横浜市長", cell="west")
    system = ClientRow(
        id="chiyoda-addressee", body="131016", kind="system", name="宛名", agencies=[MAYOR, BOARD], functions=["copies"]
    )
    officer = ClientRow(
        id="chiyoda-officer",
        body="131016",
        kind="officer",
        name="職員",
        agencies=[MAYOR],
        functions=["reviews.prepare", "order", "records"],
    )
    return directory.add_client(directory.add_client(made, AT, system), AT, officer)


def problem_of(*arguments: str) -> str:
    with pytest.raises(Problem) as caught:
        Directory(snapshot()).allow(*arguments)
    return caught.value.code


def test_agencies_are_found_by_code_and_by_number() -> None:
    found = Directory(snapshot())
    assert [found.agency(code).number for code in (MAYOR, BOARD, OTHER)] == [1, 2, 3]
    assert found.by_number(3).name == "横浜市長"
    with pytest.raises(Problem, match="unknown_agency"):
        found.agency("9999999999999999")
    with pytest.raises(Problem, match="unknown_agency"):
        found.by_number(4)


def test_a_closed_agency_serves_nobody_and_its_number_is_never_given_again() -> None:
    closed = directory.close_agency(snapshot(), AT, OTHER)
    with pytest.raises(Problem, match="agency_closed"):
        Directory(closed).agency(OTHER)
    with pytest.raises(Problem, match="agency_closed"):
        Directory(closed).by_number(3)
    later = directory.add_agency(closed, AT, code="9901141003000002", body="141003", name="横浜市長", cell="west")
    assert Directory(later).agency("9901141003000002").number == 4
    with pytest.raises(ValueError, match="share"):
        directory.add_agency(closed, AT, code=OTHER, body="141003", name="横浜市長", cell="west")


@pytest.mark.requirement("TEN-01")
def test_a_client_acts_only_for_its_agencies_with_its_functions() -> None:
    allowed = Directory(snapshot()).allow("chiyoda-addressee", BOARD, "copies")
    assert allowed.id == "chiyoda-addressee"
    assert problem_of("nobody", MAYOR, "copies") == "unregistered_system"
    assert problem_of("chiyoda-addressee", OTHER, "copies") == "wrong_agency"
    assert problem_of("chiyoda-addressee", "9999999999999999", "copies") == "wrong_agency"
    assert problem_of("chiyoda-addressee", MAYOR, "queries") == "function_not_granted"
    assert problem_of("chiyoda-officer", BOARD, "records") == "wrong_agency"
    assert problem_of("chiyoda-officer", MAYOR, "reviews.approve") == "function_not_granted"
    with pytest.raises(ValueError, match="function"):
        Directory(snapshot()).allow("chiyoda-addressee", MAYOR, "copy")


@pytest.mark.parametrize("function", sorted(FUNCTIONS))
def test_a_system_that_was_granted_everything_still_cannot_act_as_an_officer(function: str) -> None:
    greedy = ClientRow(
        id="greedy",
        body="131016",
        kind="system",
        name="x",
        agencies=[MAYOR],
        functions=sorted(FUNCTIONS),  # type: ignore[arg-type]
    )
    found = Directory(directory.add_client(snapshot(), AT, greedy))
    if function in OFFICER_FUNCTIONS:
        with pytest.raises(Problem, match="officer_required"):
            found.allow("greedy", MAYOR, function)
    else:
        assert found.allow("greedy", MAYOR, function).kind == "system"


def test_a_client_of_a_closed_agency_is_told_so() -> None:
    closed = Directory(directory.close_agency(snapshot(), AT, BOARD))
    with pytest.raises(Problem, match="agency_closed"):
        closed.allow("chiyoda-addressee", BOARD, "copies")
    assert closed.allow("chiyoda-addressee", MAYOR, "copies")


def test_the_kill_switch_stops_a_kind_a_procedure_or_the_two_together() -> None:
    other = "TM00000000000003"
    by_kind = Directory(directory.stop(snapshot(), AT, kind=KIND))
    assert by_kind.is_stopped(KIND, PROCEDURE)
    assert not by_kind.is_stopped(other, PROCEDURE)
    both = Directory(directory.stop(snapshot(), AT, kind=KIND, procedure=PROCEDURE))
    assert both.is_stopped(KIND, PROCEDURE)
    assert not both.is_stopped(KIND, "JT00000000000002")
    assert not both.is_stopped(other, PROCEDURE)
    everything = directory.stop(snapshot(), AT)
    assert Directory(everything).is_stopped(other, "JT00000000000002")
    assert not Directory(directory.lift(everything, AT)).is_stopped(KIND, PROCEDURE)
    assert not Directory(snapshot()).is_stopped(KIND, PROCEDURE)


def test_stopping_twice_and_lifting_once_lifts() -> None:
    stopped = directory.stop(directory.stop(snapshot(), AT, procedure=PROCEDURE), AT, procedure=PROCEDURE)
    assert Directory(stopped).is_stopped(KIND, PROCEDURE)
    assert not Directory(directory.lift(stopped, AT, procedure=PROCEDURE)).is_stopped(KIND, PROCEDURE)


def test_each_builder_raises_the_number_by_one_and_leaves_the_old_snapshot_alone() -> None:
    before = snapshot()
    kept = directory.canonical(before)
    after = [
        directory.close_agency(before, AT, OTHER),
        directory.move_agency(before, AT, OTHER, "east"),
        directory.remove_client(before, AT, "chiyoda-officer"),
        directory.stop(before, AT),
        directory.lift(before, AT),
        directory.set_law(before, AT, 20270401),
    ]
    assert {made.number for made in after} == {before.number + 1}
    assert directory.canonical(before) == kept
    assert Directory(after[1]).agency(OTHER).generation == 2
    with pytest.raises(Problem, match="unregistered_system"):
        Directory(after[2]).client("chiyoda-officer")


def test_a_signed_snapshot_verifies_and_any_change_is_noticed() -> None:
    signed = directory.sign(snapshot(), KEY)
    assert directory.verify(signed, KEY.public_key()) == snapshot()
    other = Ed25519PrivateKey.from_private_bytes(b"\x06" * 32)
    damaged = [
        msgspec.structs.replace(signed, body=signed.body.replace(b'"east"', b'"west"')),
        msgspec.structs.replace(signed, body=signed.body + b" "),
        msgspec.structs.replace(signed, signature=bytes(64)),
        msgspec.structs.replace(signed, key="0" * 16),
        directory.sign(snapshot(), other),
    ]
    for each in damaged:
        with pytest.raises(Problem, match="signature_invalid"):
            directory.verify(each, KEY.public_key())


def test_signed_bytes_that_are_not_canonical_or_no_snapshot_are_refused() -> None:
    for body in (b" " + directory.canonical(snapshot()), b"{}", b"\xff"):
        signature = KEY.sign(b"chukan directory snapshot\0" + body)
        signed = SignedSnapshot(body, signature, directory.key_id(KEY.public_key()))
        with pytest.raises(Problem, match="signature_invalid"):
            directory.verify(signed, KEY.public_key())


def test_the_order_of_rows_and_the_time_zone_do_not_change_the_bytes() -> None:
    made = snapshot()
    turned = msgspec.structs.replace(
        made,
        agencies=made.agencies[::-1],
        clients=made.clients[::-1],
        made_at=made.made_at.astimezone(dt.timezone(dt.timedelta(hours=9))),
    )
    assert directory.canonical(turned) == directory.canonical(made)


def test_a_snapshot_that_contradicts_itself_is_neither_used_nor_signed() -> None:
    made = snapshot()
    mayor, officer = made.agencies[0], made.clients[1]
    wrong: list[dict[str, Any]] = [
        {"agencies": [*made.agencies, mayor]},
        {"agencies": [*made.agencies, msgspec.structs.replace(mayor, code="9901131016000009")]},
        {"agencies": [*made.agencies, msgspec.structs.replace(mayor, number=9)]},
        {"clients": [*made.clients, officer]},
        {"clients": [msgspec.structs.replace(officer, agencies=[OTHER])]},
        {"clients": [msgspec.structs.replace(officer, agencies=["9999999999999999"])]},
    ]
    for changes in wrong:
        contradictory = msgspec.structs.replace(made, **changes)
        with pytest.raises(ValueError, match="snapshot"):
            Directory(contradictory)
        with pytest.raises(ValueError, match="snapshot"):
            directory.sign(contradictory, KEY)


def test_builders_refuse_fields_of_a_wrong_form() -> None:
    for changes in ({"code": "123"}, {"body": "13101"}, {"name": ""}, {"cell": "East Cell"}):
        fields = {"code": "9901131016000007", "body": "131016", "name": "x", "cell": "east"} | changes
        with pytest.raises(ValueError, match="Expected"):
            directory.add_agency(snapshot(), AT, **fields)
    client = ClientRow(id="a b", body="131016", kind="system", name="x", agencies=[], functions=[])
    with pytest.raises(ValueError, match="Expected"):
        directory.add_client(snapshot(), AT, client)
