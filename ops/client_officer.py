"""``chukan officer``: sign in and out as an officer, and administer accounts as two administrators (職員アカウント).

The same commands hang under ``chukan client officer``. On the command line the second factor is the officer's card: the
certificate that the connection is made with; a passkey is used in a browser. A session lies in the file that
``--session`` names, readable by its owner alone; every command of ``chukan client`` takes the same option.

Invariant: a password is typed, or read from a file, and never stands on the command line, where others see it.
"""

import getpass
import sys
import uuid
from pathlib import Path
from typing import Annotated, Final

from cyclopts import App, Parameter
from rich.console import Console

from chukan import private_file
from chukan.errors import Problem
from chukan.ops import client_view as view
from chukan.ops import personnel
from chukan.ops.client_run import Target, run
from chukan.platform.wire.officers import Enrol, OfficerChange, OfficerChanges, Officers, SessionView

app = App(name="officer", help="Sign in as an officer; administer accounts, two administrators together. (職員)")
_PASSWORD_BYTES_MAX: Final = 1024
PasswordFile = Annotated[Path | None, Parameter(name="--password-file")]


@app.command
def login(officer: str, *, target: Target, password_file: PasswordFile = None) -> None:
    """Begin a session, by card and password; it is kept in the file that --session names.

    Parameters
    ----------
    officer
        The officer's id (職員ID).
    password_file
        File with the password in one line; it is asked for otherwise.
    """
    if target.session is None:
        raise Problem("setting_missing", expected="--session and a file that the session is to lie in")
    password = _password("Password: ", password_file)
    signed_in = run(target.without_session(), lambda client: client.sign_in(officer, password), _nothing)
    private_file.write(target.session, signed_in.session.encode() + b"\n")
    view.terminal().print(f"{officer}: signed in until {signed_in.until.isoformat()}")


@app.command
def logout(*, target: Target) -> None:
    """End the session, and remove its file."""
    run(target, lambda client: client.sign_out(), view.document)
    if target.session is not None:
        target.session.unlink(missing_ok=True)


@app.command
def me(*, target: Target) -> None:
    """Show who is signed in, and what the officer may do today."""
    run(target, lambda client: client.who_am_i(), _rights)


@app.command
def enrol(
    officer: str, *, target: Target, code_proposer: str, code_approver: str, password_file: PasswordFile = None
) -> None:
    """Set one's own password, with the card of this connection as second factor; once.

    Parameters
    ----------
    officer
        The officer's id.
    code_proposer
        Half of the code, from the administrator who proposed the account.
    code_approver
        The other half, from the one who approved it.
    password_file
        File with the new password in one line; it is asked for otherwise.
    """
    body = Enrol(
        officer=officer,
        code_proposer=code_proposer,
        code_approver=code_approver,
        password=_password("New password: ", password_file),
    )
    run(target, lambda client: client.enrol(body), view.document)


@app.command
def password(*, target: Target, password_file: PasswordFile = None, new_password_file: Path | None = None) -> None:
    """Change one's own password; every session of the officer ends.

    Parameters
    ----------
    password_file
        File with the present password in one line; it is asked for otherwise.
    new_password_file
        The same with the new one.
    """
    present = _password("Present password: ", password_file)
    new = _password("New password: ", new_password_file)
    run(target, lambda client: client.change_password(present, new), view.document)


@app.command(name="list")
def listing(*, target: Target) -> None:
    """List the accounts, with their rights."""
    run(target, lambda client: client.officers(), _accounts)


@app.command
def changes(*, target: Target) -> None:
    """List changes that wait for another administrator, and those that were decided last."""
    run(target, lambda client: client.officer_changes(), _changes)


@app.command
def propose(file: Path, *, target: Target, reason: str = "", charset: str = "utf-8") -> None:
    """Propose a personnel file (人事異動) as one change; another administrator approves it.

    Parameters
    ----------
    file
        CSV with the columns act, officer, name, department, function, affair, first, last, card.
    reason
        Why; it stays with the change. No number of anybody.
    charset
        utf-8, or cp932.
    """
    entries = personnel.read(file, charset=charset)
    run(target, lambda client: client.propose_officers(entries, reason=reason), _change)


@app.command
def approve(change: uuid.UUID, *, target: Target) -> None:
    """Carry out what another administrator proposed."""
    run(target, lambda client: client.approve_officers(change), _change)


@app.command
def reject(change: uuid.UUID, *, target: Target) -> None:
    """Close a proposal without effect."""
    run(target, lambda client: client.reject_officers(change), _change)


def _password(prompt: str, path: Path | None) -> str:
    """Return a password. Raises ``Problem`` settings_unreadable, setting_missing."""
    if path is None:
        if not sys.stdin.isatty():
            raise Problem("setting_missing", expected="a terminal, or a file with the password")
        return getpass.getpass(prompt)
    try:
        content = path.read_bytes()[:_PASSWORD_BYTES_MAX].decode()
    except (OSError, UnicodeDecodeError):
        raise Problem("settings_unreadable", expected="a readable file with the password") from None
    return content.rstrip("\r\n")


def _nothing(_console: Console, _reply: object) -> None:
    """Show nothing: the reply holds the session."""


def _rights(console: Console, reply: SessionView) -> None:
    console.print(f"{reply.officer}, until {reply.until.isoformat()}")
    table = view.table("function", "affairs")
    for right in reply.rights:
        table.add_row(right.function, "every one" if right.affairs is None else " ".join(right.affairs))
    console.print(table)


def _accounts(console: Console, reply: Officers) -> None:
    table = view.table("officer", "name", "department", "serves", "factors", "rights")
    for officer in reply.officers:
        serves = f"{officer.first} – {officer.last or ''}"
        factors = "set" if officer.enrolled else "not set"
        factors = factors if officer.locked_until is None else f"{factors}, locked until {officer.locked_until:%H:%M}Z"
        rights = "\n".join(
            f"{grant.function} {grant.affair or ''} {grant.first} – {grant.last or ''}" for grant in officer.grants
        )
        table.add_row(officer.officer, officer.name, officer.department, serves, factors, rights)
    console.print(table)


def _changes(console: Console, reply: OfficerChanges) -> None:
    table = view.table("change", "state", "proposed by", "at", "decided by", "entries", "reason")
    for change in reply.changes:
        told = (change.state, change.proposer, change.at.isoformat(timespec="minutes"), change.decided_by or "")
        table.add_row(str(change.id), *told, str(len(change.entries)), change.reason)
    console.print(table)


def _change(console: Console, reply: OfficerChange) -> None:
    console.print(f"change {reply.id}: {reply.state}, {len(reply.entries)} entries")
    if not reply.codes:
        return
    half = "code-proposer" if reply.state == "open" else "code-approver"
    console.print("Hand each officer this half of the code, yourself; the other administrator has the other half.")
    table = view.table("officer", half)
    for each in reply.codes:
        table.add_row(each.officer, each.half)
    console.print(table)
