"""Changes say what must hold afterwards: applied twice they change nothing, and what cannot hold is refused."""

import datetime as dt
from typing import Any

import msgspec
import pytest

from chukan.errors import Problem
from chukan.tenants import directory
from chukan.tenants.changes import Changes
from chukan.tenants.common_reading import merge
from chukan.tenants.directory import ClientRow, Snapshot, Stop

AT = dt.datetime(2026, 11, 23, tzinfo=dt.UTC)
SAPPORO, BOARD, FUKUOKA = "9901011002000001", "9902011002000001", "9901401307000001"
MAYOR = {"code": SAPPORO, "body": "011002", "name": "機関", "cell": "east"}
KIND, PROCEDURE = "TM00000000000002", "JT01010000000214"


def client(**changes: Any) -> ClientRow:
    members = {
        "id": "system", "body": "011002", "kind": "system", "name": "業務", "agencies": [SAPPORO],
        "functions": ["queries"],
    }  # fmt: skip
    return ClientRow(**{**members, **changes})


@pytest.fixture
def snapshot() -> Snapshot:
    changes = Changes()
    for code, body in ((SAPPORO, "011002"), (BOARD, "011002"), (FUKUOKA, "401307")):
        changes.add_agency(code=code, body=body, name="機関", cell="east")
    return changes.register(client()).stop(kind=KIND).apply(directory.first(AT, 1), AT)


CHANGES = {
    "add": Changes().add_agency(code="9902401307000001", body="401307", name="教育委員会", cell="west"),
    "close": Changes().close_agency(SAPPORO),
    "forget": Changes().forget_agency(SAPPORO),
    "register": Changes().register(client(functions=["copies"])),
    "remove": Changes().remove("system"),
    "stop": Changes().stop(procedure=PROCEDURE),
    "stop all": Changes().stop(),
    "lift": Changes().lift(kind=KIND),
    "law": Changes().set_law(2),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_is_one_number_and_the_same_again_is_none(snapshot: Snapshot, name: str) -> None:
    changed = CHANGES[name].apply(snapshot, AT)
    assert changed != snapshot
    assert changed.number == snapshot.number + 1
    assert CHANGES[name].apply(changed, AT) is changed


def test_however_many_changes_there_are_they_are_one_number(snapshot: Snapshot) -> None:
    changes = Changes().close_agency(SAPPORO).close_agency(FUKUOKA).stop().remove("system").lift(kind=KIND)
    changed = changes.apply(snapshot, AT)
    assert changed.number == snapshot.number + 1
    assert [row.state for row in changed.agencies] == ["closed", "open", "closed"]
    assert (changed.clients, changed.stopped) == ([], [Stop()])


def test_order_and_repeats_within_a_registration_do_not_make_another_one(snapshot: Snapshot) -> None:
    both = client(agencies=[BOARD, SAPPORO], functions=["queries", "copies", "queries"])
    changed = Changes().register(both).apply(snapshot, AT)
    other = client(agencies=[SAPPORO, BOARD], functions=["copies", "queries"])
    assert Changes().register(other).apply(changed, AT) is changed


def test_forgetting_an_agency_leaves_the_rights_elsewhere(snapshot: Snapshot) -> None:
    changed = Changes().register(client(agencies=[SAPPORO, BOARD])).forget_agency(SAPPORO).apply(snapshot, AT)
    assert [row.agencies for row in changed.clients] == [[BOARD]]
    assert Changes().forget_agency(BOARD).apply(changed, AT).clients == []


@pytest.mark.requirement("CON-01")
@pytest.mark.parametrize(
    ("changes", "pointer"),
    [
        ({"agencies": [FUKUOKA]}, "/agencies"),
        ({"agencies": [SAPPORO, FUKUOKA]}, "/agencies"),
        ({"agencies": []}, "/agencies"),
        ({"functions": ["order"]}, "/functions"),
        ({"functions": ["queries", "reviews.approve"]}, "/functions"),
        ({"functions": ["everything"]}, "/functions"),
        ({"id": "a b"}, "/id"),
        ({"kind": "robot"}, "/kind"),
    ],
)
def test_rights_that_nobody_may_have_are_refused(snapshot: Snapshot, changes: dict[str, Any], pointer: str) -> None:
    with pytest.raises(Problem, match="invalid_field") as raised:
        Changes().register(client(**changes)).apply(snapshot, AT)
    assert raised.value.pointer == pointer


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        (Changes().register(client(agencies=["9" * 16])), "unknown_agency"),
        (Changes().close_agency("9" * 16), "unknown_agency"),
        (
            Changes().close_agency(SAPPORO).add_agency(code=SAPPORO, body="011002", name="機関", cell="east"),
            "agency_closed",
        ),
        (Changes().add_agency(code=SAPPORO, body="011002", name="機関", cell="west"), "invalid_field"),
        (Changes().add_agency(code=SAPPORO, body="011002", name="別名", cell="east"), "invalid_field"),
    ],
)
def test_what_contradicts_the_common_data_is_refused(snapshot: Snapshot, changes: Changes, code: str) -> None:
    with pytest.raises(Problem, match=code):
        changes.apply(snapshot, AT)


