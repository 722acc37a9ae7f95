"""How the network's core makes linkage codes (符号), management codes and acquisition numbers (取得番号).

A linkage code is HMAC-SHA-256 of the resident code (住民票コード) under a key of its own for each agency: it comes from
the resident code by conversion, cannot be turned back without the key, and differs for every person and every agency
(番号法施行令27条5項1-4号). The management code (管理番号, 命令47条3項) stands for a person in the core's own records.
Every key derives from the core's one secret, which rests in a file of the network and nowhere else.

Invariant: a resident code enters ``linkage`` and ``management`` and is never returned, kept or logged.
"""

import base64
import hashlib
import hmac
import os
import re
from functools import cached_property
from pathlib import Path
from typing import Final

from chukan.chance import Chance

SECRET_BYTES: Final = 32
_NUMBER_BYTES: Final = 15  # 24 characters of base32
_LOOKS_LIKE_A_NUMBER: Final = re.compile(r"[0-9]{8}")
_DRAWS_MAX: Final = 100


class CodeMaker:
    """Derives codes under one secret of at least 32 bytes; ``ValueError`` for a shorter one."""

    def __init__(self, secret: bytes) -> None:
        if len(secret) < SECRET_BYTES:
            raise ValueError("the core's secret is too short")
        self._secret = secret
        self._agencies: dict[str, bytes] = {}

    def linkage(self, agency: str, resident_code: str) -> bytes:
        """Return the 32-byte linkage code of a person at one agency (16-digit code); the same again each time."""
        key = self._agencies.get(agency)
        if key is None:
            key = self._agencies[agency] = self._derive("linkage", agency)
        return hmac.digest(key, resident_code.encode("ascii"), hashlib.sha256)

    def management(self, resident_code: str) -> bytes:
        """Return the 32-byte code by which the core's own records know a person (REC-06)."""
        return hmac.digest(self._management, resident_code.encode("ascii"), hashlib.sha256)

    def number_digest(self, number: str) -> bytes:
        """Return the 32-byte audit digest that alone stays of a used acquisition number (SYM-06)."""
        return hmac.digest(self._numbers, number.encode("ascii"), hashlib.sha256)

    @cached_property
    def _management(self) -> bytes:
        return self._derive("management", "")

    @cached_property
    def _numbers(self) -> bytes:
        return self._derive("number", "")

    def _derive(self, purpose: str, name: str) -> bytes:
        return hmac.digest(self._secret, f"chukan-core-v1\n{purpose}\n{name}".encode(), hashlib.sha256)


def make_number(chance: Chance) -> str:
    """Return an acquisition number: ``A`` and 24 random characters of base32 (120 bits).

    It must never be taken for an individual number or a resident code: one with a run of eight digits is drawn again.
    """
    for _ in range(_DRAWS_MAX):
        number = "A" + base64.b32encode(chance.token(_NUMBER_BYTES)).decode("ascii")
        if _LOOKS_LIKE_A_NUMBER.search(number) is None:
            return number
    raise RuntimeError("the source of randomness repeats itself")


def keep_secret(path: Path, chance: Chance) -> bytes:
    """Return the core's secret, made at the first call and written once with mode 0600."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(chance.token(SECRET_BYTES))
            file.flush()
            os.fsync(file.fileno())
    return path.read_bytes()
