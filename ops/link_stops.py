"""``chukan link``, its other half: what stops traffic or lets it in again, and the gateways of the centres.

One operator may stop (``suspend``, ``revoke``, ``drain``); to resume takes another one than who suspended. What cannot
be taken back, or moves everybody, asks first.
"""

import datetime as dt
from pathlib import Path
from typing import Annotated

import msgspec
from cyclopts import App, Parameter

from chukan.clock import JST
from chukan.errors import Problem
from chukan.ops import installation as acts
from chukan.ops import link_view
from chukan.ops.failover import confirm
from chukan.ops.installation import Installation
from chukan.ops.link_acts import steward
from chukan.ops.link_options import By, Yes, person, public_key, read_file
from chukan.ops.moments import read_moment
from chukan.ops.output import Json, say
from chukan.tenants.links import GatewayPart
from chukan.vpn.enrolment import is_endpoint
from chukan.vpn.gateway.key_files import PublicHalves


def register(app: App) -> None:
    """Add the commands of this module to ``chukan link``."""
    for command in (suspend, resume, extend, revoke, drain, gateway):
        app.command(command)


def suspend(link: str, *, by: By, reason: str, config: Path | None = None, as_json: Json = False) -> None:
    """Let nothing through a link, at once; connections that stand are cut.

    Args:
        link: Name of the link.
        by: Name of the operator who acts.
        reason: Why, for the history; nobody's number may stand in it.
        config: Settings file; CHUKAN_SETTINGS names it otherwise.
        as_json: Print JSON.
    """
    who = person(by)
    acts.run(config, lambda installation: steward(installation).suspend(link, who=who, reason=reason))
    say({"link": link, "state": "suspended"}, f"{link}: suspended", as_json=as_json)


def resume(link: str, *, by: By, reason: str, config: Path | None = None, as_json: Json = False) -> None:
    """Let a suspended link through again, as another person than who suspended it.

    Args:
        link: Name of the link.
        by: Name of the operator who confirms.
        reason: Why, for the history; nobody's number may stand in it.
        config: Settings file; CHUKAN_SETTINGS names it otherwise.
        as_json: Print JSON.
    """
    second = person(by)
    acts.run(config, lambda installation: steward(installation).resume(link, second=second, reason=reason))
    say({"link": link, "state": "active"}, f"{link}: active", as_json=as_json)


def extend(
    link: str,
    *,
    until: str,
    asked_by: Annotated[str, Parameter(name="--asked-by")],
    by: By,
    config: Path | None = None,
    as_json: Json = False,
) -> None:
    """Let a link be used for longer, or less long, than was approved; keys and addresses stay. Two people.

    Args:
        link: Name of the link.
        until: The last moment, ISO 8601 with its zone.
        asked_by: Name of the operator who asks for it.
        by: Name of another operator, who confirms.
        config: Settings file; CHUKAN_SETTINGS names it otherwise.
        as_json: Print JSON.
    """
    who, second, end = person(asked_by), person(by), read_moment(until, "--until").astimezone(dt.UTC)

    async def act(installation: Installation) -> None:
        door = steward(installation)
        row = await door.show(link)
        await door.extend(link, valid_from=row.valid_from, valid_until=end, who=who, second=second)

    acts.run(config, act)
    say({"link": link, "valid_until": end}, f"{link}: until {end.astimezone(JST):%Y-%m-%d %H:%M} JST", as_json=as_json)


def revoke(
    link: str, *, by: By, reason: str, yes: Yes = False, config: Path | None = None, as_json: Json = False
) -> None:
    """End a link for ever, at once: its name, addresses and keys are never used again.

    Args:
        link: Name of the link.
        by: Name of the operator who acts.
        reason: Why, for the history; nobody's number may stand in it.
        yes: Do not ask.
        config: Settings file; CHUKAN_SETTINGS names it otherwise.
        as_json: Print JSON.
    """
    who = person(by)
    confirm(f"{link} ends for ever; the body needs a new invitation for another one.", link, yes=yes)
    acts.run(config, lambda installation: steward(installation).revoke(link, who=who, reason=reason))
    say({"link": link, "state": "revoked"}, f"{link}: revoked", as_json=as_json)


