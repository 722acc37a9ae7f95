"""The operators' register: in force by two people, asked at every act, and never taken away from everybody."""

import datetime as dt
import importlib
import inspect
import re
import sys
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest
from cyclopts import App

from chukan.errors import Problem
from chukan.ops import masters, operator_gate, operator_roles
from chukan.ops.cli import COMMANDS
from chukan.tenants.operator_register import FILE, Register
from chukan.tests.agencies.test_master_changes import due, empty_book, person, states, with_a_gap

pytestmark = [pytest.mark.requirement("TEN-02")]
__all__ = ["empty_book", "person"]

HEAD = "name,roles,first,last\n"
TWO = "operator.aoki,masters security,2020-01-01,\noperator.baba,masters security,2020-01-01,\n"
REGISTER = f"{HEAD}{TWO}operator.chiba,operate,2020-01-01,\noperator.doi,masters,2020-01-01,2020-12-31\n"
FAR = dt.timedelta(days=30)


async def put(site: Any, installation: Any, person: Any, text: str) -> int:
    """Have a register in force, on the word of the first two."""
    at = installation.clock.now() + FAR
    made = await masters.propose(installation, person("operator.aoki"), {FILE: text}, at, "名簿")
    await masters.approve(installation, person("operator.baba"), made.version)
    await due(site, made.version)
    return made.version


async def refused(work: Any) -> str:
    with pytest.raises(Problem) as caught:
        await work
    return caught.value.code


async def test_once_there_is_a_register_only_who_has_the_role_changes_masters(
    site: Any, installation: Any, person: Callable[[str], masters.Person]
) -> None:
    await put(site, installation, person, REGISTER)
    at, gap = installation.clock.now() + FAR, await with_a_gap(installation, "97")
    for name in ("operator.chiba", "operator.doi", "operator.nobody"):  # another role, last year's, none
        assert await refused(masters.propose(installation, person(name), gap, at, "改正")) == "operator_role_required"
    made = await masters.propose(installation, person("operator.aoki"), gap, at, "改正")
    for name in ("operator.chiba", "operator.nobody"):
        assert await refused(masters.approve(installation, person(name), made.version)) == "operator_role_required"
        rejected = masters.reject(installation, person(name), made.version, "否")
        assert await refused(rejected) == "operator_role_required"
    await masters.approve(installation, person("operator.baba"), made.version)
    withdrawn = masters.withdraw(installation, person("operator.chiba"), made.version, "否")
    assert await refused(withdrawn) == "operator_role_required"
    assert (await states(installation))[made.version] == "waiting"


async def test_the_register_itself_is_changed_by_security_and_never_closed_to_everybody(
    site: Any, installation: Any, person: Callable[[str], masters.Person]
) -> None:
    first = f"{REGISTER}operator.endo,masters,2020-01-01,\n"
    await put(site, installation, person, first)
    at = installation.clock.now() + FAR
    more = {FILE: f"{first}operator.fuji,security,2020-01-01,\n"}
    by_masters_alone = masters.propose(installation, person("operator.endo"), more, at, "名簿")
    assert await refused(by_masters_alone) == "operator_role_required"
    for text in (
        HEAD,
        HEAD + TWO.replace("aoki,masters security", "aoki,masters"),
        HEAD + TWO.replace(",\n", ",2099-01-01\n"),
    ):
        closed = masters.propose(installation, person("operator.aoki"), {FILE: text}, at, "名簿")
        assert await refused(closed) == "master_invalid"
    unreadable = masters.propose(
        installation, person("operator.aoki"), {FILE: f"{first}x,root,2020-01-01,\n"}, at, "名簿"
    )
    assert await refused(unreadable) == "master_invalid"
    made = await masters.propose(installation, person("operator.aoki"), more, at, "名簿")
    assert (
        await refused(masters.approve(installation, person("operator.endo"), made.version)) == "operator_role_required"
    )


