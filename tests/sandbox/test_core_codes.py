"""How the core makes codes: from the resident code, not back again, another one for every person and agency."""

import hashlib
import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chukan.chance import SeededChance, SystemChance
from chukan.clock import SystemClock
from chukan.ops.sandbox.codes import CodeMaker, keep_secret, make_number

RESIDENT_CODES = st.from_regex(r"[0-9]{11}", fullmatch=True)
AGENCIES = st.from_regex(r"[0-9]{16}", fullmatch=True)
SECRET = bytes(range(32))


@pytest.mark.requirement("SYM-04", "SYM-08")
@given(st.sets(RESIDENT_CODES, min_size=2, max_size=6), st.sets(AGENCIES, min_size=2, max_size=6))
def test_codes_differ_for_every_person_and_every_agency(people: set[str], agencies: set[str]) -> None:
    maker = CodeMaker(SECRET)
    codes = [maker.linkage(agency, person) for agency, person in itertools.product(agencies, people)]

    assert len(set(codes)) == len(codes)
    assert all(len(code) == 32 for code in codes)


@pytest.mark.requirement("SYM-04")
@given(RESIDENT_CODES, AGENCIES)
def test_a_code_follows_from_the_resident_code_alone_under_the_same_secret(person: str, agency: str) -> None:
    assert CodeMaker(SECRET).linkage(agency, person) == CodeMaker(SECRET).linkage(agency, person)


@pytest.mark.requirement("SYM-04")
def test_who_lacks_the_secret_cannot_find_the_person_by_trying_all() -> None:
    person = "00000000042"
    code = CodeMaker(SECRET).linkage("9901011002000001", person)
    guesses = [f"{number:011d}" for number in range(1000)]
    other = CodeMaker(bytes(32))

    assert code not in {other.linkage("9901011002000001", guess) for guess in guesses}
    assert code not in {hashlib.sha256(guess.encode()).digest() for guess in guesses}
    assert [guess for guess in guesses if CodeMaker(SECRET).linkage("9901011002000001", guess) == code] == [person]


@pytest.mark.requirement("REC-06")
def test_the_management_code_is_no_linkage_code_of_anybody() -> None:
    maker = CodeMaker(SECRET)

    assert maker.management("00000000042") != maker.linkage("9901011002000001", "00000000042")
    assert maker.management("00000000042") == maker.management("00000000042")
    assert maker.management("00000000042") != maker.management("00000000043")


@pytest.mark.requirement("SYM-02")
def test_an_acquisition_number_can_be_taken_for_no_other_number() -> None:
    chance = SeededChance(7, SystemClock())
    numbers = [make_number(chance) for _ in range(2000)]

    assert len(set(numbers)) == len(numbers)
    for number in numbers:
        assert re.fullmatch(r"A[A-Z2-7]{24}", number)
        assert re.search(r"[0-9]{8}", number) is None


def test_a_number_of_digits_is_drawn_again() -> None:
    class Digits:
        """Draws bytes whose base32 is all digits first."""

        def __init__(self) -> None:
            self.drawn = 0

        def token(self, n: int) -> bytes:
            self.drawn += 1
            return b"\xff" * n if self.drawn == 1 else bytes(n)

    chance = Digits()

    assert make_number(chance) == "A" + "A" * 24  # type: ignore[arg-type]
    assert chance.drawn == 2


def test_a_short_secret_is_refused() -> None:
    with pytest.raises(ValueError, match="too short"):
        CodeMaker(b"short")


def test_the_secret_is_made_once_and_kept_for_its_owner_only(tmp_path) -> None:
    chance = SystemChance(SystemClock())
    path = tmp_path / "state" / "core.key"

    first = keep_secret(path, chance)

    assert keep_secret(path, chance) == first
    assert len(first) == 32
    assert path.stat().st_mode & 0o777 == 0o600
