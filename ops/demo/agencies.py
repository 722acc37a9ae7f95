"""The demo's agencies, systems, officers and kill switch, made by an operator's acts and never otherwise.

What an operator did since an earlier start stays: agencies and clients that were added, stops that were set, rights of
the demo's own clients that were changed. Only what the demo needs and lacks is made.
"""

from chukan.errors import Problem
from chukan.ops.demo import cast
from chukan.ops.demo.questions import STOPPED
from chukan.ops.installation import Installation, publish
from chukan.tenants.changes import Changes
from chukan.tenants.directory import Snapshot, Stop


async def keep_agencies(installation: Installation) -> Snapshot:
    """Return the common data with everything that the demo needs, published in both cells.

    ``Problem`` agency_closed, naming it, when an operator closed an agency of the demo; and as ``publish`` says.
    """
    found = (await installation.common()).snapshot
    if found is None:
        # Once only: later on, a key store without its folders is one that was lost.
        installation.keystores.prepare()
    else:
        _refuse_closed(found)
    known = set() if found is None else {client.id for client in found.clients}
    kind, procedure = STOPPED
    changes = Changes().set_law(installation.law.number).stop(kind=kind, procedure=procedure)
    for agency in cast.agencies():
        changes.add_agency(code=agency.code, body=agency.body, name=agency.name, cell=agency.home_centre or "")
    for client in cast.clients():
        if client.id not in known:
            changes.register(client)
    return (await publish(installation, changes)).snapshot


def _refuse_closed(snapshot: Snapshot) -> None:
    """A closed agency is never opened again, and the demo asks in the name of each of its agencies."""
    needed = {agency.code for agency in cast.agencies()}
    for row in snapshot.agencies:
        if row.code in needed and row.state == "closed":
            raise Problem(
                "agency_closed", expected=f"{row.code} {row.name} to be open; ./chukan demo --reset begins anew"
            )


def foreign_stops(snapshot: Snapshot) -> list[Stop]:
    """Return the kill switches that an operator set: because of them, queries end otherwise than they were meant to."""
    kind, procedure = STOPPED
    return [stop for stop in snapshot.stopped if (stop.kind, stop.procedure) != (kind, procedure)]