async def test_a_command_is_let_in_by_the_role_that_it_needs(
    site: Any, installation: Any, person: Callable[[str], masters.Person]
) -> None:
    async def run(command: str, name: str | None) -> str:
        settings, folder = installation.settings, site.authority.folder / "clients" / (name or "")
        files = {} if name is None else {"certificate_file": folder / "certificate.pem", "key_file": folder / "key.pem"}
        mine = msgspec.structs.replace(settings.operator, **files)
        operator_roles.begin(command.split())
        try:
            await operator_gate.admit(
                msgspec.structs.replace(settings, operator=mine),
                installation.cells,
                installation.public,
                installation.clock.now(),
            )
        except Problem as problem:
            return problem.code
        return "let in"

    assert await run("keys rotate", None) == "let in"  # no register yet
    await put(site, installation, person, REGISTER)
    for name in ("operator.chiba", "operator.doi", "operator.nobody"):
        person(name)
    no = "operator_role_required"
    assert [await run("agency list --json", name) for name in (None, "operator.chiba", "operator.doi")] == [
        no,
        "let in",
        no,
    ]
    assert [await run("stop add --kind X", name) for name in ("operator.chiba", "operator.aoki")] == ["let in", no]
    assert [await run("keys rotate C", name) for name in ("operator.chiba", "operator.aoki")] == [no, "let in"]
    # A command that nobody has thought of is security's; one that bears signatures is judged by these.
    assert [await run("agency", name) for name in ("operator.chiba", "operator.aoki")] == [no, "let in"]
    assert await run("master approve 1", "operator.nobody") == "let in"
    site.authority.issue_client("agency.system")
    assert await run("agency list", "agency.system") == "master_invalid"


@pytest.mark.parametrize(
    ("command", "said", "comes_of_it"),
    [("keys tokens", "no_primary", None), ("agency prepare-keystores", "unavailable", None),
     ("keys tokens", "signature_invalid", "signature_invalid"), ("keys status", "no_primary", "no_primary")],
)  # fmt: skip
async def test_while_no_cell_says_who_may_only_what_touches_none_is_let_in(
    installation: Any, monkeypatch: pytest.MonkeyPatch, command: str, said: str, comes_of_it: str | None
) -> None:
    async def away(*_: object) -> Register:
        raise Problem(said)

    monkeypatch.setattr(operator_gate, "register_in_force", away)
    operator_roles.begin(command.split())
    admitted = operator_gate.admit(
        installation.settings, installation.cells, installation.public, installation.clock.now()
    )
    if comes_of_it is None:
        await admitted
    else:
        assert await refused(admitted) == comes_of_it


def commands(app: App, path: tuple[str, ...]) -> Iterator[tuple[str, str, str]]:
    """Every command with the source of its function and its module."""
    for name in app:
        if name.startswith("-"):
            continue
        function = app[name].default_command
        if function is None:
            yield from commands(app[name], (*path, name))
        else:
            function = inspect.unwrap(function)
            module = inspect.getsource(sys.modules[function.__module__])
            yield " ".join((*path, name)), inspect.getsource(function), module


def test_every_command_at_an_installation_has_a_role() -> None:
    found = {}
    for name, target in COMMANDS.items():
        module, _, attribute = target.partition(":")
        for command, own, whole in commands(getattr(importlib.import_module(module), attribute), (name,)):
            found[command] = bool(re.search(r"\bacts\.run\(", own)), bool(re.search(r"\bacts\.run\(", whole))
    assert {command for command, (opens, _) in found.items() if opens} <= operator_roles.ROLES.keys()
    # And no row stands for a command that is none, or that could not be judged.
    assert operator_roles.ROLES.keys() <= {command for command, (_, may) in found.items() if may}


@pytest.mark.parametrize(
    "row",
    ["aoki,observe,2020-01-01,", "operator.a,,2020-01-01,", "operator.a,root,2020-01-01,", "operator.a,observe,,",
     "operator.a,observe,2020-01-02,2020-01-01", "operator.a,observe,2020-13-01,"],
)  # fmt: skip
def test_a_row_that_means_nothing_is_refused_without_its_values(row: str) -> None:
    names = HEAD.strip().split(",")
    with pytest.raises(ValueError, match=r"^operators\.csv: row 1: ") as caught:
        Register.of([dict(zip(names, row.split(","), strict=True))])
    assert "root" not in str(caught.value).replace("roles", "")
    assert "aoki" not in str(caught.value)


def test_days_and_roles_are_taken_together() -> None:
    rows = [("operator.a", "observe", "2027-01-01", "2027-01-31"), ("operator.a", "masters", "2027-01-31", "")]
    register = Register.of([dict(zip(HEAD.strip().split(","), row, strict=True)) for row in rows])
    day = dt.date(2027, 1, 31)
    assert register.roles("operator.a", day) == {"observe", "masters"}
    assert not register.may("operator.a", "masters", day - dt.timedelta(days=1))
    assert register.roles("operator.a", dt.date(2026, 12, 31)) == set()
    assert Register().may("operator.b", "security", day)
    assert not register.may("operator.b", "observe", day)
