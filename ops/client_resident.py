"""``chukan client resident``: what the portal's adapter does for a person — their records, and own information.

``records`` asks an agency (function ``residents`` or ``records``) and can check the answer on the spot, by keys from
elsewhere, exactly as ``chukan records verify-resident`` does. ``keep-back`` sets the agency's flags (function
``holds``). ``own-information`` lets a sandbox's portal ask: it goes as a provision through the network, never by the
agency API. Numbers of persons are given in files, not on the command line, where other users of the machine would see
them. Nothing is written but what ``--out`` names.
"""

import asyncio
import datetime as dt
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Final, TypeVar

import aiohttp
import msgspec
from cyclopts import App, Parameter
from rich.console import Console

from chukan.errors import Problem
from chukan.ops import client_view as view
from chukan.ops.client_run import DEMO_CONNECTION, Target, run
from chukan.ops.output import create_file
from chukan.ops.resident_check import WORDS, check_answer
from chukan.ops.sandbox.connection_file import read_connection
from chukan.ops.sandbox.counterparts import AskedIds, AskedViews
from chukan.ops.sandbox.portal import OwnLines, OwnQuestion, OwnQuestions, SignedIn, SignIn
from chukan.platform.law import Law
from chukan.platform.wire.agency import HoldLine
from chukan.platform.wire.network import Condition
from chukan.platform.wire.resident import ResidentAsk, ResidentRecords
from chukan.tenants.checkpoint import CheckpointError, read_keys
from chukan.tenants.evidence_report import Rules

app = App(name="resident", help="Do as the portal's adapter does for a person: records, own information. (本人)")
EXIT_UNSOUND: Final = 1
_CALL_S: Final = 30.0
_WAIT_S: Final = 60.0
_POLL_S: Final = 0.3
_NUMBERS_BYTES_MAX: Final = 10_000
_OK: Final = 200
T = TypeVar("T")


@app.command
def records(
    numbers: Path,
    *,
    target: Target,
    deny_existence: Annotated[bool, Parameter(negative="")] = False,
    keys: Path | None = None,
    known: Annotated[tuple[Path, ...], Parameter(consume_multiple=False, negative="")] = (),
    out: Path | None = None,
) -> int:
    """Fetch a person's records with their proof, and check it; exit status 1 where the check fails.

    Parameters
    ----------
    numbers
        File with the person's addressee numbers at the agency, one a line, at most 20.
    deny_existence
        Not even tell how many records are withheld (存否応答拒否); nothing can be proven then.
    keys
        Verifier keys of the log and of both centres, one a line, from elsewhere than the exchange: check with them.
    known
        A checkpoint kept from earlier, with --keys; may be repeated.
    out
        New file for the answer, readable by its owner alone, for chukan records verify-resident.
    """
    rules = None if keys is None else _rules(keys, known)
    body = ResidentAsk(addressees=_numbers(numbers), deny_existence=deny_existence)
    answer = run(target, lambda client: client.resident_records(body), _show_records)
    if out is not None:
        create_file(out, msgspec.json.encode(answer) + b"\n", 0o600)
    if rules is None:
        return 0
    report = check_answer(answer, rules)
    if not target.as_json:
        for each in report.findings:
            view.terminal().print(f"NOT SOUND: {WORDS[each.code]}", markup=False)
        if report.sound:
            view.terminal().print("checked: no record of the person in the log is missing")
    return 0 if report.sound else EXIT_UNSOUND


