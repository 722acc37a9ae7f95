"""``chukan device``: the municipal side of a link (団体側の回線装置), from the making of its keys to its agent.

``init`` makes the keys, ``request`` asks with an invitation's code, ``accept`` takes in what was granted, ``agent``
keeps the tunnels, ``show`` says how they stand; ``rotate`` asks for a new key and ``qr`` draws a configuration.

Invariant: private keys are made on this machine and stay in its folder. Nothing prints one but ``qr``, and that only to
somebody who says that they stand in front of the device. The invitation's code is neither kept nor shown.
"""

import asyncio
import getpass
import signal
import sys
from pathlib import Path
from typing import Annotated, Final, TypeAlias

import msgspec
from cyclopts import App, Parameter
from rich.console import Console

from chukan.chance import SystemChance
from chukan.clock import SystemClock
from chukan.errors import Problem
from chukan.ops import device_view
from chukan.ops.output import Json, create_file, say
from chukan.platform.tls import CLIENT_URN
from chukan.tenants.directory import ClientId, key_id
from chukan.vpn import enrolment
from chukan.vpn.device import enrolling, qr, running
from chukan.vpn.device.folder import DeviceFolder, create
from chukan.vpn.enrolment import FILE_BYTES_MAX

app = App(name="device", help="Set up and run the municipal side of a link: keys, enrolment, agent.")

FOLDER: Final = Path("/etc/chukan/device")

Folder: TypeAlias = Annotated[Path, Parameter(name=["--folder", "-f"], env_var="CHUKAN_DEVICE")]
"""Folder of the device; CHUKAN_DEVICE names it otherwise."""


@app.command
def init(
    *,
    link: str,
    platform_key: Path,
    folder: Folder = FOLDER,
    centre: Annotated[tuple[str, ...], Parameter(consume_multiple=True, negative="")] = ("east", "west"),
    prefix: str = "chukan",
) -> None:
    """Make the folder of a device with all its keys, which never leave it. Nothing is overwritten.

    Args:
        link: The link's name as the invitation says it, e.g. 131016-1.
        platform_key: The platform's public key (PEM), which came with the invitation.
        folder: A folder that does not exist yet.
        centre: The centres, the preferred one first; "service" alone for a device of one tunnel.
        prefix: Of the names of the interfaces, at most 15 characters with the centre's name.
    """
    made = create(folder, link, centre, _read(platform_key), prefix=prefix)
    text = "\n".join(
        (
            f"装置のフォルダーを作成しました / Made: {folder}",
            f"基盤の鍵 / Platform key: {key_id(made.platform())}",
            "招待状に書かれた基盤の鍵の番号と一致することを確かめてください。/ Compare it with the invitation's.",
            "次 / Next: chukan device request",
        )
    )
    say({"folder": str(folder), "platform_key": key_id(made.platform())}, text, as_json=False)


@app.command
def request(
    *,
    code: str | None = None,
    code_file: Path | None = None,
    client: str | None = None,
    out: Path | None = None,
    folder: Folder = FOLDER,
    as_json: Json = False,
) -> None:
    """Write the file that asks for the link: public keys, signed with the invitation and by this device.

    Args:
        code: The invitation's code; asked for, unseen, unless it is given. What is typed here may stay in a history.
        code_file: A file that holds the code, for programs; /dev/stdin is one.
        client: Id of the body's business system, to ask for its certificate in the same step.
        out: Where to write the file; request.json of the folder unless given.
        folder: Folder of the device.
        as_json: Print JSON instead of text.
    """
    device = DeviceFolder(folder)
    system = None if client is None else (_checked(client), CLIENT_URN + client)
    file = enrolling.request(device, _code(code, code_file), SystemClock().now(), system=system)
    path = device.path / "request.json"
    if out is not None:
        create_file(out, file)
        path = out
    digits = enrolment.digits(file)
    text = "\n".join(
        (
            f"申請ファイル / Request: {path}",
            f"照合番号 / Digits to compare: {digits}",
            "このファイルを運用者に送り、電話で照合番号を読み合わせてください。秘密は含まれていません。",
            "Send it to the operator and compare the digits over the telephone; it holds no secret.",
        )
    )
    say({"file": str(path), "digits": digits}, text, as_json=as_json)


@app.command
def accept(
    grant: Path,
    *,
    at_once: Annotated[bool, Parameter(negative="")] = False,
    folder: Folder = FOLDER,
    as_json: Json = False,
) -> None:
    """Take in what the platform granted: verify it, open the pre-shared keys, write the configurations.

    Args:
        grant: The grant's file.
        at_once: Put new tunnels in the place of those in use; for devices that run wg-quick instead of the agent.
        folder: Folder of the device.
        as_json: Print JSON instead of text.
    """
    device = DeviceFolder(folder)
    accepted = enrolling.accept(device, _read(grant), SystemClock().now(), at_once=at_once)
    lines = [
        f"新しい回線 / New: {', '.join(accepted.fresh) or '-'}",
        f"鍵の交換待ち / Waiting for their first handshake: {', '.join(accepted.waiting) or '-'}",
        f"変更なし / As before: {', '.join(accepted.same) or '-'}",
        f"設定 / Settings: {device.path}",
        "次 / Next: chukan device agent(常駐 / as a service)、chukan device show",
    ]
    say(accepted._asdict(), "\n".join(lines), as_json=as_json)


