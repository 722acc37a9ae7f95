"""How a device's link stands, for the person in front of it: lamps, in Japanese and English.

| lamp | 日本語 | means |
| --- | --- | --- |
| green ● | 良好 | the centre answers and is ready |
| yellow ● | 退避中 / 確認中 | it goes out of service, or an answer is missing |
| red ● | 不通 | it does not answer |
| ○ | 不明 | nobody has looked: the agent is not at work |

Invariant: what is shown comes from the device's own folder, and holds no key and no endpoint.
"""

import datetime as dt
from collections.abc import Mapping
from typing import Final, Literal

import msgspec
from rich.console import Group
from rich.table import Table
from rich.text import Text

from chukan.errors import Problem
from chukan.vpn.device.folder import DeviceFolder
from chukan.vpn.device.status import FILE, CentreStatus, Status, is_fresh

Lamp = Literal["good", "drain", "down", "uncertain", "unknown"]
Step = Literal["init", "request", "accept"]

SOON: Final = dt.timedelta(days=30)

_LAMPS: Final[Mapping[Lamp, tuple[str, str]]] = {
    "good": ("green", "● 良好 good"),
    "drain": ("yellow", "● 退避中 draining"),
    "uncertain": ("yellow", "● 確認中 uncertain"),
    "down": ("red", "● 不通 down"),
    "unknown": ("dim", "○ 不明 unknown"),
}


class CentreSeen(msgspec.Struct, frozen=True, kw_only=True):
    """One tunnel as it is shown."""

    interface: str
    lamp: Lamp
    handshake_age_s: int | None
    rx: int
    tx: int
    renewing: bool
    problem: str | None


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """The whole of it; ``done`` is the last step of the setting up that was made."""

    link: str
    done: Step
    at_work: bool
    active: str | None
    centres: dict[str, CentreSeen]
    valid_until: dt.datetime | None
    ends_soon: bool
    problem: str | None
    green: bool


def look(folder: DeviceFolder, now: dt.datetime) -> Seen:
    """Return how a device stands. Raises ``Problem`` device_damaged."""
    status = _status(folder)
    at_work = status is not None and status.at_work(now)
    granted = (folder.path / "grant.json").exists()
    asked = (folder.path / "request.json").exists()
    centres = {
        centre: _seen(interface, status.centres.get(centre) if status is not None else None, now, at_work=at_work)
        for centre, interface in folder.identity.interfaces.items()
    }
    active = None if status is None else status.active
    until = folder.grant().valid_until if granted else None
    return Seen(
        link=folder.identity.link,
        done="accept" if granted else "request" if asked else "init",
        at_work=at_work,
        active=active,
        centres=centres,
        valid_until=until,
        ends_soon=until is not None and until - now < SOON,
        problem=None if status is None else status.problem,
        green=at_work and active is not None and all(each.lamp == "good" for each in centres.values()),
    )


def draw(seen: Seen) -> Group:
    """Return it as a table with lamps, and what to do next."""
    table = Table(
        "拠点 centre", "ランプ lamp", "経路 route", "ハンドシェイク handshake", "受信 rx", "送信 tx", "", box=None
    )
    for centre, each in seen.centres.items():
        colour, text = _LAMPS[each.lamp]
        age = "-" if each.handshake_age_s is None else f"{each.handshake_age_s} 秒前 s ago"
        notes = [*(["鍵の交換待ち new key"] if each.renewing else []), *([each.problem] if each.problem else [])]
        table.add_row(
            centre,
            Text(text, colour),
            Text("◀ 使用中 in use", "bold") if centre == seen.active else "",
            age,
            f"{each.rx:,}",
            f"{each.tx:,}",
            ", ".join(notes),
        )
    return Group(Text(f"回線 link {seen.link}", "bold"), table, *map(Text, _remarks(seen)))


def _remarks(seen: Seen) -> list[str]:
    if seen.done == "init":
        return ["次 / Next: chukan device request"]
    if seen.done == "request":
        return ["許可ファイルを待っています。/ Waiting for the grant: chukan device accept FILE"]
    remarks = [] if seen.valid_until is None else [f"有効期限 / Valid until: {seen.valid_until:%Y-%m-%d}"]
    if seen.ends_soon:
        remarks.append("まもなく期限です。運用者に連絡してください。/ It ends soon: ask the operator.")
    if not seen.at_work:
        remarks.append("エージェントが動いていません。/ The agent is not at work: chukan device agent")
    elif seen.active is None:
        remarks.append("業務の経路がありません。/ The service route leads nowhere.")
    if seen.problem is not None:
        remarks.append(f"経路を切り替えられません。/ The route cannot be moved: {seen.problem}")
    return remarks


def _status(folder: DeviceFolder) -> Status | None:
    """Return what the agent wrote last; None where it never did."""
    if not (folder.path / FILE).exists():
        return None
    try:
        return msgspec.json.decode(folder.read(FILE), type=Status)
    except msgspec.MsgspecError:
        raise Problem("device_damaged", expected=str(folder.path / FILE)) from None


def _seen(interface: str, status: CentreStatus | None, now: dt.datetime, *, at_work: bool) -> CentreSeen:
    if status is None:
        return CentreSeen(
            interface=interface, lamp="unknown", handshake_age_s=None, rx=0, tx=0, renewing=False, problem=None
        )
    age = None if status.handshake_at is None else max(0, int(now.timestamp() - status.handshake_at))
    lamp: Lamp = status.condition if at_work else "unknown"
    if lamp == "good" and not (status.up and is_fresh(status, now)):
        lamp = "uncertain"
    return CentreSeen(
        interface=interface,
        lamp=lamp,
        handshake_age_s=age,
        rx=status.rx,
        tx=status.tx,
        renewing=status.renewing,
        problem=status.problem,
    )
