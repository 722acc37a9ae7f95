"""A record has one byte form, commits to it, and can be read only as what was committed to."""

import dataclasses
import datetime as dt
import hashlib
import os
import uuid
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chukan.chance import SeededChance
from chukan.clock import ManualClock
from chukan.tenants.records import RecordError, RecordFields, canonical_record, commit, make_record, open_record
from chukan.tenants.sealing import AgencyKeys, KeySet, SealError

AT = dt.datetime(2026, 11, 23, 3, 0, tzinfo=dt.UTC)
KEYS = AgencyKeys(KeySet(42, {1: b"\x01" * 32}, b"\x02" * 32, {1: b"\x03" * 32}), os.urandom)
CHANCE = SeededChance(7, ManualClock(AT))
PERSON = KEYS.digest("addressee", b"A0001")


def fields(**changes: object) -> RecordFields:
    made: dict[str, object] = {
        "id": uuid.UUID("019352d0-0000-7000-8000-000000000001"),
        "side": "inquirer",
        "inquirer": "9901131016000001",
        "provider": "9901141003000001",
        "department": "保育課",
        "affair": "JM00000000000001",
        "procedure": "JT00000000000001",
        "kind": "TM00000000000002",
        "items": ["TM00000000000002-1", "TM00000000000002-2"],
        "outcome": "provided",
        "asked_at": AT,
        "closed_at": AT + dt.timedelta(seconds=1),
        "provided_at": AT + dt.timedelta(seconds=1),
        "reference": "019352d0-0000-7000-8000-00000000000f",
    } | changes
    return RecordFields(**made)  # type: ignore[arg-type]


@pytest.mark.requirement("REC-01")
def test_the_canonical_bytes_name_every_field_in_one_order() -> None:
    assert canonical_record(fields()).decode() == (
        '{"affair":"JM00000000000001","amends":null,"asked_at":"2026-11-23T03:00:00Z",'
        '"closed_at":"2026-11-23T03:00:01Z","department":"保育課","id":"019352d0-0000-7000-8000-000000000001",'
        '"inquirer":"9901131016000001","items":["TM00000000000002-1","TM00000000000002-2"],"kind":"TM00000000000002",'
        '"outcome":"provided","pia_refusal":false,"procedure":"JT00000000000001","provided_at":"2026-11-23T03:00:01Z",'
        '"provider":"9901141003000001","reason":null,"reference":"019352d0-0000-7000-8000-00000000000f",'
        '"side":"inquirer","withheld":false}'
    )


def test_the_same_instant_in_another_zone_gives_the_same_bytes() -> None:
    tokyo = dt.timezone(dt.timedelta(hours=9))
    assert canonical_record(fields(asked_at=AT.astimezone(tokyo))) == canonical_record(fields())


def test_the_commitment_is_a_hash_of_prefix_salt_and_bytes() -> None:
    assert commit(b"\x05" * 32, b"abc") == hashlib.sha256(b"\x02" + b"\x05" * 32 + b"abc").digest()
    with pytest.raises(ValueError, match="salt"):
        commit(b"", b"abc")


@pytest.mark.requirement("REC-01", "REC-06")
@given(
    side=st.sampled_from(["inquirer", "provider"]),
    outcome=st.sampled_from(["provided", "refused", "expired", "cancelled", "not_permitted"]),
    items=st.lists(st.text(max_size=20), max_size=5),
    department=st.text(max_size=20),
    withheld=st.booleans(),
    pia_refusal=st.booleans(),
    reason=st.none() | st.text(max_size=30),
    provided_at=st.none() | st.datetimes(dt.datetime(2020, 1, 1), dt.datetime(2040, 1, 1), timezones=st.just(dt.UTC)),  # noqa: DTZ001
)
def test_what_was_recorded_is_what_is_read(**changes: object) -> None:
    row = make_record(KEYS, CHANCE, fields(**changes), person=PERSON)
    assert open_record(KEYS, row) == fields(**changes)
    assert row.label == KEYS.label(PERSON) != PERSON


