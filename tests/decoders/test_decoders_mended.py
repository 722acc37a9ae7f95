"""Faults that fuzzing found, each with the bytes that showed it."""

import base64
import json
from typing import Any

import msgspec
import pytest

from chukan import toml_reading
from chukan.errors import Problem
from chukan.platform.http import problems
from chukan.platform.law import calendar, masters
from chukan.platform.wire.delegations import DelegationTerms
from chukan.platform.wire.officers import Enrol
from chukan.tests.support.decoders import all_decoders, message_kinds

DEEP = "a = " + "[" * 5_000


def refused(call: Any, *given: Any) -> str:
    """Return the code of the problem that a call ends with."""
    with pytest.raises(Problem) as problem:
        call(*given)
    return problem.value.code


def test_a_permit_of_the_first_second_is_past_and_no_fault() -> None:
    permit = all_decoders()["permit"]
    assert refused(permit.call, permit.seeds[1]) == "permit_expired"


def test_a_cursor_of_what_the_database_does_not_take_is_none() -> None:
    records, copies = all_decoders()["cursor of records"], all_decoders()["cursor of copies"]
    assert [refused(records.call, seed) for seed in records.seeds[1:]] == ["invalid_field"] * 2
    assert [refused(copies.call, seed) for seed in copies.seeds[2:]] == ["invalid_field"] * 2
    for decoder in (records, copies):
        decoder.call(decoder.seeds[0])


def test_tables_that_nest_too_deeply_are_refused() -> None:
    assert refused(toml_reading.parse, DEEP) == "settings_unreadable"
    assert refused(masters.complete, {calendar.FILE: DEEP}, None) == "master_invalid"
    assert refused(masters.complete, {"lists.toml": DEEP}, None) == "master_invalid"


@pytest.mark.requirement("LAW-04")
@pytest.mark.parametrize("name", ["kinds.csv", "affairs.csv", "provider_limits.csv", "layouts.csv", "gap_codes.csv"])
def test_a_row_that_was_cut_off_or_has_too_much_is_refused(name: str) -> None:
    text = masters.complete({}, None)[name]
    for bent in (text.rstrip().rpartition(",")[0] + "\n", text.rstrip() + ",more\n"):
        assert refused(masters.complete, {name: bent}, None) == "master_invalid"


def test_a_list_that_is_none_is_refused() -> None:
    for text in ("list = 5\n", "list = [5]\n", 'list = ["x"]\n', ""):
        assert refused(masters.complete, {"lists.toml": text}, None) == "master_invalid"


def test_the_files_of_the_release_are_whole() -> None:
    assert masters.complete({}, None).keys() > {"lists.toml", "kinds.csv"}


def bent(der: bytes, at: bytes, to: bytes) -> bytes:
    """Replace bytes that stand once, and of the same length, so that the lengths around them hold."""
    assert der.count(at) == 1
    assert len(at) == len(to)
    return der.replace(at, to)


def certificates_that_are_none() -> list[bytes]:
    """Return certificates at which the library raises what is no ``ValueError``."""
    der = all_decoders()["certificate's name"].seeds[0]
    version = bent(der, b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x12")
    # The extended usages' identifier becomes that of the alternative names, which is there already.
    return [version, bent(der, b"\x06\x03\x55\x1d\x25", b"\x06\x03\x55\x1d\x11")]


@pytest.mark.parametrize("name", ["certificate's name", "certificate's chain", "shown certificate"])
def test_a_certificate_of_no_version_or_with_an_extension_twice_is_refused(name: str) -> None:
    decoder = all_decoders()[name]
    for number, der in enumerate(certificates_that_are_none()):
        if name == "shown certificate" and number == 1:
            decoder.call(der)  # only issuer and number are asked for, and they are there
            continue
        with pytest.raises(decoder.allowed):
            decoder.call(der)


def test_a_card_that_is_none_signs_no_change_of_a_master() -> None:
    decoder = all_decoders()["checked signature of a person"]
    for der in certificates_that_are_none():
        signature = {
            "act": "propose",
            "at": "2026-11-23T03:00:00Z",
            "certificates": [base64.b64encode(der).decode()],
            "signature": "AAAAAAAAAAAA",
        }
        with pytest.raises(decoder.allowed):
            decoder.call(json.dumps(signature).encode())


def test_content_that_is_no_text_is_no_answer_and_no_fault() -> None:
    decoder = all_decoders()["content behind a seal"]
    assert decoder.call(decoder.seeds[0]) is not None
    # Whoever provides seals what it likes; one line that cannot be read must not stop a pushed list.
    assert [decoder.call(raw) for raw in (b'{"\xff":1}', b'{"kind":"\xed\xa0\x80","copies":[]}', b"[" * 9_000)] == [
        None
    ] * 3


def test_every_name_of_the_wire_may_stand_in_a_pointer() -> None:
    names = {name for kind in message_kinds() for name in kind.__struct_encode_fields__}
    assert names <= problems._OUR_NAMES
    for kind in (Enrol, DelegationTerms):
        with pytest.raises(Problem) as problem:
            problems.decode(msgspec.json.Decoder(kind), json.dumps({kind.__struct_encode_fields__[0]: []}).encode())
        assert problem.value.pointer == f"/{kind.__struct_encode_fields__[0]}"
