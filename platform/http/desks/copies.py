"""The desk for copies (副本): register a difference, look, export, delete, hold; each call is one transaction.

A repeated request does nothing again: its key is claimed in the transaction of the effect, so that a late retry of an
old registration cannot put the old values back over newer ones.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from chukan.clock import Clock, today_jst
from chukan.errors import Problem
from chukan.platform.http import problems
from chukan.platform.http.desks.door import Door, Keys
from chukan.platform.http.desks.lines import at_line, checked_copy
from chukan.platform.wire.agency import CopyPage, Gap, LineResult, LineResults, StoredCopy
from chukan.tenants import copies, idempotency, own_flags

if TYPE_CHECKING:
    from chukan.chance import Chance
    from chukan.platform.http.ports import RequestKey
    from chukan.platform.law import Law
    from chukan.platform.wire.agency import Copies, CopyDelete, CopyExport, CopyLine, CopySearch, HoldLine, Holds
    from chukan.tenants.directory import AgencyRow

_ITEMS = msgspec.json.Decoder(dict[str, str | Gap])


class PartitionCopies:
    """Implements ``ports.CopyDesk``."""

    def __init__(self, door: Door, keys: Keys, law: Law, clock: Clock, chance: Chance) -> None:
        self._door = door
        self._keys = keys
        self._law = law
        self._clock = clock
        self._chance = chance

    async def register(self, agency: AgencyRow, body: Copies, key: RequestKey) -> LineResults:
        """Register what may be stored, refuse the rest line by line."""
        taken: dict[int, copies.Copy] = {}
        results: dict[int, LineResult] = {}
        for number, line in enumerate(body.lines):
            try:
                taken[number] = self._checked(line)
            except Problem as problem:
                results[number] = _refused(number, at_line(problem, number + 1, f"/lines/{number}"))
        keys = self._keys(agency.number)
        async with self._door(agency) as partition:
            claim = await idempotency.claim(partition, keys, key.key, key.content, self._chance.uuid7())
            became: list[copies.Registered] = ["inserted"] * len(taken)
            if claim.fresh and taken:
                became = await copies.register(
                    partition, keys, list(taken.values()), source=body.source, at=self._clock.now()
                )
        for number, what in zip(taken, became, strict=True):
            results[number] = LineResult(line=number, status="unchanged" if what == "unchanged" else "done")
        return LineResults(lines=[results[number] for number in sorted(results)])

    def _checked(self, line: CopyLine) -> copies.Copy:
        return checked_copy(
            self._law,
            today_jst(self._clock),
            addressee=line.addressee,
            kind=line.kind,
            layout=line.layout,
            period=line.period,
            effective_from=line.effective_from,
            items=line.items,
            review=line.review,
        )

    async def search(self, agency: AgencyRow, body: CopySearch) -> CopyPage:
        """Return the copies of the persons asked for."""
        async with self._door(agency) as partition:
            found = await copies.search(
                partition, self._keys(agency.number), [(wanted.addressee, wanted.kind) for wanted in body.keys]
            )
        return CopyPage(copies=[_view(copy) for copy in found])

    async def export(self, agency: AgencyRow, body: CopyExport) -> CopyPage:
        """Return a page of all copies of a kind."""
        if not self._law.known_kind(body.kind):
            raise Problem("unknown_kind", pointer="/kind")
        async with self._door(agency) as partition:
            page = await copies.export(
                partition, self._keys(agency.number), body.kind, after=body.after, limit=body.limit
            )
        return CopyPage(copies=[_view(copy) for copy in page.copies], next=page.next)

    async def delete(self, agency: AgencyRow, body: CopyDelete, key: RequestKey) -> LineResults:
        """Delete copies; a line that finds nothing is unchanged."""
        keys = self._keys(agency.number)
        wanted = [(line.addressee, line.kind) for line in body.keys]
        async with self._door(agency) as partition:
            claim = await idempotency.claim(partition, keys, key.key, key.content, self._chance.uuid7())
            counts = await copies.delete(partition, keys, wanted) if claim.fresh else [1] * len(wanted)
        return LineResults(
            lines=[
                LineResult(line=number, status="done" if count else "unchanged") for number, count in enumerate(counts)
            ]
        )

    async def hold(self, agency: AgencyRow, body: Holds, key: RequestKey) -> LineResults:
        """Set or lift holds and flags of own information; all lines or none."""
        for number, line in enumerate(body.lines):
            _check_hold(number, line)
            if line.kind is not None and not self._law.known_kind(line.kind):
                raise Problem("unknown_kind", pointer=f"/lines/{number}/kind", line=number + 1)
        keys = self._keys(agency.number)
        async with self._door(agency) as partition:
            claim = await idempotency.claim(partition, keys, key.key, key.content, self._chance.uuid7())
            if claim.fresh:
                wanted = [(line.addressee, line.kind, line.held) for line in body.lines if line.flag == "review"]
                flags = [_own_flag(line) for line in body.lines if line.flag == "own_information"]
                if wanted:
                    await copies.set_holds(partition, keys, wanted)
                if flags:
                    await own_flags.set_flags(partition, keys, flags)
        return LineResults(lines=[LineResult(line=number, status="done") for number in range(len(body.lines))])


def _check_hold(number: int, line: HoldLine) -> None:
    """Raise ``Problem`` invalid_field for a line that names too little, or more than its flag can stand on."""
    if line.flag == "own_information":
        wrong, expected = own_flags.check(_own_flag(line)), "a person, a kind, or both; of a copy both"
    else:
        alone = line.addressee is None and line.kind is None
        of_copy = line.period is not None or line.effective_from is not None
        wrong, expected = ("addressee" if alone or of_copy else None), "a person, a kind, or both, and no copy"
    if wrong is not None:
        raise Problem("invalid_field", pointer=f"/lines/{number}", line=number + 1, expected=expected)


def _own_flag(line: HoldLine) -> own_flags.Wanted:
    return own_flags.Wanted(line.addressee, line.kind, line.period, line.effective_from, line.held)


def _refused(number: int, problem: Problem) -> LineResult:
    return LineResult(line=number, status="refused", problem=problems.body_of(problem))


def _view(copy: copies.StoredCopy) -> StoredCopy:
    return StoredCopy(
        addressee=copy.addressee,
        kind=copy.kind,
        layout=copy.layout,
        effective_from=copy.effective_from,
        items=_ITEMS.decode(copy.items),
        period=copy.period,
        review=copy.review,
        registered_at=copy.registered_at,
        source=copy.source,
    )
