"""A resident's answer on a real cell: complete where it says so, and nothing told of what is withheld."""

import hashlib
import uuid
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from chukan.errors import Problem
from chukan.ops import cli, client_resident, client_run
from chukan.ops.resident_check import ResidentReport, check_answer
from chukan.platform.http.desks.door import CellDoor
from chukan.platform.http.desks.resident import PartitionResidents
from chukan.platform.wire.resident import MapEntry, PersonRecords, ResidentAsk, ResidentRecords
from chukan.tenants import checkpoint as forms
from chukan.tenants.directory import AgencyRow
from chukan.tenants.evidence_report import Rules
from chukan.tests.records.test_cosigning import EAST
from chukan.tests.records.test_signing_maps import Town

pytestmark = pytest.mark.requirement("REC-03")


class Counter:
    """A resident's desk over one agency's records, signed and cosigned; A1 has records with and without 不開示."""

    def __init__(self, shelf: Any) -> None:
        self.shelf = shelf
        self.town = Town(shelf)
        self.row = AgencyRow(
            number=shelf.agency, code=self.town.code, body="131016", name="x", cell="here", generation=1
        )
        self.confirmed: list[str] = []
        self.desk = PartitionResidents(CellDoor(shelf.cells), lambda _: shelf.keys, self.confirm)
        self.ids: dict[str, uuid.UUID] = {}

    async def confirm(self, cell: str) -> None:
        self.confirmed.append(cell)

    async def fill(self) -> None:
        shelf = self.shelf
        self.ids["first"] = await shelf.record("A1")
        self.ids["hidden"] = await shelf.record("A1", withheld=True)
        await shelf.records(30)
        self.ids["amended"] = await shelf.record("A1")
        await shelf.record("A1", amends=self.ids["amended"], withheld=True)
        self.ids["last"] = await shelf.record("A1")
        await self.sign()

    async def sign(self) -> None:
        await self.shelf.sequence()
        assert await self.town.signer.sign_due() == 1
        assert await self.town.cosigner.cosign_due() == 1

    async def ask(self, *addressees: str, **more: Any) -> ResidentRecords:
        """What goes over the wire."""
        answer = await self.desk.records(self.row, ResidentAsk(addressees=list(addressees), **more))
        return msgspec.json.decode(msgspec.json.encode(answer), type=ResidentRecords)

    def check(self, answer: ResidentRecords, *known: bytes, **rules: Any) -> ResidentReport:
        return check_answer(answer, Rules(EAST.known(self.town.code), known, **rules))


@pytest.fixture
async def counter(shelf: Any) -> Counter:
    made = Counter(shelf)
    await made.fill()
    return made


def ids_of(records: list[bytes]) -> list[str]:
    return [msgspec.json.decode(record)["id"] for record in records]


async def test_an_answer_is_complete_and_counts_what_is_withheld(counter: Counter) -> None:
    answer = await counter.ask("A1", "A2", "nobody")
    report = counter.check(answer)
    assert (report.findings, report.shows, answer.shows) == ([], "complete", "complete")
    told = [(each.shown, each.withheld, each.gone, each.unproven) for each in report.persons]
    assert told == [(8, 3, 0, 0), (6, 0, 0, 0), (0, 0, 0, 0)]
    shown = ids_of(report.records)
    assert {str(counter.ids["first"]), str(counter.ids["last"])} <= set(shown)
    assert str(counter.ids["hidden"]) not in shown
    assert str(counter.ids["amended"]) not in shown
    assert [limit.name for limit in answer.cannot_show] == ["unwritten", "label", "later", "withheld"]
    assert all(limit.ja and limit.en for limit in answer.cannot_show)
    assert counter.confirmed == ["here"]


async def test_nothing_is_told_of_a_withheld_record(counter: Counter) -> None:
    answer = await counter.ask("A1")
    for leaf in answer.persons[0].leaves:
        assert (leaf.state == "withheld") == (leaf.record is None and leaf.salt is None)
    shown = ids_of([leaf.record for leaf in answer.persons[0].leaves if leaf.record is not None])
    assert len(shown) == 8
    assert not {str(counter.ids["hidden"]), str(counter.ids["amended"])} & set(shown)
    assert counter.ids["hidden"].bytes not in b"".join(leaf.data for leaf in answer.persons[0].leaves)


async def test_existence_itself_can_be_withheld(counter: Counter) -> None:
    """存否応答拒否: only what may be shown, and no number, label or place that would tell of more."""
    answer = await counter.ask("A1", deny_existence=True)
    (person,) = answer.persons
    assert (answer.shows, answer.checkpoint, person.label, person.leaves, person.siblings) == (
        "nothing",
        None,
        None,
        [],
        [],
    )
    assert len(person.unproven) == 8
    assert str(counter.ids["hidden"]) not in ids_of(person.unproven)
    assert answer.cannot_show[0].name == "existence"
    assert [each.code for each in counter.check(answer).findings] == ["unproven"]