@pytest.mark.parametrize(
    "changes",
    [
        {"commitment": bytes(32)},
        {"id": uuid.UUID(int=1)},
        {"month": dt.date(2026, 12, 1)},
        {"amends": uuid.UUID(int=2)},
        {"sealed": b"\x01\x00\x00\x00\x01" + bytes(60)},
    ],
)
def test_a_record_whose_row_was_changed_is_not_read(changes: dict[str, Any]) -> None:
    row = make_record(KEYS, CHANCE, fields(), person=PERSON)
    with pytest.raises((RecordError, SealError)):
        open_record(KEYS, dataclasses.replace(row, **changes))


def test_a_record_exchanged_for_another_one_of_the_same_line_is_not_read() -> None:
    row = make_record(KEYS, CHANCE, fields(), person=PERSON)
    other = make_record(KEYS, CHANCE, fields(outcome="refused"), person=PERSON)
    with pytest.raises(RecordError):
        open_record(KEYS, dataclasses.replace(row, sealed=other.sealed))


def test_an_amendment_names_what_it_amends_and_has_an_id_of_its_own() -> None:
    first, second = uuid.UUID(int=1), uuid.UUID(int=2)
    row = make_record(KEYS, CHANCE, fields(id=second, amends=first), person=PERSON)
    assert (row.id, row.amends) == (second, first)
    assert open_record(KEYS, row).amends == first


def test_the_month_is_japans() -> None:
    late = dt.datetime(2026, 11, 30, 15, 0, tzinfo=dt.UTC)
    assert make_record(KEYS, CHANCE, fields(closed_at=late), person=PERSON).month == dt.date(2026, 12, 1)


def test_records_of_nobody_known_share_no_label() -> None:
    one = make_record(KEYS, CHANCE, fields(), person=None)
    two = make_record(KEYS, CHANCE, fields(id=uuid.UUID(int=9)), person=None)
    assert len({one.label, two.label}) == 2
    assert len(one.label) == 32


def test_two_records_of_one_content_commit_differently() -> None:
    rows = [make_record(KEYS, CHANCE, fields(), person=PERSON) for _ in range(2)]
    assert rows[0].commitment != rows[1].commitment


@pytest.mark.requirement("REC-07")
def test_a_record_has_no_place_for_content() -> None:
    with pytest.raises(ValueError, match="wrong form") as caught:
        make_record(KEYS, CHANCE, fields(items={"TM00000000000002-1": "5000000"}), person=PERSON)
    assert "5000000" not in str(caught.value)
    names = {field.name for field in msgspec.structs.fields(RecordFields)}
    assert names == {
        "id", "side", "inquirer", "provider", "department", "affair", "procedure", "kind", "items", "outcome",
        "asked_at", "closed_at", "provided_at", "withheld", "reference", "reason", "pia_refusal", "amends",
        "consent", "on_behalf_of", "provider_for",
    }  # fmt: skip


@pytest.mark.requirement("INQ-08", "INQ-11")
def test_consent_and_delegations_stand_in_the_bytes_only_where_there_are_some() -> None:
    plain = canonical_record(fields())
    assert not any(word in plain for word in (b"consent", b"behalf", b"provider_for"))
    told = fields(consent=True, on_behalf_of="9902401307000001")
    written = canonical_record(told)
    assert b'"consent":true' in written
    assert b'"on_behalf_of":"9902401307000001"' in written
    assert b"provider_for" not in written
    assert open_record(KEYS, make_record(KEYS, CHANCE, told, person=PERSON)) == told


def test_a_field_of_a_wrong_form_is_refused_without_its_value() -> None:
    with pytest.raises(ValueError, match="wrong form") as caught:
        make_record(KEYS, CHANCE, fields(side="A0001"), person=PERSON)
    assert "A0001" not in str(caught.value)
    assert caught.value.__cause__ is None
