"""Every operator's command × every set of roles × the days of the register: let in or refused as written down here.

The table is written by hand and compared with the one that the command line asks; what must come of a cell follows from
it alone. The gate that judges is the real one; the register is given to it, and who acts has shown a certificate.
"""

import datetime as dt
import itertools
from pathlib import Path
from typing import Any

import pytest

from chukan.errors import Problem
from chukan.ops import operator_gate, operator_roles
from chukan.tenants.operator_register import Operator, Register

NOW = dt.datetime(2026, 11, 23, 3, 0, tzinfo=dt.UTC)
TODAY, DAY = dt.date(2026, 11, 23), dt.timedelta(days=1)
NAME = "operator.tanaka"
OBSERVES = {
    "agency": "list show",
    "agency client": "list",
    "agency order": "show",
    "common": "status",
    "incident": "list",
    "keys": "status tokens progress",
    "link": "show list history refusals",
    "master": "list diff show",
    "notice": "list",
    "operations": "list export keys",
    "operators": "list",
    "records": "export keys expired retention",
    "stop": "list",
}
OPERATES = {
    "agency": "add close move",
    "agency client": "add remove",
    "link": "invite enrol approve rotate suspend resume extend revoke drain gateway",
    "notice": "publish withdraw",
    "stop": "add lift",
}
SECURES = {
    "agency": "destroy discard export prepare-keystores",
    "backup": "restore-agency",
    "incident": "affected amend close open report",
    "keys": "destroy reencrypt retire rotate",
    "records": "rebuild-map",
}
SIGNED = {"master": "propose rollback approve reject withdraw"}
"""What bears a person's own signature, whose roles are judged where the signature is."""
BY_ROLE = {"observe": OBSERVES, "operate": OPERATES, "security": SECURES, "signed": SIGNED}
UNKNOWN = "something new"
"""A command that stands in no table needs the most."""


def commands() -> dict[str, str]:
    """The role of every command."""
    named = [(group, words, role) for role, groups in BY_ROLE.items() for group, words in groups.items()]
    return {f"{group} {word}": role for group, words, role in named for word in words.split()}


def may(role: str, held: frozenset[str]) -> bool:
    """Whether roles that are in force today let a command in."""
    return role == "signed" or role in held or (role == "observe" and bool(held))


class Settings:
    """As much of the settings as the gate reads: where who acts keeps certificate and key."""

    class operator:  # noqa: N801 - a section of the settings
        certificate_file = key_file = Path("/nowhere")


async def judged(monkeypatch: pytest.MonkeyPatch, register: Register, command: str, name: str = NAME) -> str | None:
    """Begin a command, and return the code of its refusal; None where it is let in."""

    async def in_force(*_: Any) -> Register:
        return register

    monkeypatch.setattr(operator_gate, "register_in_force", in_force)
    monkeypatch.setattr(operator_gate, "read_holder", lambda *_: operator_gate.Holder(name, [], None))  # type: ignore[arg-type]
    operator_roles.begin([*command.split(), "--anything"])
    try:
        await operator_gate.admit(Settings, None, None, NOW)  # type: ignore[arg-type]
    except Problem as problem:
        return problem.code
    finally:
        operator_roles.begin([])
    return None


@pytest.mark.requirement("AUT-02")
def test_the_table_that_is_asked_is_the_one_written_here() -> None:
    assert dict(operator_roles.ROLES) == commands()


@pytest.mark.requirement("AUT-02")
async def test_a_command_is_let_in_by_its_role_on_its_days_and_never_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    roles = ("observe", "operate", "masters", "security")
    sets = [frozenset(each) for size in range(1, 5) for each in itertools.combinations(roles, size)]
    days = {(TODAY, None): True, (TODAY, TODAY): True, (TODAY - DAY, TODAY - DAY): False, (TODAY + DAY, None): False}
    counts = {None: 0, "operator_role_required": 0}
    for (command, role), held, ((first, last), in_force) in itertools.product(
        (commands() | {UNKNOWN: "security"}).items(), sets, days.items()
    ):
        register = Register((Operator(NAME, held, first, last),))
        wanted = None if may(role, held if in_force else frozenset()) else "operator_role_required"
        assert await judged(monkeypatch, register, command) == wanted, (command, held, first, last)
        counts[wanted] += 1
    assert min(counts.values()) > 500


@pytest.mark.requirement("AUT-02")
async def test_nobodys_certificate_is_let_in_by_anothers_roles(monkeypatch: pytest.MonkeyPatch) -> None:
    every = Operator("operator.sato", frozenset({"observe", "operate", "masters", "security"}), TODAY, None)
    for command, role in commands().items():
        refused = None if role == "signed" else "operator_role_required"
        assert await judged(monkeypatch, Register((every,)), command) == refused, command


async def test_as_long_as_there_is_no_register_every_command_is_let_in(monkeypatch: pytest.MonkeyPatch) -> None:
    for command in commands():
        assert await judged(monkeypatch, Register(), command) is None