async def test_what_was_written_after_the_checkpoint_is_told_apart(counter: Counter) -> None:
    new = await counter.shelf.record("A1")
    await counter.shelf.record("A1", withheld=True)
    await counter.shelf.record("A1", amends=counter.ids["last"], withheld=True)
    answer = await counter.ask("A1")
    (person,) = answer.persons
    assert ids_of(person.unproven) == [str(new)]
    report = counter.check(answer)
    assert report.sound
    # An amendment withholds the record too that it amends, also before it has its own place.
    assert (report.persons[0].shown, report.persons[0].withheld, report.persons[0].unproven) == (7, 4, 1)
    await counter.sign()
    report = counter.check(await counter.ask("A1"))
    assert (report.sound, report.persons[0].shown, report.persons[0].withheld) == (True, 8, 6)


async def test_a_code_finds_its_person_whatever_the_links_status(counter: Counter) -> None:
    keys, person = counter.shelf.keys, counter.shelf.person("A1")
    code = b"the portal's code"
    digest = keys.digest("code", code)
    await counter.town.run(
        "INSERT INTO {s}.codes (person, status, addressee, code_digest, code) VALUES ($1, 3, $2, $3, $4)",
        person, b"sealed", digest, b"sealed",
    )  # fmt: skip
    answer = await counter.ask(codes=[code, b"of nobody"])
    report = counter.check(answer)
    assert report.sound
    assert [(each.asked, each.known, each.shown) for each in report.persons] == [
        ("/codes/0", True, 8),
        ("/codes/1", False, 0),
    ]


async def test_records_of_a_number_that_was_merged_are_the_persons_too(counter: Counter) -> None:
    """A code, or the number that stays, comes to every number that was given up for it; else "complete" is false."""
    keys, shelf = counter.shelf.keys, counter.shelf
    code, stays = b"the portal's code", shelf.person("A1")
    await counter.town.run(
        "INSERT INTO {s}.codes (person, status, addressee, code_digest, code) VALUES ($1, 2, $2, $3, $4)",
        stays, b"sealed", keys.digest("code", code), b"sealed",
    )  # fmt: skip
    await change_link(counter, "merge", "A2", "A1")
    answer = await counter.ask("A1", codes=[code])
    report = counter.check(answer)
    assert report.findings == []
    told = [(each.asked, each.shown, each.withheld) for each in report.persons]
    assert told == [("/addressees/0", 8, 3), ("/addressees/0", 6, 0), ("/codes/0", 8, 3), ("/codes/0", 6, 0)]
    # A number that is asked for by itself is told once, and the other way round nothing is the given up one's.
    both = counter.check(await counter.ask("A1", "A2"))
    assert [(each.asked, each.shown) for each in both.persons] == [("/addressees/0", 8), ("/addressees/1", 6)]
    hidden = await counter.ask(codes=[code], deny_existence=True)
    assert [len(person.unproven) for person in hidden.persons] == [8, 6]
    assert "relinked" not in [limit.name for limit in answer.cannot_show]


async def test_an_answer_says_that_a_code_was_another_numbers_before(counter: Counter) -> None:
    """Records under that number may be about somebody else, so they are not shown, and "complete" is of the labels."""
    await change_link(counter, "relink", "A3", "A1")
    answer = await counter.ask("A1", "A2")
    assert counter.check(answer).sound
    assert [each.asked for each in answer.persons] == ["/addressees/0", "/addressees/1"]
    assert "relinked" in [limit.name for limit in answer.cannot_show]
    assert "relinked" not in [limit.name for limit in (await counter.ask("A2")).cannot_show]


async def change_link(counter: Counter, act: str, addressee: str, to: str) -> None:
    """Have a change of a link stand as applied."""
    await counter.town.run(
        "INSERT INTO {s}.code_changes (id, act, person, target, state, body, detail, target_addressee, person_was,"
        " person_version, proposed_by, decided_by) VALUES ($1, $2, $3, $4, 'applied', $5, $5, $5, 2, 1, 'a', 'b')",
        uuid.uuid4(), act, counter.shelf.person(addressee), counter.shelf.person(to), bytes(32),
    )  # fmt: skip


def leave_out(person: PersonRecords, place: int) -> PersonRecords:
    leaves = [leaf for n, leaf in enumerate(person.leaves) if n != place % len(person.leaves)]
    return msgspec.structs.replace(person, leaves=leaves)