def drain(
    centre: str,
    *,
    by: By,
    off: Annotated[bool, Parameter(negative="")] = False,
    yes: Yes = False,
    config: Path | None = None,
    as_json: Json = False,
) -> None:
    """Have all links move from a centre's gateway to the other one; nothing is cut. With --off they may come back.

    Args:
        centre: The centre whose gateway is to be without traffic.
        by: Name of the operator who acts.
        off: Let them come back.
        yes: Do not ask.
        config: Settings file; CHUKAN_SETTINGS names it otherwise.
        as_json: Print JSON.
    """
    who = person(by)
    if not off:
        confirm(f"All links leave {centre}; what has no second tunnel stays.", centre, yes=yes)
    changed = acts.run(config, lambda installation: steward(installation).drain(centre, on=not off, who=who))
    word = "taken back into use" if off else "draining"
    text = f"{centre}: {word}" if changed else f"{centre}: as it was"
    say({"centre": centre, "draining": not off, "changed": changed}, text, as_json=as_json)


def gateway(
    centre: str,
    *,
    by: By,
    endpoint: str | None = None,
    keys: Path | None = None,
    key: str | None = None,
    sealing_key: str | None = None,
    next_key: str | None = None,
    next_endpoint: str | None = None,
    service_key: str | None = None,
    turn: Annotated[bool, Parameter(negative="")] = False,
    config: Path | None = None,
    as_json: Json = False,
) -> None:
    """Register a centre's gateway, or change what is known of it; ``chukan gateway keys`` tells its public keys.

    For another key without a gap: lay it down as the next one, hand every device a new grant (``rotate``), then --turn.

    Args:
        centre: The centre (拠点).
        by: Name of the operator who acts.
        endpoint: Where devices reach it, address:port.
        keys: What ``chukan gateway keys --json`` printed there: all public keys in one file.
        key: Its public key, base64.
        sealing_key: Public key to which pre-shared keys are sealed for it, base64.
        next_key: The public key that will take the place of the present one.
        next_endpoint: The endpoint that goes with it.
        service_key: Public key of the tunnel for devices of one tunnel; the same at both centres.
        turn: Make what was laid down as the next the present.
        config: Settings file; CHUKAN_SETTINGS names it otherwise.
        as_json: Print JSON.
    """
    who = person(by)
    for option, place in (("--endpoint", endpoint), ("--next-endpoint", next_endpoint)):
        if place is not None and not is_endpoint(place):
            raise Problem("invalid_field", pointer=f"/{option.strip('-')}", expected="address:port, and no name")
    halves = None if keys is None else _halves(keys, centre)
    part = GatewayPart(
        endpoint=endpoint,
        public_key=public_key(key or getattr(halves, "public_key", None), "--key"),
        sealing_key=public_key(sealing_key or getattr(halves, "sealing_key", None), "--sealing-key"),
        next_public_key=public_key(next_key or getattr(halves, "next_public_key", None), "--next-key"),
        next_endpoint=next_endpoint,
        service_public_key=public_key(service_key or getattr(halves, "service_public_key", None), "--service-key"),
    )
    if turn != (part == GatewayPart()):
        raise Problem("invalid_field", pointer="/turn", expected="--turn alone, or what is to be changed")

    async def act(installation: Installation) -> dict[str, object]:
        door = steward(installation)
        await (door.turn_gateway(centre, who) if turn else door.gateway(centre, part, who))
        return link_view.gateway((await door.gateways())[centre])

    told = acts.run(config, act)
    say(told, link_view.pairs(told), as_json=as_json)


def _halves(path: Path, centre: str) -> PublicHalves:
    """Return the public keys that a gateway printed. Raises ``Problem`` request_invalid, also for another centre's."""
    try:
        halves = msgspec.json.decode(read_file(path), type=PublicHalves)
    except (msgspec.MsgspecError, ValueError):
        raise Problem("request_invalid", pointer="/keys", expected="what chukan gateway keys --json prints") from None
    if halves.centre != centre:
        raise Problem("request_invalid", pointer="/keys/centre", expected=centre)
    return halves
