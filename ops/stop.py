"""``chukan stop``: the kill switch (提供停止) on a kind, a procedure, the two together, or everything.

Both go at once, and into what waits to take effect later. A stop goes to every cell that answers, also when another one
is away; the command then says which one has not heard, and ends with status 1, for there the stop does not stand yet.
Lifting one needs every cell. Every body is told by a notice (お知らせ), of the stop and of its end; that a notice could
not be published never keeps a stop from standing.
"""

from pathlib import Path
from typing import Annotated, NamedTuple

from cyclopts import App, Parameter

from chukan.errors import Problem
from chukan.ops import installation as acts
from chukan.ops import notices
from chukan.ops.installation import Installation
from chukan.ops.link_options import person
from chukan.ops.output import Json, say, table
from chukan.platform.law import Law
from chukan.tenants.changes import Changes
from chukan.tenants.publishing import Published

app = App(name="stop", help="Stop provisions of a kind or under a procedure, and lift the stop.")

Key = Annotated[Path | None, Parameter(name="--directory-key")]
"""Private key (PEM, Ed25519) that signs the common data."""
By = Annotated[str, Parameter(name="--by")]
"""Name of the operator who acts, for the notice."""


class _Done(NamedTuple):
    """What was published, and whether every cell has the notice about it."""

    published: Published
    notified: bool


@app.command
def add(
    *,
    kind: str | None = None,
    procedure: str | None = None,
    everything: Annotated[bool, Parameter(negative="")] = False,
    by: By = "operator",
    config: Path | None = None,
    directory_key: Key = None,
    as_json: Json = False,
) -> int:
    """Stop provisions, at once.

    Args:
        kind: Code of the kind (TM…).
        procedure: Code of the procedure (JT…); with a kind, only the kind under this procedure is stopped.
        everything: Stop all provisions.
        by: Name of the operator who acts.
        config: Settings file; CHUKAN_SETTINGS names it otherwise.
        directory_key: Private key that signs the common data.
        as_json: Print JSON.
    """
    _check(kind, procedure, everything=everything)

    name = person(by)

    async def act(installation: Installation) -> _Done:
        _check_known(installation.law, kind, procedure)
        changes = Changes().stop(kind=kind, procedure=procedure)
        published = await acts.publish(installation, changes, at_once=True, past_missing=True)
        return _Done(published, await _notify(installation, published, kind, procedure, name, lifted=False))

    done = acts.run(config, act, directory_key=directory_key)
    return _tell(done, kind, procedure, "stopped", as_json=as_json)


@app.command
def lift(
    *,
    kind: str | None = None,
    procedure: str | None = None,
    everything: Annotated[bool, Parameter(negative="")] = False,
    by: By = "operator",
    config: Path | None = None,
    directory_key: Key = None,
    as_json: Json = False,
) -> int:
    """Lift exactly this stop; others stay.

    Args:
        kind: Code of the kind, as it was stopped.
        procedure: Code of the procedure, as it was stopped.
        everything: Lift the stop of everything; stops of kinds and procedures stay.
        by: Name of the operator who acts.
        config: Settings file; CHUKAN_SETTINGS names it otherwise.
        directory_key: Private key that signs the common data.
        as_json: Print JSON.
    """
    _check(kind, procedure, everything=everything)

    name = person(by)

    async def act(installation: Installation) -> _Done:
        published = await acts.publish(installation, Changes().lift(kind=kind, procedure=procedure), at_once=True)
        return _Done(published, await _notify(installation, published, kind, procedure, name, lifted=True))

    done = acts.run(config, act, directory_key=directory_key)
    return _tell(done, kind, procedure, "lifted", as_json=as_json)


@app.command(name="list")
def list_(*, config: Path | None = None, as_json: Json = False) -> None:
    """List the stops in force."""
    snapshot = acts.run(config, Installation.snapshot)
    rows = [[stop.kind or "all", stop.procedure or "all"] for stop in snapshot.stopped]
    shown = table("kind", "procedure", rows=rows)
    say({"snapshot": snapshot.number, "stopped": snapshot.stopped}, shown, as_json=as_json)


async def _notify(
    installation: Installation, published: Published, kind: str | None, procedure: str | None, by: str, *, lifted: bool
) -> bool:
    """Tell the bodies what changed; False where a cell could not be told. What stood before was told before."""
    if not published.changed:
        return True
    try:
        return not await notices.of_stop(installation, kind, procedure, by, lifted=lifted)
    except Problem:
        return False


def _check(kind: str | None, procedure: str | None, *, everything: bool) -> None:
    """Refuse words that might stop everything by mistake."""
    if everything == (kind is not None or procedure is not None):
        raise Problem("invalid_field", pointer="/kind", expected="--kind, --procedure or both; or --everything alone")


def _check_known(law: Law, kind: str | None, procedure: str | None) -> None:
    """A stop on a misspelt code would stop nothing."""
    if kind is not None and kind not in law.kinds:
        raise Problem("unknown_kind")
    if procedure is not None and procedure not in law.procedures:
        raise Problem("unknown_procedure")


def _tell(done: _Done, kind: str | None, procedure: str | None, word: str, *, as_json: bool) -> int:
    published = done.published
    told = {
        word: {"kind": kind, "procedure": procedure},
        "changed": published.changed,
        "snapshot": published.snapshot.number,
        "missing": published.missing,
        "notified": done.notified,
    }
    text = f"{word}: kind {kind or 'all'}, procedure {procedure or 'all'} (snapshot {published.snapshot.number})"
    if published.missing:
        text += f"\nNOT told, repeat when back: {', '.join(published.missing)}"
    if not done.notified:
        text += "\nNOT every body could be told: publish a notice by `chukan notice publish`"
    say(told, text, as_json=as_json)
    return 1 if published.missing or not done.notified else 0