def as_if_absent(person: PersonRecords) -> PersonRecords:
    return msgspec.structs.replace(person, leaves=[])


def absent_by_force(person: PersonRecords) -> PersonRecords:
    return msgspec.structs.replace(person, leaves=[], found=None)


def another_label(person: PersonRecords) -> PersonRecords:
    return msgspec.structs.replace(person, label=hashlib.sha256(b"x").digest())


def no_label(person: PersonRecords) -> PersonRecords:
    return msgspec.structs.replace(person, label=None, leaves=[])


def doubled(person: PersonRecords) -> PersonRecords:
    return msgspec.structs.replace(person, leaves=[*person.leaves, person.leaves[-1]])


def swapped(person: PersonRecords) -> PersonRecords:
    return msgspec.structs.replace(person, leaves=[person.leaves[1], person.leaves[0], *person.leaves[2:]])


def other_record(person: PersonRecords) -> PersonRecords:
    first = msgspec.structs.replace(person.leaves[0], record=person.leaves[-1].record)
    return msgspec.structs.replace(person, leaves=[first, *person.leaves[1:]])


def lost_record(person: PersonRecords) -> PersonRecords:
    first = msgspec.structs.replace(person.leaves[0], record=None, salt=None)
    return msgspec.structs.replace(person, leaves=[first, *person.leaves[1:]])


def gone_record(person: PersonRecords) -> PersonRecords:
    first = msgspec.structs.replace(person.leaves[0], record=None, salt=None, state="gone")
    return msgspec.structs.replace(person, leaves=[first, *person.leaves[1:]])


def other_value(person: PersonRecords) -> PersonRecords:
    assert person.found is not None
    return msgspec.structs.replace(person, found=MapEntry(key=person.found.key, value=bytes(32)))


LIES: list[tuple[str, Callable[[PersonRecords], PersonRecords], str]] = [
    ("the first record", lambda person: leave_out(person, 0), "chain"),
    ("a record in the middle", lambda person: leave_out(person, 4), "chain"),
    ("the last record", lambda person: leave_out(person, -1), "missing"),
    ("a withheld record", lambda person: leave_out(person, 1), "chain"),
    ("all of them", as_if_absent, "missing"),
    ("all of them and their place", absent_by_force, "place"),
    ("another person's leaves", another_label, "chain"),
    ("no place", no_label, "label"),
    ("one twice", doubled, "missing"),
    ("another order", swapped, "chain"),
    ("another content", other_record, "record"),
    ("no content", lost_record, "record"),
    ("a lost record as an old one", gone_record, "record_missing"),
    ("another number of them", other_value, "place"),
]


@pytest.mark.parametrize(("lie", "code"), [(lie, code) for _, lie, code in LIES], ids=[name for name, _, _ in LIES])
async def test_an_answer_that_leaves_out_or_changes_something_fails(
    counter: Counter, lie: Callable[[PersonRecords], PersonRecords], code: str
) -> None:
    answer = await counter.ask("A1")
    assert counter.check(answer).sound
    bent = msgspec.structs.replace(answer, persons=[lie(answer.persons[0])])
    report = counter.check(bent)
    assert code in [each.code for each in report.findings]
    assert report.shows == "nothing"


async def test_an_answers_checkpoint_is_held_against_keys_and_earlier_ones(counter: Counter) -> None:
    answer = await counter.ask("A1")
    assert answer.checkpoint is not None
    note = answer.checkpoint.note
    kept = note.encode()
    assert counter.check(answer, kept).sound

    def with_note(changed: str) -> list[str]:
        view = msgspec.structs.replace(answer.checkpoint, note=changed)
        return [each.code for each in counter.check(msgspec.structs.replace(answer, checkpoint=view), kept).findings]

    assert with_note(note.replace("chukan-map-1", "chukan-map-9")) == ["checkpoint"]
    assert with_note("nothing") == ["checkpoint"]
    uncosigned = forms.parse_note(kept)
    alone = forms.Note(uncosigned.text, uncosigned.signatures[:1]).encode().decode()
    assert with_note(alone) == ["not_cosigned"]
    view = msgspec.structs.replace(answer.checkpoint, note=alone)
    assert counter.check(msgspec.structs.replace(answer, checkpoint=view), need_cosigned=False).sound
    await counter.shelf.record("A1")
    await counter.sign()
    later = await counter.ask("A1")
    assert later.checkpoint is not None
    assert counter.check(later, kept).sound
    assert [each.code for each in counter.check(answer, later.checkpoint.note.encode()).findings] == ["rolled_back"]