@app.command
def show(*, folder: Folder = FOLDER, as_json: Json = False) -> int:
    """Say how both tunnels and the route stand; ends with status 1 unless all lamps are green.

    Args:
        folder: Folder of the device.
        as_json: Print JSON instead of text.
    """
    seen = device_view.look(DeviceFolder(folder), SystemClock().now())
    if as_json:
        say(seen, "", as_json=True)
    else:
        Console().print(device_view.draw(seen))
    return 0 if seen.green else 1


@app.command(name="qr")
def draw_qr(
    centre: str,
    *,
    i_am_on_site: Annotated[bool, Parameter(negative="")] = False,
    svg: Path | None = None,
    png: Path | None = None,
    folder: Folder = FOLDER,
) -> None:
    """Draw a tunnel's configuration as a QR code. It shows the private key: only in front of the device.

    Args:
        centre: Which tunnel.
        i_am_on_site: You stand in front of the device and nobody else sees the screen.
        svg: Write it as SVG instead, readable by you alone.
        png: Write it as PNG instead, readable by you alone.
        folder: Folder of the device.
    """
    if not i_am_on_site:
        raise Problem("on_site_required")
    device = DeviceFolder(folder)
    if centre not in device.centres:
        raise Problem("setting_invalid", pointer="/centre", expected=" or ".join(device.centres))
    if device.tunnel(centre) is None:
        raise Problem("device_not_ready", expected="chukan device accept")
    text = device.read(f"{device.identity.interfaces[centre]}.conf").decode()
    if svg is not None:
        create_file(svg, qr.as_file(text, "svg"), 0o600)
    if png is not None:
        create_file(png, qr.as_file(text, "png"), 0o600)
    if svg is None and png is None:
        sys.stdout.write(qr.on_terminal(text))
    sys.stderr.write("秘密鍵を含みます。読み取ったら画面を消し、ファイルは削除してください。\n")
    sys.stderr.write("It shows the private key: clear the screen, and delete the file, as soon as it was read.\n")


@app.command
def rotate(*, centre: str, out: Path | None = None, folder: Folder = FOLDER, as_json: Json = False) -> None:
    """Make a new key for one centre and write the file that asks for it; the present key stays in use meanwhile.

    Args:
        centre: The centre whose tunnel gets a new key; one at a time.
        out: Where to write the file; in the folder unless given.
        folder: Folder of the device.
        as_json: Print JSON instead of text.
    """
    device = DeviceFolder(folder)
    file = enrolling.rotate(device, centre, SystemClock().now())
    path = device.path / f"rotation-{centre}.json"
    if out is not None:
        create_file(out, file)
        path = out
    text = "\n".join(
        (
            f"鍵の更新の申請 / Rotation request: {path}",
            "運用者に送り、届いた許可ファイルを chukan device accept で取り込んでください。",
            "Send it to the operator and take in the grant that comes back. The present key works until then.",
        )
    )
    say({"file": str(path), "digits": enrolment.digits(file)}, text, as_json=as_json)


@app.command
def agent(*, folder: Folder = FOLDER) -> int:
    """Keep both tunnels up, ask both centres, and lead the service route to a good one, until SIGTERM.

    Args:
        folder: Folder of the device.
    """
    device = DeviceFolder(folder)
    # No uvloop: what speaks netlink does not run on it.
    asyncio.run(_until_told(device))
    return 0


async def _until_told(device: DeviceFolder) -> None:
    told = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told.set)
    clock = SystemClock()
    await running.run(device, told, clock, SystemChance(clock))


def _code(given: str | None, file: Path | None) -> str:
    """Return the invitation's code; typed unseen where it was not given, so that no history keeps it."""
    if given is not None:
        return given
    if file is not None:
        # What is no text is no code: the check of the code says so.
        return _read(file).decode("ascii", errors="replace")
    return getpass.getpass("招待コード / Invitation code: ")


def _checked(client: str) -> str:
    try:
        return msgspec.convert(client, ClientId)
    except msgspec.ValidationError:
        raise Problem("certificate_name_invalid", expected="the id of a registered system") from None


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(FILE_BYTES_MAX + 1)
    except OSError:
        raise Problem("settings_unreadable", expected=str(path)) from None
    if len(content) > FILE_BYTES_MAX:
        raise Problem("too_large", limit=FILE_BYTES_MAX)
    return content
