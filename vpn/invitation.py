"""Invitations (招待): a code that one person tells another once, and the signing key that follows from it.

The code is 26 characters of Crockford's base32 (https://www.crockford.com/base32.html), read aloud or typed: 25 of them
are drawn (125 bits), the last is a check over GF(32) that finds every single wrong character and every two characters
that changed places, before anything is sent. Its Ed25519 key is derived by HKDF-SHA256 (RFC 5869). The platform keeps
the public half and the day on which the invitation ends; the device signs its request with the private half.

Invariant: whoever has the database or a request file cannot find the code or sign with it. The code is never logged,
never part of an exception and never written to a file by anything here.
"""

from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from chukan.chance import Chance
from chukan.errors import Problem

ALPHABET: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
LENGTH: Final = 26
FORM: Final = "26 characters in groups, as XXXXX-XXXXX-XXXXX-XXXXX-XXXXXX"

_INFO: Final = b"chukan link invitation v1"
_GROUPS: Final = (5, 5, 5, 5, 6)
_TEXT_MAX: Final = 128
_VALUES: Final = {sign: value for value, sign in enumerate(ALPHABET)} | {"O": 0, "I": 1, "L": 1}
_DROPPED: Final = frozenset("- \t\r\n\u2010\u2011\u2212\u3000")
"""What may stand between the characters: hyphens and spaces as keyboards and word processors make them."""
_POLYNOMIAL: Final = 0b100101
"""x^5 + x^2 + 1, primitive: the powers of x are all 31 elements but zero, so each place has a weight of its own."""
_SIZE: Final = 32
_FULL_WIDTH: Final = 0xFEE0


def new_code(chance: Chance) -> str:
    """Return a new code in groups, to be shown once to the person who will tell it."""
    values = [octet % _SIZE for octet in chance.token(LENGTH - 1)]
    text = "".join(ALPHABET[value] for value in [*values, _check(values)])
    ends = [sum(_GROUPS[: count + 1]) for count in range(len(_GROUPS))]
    return "-".join(text[end - size : end] for end, size in zip(ends, _GROUPS, strict=True))


def normal(text: str) -> str:
    """Return a code as it was drawn: capitals, no separators; O is read as 0, I and L as 1, full width as half width.

    Raises ``Problem`` invitation_mistyped, which says nothing of what was typed.
    """
    if len(text) > _TEXT_MAX:
        raise Problem("invitation_mistyped", expected=FORM)
    signs = [_half_width(sign).upper() for sign in text if sign not in _DROPPED]
    values = [_VALUES.get(sign, -1) for sign in signs]
    if len(values) != LENGTH or min(values) < 0 or values[-1] != _check(values[:-1]):
        raise Problem("invitation_mistyped", expected=FORM)
    return "".join(ALPHABET[value] for value in values)


def key_of(code: str) -> Ed25519PrivateKey:
    """Return the key that signs for an invitation; ``Problem`` invitation_mistyped."""
    secret = HKDF(algorithm=SHA256(), length=32, salt=None, info=_INFO).derive(normal(code).encode("ascii"))
    return Ed25519PrivateKey.from_private_bytes(secret)


def public_of(code: str) -> bytes:
    """Return what the platform keeps of a code, 32 bytes; ``Problem`` invitation_mistyped."""
    return key_of(code).public_key().public_bytes_raw()


def _half_width(sign: str) -> str:
    return chr(ord(sign) - _FULL_WIDTH) if "\uff01" <= sign <= "\uff5e" else sign


def _check(values: list[int]) -> int:
    """Return the value that makes the weighted sum of all places zero; the check's own weight is 1."""
    total = 0
    for value in values:
        total = _times_x(total ^ value)
    return total


def _times_x(value: int) -> int:
    doubled = value << 1
    return doubled ^ _POLYNOMIAL if doubled & _SIZE else doubled