async def test_records_deleted_after_seven_years_leave_their_leaf(counter: Counter) -> None:
    await counter.shelf.bend(f"DELETE FROM {counter.shelf.schema}.records WHERE id = $1", counter.ids["first"])
    answer = await counter.ask("A1")
    assert [each.code for each in counter.check(answer).findings] == ["record_missing"]
    report = counter.check(answer, need_records=False)
    assert (report.sound, report.persons[0].gone) == (True, 1)
    assert answer.cannot_show[-1].name == "gone"


async def test_a_log_without_a_map_shows_nothing_and_says_so(counter: Counter) -> None:
    await counter.shelf.record("A1")
    await counter.town.grow(1, counter.town.another_signer(maps=False))
    answer = await counter.ask("A1")
    assert (answer.shows, answer.cannot_show[0].name, answer.persons[0].leaves) == ("nothing", "no_map", [])
    assert len(answer.persons[0].unproven) == 9
    assert not counter.check(answer).sound


async def test_a_map_at_rest_that_is_not_the_signed_one_gives_no_answer(counter: Counter) -> None:
    await counter.town.run("UPDATE {s}.map_pages SET body = set_byte(body, 34, get_byte(body, 34) # 1)")
    with pytest.raises(Problem, match="proof_pending"):
        await counter.ask("A1")
    assert counter.confirmed == []


async def test_another_agencys_person_is_absent_here(counter: Counter, neighbour: Any) -> None:
    """The same number at another agency is another label: the proof of absence tells nothing of anybody."""
    desk = PartitionResidents(CellDoor(neighbour.cells), lambda _: neighbour.keys, counter.confirm)
    row = msgspec.structs.replace(counter.row, number=neighbour.agency)
    await neighbour.records(7)
    await neighbour.sequence()
    code = f"66{neighbour.agency:014d}"
    signer = counter.town.another_signer()
    signer._code_of = {neighbour.agency: code}.get
    assert await signer.sign_due() == 1
    answer = await desk.records(row, ResidentAsk(addressees=["A1", "B1"]))
    assert [len(person.leaves) for person in answer.persons] == [2, 0]
    assert answer.persons[0].label != (await counter.ask("A1")).persons[0].label
    rules = Rules(EAST.known(code), need_cosigned=False)
    assert check_answer(answer, rules).sound


@pytest.mark.parametrize(("leaves_out", "code", "says"), [(False, 0, "is missing"), (True, 1, "NOT SOUND")])
async def test_the_client_checks_what_it_was_given(
    counter: Counter, tmp_path: Any, monkeypatch: Any, capsys: Any, *, leaves_out: bool, code: int, says: str
) -> None:
    answer = await counter.ask("A1")
    if leaves_out:
        answer = msgspec.structs.replace(answer, persons=[leave_out(answer.persons[0], 1)])
    (tmp_path / "numbers").write_text("A1\n")
    (tmp_path / "keys").write_text("".join(f"{key.text()}\n" for key in EAST.known(counter.town.code)))
    monkeypatch.setattr(client_resident, "run", lambda *_: answer)
    target = client_run.Target(agency=counter.town.code)
    assert client_resident.records(tmp_path / "numbers", target=target, keys=tmp_path / "keys") == code
    assert says in capsys.readouterr().out


async def test_the_command_checks_an_answer_offline(counter: Counter, tmp_path: Any, capsys: Any) -> None:
    answer = await counter.ask("A1")
    (tmp_path / "answer.json").write_bytes(msgspec.json.encode(answer))
    (tmp_path / "keys").write_text("".join(f"{key.text()}\n" for key in EAST.known(counter.town.code)))

    def run(*more: str) -> tuple[int, Any]:
        words = ["records", "verify-resident", str(tmp_path / "answer.json"), "--keys", str(tmp_path / "keys"), *more]
        return cli.run(words), capsys.readouterr().out

    code, out = run("--json")
    said = msgspec.json.decode(out)
    assert (code, said["shows"], said["findings"], len(said["records"])) == (0, "complete", [], 8)
    assert said["persons"][0]["withheld"] == 3
    assert [each["name"] for each in said["cannot_show"]] == ["unwritten", "label", "later", "withheld"]
    code, out = run()
    assert code == 0
    assert "complete" in out
    bent = msgspec.structs.replace(answer, persons=[leave_out(answer.persons[0], 1)])
    (tmp_path / "answer.json").write_bytes(msgspec.json.encode(bent))
    code, out = run()
    assert code == 1
    assert "NOT shown to be complete" in out
    (tmp_path / "answer.json").write_bytes(b"{}")
    code, out = run("--json")
    assert (code, msgspec.json.decode(out)["findings"][0]["code"]) == (1, "answer")
