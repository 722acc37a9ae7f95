"""Numbers with check digits, and the scan that keeps personal numbers out (DESIGN §3, invariant 7).

Four numbers are known here: the individual number (個人番号, 12 digits), the resident code (住民票コード, 11 digits),
the corporate number (法人番号, 13 digits) and the code of a local public body (全国地方公共団体コード, 6 digits).

Invariant: the first two are recognised in order to be refused, never in order to be kept. No function here returns,
logs or raises with the text that it looked at; ``find_forbidden`` says which kind of number there is and nothing more.

Synthetic numbers come from a range of our own: individual numbers whose body (first 11 digits) begins with ``999``,
and resident codes whose body (first 10 digits) begins with ``99``: a hundred million of each. Nobody has reserved
that range officially (the law reserves none for tests); only ``tests`` and the sandbox may generate from it.
"""

import re
from typing import Final, Literal

Forbidden = Literal["individual_number", "resident_code"]

INDIVIDUAL_DIGITS: Final = 12
RESIDENT_DIGITS: Final = 11
CORPORATE_DIGITS: Final = 13
BODY_DIGITS: Final = 6

SYNTHETIC_INDIVIDUAL_PREFIX: Final = "999"
SYNTHETIC_RESIDENT_PREFIX: Final = "99"
SYNTHETIC_RANGE: Final = 10**8
"""How many people the synthetic range holds."""

_INDIVIDUAL_WEIGHTS: Final = (6, 5, 4, 3, 2, 7, 6, 5, 4, 3, 2)
_RESIDENT_WEIGHTS: Final = _INDIVIDUAL_WEIGHTS[1:]
_BODY_WEIGHTS: Final = (6, 5, 4, 3, 2)
_MODULUS: Final = 11
_CORPORATE_MODULUS: Final = 9
_ZERO: Final = ord("0")

# Odd multipliers that share no factor with the range scatter neighbouring serials over it, one to one.
_SCATTER_INDIVIDUAL: Final = 48_271_003
_SCATTER_RESIDENT: Final = 69_621_407

# Spaces and hyphens as Japanese input methods, word processors and copied cards really produce them, and the
# zero-width characters that copied web text brings along.
_SPACES: Final = " \u00a0\u2002-\u200d\u202f\u205f\u2060\u3000\ufeff"
_HYPHENS: Final = "\\-\u00ad\u2010-\u2015\u2212\u30fc\ufe58\ufe63\uff0d\uff70"
_SEPARATOR: Final = f"[{_SPACES}{_HYPHENS}]"
_RUN: Final = re.compile(rf"\d(?:{_SEPARATOR}?\d){{{RESIDENT_DIGITS - 1},}}")
_GROUPS: Final = re.compile(rf"(\d+)({_SEPARATOR}?)")
_CARD_GROUP: Final = 4
_CARD_GROUPS: Final = 3


def _digits(text: str, length: int) -> list[int]:
    if len(text) != length or not (text.isascii() and text.isdigit()):
        raise ValueError(f"expected {length} ASCII digits")
    return [ord(character) - _ZERO for character in text]


def _modulus_11(digits: list[int], weights: tuple[int, ...]) -> int:
    """Return the check digit shared by individual numbers and resident codes: 0 when the remainder is 0 or 1."""
    remainder = sum(digit * weight for digit, weight in zip(digits, weights, strict=True)) % _MODULUS
    return 0 if remainder <= 1 else _MODULUS - remainder


def individual_check(body: str) -> str:
    """Return the check digit of an individual number's first 11 digits (平成26年総務省令第85号5条).

    Raises:
        ValueError: not 11 ASCII digits.
    """
    return str(_modulus_11(_digits(body, INDIVIDUAL_DIGITS - 1), _INDIVIDUAL_WEIGHTS))


def resident_check(body: str) -> str:
    """Return the check digit of a resident code's first 10 digits (平成14年総務省告示第436号; medium confidence).

    Raises:
        ValueError: not 10 ASCII digits.
    """
    return str(_modulus_11(_digits(body, RESIDENT_DIGITS - 1), _RESIDENT_WEIGHTS))


def corporate_check(base: str) -> str:
    """Return the check digit that stands before a corporate number's 12 base digits (法人番号の指定等に関する省令2条).

    Raises:
        ValueError: not 12 ASCII digits.
    """
    digits = _digits(base, CORPORATE_DIGITS - 1)
    odd, even = sum(digits[::-1][::2]), sum(digits[::-1][1::2])
    return str(_CORPORATE_MODULUS - (odd + 2 * even) % _CORPORATE_MODULUS)


def body_check(code5: str) -> str:
    """Return the check digit of a local public body's 5-digit code (全国地方公共団体コード).

    Raises:
        ValueError: not 5 ASCII digits.
    """
    digits = _digits(code5, BODY_DIGITS - 1)
    remainder = sum(digit * weight for digit, weight in zip(digits, _BODY_WEIGHTS, strict=True)) % _MODULUS
    return str((_MODULUS - remainder) % 10)