@app.command
def keep_back(
    numbers: Path | None = None,
    *,
    target: Target,
    kind: str | None = None,
    period: str | None = None,
    effective_from: dt.date | None = None,
    lift: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Set or lift flags by which the portal is not given what it asks for a person (自己情報提供不可フラグ).

    Parameters
    ----------
    numbers
        File with addressee numbers, one a line; everybody otherwise, of one kind then.
    kind
        Kind (TM code); all kinds of these persons otherwise.
    period
        Only copies of this period, e.g. 2026; needs numbers and --kind.
    effective_from
        Only copies in force from this day; needs numbers and --kind.
    lift
        Lift the flags instead.
    """
    lines = [
        HoldLine(
            addressee=each, kind=kind, held=not lift, flag="own_information", period=period,
            effective_from=effective_from,
        )
        for each in ([None] if numbers is None else _numbers(numbers))
    ]  # fmt: skip
    run(target, lambda client: client.hold(lines), view.line_results)


@app.command
def own_information(
    person: Path,
    *,
    target: Target,
    kind: Annotated[tuple[str, ...], Parameter(negative="")],
    portal: str | None = None,
    year: str | None = None,
) -> None:
    """Let the sandbox's portal ask --agency about the person who signs in there, and show what comes back.

    Parameters
    ----------
    person
        File with the person's number at the portal; signing in with it stands for the card.
    kind
        Kind of specific personal information (TM code); several times.
    portal
        The portal's agency code; the law's only one otherwise.
    year
        Year that is asked about; the latest otherwise.
    """
    url = read_connection(target.connection or DEMO_CONNECTION).counterparts_admin_url
    if url is None:
        raise Problem("setting_missing", expected="a connection file of a sandbox, with its counterparts")
    condition = Condition() if year is None else Condition(period="1", year=year)
    lines = [OwnQuestion(provider=target.agency, kind=each, condition=condition) for each in kind]
    asked = asyncio.run(_own(f"{url}/admin/{portal or _portal()}", _numbers(person)[0], lines))
    view.document(view.terminal(), asked)


def _portal() -> str:
    portals = sorted(Law.load().own.portals)
    if len(portals) != 1:
        raise Problem("setting_missing", expected="--portal")
    return portals[0]


async def _own(url: str, person: str, lines: list[OwnQuestion]) -> AskedViews:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_CALL_S)) as session:
        signed = (await _call(session, f"{url}/sign-in", SignIn(person=person), SignedIn)).session
        asked = await _call(session, f"{url}/own", OwnQuestions(session=signed, lines=lines), AskedIds)
        wanted = OwnLines(session=signed, ids=asked.ids)
        views = AskedViews(lines=[])
        with suppress(TimeoutError):  # shown as it stands then: a held line waits for officers
            async with asyncio.timeout(_WAIT_S):
                views = await _call(session, f"{url}/owned", wanted, AskedViews)
                while any(each.outcome is None for each in views.lines):  # another process cannot set an event of ours
                    await asyncio.sleep(_POLL_S)
                    views = await _call(session, f"{url}/owned", wanted, AskedViews)
        return views


async def _call(session: aiohttp.ClientSession, url: str, body: msgspec.Struct, kind: type[T]) -> T:
    try:
        async with session.post(url, data=msgspec.json.encode(body), allow_redirects=False) as response:
            reply = await response.read()
            if response.status == _OK:
                return msgspec.json.decode(reply, type=kind)
            problem = msgspec.json.decode(reply, type=Mapping[str, object])
    except (aiohttp.ClientError, TimeoutError, msgspec.MsgspecError):
        raise Problem("network_unavailable") from None
    raise _as_problem(problem)


def _as_problem(document: Mapping[str, object]) -> Problem:
    try:
        return Problem(str(document.get("code")))
    except KeyError:
        return Problem("network_unavailable")


def _numbers(path: Path) -> list[str]:
    """Return the numbers of a file. Raises ``Problem`` setting_invalid, which quotes none."""
    try:
        content = path.read_bytes()
        found = [line.strip() for line in content.decode("utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError):
        found, content = [], b""
    if not found or len(content) > _NUMBERS_BYTES_MAX:
        raise Problem("setting_invalid", pointer="NUMBERS", expected="a file with a number on each line")
    return found


def _rules(keys: Path, known: tuple[Path, ...]) -> Rules:
    try:
        held = read_keys(keys.read_text(encoding="ascii").splitlines())
        kept = [path.read_bytes() for path in known]
    except (OSError, UnicodeDecodeError, CheckpointError):
        raise Problem("setting_invalid", pointer="--keys", expected="verifier keys (C2SP vkey), one a line") from None
    return Rules(held, kept)


def _show_records(console: Console, answer: ResidentRecords) -> None:
    for person in answer.persons:
        states = [leaf.state for leaf in person.leaves]
        counts = ", ".join(f"{states.count(state)} {state}" for state in ("shown", "withheld", "gone"))
        known = counts if person.known else "not known here"
        console.print(f"{person.asked}: {known}; {len(person.unproven)} not proven yet", markup=False)
    console.print(f"by the signed map: {answer.shows}")
    for limit in answer.cannot_show:
        console.print(f"- {limit.ja}", markup=False, highlight=False)