@pytest.mark.parametrize("members", [{"code": "1"}, {"body": "1"}, {"name": ""}, {"cell": "East"}])
def test_an_agency_has_the_forms_of_the_directory(members: dict[str, str]) -> None:
    given = {"code": SAPPORO, "body": "011002", "name": "機関", "cell": "east", **members}
    with pytest.raises(Problem, match="invalid_field") as raised:
        Changes().add_agency(**given)
    assert raised.value.pointer == "/" + next(iter(members))


def test_a_stop_has_the_form_of_a_code() -> None:
    with pytest.raises(Problem, match="invalid_field"):
        Changes().stop(kind="tax")


# ---------------------------------------------------------------- cells that disagree


def test_cells_that_agree_are_taken_as_they_are(snapshot: Snapshot) -> None:
    assert merge({"east": snapshot, "west": snapshot}) is snapshot


def test_the_newest_one_counts_and_of_equals_the_first_cells(snapshot: Snapshot) -> None:
    newer = Changes().set_law(2).apply(snapshot, AT)
    other = Changes().set_law(3).apply(snapshot, AT)
    assert merge({"east": snapshot, "west": newer}) is newer
    assert merge({"west": newer, "east": snapshot}) is newer
    assert merge({"west": newer, "east": other}) is other


def test_a_stop_stands_while_it_stands_in_any_cell(snapshot: Snapshot) -> None:
    """Also when the other cell has newer common data: it was made without this one."""
    stopped = Changes().stop(procedure=PROCEDURE).apply(snapshot, AT)
    newer = msgspec.structs.replace(Changes().lift(kind=KIND).apply(snapshot, AT), number=snapshot.number + 5)
    merged = merge({"east": newer, "west": stopped})
    assert {(stop.kind, stop.procedure) for stop in merged.stopped} == {(KIND, None), (None, PROCEDURE)}
    assert merged.number == newer.number


def test_an_agency_that_only_one_cell_knows_is_kept(snapshot: Snapshot) -> None:
    added = CHANGES["add"].apply(snapshot, AT)
    newer = msgspec.structs.replace(CHANGES["stop"].apply(snapshot, AT), number=snapshot.number + 5)
    merged = merge({"east": added, "west": newer})
    assert [row.number for row in merged.agencies] == [1, 2, 3, 4]
    assert merged.number == newer.number
    # And what the newest says of an agency counts.
    closed = msgspec.structs.replace(CHANGES["close"].apply(snapshot, AT), number=snapshot.number + 9)
    assert merge({"east": added, "west": closed}).agencies[0].state == "closed"
