"""``chukan keys``: how agencies' keys stand in both centres; rotate them while traffic runs; destroy them on an order.

An operator sees versions and marks, never a key. Destruction is the agency's: it takes the same order of two officers
as ``chukan agency destroy``, of which it is the first half. What follows a rotation (re-encryption, the end of old
versions) stands in ``key_rows``.
"""

import asyncio
from pathlib import Path
from typing import Any, Literal, NamedTuple

from cyclopts import App

from chukan import log
from chukan.errors import Problem
from chukan.ops import installation as acts
from chukan.ops import key_rows, orders
from chukan.ops.installation import Installation
from chukan.ops.output import Json, say, table
from chukan.tenants.changes import require_agency
from chukan.tenants.directory import AgencyRow
from chukan.tenants.key_port import KeyStore, Name
from chukan.tenants.key_token import TokenAwayError, TokenKeyStore
from chukan.tenants.keystore import KeyStores
from chukan.tenants.sealing import VERSIONS_MAX

app = App(name="keys", help="Show, rotate and destroy the keys of agencies, in the key stores of both centres.")

_log = log.get("keystore")


class Standing(NamedTuple):
    """One agency's keys in one centre's store."""

    agency: str
    centre: str
    state: str
    """confirmed, unconfirmed, none, destroyed, damaged, which retirement was cut off, or why the store is away."""
    data: list[int]
    answer: list[int]


@app.command
def status(code: str | None = None, *, config: Path | None = None, as_json: Json = False) -> int:
    """Show the keys of an agency, or of all, in each centre's store; exit code 1 when one is not as it should be.

    Every key is unwrapped for it, so a token that does not work is seen.

    Args:
        code: Code of the agency, 16 digits.
        config: Settings file; CHUKAN_SETTINGS names it otherwise.
        as_json: Print JSON.
    """

    async def act(installation: Installation) -> list[Standing]:
        snapshot = await installation.snapshot()
        rows = [require_agency(snapshot, code)] if code else sorted(snapshot.agencies, key=lambda row: row.number)
        stores = installation.keystores.stores
        return await asyncio.to_thread(
            lambda: [
                _with_retirement(installation.keystores, row, _look(row, centre, store))
                for row in rows
                for centre, store in sorted(stores.items())
            ]
        )

    found = acts.run(config, act)
    rows = [[each.agency, each.centre, each.state, _versions(each.data), _versions(each.answer)] for each in found]
    shown = table("agency", "centre", "state", "data key", "answer key", rows=rows)
    say([each._asdict() for each in found], shown, as_json=as_json)
    alike = {(each.agency, each.state, *each.data, -1, *each.answer) for each in found}
    well = all(each.state in ("confirmed", "destroyed") for each in found)
    return 0 if well and len(alike) == len({each.agency for each in found}) else 1


key_rows.add_to(app)


def _look(row: AgencyRow, centre: str, store: KeyStore) -> Standing:
    try:
        keys = store.read(row.number)
    except TokenAwayError as error:
        return Standing(row.code, centre, f"away: {error}", [], [])
    except OSError:
        return Standing(row.code, centre, "away", [], [])
    except Problem as problem:
        states = {"agency_closed": "destroyed", "keys_unconfirmed": "damaged"}
        return Standing(row.code, centre, states.get(problem.code, problem.code), [], [])
    names = [name for name, held in keys.items() if held.confirmed]
    state = "none" if not keys else "confirmed" if len(names) == len(keys) else "unconfirmed"
    return Standing(row.code, centre, state, _of(names, "data"), _of(names, "answer"))


def _with_retirement(stores: KeyStores, row: AgencyRow, found: Standing) -> Standing:
    """Say of a centre that holds old versions which another one has begun to destroy, and of which."""
    begun = stores.unfinished(row.number) if found.state == "confirmed" else None
    if begun is None or found.centre not in begun.centres:
        return found
    return found._replace(state=f"retirement below {begun.below} not finished")


def _of(names: list[Name], purpose: str) -> list[int]:
    return sorted(name.version for name in names if name.purpose == purpose)


def _versions(versions: list[int]) -> str:
    """The newest, and how many there are."""
    return f"{versions[-1]} ({len(versions)})" if versions else "-"


@app.command
def rotate(
    code: str | None = None,
    *,
    all_agencies: bool = False,
    purpose: Literal["data", "answer"] = "data",
    config: Path | None = None,
    as_json: Json = False,
) -> None:
    """Add a new version of a key in both centres, while traffic runs; older versions stay for what they sealed.

    Running exchanges take the new version within seconds.

    Args:
        code: Code of the agency, 16 digits.
        all_agencies: Every open agency instead.
        purpose: The data key, or the key pair that answers are sealed to.
        config: Settings file; CHUKAN_SETTINGS names it otherwise.
        as_json: Print JSON.
    """
    if (code is None) != all_agencies:
        raise Problem("invalid_field", pointer="/code", expected="a code, or --all-agencies")

    async def act(installation: Installation) -> list[dict[str, Any]]:
        snapshot = await installation.snapshot()
        every = [row for row in snapshot.agencies if row.state == "open"]
        rows = every if code is None else [require_agency(snapshot, code)]
        return [await _rotate(installation, row, purpose) for row in rows]

    done = acts.run(config, act)
    rows = [[each["agency"], each["purpose"], str(each["version"])] for each in done]
    say(done, table("agency", "key", "version", rows=rows), as_json=as_json)


async def _rotate(installation: Installation, row: AgencyRow, purpose: Literal["data", "answer"]) -> dict[str, Any]:
    try:
        version = await asyncio.to_thread(installation.keystores.rotate, row.number, purpose)
    except ValueError:
        raise Problem("key_versions_exhausted", limit=VERSIONS_MAX) from None
    _log.warning("key rotated", agency=row.number, stage=purpose, version=version)
    return {"agency": row.code, "purpose": purpose, "version": version}


@app.command
def destroy(code: str, *, order: Path | None = None, config: Path | None = None, as_json: Json = False) -> None:
    """Destroy a closed agency's keys for ever, in every centre: nobody can read its rows, backups included.

    Its tables stay until ``chukan agency destroy`` takes them under the same order.

    Args:
        code: Code of the agency.
        order: Order to destroy, signed by two officers of the agency.
        config: Settings file; CHUKAN_SETTINGS names it otherwise.
        as_json: Print JSON.
    """
    document = None if order is None else orders.read_order(order)

    async def act(installation: Installation) -> AgencyRow:
        return await acts.destroy_keys(installation, code, document)

    row = acts.run(config, act)
    say({"agency": row.code, "keys": "destroyed"}, f"{row.code}: keys destroyed", as_json=as_json)


@app.command
def tokens(*, config: Path | None = None, as_json: Json = False) -> int:
    """Show whether each centre's token (HSM) works: it is logged in to; exit code 1 when one does not."""

    async def act(installation: Installation) -> list[dict[str, str]]:
        stores = sorted(installation.keystores.stores.items())
        return [await asyncio.to_thread(_ask, centre, store) for centre, store in stores]

    found = acts.run(config, act)
    shown = table("centre", "master keys", "state", rows=[[*each.values()] for each in found])
    say(found, shown, as_json=as_json)
    return 0 if all(each["state"] == "works" for each in found) else 1


def _ask(centre: str, store: KeyStore) -> dict[str, str]:
    if not isinstance(store, TokenKeyStore):
        return {"centre": centre, "masters": "files (for a demo only)", "state": "works"}
    try:
        return {"centre": centre, "masters": f"{store.masters()} keys in a token", "state": "works"}
    except OSError as error:
        return {"centre": centre, "masters": "token", "state": str(error)}
