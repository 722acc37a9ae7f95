"""Changes to the common data (共通データ), collected and then published as one snapshot.

``Changes`` keeps steps; ``apply`` derives what comes of a snapshot by them. Every step says what must hold afterwards,
so that one that was already done changes nothing: after a crash, or when another operator was quicker, the same changes
are simply applied again.

Invariant: pure; a step refuses what the directory could not hold (an agency under two cells, rights at another body's
agency, an officer's function for a system) before anything is done for it.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import Any, Self, TypeVar

import msgspec

from chukan.errors import Problem
from chukan.tenants import directory
from chukan.tenants.directory import OFFICER_FUNCTIONS, AgencyRow, ClientRow, Snapshot, Stop

Step = Callable[[Snapshot, dt.datetime], Snapshot]
T = TypeVar("T", bound=msgspec.Struct)


class Changes:
    """Changes that belong together, in the order in which they were given."""

    def __init__(self) -> None:
        self._steps: list[Step] = []

    def add_agency(self, *, code: str, body: str, name: str, cell: str) -> Self:
        """Have an agency, open, in this cell.

        When applied: ``Problem`` agency_closed for a code that a closed one had, invalid_field when it exists with
        another body, cell or name.
        """
        row = _checked(AgencyRow, number=1, code=code, body=body, name=name, cell=cell, generation=1)

        def step(snapshot: Snapshot, at: dt.datetime) -> Snapshot:
            found = find_agency(snapshot, code)
            if found is None:
                return directory.add_agency(snapshot, at, code=code, body=body, name=name, cell=cell)
            if found.state != "open":
                raise Problem("agency_closed")
            # One that moved since is where it is.
            for field in ("body", "name") if found.generation > 1 else ("body", "cell", "name"):
                if getattr(found, field) != getattr(row, field):
                    raise Problem("invalid_field", pointer=f"/{field}", expected="what the agency was added with")
            return snapshot

        return self._then(step)

    def close_agency(self, code: str) -> Self:
        """Have an agency closed; when applied, ``Problem`` unknown_agency."""

        def step(snapshot: Snapshot, at: dt.datetime) -> Snapshot:
            closed = require_agency(snapshot, code).state == "closed"
            return snapshot if closed else directory.close_agency(snapshot, at, code)

        return self._then(step)

    def move_agency(self, code: str, cell: str, generation: int) -> Self:
        """Have an agency live in another cell, from this generation on.

        When applied: ``Problem`` unknown_agency, agency_closed.
        """

        def step(snapshot: Snapshot, at: dt.datetime) -> Snapshot:
            found = require_agency(snapshot, code)
            if found.generation >= generation:
                return snapshot
            return directory.move_agency(snapshot, at, code, cell, generation)

        return self._then(step)

    def forget_agency(self, code: str) -> Self:
        """Take everybody's rights at a closed agency away; its row stays, so that its number is never given again."""

        def step(snapshot: Snapshot, at: dt.datetime) -> Snapshot:
            for client in snapshot.clients:
                if code not in client.agencies:
                    continue
                left = [other for other in client.agencies if other != code]
                if left:
                    snapshot = directory.add_client(snapshot, at, msgspec.structs.replace(client, agencies=left))
                else:
                    snapshot = directory.remove_client(snapshot, at, client.id)
            return snapshot

        return self._then(step)

    def register(self, client: ClientRow) -> Self:
        """Have a system or officer registered exactly like this, in place of what stood under its id.

        ``Problem`` invalid_field for a bad form or a system with an officer's function; when applied, unknown_agency,
        and invalid_field for an agency of another body.
        """
        row = _checked(ClientRow, **msgspec.structs.asdict(client))
        row = msgspec.structs.replace(row, agencies=sorted(set(row.agencies)), functions=sorted(set(row.functions)))
        if not row.agencies:
            raise Problem("invalid_field", pointer="/agencies", expected="at least one agency")
        if row.kind == "system" and not OFFICER_FUNCTIONS.isdisjoint(row.functions):
            raise Problem("invalid_field", pointer="/functions", expected="no function that is an officer's act")

        def step(snapshot: Snapshot, at: dt.datetime) -> Snapshot:
            for code in row.agencies:
                if require_agency(snapshot, code).body != row.body:
                    raise Problem("invalid_field", pointer="/agencies", expected="agencies of the client's own body")
            return snapshot if row in snapshot.clients else directory.add_client(snapshot, at, row)

        return self._then(step)

    def remove(self, client_id: str) -> Self:
        """Have nobody registered under this id."""

        def step(snapshot: Snapshot, at: dt.datetime) -> Snapshot:
            known = any(row.id == client_id for row in snapshot.clients)
            return directory.remove_client(snapshot, at, client_id) if known else snapshot

        return self._then(step)

    def stop(self, *, kind: str | None = None, procedure: str | None = None) -> Self:
        """Have a kill switch (提供停止) stand on a kind, a procedure, the two together, or (neither) everything."""
        row = _checked(Stop, kind=kind, procedure=procedure)

        def step(snapshot: Snapshot, at: dt.datetime) -> Snapshot:
            if row in snapshot.stopped:
                return snapshot
            return directory.stop(snapshot, at, kind=kind, procedure=procedure)

        return self._then(step)

    def lift(self, *, kind: str | None = None, procedure: str | None = None) -> Self:
        """Have exactly this kill switch lifted; others stay."""
        row = _checked(Stop, kind=kind, procedure=procedure)

        def step(snapshot: Snapshot, at: dt.datetime) -> Snapshot:
            if row not in snapshot.stopped:
                return snapshot
            return directory.lift(snapshot, at, kind=kind, procedure=procedure)

        return self._then(step)

    def set_law(self, law_number: int | str, instead_of: int | str | None = None) -> Self:
        """Have these lists of the law named; where it is said ``instead_of`` which ones, in the place of no others.

        When applied: ``Problem`` master_state where others are named.
        """

        def step(snapshot: Snapshot, at: dt.datetime) -> Snapshot:
            if instead_of is not None and snapshot.law_number not in (law_number, instead_of):
                raise Problem("master_state")
            return snapshot if snapshot.law_number == law_number else directory.set_law(snapshot, at, law_number)

        return self._then(step)

    def apply(self, snapshot: Snapshot, at: dt.datetime) -> Snapshot:
        """Return what comes of a snapshot: itself when nothing is left to do, else one under the next number.

        Raises ``Problem`` as the steps say.
        """
        changed = snapshot
        for step in self._steps:
            changed = step(changed, at)
        if changed is snapshot:
            return snapshot
        # However many steps there were, it is one snapshot.
        return msgspec.structs.replace(changed, number=snapshot.number + 1)

    def _then(self, step: Step) -> Self:
        self._steps.append(step)
        return self


def find_agency(snapshot: Snapshot, code: str) -> AgencyRow | None:
    """Return the agency with this 16-digit code, open or closed, or None."""
    return next((row for row in snapshot.agencies if row.code == code), None)


def require_agency(snapshot: Snapshot, code: str) -> AgencyRow:
    """Return the agency with this 16-digit code, open or closed; ``Problem`` unknown_agency."""
    found = find_agency(snapshot, code)
    if found is None:
        raise Problem("unknown_agency")
    return found


def _checked(form: type[T], /, **members: Any) -> T:  # noqa: ANN401 - whatever the row has
    """Return a row whose members have the forms that the directory demands; ``Problem`` invalid_field names one."""
    try:
        return msgspec.convert(members, form)
    except msgspec.ValidationError as error:
        place = str(error).partition(" - at `$")[2].strip("`").replace(".", "/")
        raise Problem("invalid_field", pointer=place.partition("[")[0] or None) from None
