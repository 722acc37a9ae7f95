"""``chukan client``: repair of links (付替・統合・確認) and requests to acquire (符号取得の依頼).

Facts of a person are read from a file, never from the command line: other users of a machine see command lines.
"""

import uuid
from pathlib import Path
from typing import Annotated, Final

import msgspec
from cyclopts import App, Parameter

from chukan.errors import Problem
from chukan.ops import client_view as view
from chukan.ops.client_run import Target, run
from chukan.platform.wire.acquisition_asks import PersonFacts
from chukan.platform.wire.code_changes import MergeLine, RelinkLine

code_changes = App(
    name="code-changes", help="Repair links, as officers: one proposes, another confirms. (符号の紐付け変更)"
)
acquisition = App(
    name="acquisition", help="Ask a provider to acquire a code, or answer such requests. (符号取得の依頼)"
)


@code_changes.command(name="list")
def list_changes(*, target: Target) -> None:
    """List the changes that wait for another officer."""
    run(target, lambda client: client.code_changes(), view.document)


@code_changes.command
def history(addressee: str, *, target: Target) -> None:
    """Show everything that was changed about one addressee number's link."""
    run(target, lambda client: client.code_history(addressee), view.document)


@code_changes.command
def relink(addressee: str, *, target: Target, reason: str, to: str | None = None) -> None:
    """Propose that a code belongs to another addressee number, as a first officer (--officer); it is suspended at once.

    Parameters
    ----------
    addressee
        The number under which the code stands.
    to
        The number to which it belongs. The same number: the suspended link is right. None: the link is in doubt.
    reason
        Why; it stays in the history.
    """
    line = RelinkLine(addressee=addressee, to=to, reason=reason)
    run(target, lambda client: client.relink([line]), view.document)


@code_changes.command
def merge(addressee: str, into: str, *, target: Target, reason: str) -> None:
    """Propose that two addressee numbers are one person, as a first officer (--officer); the second one stays."""
    line = MergeLine(addressee=addressee, into=into, reason=reason)
    run(target, lambda client: client.merge([line]), view.document)


@code_changes.command
def confirm(*changes: uuid.UUID, target: Target, withdraw: Annotated[bool, Parameter(negative="")] = False) -> None:
    """Carry changes out, or withdraw them, as another officer (--officer) than who proposed."""
    if not changes:
        raise Problem("setting_missing", expected="at least one change")
    run(target, lambda client: client.confirm_changes(changes, "withdraw" if withdraw else "apply"), view.document)


@acquisition.command
def request(query: uuid.UUID, facts: Path, *, target: Target) -> None:
    """Ask the provider of a query line that ended with provider_has_no_code to acquire one.

    Parameters
    ----------
    query
        Id of the line.
    facts
        JSON file of the four facts: name, birth_date, sex, address.
    """
    try:
        read = msgspec.json.decode(facts.read_bytes(), type=PersonFacts)
    except msgspec.ValidationError:
        raise Problem("invalid_field", expected="JSON of PersonFacts, see /openapi.json") from None
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        raise Problem("settings_unreadable", expected="a readable JSON file") from None
    run(target, lambda client: client.request_acquisition(query, read), view.document)


@acquisition.command(name="list")
def list_requests(*, target: Target) -> None:
    """List the open requests that came to the agency, with the facts."""
    run(target, lambda client: client.acquisition_requests(), view.document)


@acquisition.command
def fulfil(request_id: uuid.UUID, addressee: str, *, target: Target) -> None:
    """Acquire a code for the person whom the agency found under this addressee number."""
    run(target, lambda client: client.answer_acquisition(request_id, addressee), view.document)


@acquisition.command
def decline(request_id: uuid.UUID, *, target: Target) -> None:
    """Decline a request: nobody here is that person."""
    run(target, lambda client: client.answer_acquisition(request_id, None), view.document)


COMMANDS: Final = (code_changes, acquisition)
"""What hangs directly under ``chukan client``."""
