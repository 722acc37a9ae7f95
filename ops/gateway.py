"""``chukan gateway``: the process that keeps one centre's links as the database says (拠点のVPNゲートウェイ).

``run`` is that process; it needs the right to change network interfaces, and a plain event loop (pyroute2 does not work
on uvloop). It may be stopped and started at any time: tunnels, packet filter and routes stay as they are meanwhile.
``check`` compares and touches nothing; ``keys`` makes the gateway's private keys and shows the public halves.
"""

import asyncio
import os
import signal
from pathlib import Path
from typing import Annotated

import msgspec
from cyclopts import App, Parameter

from chukan import log
from chukan.clock import SystemClock
from chukan.ops.output import Json, say, table
from chukan.vpn.gateway import key_files
from chukan.vpn.gateway.check import GatewayCheck, LinkCheck
from chukan.vpn.gateway.check import check as compare
from chukan.vpn.gateway.config import Config, load
from chukan.vpn.gateway.parts import Gateway, backend

app = App(name="gateway", help="Keep the links of one centre: run the controller, check it, make its keys.")

File = Annotated[Path, Parameter(name=["--config", "-c"])]

_log = log.get("ops.gateway")


@app.command(name="run")
def run_command(*, config: File = Path("gateway.toml")) -> int:
    """Keep the links until SIGTERM; sessions go on afterwards.

    Args:
        config: The gateway's configuration (TOML).
    """
    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        return runner.run(_until_told(load(config, os.environ)))


async def _until_told(config: Config) -> int:
    told = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told.set)

    def started(port: int) -> None:
        _log.info("the gateway keeps its links", centre=config.centre, port=port, pid=os.getpid())

    async with Gateway(config, SystemClock(), await backend(config)) as gateway:
        working, waiting = asyncio.ensure_future(gateway.run(started)), asyncio.ensure_future(told.wait())
        try:
            await asyncio.wait((working, waiting), return_when=asyncio.FIRST_COMPLETED)
            if working.done():
                working.result()
        finally:
            for each in (working, waiting):
                each.cancel()
            await asyncio.wait((working, waiting))
    return 0


@app.command(name="check")
def check_command(*, config: File = Path("gateway.toml"), as_json: Json = False) -> int:
    """Compare the gateway with what it shall be, and touch nothing; status 1 when something differs.

    Args:
        config: The gateway's configuration (TOML).
        as_json: Print JSON.
    """
    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        found = runner.run(compare(load(config, os.environ)))
    if as_json:
        say({**msgspec.to_builtins(found), "good": found.good}, "", as_json=True)
    else:
        _show(found)
    return 0 if found.good else 1


def _show(found: GatewayCheck) -> None:
    rows = [_row(link) for link in found.links if link.active or link.differences]
    say(None, table("link", "may pass", "up", "bytes in", "bytes out", "differs", rows=rows), as_json=False)
    lines = [f"{found.centre}: desired state {found.number}{'' if found.read_now else ', the last one known'}"]
    lines += [f"nobody's: {kind}" for kind in found.others]
    lines += [f"cannot be looked at: {code}" for code in found.failures]
    lines.append("everything is as it shall be" if found.good else "something differs")
    say(None, "\n".join(lines), as_json=False)


def _row(link: LinkCheck) -> list[str]:
    passes, up = ("yes" if each else "no" for each in (link.active, link.up))
    return [link.link, passes, up, str(link.bytes_in), str(link.bytes_out), ", ".join(link.differences)]


@app.command(name="keys")
def keys_command(*, config: File = Path("gateway.toml"), as_json: Json = False) -> None:
    """Make the gateway's private keys where they are missing (0600), and print the public halves.

    Args:
        config: The gateway's configuration (TOML).
        as_json: Print JSON.
    """
    halves = key_files.make(load(config, os.environ))
    names = ("public_key", "next_public_key", "service_public_key", "sealing_key")
    rows = [[name, str(getattr(halves, name))] for name in names if getattr(halves, name) is not None]
    say(halves, table("key", "public half (base64)", rows=rows), as_json=as_json)
