"""One-time codes by which a new officer sets the own factors (登録コード): two halves, one for each who decided.

The proposer of an account reads one half and its approver the other; only the officer gets both. So neither of the two
administrators can take the account before the officer does. The halves follow from the agency's key and the change, so
that they need not be kept anywhere, and a repeated request shows the same.
"""

from __future__ import annotations

import base64
import uuid
from typing import Final, Literal

from chukan.tenants.sealing import AgencyKeys

Half = Literal["proposer", "approver"]
HALVES: Final[tuple[Half, Half]] = ("proposer", "approver")
_BYTES: Final = 5
"""40 bits each; guesses are counted and lock the account."""


def half_code(keys: AgencyKeys, half: Half, change: uuid.UUID, officer: str) -> str:
    """Return one half: eight characters, A–Z and 2–7."""
    value = f"enrol {half}\0".encode() + change.bytes + officer.encode()
    return base64.b32encode(keys.digest("officer", value)[:_BYTES]).decode()