def _passes(text: str, length: int) -> bool:
    return len(text) == length and text.isascii() and text.isdigit()


def is_individual_number(text: str) -> bool:
    """Tell whether ``text`` is 12 ASCII digits with a valid check digit; one random string in ten is."""
    return _passes(text, INDIVIDUAL_DIGITS) and individual_check(text[:-1]) == text[-1]


def is_resident_code(text: str) -> bool:
    """Tell whether ``text`` is 11 ASCII digits with a valid check digit; one random string in ten is."""
    return _passes(text, RESIDENT_DIGITS) and resident_check(text[:-1]) == text[-1]


def is_corporate_number(text: str) -> bool:
    """Tell whether ``text`` is 13 ASCII digits with a valid leading check digit."""
    return _passes(text, CORPORATE_DIGITS) and corporate_check(text[1:]) == text[0]


def is_body_code(text: str) -> bool:
    """Tell whether ``text`` is 6 ASCII digits with a valid check digit; it need not be a body that exists."""
    return _passes(text, BODY_DIGITS) and body_check(text[:-1]) == text[-1]


def synthetic_individual_number(serial: int) -> str:
    """Return the individual number of a synthetic person: one to one in ``serial``, scattered over the range.

    Raises:
        ValueError: ``serial`` is outside the range.
    """
    _check_serial(serial)
    body = f"{SYNTHETIC_INDIVIDUAL_PREFIX}{serial * _SCATTER_INDIVIDUAL % SYNTHETIC_RANGE:08d}"
    return body + individual_check(body)


def synthetic_resident_code(serial: int) -> str:
    """Return the resident code of a synthetic person: one to one in ``serial``, scattered over the range.

    Raises:
        ValueError: ``serial`` is outside the range.
    """
    _check_serial(serial)
    body = f"{SYNTHETIC_RESIDENT_PREFIX}{serial * _SCATTER_RESIDENT % SYNTHETIC_RANGE:08d}"
    return body + resident_check(body)


def in_synthetic_range(resident_code: str) -> bool:
    """Tell whether a resident code is one that only a synthetic person can have; nobody's real one is."""
    return _passes(resident_code, RESIDENT_DIGITS) and resident_code.startswith(SYNTHETIC_RESIDENT_PREFIX)


def _check_serial(serial: int) -> None:
    if not 0 <= serial < SYNTHETIC_RANGE:
        raise ValueError(f"a synthetic serial lies between 0 and {SYNTHETIC_RANGE - 1}")


def find_forbidden(text: str) -> Forbidden | None:
    """Tell whether free text holds what passes for an individual number or a resident code, and which.

    Looked at are runs of digits (full-width and other decimal digits folded) in which single spaces or hyphens may
    stand between digits. Forbidden is, with a valid check digit, a whole run of exactly 12 or 11 digits; an unbroken
    group of exactly that many inside a longer run (``令和7 999…``); and three groups of four with one and the same
    separator, as the card prints the number, when not a fourth group follows (a payment card's 16 digits).

    Two dates side by side, telephone numbers of 10 digits, corporate numbers and codes of 13 digits and more pass. An
    11-digit mobile number is refused one time in ten: a field for telephone numbers is typed and not scanned.
    """
    for run in _RUN.finditer(text):
        for candidate in _candidates(run.group()):
            if is_individual_number(candidate):
                return "individual_number"
            if is_resident_code(candidate):
                return "resident_code"
    return None


def _candidates(run: str) -> list[str]:
    """Return the digit strings of a run that may be a number, folded to ASCII."""
    groups = [(_fold(digits), separator) for digits, separator in _GROUPS.findall(run)]
    candidates = ["".join(digits for digits, _ in groups)]
    candidates += [digits for digits, _ in groups if len(digits) in (RESIDENT_DIGITS, INDIVIDUAL_DIGITS)]
    candidates += [
        "".join(digits for digits, _ in groups[first : first + _CARD_GROUPS])
        for first in range(len(groups) - _CARD_GROUPS + 1)
        if _printed_like_a_card(groups, first)
    ]
    return candidates


def _printed_like_a_card(groups: list[tuple[str, str]], first: int) -> bool:
    """Tell whether exactly three groups of four digits with one separator start at ``first``."""
    joiner = groups[first][1]

    def belongs(index: int, separator: str) -> bool:
        return 0 <= index < len(groups) and len(groups[index][0]) == _CARD_GROUP and separator == joiner

    second, third, fourth = first + 1, first + 2, first + 3
    return (
        belongs(first, joiner)
        and belongs(second, joiner)
        and belongs(third, groups[second][1])
        and not belongs(fourth, groups[third][1])
        and not (first > 0 and belongs(first - 1, groups[first - 1][1]))
    )


def _fold(digits: str) -> str:
    return digits if digits.isascii() else "".join(str(int(digit)) for digit in digits)
