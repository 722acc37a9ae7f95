"""Connections stay on the way on which they began (接続の維持): what a moved route would cut is carried to its end.

A TCP connection is known at the centre that answered it first; led through the other tunnel it is reset. So every
connection to the service address is marked, at its first packet, with the centre that the route leads to then (a mark
of connection tracking, by nftables), and its packets follow a routing table of that centre as long as it lives. A
planned move therefore cuts nothing: what is open is finished, what begins goes the new way. Connections of a centre
that is *down* are led to the other one: they are reset there, at once, which is better than silence.

Invariant: only packets to the service address are touched, and only by tables, rules and marks whose numbers are ours.
Without nftables the route alone is moved, and open connections end with it.
"""

import asyncio
import contextlib
import errno
from collections.abc import Iterable, Mapping
from pathlib import Path
from socket import AF_INET
from typing import Any, Final

from pyroute2 import AsyncIPRoute
from pyroute2.netlink.exceptions import NetlinkError

from chukan.errors import Problem

TABLE: Final = "chukan_device"
BASE: Final = 0x6B01
"""Mark, routing table and priority of the first centre; the next ones have the next numbers."""

_TIMEOUT_S: Final = 10.0
_PER_INTERFACE: Final = Path("/proc/sys/net/ipv4/conf")
_LOOSE: Final = "2"
"""Reverse-path filtering (RFC 3704 §2.4) that takes an answer through the tunnel that the route does not lead to."""


class Pins:
    """The marks, tables and rules of one device, in this process's network namespace."""

    def __init__(self, service: str, source: str, interfaces: Mapping[str, str]) -> None:
        """``interfaces`` is their names by centre, in the order of preference."""
        self._service = service
        self._source = source
        self._interfaces = dict(interfaces)
        self._numbers = {centre: BASE + place for place, centre in enumerate(interfaces)}
        self._loaded: tuple[str, bytes] | None = None

    async def ensure(self, active: str, gone: Iterable[str]) -> bool:
        """Pin new connections to ``active`` and let those of ``gone`` centres go; return whether anything changed.

        Raises ``Problem`` link_firewall_refused, link_network_refused.
        """
        for name in self._interfaces.values():
            _loosen(name)
        await self._ensure_tables()
        text = ruleset(self._service, self._numbers, active, gone)
        if self._loaded == (text, await _listed()):
            return False
        await _nft("-f", "-", text=text)
        self._loaded = (text, await _listed())
        return True

    async def remove(self) -> None:
        """Take everything away again."""
        with contextlib.suppress(Problem):
            await _nft("delete", "table", "inet", TABLE)
        async with _netlink() as netlink:
            for number in self._numbers.values():
                with contextlib.suppress(NetlinkError):
                    await netlink.rule("del", priority=number, table=number, fwmark=number)
        self._loaded = None

    async def _ensure_tables(self) -> None:
        async with _netlink() as netlink:
            known = {
                (each.get("FRA_FWMARK"), each.get("FRA_TABLE"))
                async for each in await netlink.rule("dump", family=AF_INET)
            }
            for centre, number in self._numbers.items():
                found = await netlink.link_lookup(ifname=self._interfaces[centre])
                if not found:
                    continue
                await netlink.route(
                    "replace", dst=f"{self._service}/32", oif=found[0], table=number, prefsrc=self._source
                )
                if (number, number) not in known:
                    await netlink.rule("add", priority=number, table=number, fwmark=number)


def ruleset(service: str, numbers: Mapping[str, int], active: str, gone: Iterable[str]) -> str:
    """Return the rules as nft reads them, the whole table in one transaction; marks live on in connection tracking."""
    to_service = f"ip daddr {service}"
    let_go = [numbers[centre] for centre in sorted(gone) if centre != active]
    rules = [f"{to_service} ct mark {number:#x} ct mark set 0x0" for number in let_go]
    rules.append(f"{to_service} ct mark 0x0 ct mark set {numbers[active]:#x}")
    rules.append(f"{to_service} meta mark set ct mark")
    body = "\n".join(f"    {rule}" for rule in rules)
    return f"""\
table inet {TABLE}
delete table inet {TABLE}
table inet {TABLE} {{
  chain here {{
    type route hook output priority mangle; policy accept;
{body}
  }}
  chain through {{
    type filter hook prerouting priority mangle; policy accept;
{body}
  }}
}}
"""


def _loosen(name: str) -> None:
    """Let an interface take answers of connections that are pinned to it, where it is there."""
    setting = _PER_INTERFACE / name / "rp_filter"
    try:
        if setting.read_text(encoding="ascii").strip() != _LOOSE:
            setting.write_text(_LOOSE, encoding="ascii")
    except FileNotFoundError:
        pass
    except OSError:
        raise Problem("link_network_refused", expected=f"rp_filter of {name}") from None


async def _listed() -> bytes:
    try:
        return await _nft("list", "table", "inet", TABLE)
    except Problem:
        return b""


@contextlib.asynccontextmanager
async def _netlink() -> Any:  # noqa: ANN401 - the library is not typed
    try:
        async with asyncio.timeout(_TIMEOUT_S), AsyncIPRoute() as netlink:
            yield netlink
    except NetlinkError as error:
        why = errno.errorcode.get(error.code, str(error.code))
        raise Problem("link_network_refused", expected=f"a routing rule: {why}") from None
    except (OSError, TimeoutError):
        raise Problem("link_network_refused", expected="a routing rule: no answer") from None


async def _nft(*arguments: str, text: str = "") -> bytes:
    """Run nft. Raises ``Problem`` link_firewall_refused."""
    pipe = asyncio.subprocess.PIPE
    try:
        process = await asyncio.create_subprocess_exec(
            "/usr/sbin/nft", *arguments, stdin=pipe, stdout=pipe, stderr=asyncio.subprocess.DEVNULL
        )
    except OSError:
        raise Problem("link_firewall_refused", expected="nft (Debian's nftables)") from None
    try:
        async with asyncio.timeout(_TIMEOUT_S):
            out, _ = await process.communicate(text.encode())
    except TimeoutError:
        raise Problem("link_firewall_refused", expected="nft: no answer in time") from None
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    if process.returncode != 0:
        raise Problem("link_firewall_refused", expected="nft: the marks of connections")
    return out
