"""Facts that judging needs: who has a linkage code, which agencies exist, whether an Idempotency-Key is too old."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Sequence
from typing import Final

from chukan.chance import uuid7_time
from chukan.clock import Clock
from chukan.errors import Problem
from chukan.platform.exchange.context import Context
from chukan.platform.law import Law
from chukan.tenants.directory import AgencyRow, Directory
from chukan.tenants.rows import CodeRow
from chukan.tenants.sealing import AgencyKeys

KEY_AGE_MAX: Final = dt.timedelta(days=7)
_UUID7: Final = 7
FIND_TIMEOUT_S: Final = 15.0


class Persons:
    """Looks up the links of persons by addressee number, as sets per cell."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._stages = context.stages("find_codes", lambda sets: sets.find_codes)

    def person(self, agency: AgencyRow, addressee: str) -> bytes:
        """The agency's keyed digest of an addressee number (団体内統合宛名番号)."""
        return self._context.keys(agency.number).digest("addressee", addressee.encode())

    async def links(self, agency: AgencyRow, addressees: Sequence[str]) -> list[CodeRow | None]:
        """The link of each person, None where no acquisition was ever opened."""
        pairs = [(agency.number, self.person(agency, addressee)) for addressee in addressees]
        return await self._stages[agency.cell].submit_many(pairs, FIND_TIMEOUT_S)

    @staticmethod
    def open_code(keys: AgencyKeys, link: CodeRow) -> bytes:
        """The linkage code of an active link, in the clear for one message only."""
        if link.code is None or link.code_digest is None:
            raise Problem("no_code")
        return keys.open("code", link.code_digest, link.code)

    async def close(self) -> None:
        """Finish what is in flight."""
        for stage in self._stages.values():
            await stage.close()


def provider_known(directory: Directory, code: str, law: Law) -> bool:
    """Whether a provider exists, on this platform or outside it (a ministry speaks to the network by itself)."""
    try:
        directory.agency(code)
    except Problem as problem:
        return problem.code == "agency_closed" or law.known_agency(code)
    return True


def refuse_old_key(key: str, clock: Clock) -> None:
    """Refuse a UUIDv7 key older than the time for which keys are kept: it might already be forgotten.

    Raises:
        Problem: idempotency_key_too_old.
    """
    try:
        parsed = uuid.UUID(key)
    except ValueError:
        return
    if parsed.version == _UUID7 and clock.now() - uuid7_time(parsed) > KEY_AGE_MAX:
        raise Problem("idempotency_key_too_old")
