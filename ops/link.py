"""``chukan link``: who has a link (団体の回線): invite, enrol, approve, look, suspend, resume, revoke, rotate, drain.

Each command is one act on an installation (``--config``: the settings of any of its exchanges, on a machine that has
the steward's login). ``--by`` names the operator who acts; to let traffic in (``approve``, ``resume``) takes another
one than who invited or suspended. Names are what operators say of themselves until accounts come with the capability
for people; each act stands in the history with its name, before and after.

An invitation's code is printed once, on standard output, and is kept nowhere. Files that travel (request, grant) hold
no secret that anybody but their device could use; the sheet of an IPsec appliance does (``link_appliance``).
"""

from pathlib import Path
from typing import Annotated, Final

from cyclopts import App, Parameter

from chukan.clock import JST
from chukan.errors import Problem
from chukan.ops import installation as acts
from chukan.ops import link_acts, link_appliance, link_refusals, link_stops, link_view
from chukan.ops.installation import Installation
from chukan.ops.link_acts import GRANT_DAYS, GRANT_DAYS_MAX, Granted, steward
from chukan.ops.link_options import By, SigningKey, kept, person, read_file, within
from chukan.ops.output import Json, say
from chukan.tenants.link_rows import HISTORY_MAX, INVITATION_DAYS_MAX
from chukan.tenants.links import Kind, LinkRow, Mode, State
from chukan.tenants.numbers import is_body_code

app = App(name="link", help="Invite, approve, look at, suspend, resume, revoke and rotate the links of bodies.")
link_stops.register(app)
link_refusals.register(app)

_DAYS: Final = 7


# ---------------------------------------------------------------- enrolment


@app.command
def invite(
    *,
    body: str,
    by: By,
    mode: Mode = "pair",
    kind: Kind = "wireguard",
    days: int = _DAYS,
    config: Path | None = None,
    as_json: Json = False,
) -> None:
    """Invite a body: make a link for it, and a code that is shown once.

    Tell the code to the one person who sets the device up, and to nobody else; who has it can ask for this link.

    Args:
        body: Code of the body, 6 digits.
        by: Name of the operator who acts.
        mode: A tunnel to each centre with an agent (pair), or one tunnel that the centres take over (service).
        kind: WireGuard, or IPsec for devices that have nothing else.
        days: How long the code may be used, 1 to 14.
        config: Settings file; CHUKAN_SETTINGS names it otherwise.
        as_json: Print JSON.
    """
    who = person(by)
    within(days, INVITATION_DAYS_MAX, "--days")
    if not is_body_code(body):
        raise Problem("invalid_field", pointer="/body", expected="a body's 6-digit code")

    async def act(installation: Installation) -> link_acts.Invited:
        return await link_acts.invite(installation, body, mode=mode, kind=kind, days=days, who=who)

    invited = acts.run(config, act)
    # An appliance asks for nothing, so nobody needs a code for it.
    code = invited.code if kind == "wireguard" else None
    told = {"link": invited.link, "code": code, "expires_at": invited.expires_at, "platform_key": invited.platform_key}
    until = f"until {invited.expires_at.astimezone(JST):%Y-%m-%d %H:%M} JST"
    secret = [f"code: {code}", f"platform key: {invited.platform_key}"] if code else []
    say(told, "\n".join((f"link: {invited.link}", *secret, until)), as_json=as_json)


@app.command
def enrol(request: Path, *, by: By, config: Path | None = None, as_json: Json = False) -> None:
    """Take in the request that a device made with its code; the same file again changes nothing.

    Args:
        request: The device's request file.
        by: Name of the operator who acts.
        config: Settings file; CHUKAN_SETTINGS names it otherwise.
        as_json: Print JSON.
    """
    who, file = person(by), read_file(request)

    async def act(installation: Installation) -> link_acts.Enrolled:
        return await link_acts.enrol(installation, file, who)

    enrolled = acts.run(config, act)
    told = {"link": enrolled.link, "digits": enrolled.digits, "systems": enrolled.systems}
    text = f"{enrolled.link}: requested\ncompare by telephone: {enrolled.digits}"
    if enrolled.systems:
        text += f"\ncertificate asked for: {', '.join(enrolled.systems)}"
    say(told, text, as_json=as_json)


@app.command
def approve(
    link: str,
    *,
    by: By,
    to: Path,
    request: Path | None = None,
    certificate_by: Path | None = None,
    days: int = GRANT_DAYS,
    config: Path | None = None,
    directory_key: SigningKey = None,
    as_json: Json = False,
) -> None:
    """Approve a link, as another person than who invited: keys are made, the grant is written, traffic is let in.

    Args:
        link: Name of the link.
        by: Name of the operator who approves.
        to: File to make: the grant, for the device; it holds no secret that another one could open. For a link of kind
            ipsec it is the sheet for the appliance, which holds its keys in the clear.
        request: The device's request file once more; needed for a certificate.
        certificate_by: Folder of the authority that certifies the body's system; without it there is no certificate.
        days: How long the link may be used.
        config: Settings file; CHUKAN_SETTINGS names it otherwise.
        directory_key: Private key that signs the common data, and grants.
        as_json: Print JSON.
    """
    second = person(by)
    within(days, GRANT_DAYS_MAX, "--days")
    asked = None if request is None else read_file(request)

    async def act(installation: Installation) -> Granted:
        with kept(to) as keep:
            if await _is_appliance(installation, link):
                return await link_appliance.approve(installation, link, second=second, keep=keep, days=days)
            return await link_acts.approve(
                installation, link, second=second, keep=keep, request=asked, authority=certificate_by, days=days
            )

    _tell_grant(acts.run(config, act, directory_key=directory_key), to, "active", as_json=as_json)


@app.command
def rotate(
    link: str,
    *,
    by: By,
    to: Path,
    asked_by: Annotated[str | None, Parameter(name="--asked-by")] = None,
    wish: Path | None = None,
    centre: str | None = None,
    replace: Annotated[bool, Parameter(negative="")] = False,
    config: Path | None = None,
    directory_key: SigningKey = None,
    as_json: Json = False,
) -> None:
    """Lay down new keys: the present ones hold until the device uses the new ones. One centre at a time loses nothing.

    Args:
        link: Name of the link.
        by: Name of the operator who acts.
        to: File to make: the grant with the new keys, for the device; for a link of kind ipsec the sheet.
        asked_by: Name of another operator, who asks for it; needed for a link of kind ipsec, whose sheet holds its keys
            in the clear.
        wish: The file by which the device asks for a new key of its own; without it the pre-shared keys alone change.
        centre: The centre whose tunnel gets new keys; all unless given, or the one of the wish.
        replace: Also in the place of new keys that were laid down before and that the device has not turned to.
        config: Settings file; CHUKAN_SETTINGS names it otherwise.
        directory_key: Private key that signs the common data, and grants.
        as_json: Print JSON.
    """
    who, asking = person(by), None if asked_by is None else person(asked_by)
    asked = None if wish is None else read_file(wish)

    async def act(installation: Installation) -> Granted:
        with kept(to) as keep:
            if await _is_appliance(installation, link):
                return await link_appliance.rotate(
                    installation, link, who=asking, second=who, keep=keep, centre=centre, replace=replace
                )
            return await link_acts.rotate(
                installation, link, who=who, keep=keep, centre=centre, wish=asked, replace=replace
            )

    _tell_grant(acts.run(config, act, directory_key=directory_key), to, "next keys laid down", as_json=as_json)


async def _is_appliance(installation: Installation, link: str) -> bool:
    """Tell whether a link's device is one that gets a sheet instead of a grant."""
    return (await steward(installation).show(link)).kind == "ipsec"


def _tell_grant(granted: Granted, to: Path, word: str, *, as_json: bool) -> None:
    told = {
        "link": granted.link,
        "grant": str(to),
        "digits": granted.digits,
        "centres": granted.centres,
        "valid_until": granted.valid_until,
    }
    text = f"{granted.link}: {word}\ngrant: {to}\ncompare by telephone: {granted.digits}"
    say(told, text, as_json=as_json)


# ---------------------------------------------------------------- looking


@app.command
def show(link: str, *, config: Path | None = None, as_json: Json = False) -> None:
    """Show how a link stands: state, validity, addresses, and when each centre last heard of its device."""

    async def act(installation: Installation) -> LinkRow:
        return await steward(installation).show(link)

    row = acts.run(config, act)
    say(link_view.document(row), link_view.shown(row), as_json=as_json)


@app.command(name="list")
def list_(
    *,
    body: str | None = None,
    state: State | None = None,
    prefecture: str | None = None,
    config: Path | None = None,
    as_json: Json = False,
) -> None:
    """List the links, revoked ones too.

    Args:
        body: Only those of this body (6 digits).
        state: Only those in this state.
        prefecture: Only those of bodies of this prefecture: its name, or the first two digits of its code.
        config: Settings file; CHUKAN_SETTINGS names it otherwise.
        as_json: Print JSON.
    """
    wanted = link_view.within(prefecture)

    async def act(installation: Installation) -> tuple[LinkRow, ...]:
        return await steward(installation).list(body)

    rows = [row for row in acts.run(config, act) if state in (None, row.state) and wanted(row.body)]
    say({"links": [link_view.document(row) for row in rows]}, link_view.listed(rows), as_json=as_json)


@app.command
def history(
    link: str | None = None,
    *,
    body: str | None = None,
    limit: int = 100,
    config: Path | None = None,
    as_json: Json = False,
) -> None:
    """Show who did what to links and gateways, before and after, the newest first.

    Args:
        link: Only of this link.
        body: Only of the links of this body (6 digits).
        limit: At most so many lines, 1 to 1,000.
        config: Settings file; CHUKAN_SETTINGS names it otherwise.
        as_json: Print JSON.
    """
    within(limit, HISTORY_MAX, "--limit")
    changes = acts.run(config, lambda installation: steward(installation).history(link, limit, body=body))
    say({"changes": changes}, link_view.told(changes), as_json=as_json)
