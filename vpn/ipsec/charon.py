"""The IKE daemon of a centre: strongSwan's charon with a configuration and a /run of its own.

Two charons on one machine meet in ``/run`` (pid file, sockets), so each gets a mount namespace in which its own folder
stands there; socket, configuration and pid file lie in that folder, seen from outside under its own path. Nothing of
the host's strongSwan is read or touched.

Invariant: sessions do not depend on whoever started it. Charon lives in a process group of its own and is found again
by its socket; what stands under its pid is ended only when its environment says that it is this one. It writes no log,
for its lines hold addresses and identities; ``debug`` has them written into the folder (0700), for the day on which a
device is connected.
"""

import asyncio
import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from chukan.errors import Problem
from chukan.vpn.ipsec.model import Gateway
from chukan.vpn.ipsec.settings import Ipsec
from chukan.vpn.ipsec.vici import Vici

START_S: Final = 10.0
"""Charon answers 20 to 40 ms after its start."""
STOP_S: Final = 10.0
SILENT_MAX: Final = 3
"""So many times in a row a charon that lives may leave us without an answer; then it is ended and started again."""
_AGAIN_S: Final = 0.02
_PATH_MAX: Final = 107
"""The longest path that a Unix socket can have (sun_path)."""

_PLUGINS: Final = (
    "random nonce aes sha1 sha2 hmac kdf gcm openssl pem pkcs1 pkcs8 x509 pubkey constraints revocation {esp} "
    "kernel-netlink socket-default vici"
)

# A device that is silent is given up after 10 s of silence and 16 s of asking: 2 + 3 + 4.5 + 6.75.
_CONFIGURATION: Final = """\
charon {{
  load = {plugins}
  install_virtual_ip = no
  install_routes = {routes}
  close_ike_on_child_failure = yes
  retransmit_tries = 3
  retransmit_timeout = 2.0
  retransmit_base = 1.5
  ikesa_table_size = 4096
  ikesa_table_segments = 16
  init_limit_half_open = 1000
  syslog {{
    daemon {{
      default = -1
    }}
    auth {{
      default = -1
    }}
  }}
{log}  plugins {{
    vici {{
      socket = unix:///run/charon.vici
    }}
  }}
}}
"""
_DEBUG: Final = """\
  filelog {
    debug {
      path = /run/charon.log
      default = 1
      flush_line = yes
    }
  }
"""
# The folder stands where /run was, in this process's eyes alone.
_ENTER: Final = 'mount --bind "$1" /run && mkdir -p /run/lock && cd / && exec "$2"'


class Charon:
    """One daemon. ``ensure`` finds or starts it, ``died`` returns when it is gone; no method ends it but ``stop``."""

    def __init__(self, settings: Ipsec, gateway: Gateway, *, netns: str | None = None, debug: bool = False) -> None:
        """Say where; nothing is started. ``netns`` names a network namespace, None is this process's own."""
        self._settings = settings
        self._folder = settings.directory
        self._netns = netns
        self._debug = debug
        self._silent = 0
        self.vici = Vici(self.socket, gateway)

    @property
    def socket(self) -> Path:
        """Where it answers."""
        return self._folder / "charon.vici"

    async def ensure(self) -> bool:
        """See that it answers; start it where nobody does, and tell whether that was so.

        Raises ``Problem``: link_ipsec_away where it does not answer in time, link_ipsec_refused where it cannot
        be started.
        """
        if await self._answers():
            self._silent = 0
            return False
        if self._lives() and (silent := self._silent + 1) < SILENT_MAX:
            # It may only be busy, and its end would be the end of everybody's session.
            self._silent = silent
            raise Problem("link_ipsec_away", expected="charon")
        self._silent = 0
        if len(os.fsencode(self.socket)) > _PATH_MAX or not self._settings.charon.exists():
            raise Problem("link_ipsec_refused", expected="charon, and a short path for its socket")
        await self._end(signal.SIGKILL)
        self._prepare()
        process = await asyncio.to_thread(self._launch)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(START_S):
                while process.poll() is None:
                    if await self._answers():
                        return True
                    await asyncio.sleep(_AGAIN_S)
        if process.poll() is None:
            process.kill()
            raise Problem("link_ipsec_away", expected="charon")
        raise Problem("link_ipsec_refused", expected="charon")

    async def died(self) -> None:
        """Return when it is gone, as its closed socket says; at once where it does not answer."""
        try:
            reader, writer = await asyncio.open_unix_connection(str(self.socket))
        except OSError:
            return
        try:
            # Charon says nothing to who asks nothing; so whatever comes here is the end.
            await reader.read(1)
        except OSError:
            return
        finally:
            writer.close()

    async def stop(self) -> None:
        """End it, and everybody's sessions with it; for tests and for a host that is taken out of service."""
        if not await self._end(signal.SIGTERM):
            await self._end(signal.SIGKILL)

    async def _answers(self) -> bool:
        try:
            await self.vici.version()
        except Problem:
            return False
        return True

    def _lives(self) -> bool:
        with contextlib.ExitStack() as opened:
            for descriptor in self._pidfd():
                opened.callback(os.close, descriptor)
                return True
        return False

    def _prepare(self) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder.chmod(0o700)
        for left in ("charon.pid", "charon.vici"):
            (self._folder / left).unlink(missing_ok=True)
        (self._folder / "strongswan.conf").write_text(configuration(self._settings, debug=self._debug), "ascii")

    def _launch(self) -> "subprocess.Popen[bytes]":
        """Start it. Not by asyncio, whose transport kills its process when it is forgotten."""
        return subprocess.Popen(  # noqa: S603 (the words are ours and the settings', no shell reads them as a line)
            self._command(),
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "STRONGSWAN_CONF": "/run/strongswan.conf", **self._mark()},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def _command(self) -> list[str]:
        inside = [] if self._netns is None else ["ip", "netns", "exec", self._netns]
        private = ["unshare", "--mount", "--propagation", "private"]
        return [*inside, *private, "sh", "-c", _ENTER, "sh", str(self._folder.absolute()), str(self._settings.charon)]

    def _mark(self) -> dict[str, str]:
        return {"CHUKAN_CHARON": str(self._folder.absolute())}

    async def _end(self, number: int) -> bool:
        """Send a signal to this charon, if it lives, and wait for its end; tell whether it has come to it."""
        with contextlib.ExitStack() as opened:
            for descriptor in self._pidfd():
                opened.callback(os.close, descriptor)
                signal.pidfd_send_signal(descriptor, number)
                return await _readable(descriptor, STOP_S)
        return True

    def _pidfd(self) -> Iterator[int]:
        """Yield a descriptor of this charon's process, where there is one; the same number may be another's by now."""
        try:
            pid = int((self._folder / "charon.pid").read_text("ascii"))
            descriptor = os.pidfd_open(pid)
        except (OSError, ValueError):
            return
        # Read after the descriptor was opened: what is read belongs to that process, or the process is gone.
        with contextlib.suppress(OSError):
            environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
            if f"CHUKAN_CHARON={self._folder.absolute()}".encode() in environment:
                yield descriptor
                return
        os.close(descriptor)


def configuration(settings: Ipsec, *, debug: bool = False) -> str:
    """Return strongswan.conf: the few plugins that are needed, no word in a log, quick notice of who is dead."""
    plugins = _PLUGINS.format(esp="kernel-libipsec" if settings.esp == "userspace" else "")
    routes = "yes" if settings.esp == "userspace" else "no"
    return _CONFIGURATION.format(plugins=" ".join(plugins.split()), routes=routes, log=_DEBUG if debug else "")


async def _readable(descriptor: int, timeout_s: float) -> bool:
    loop = asyncio.get_running_loop()
    gone = asyncio.Event()
    loop.add_reader(descriptor, gone.set)
    try:
        async with asyncio.timeout(timeout_s):
            await gone.wait()
    except TimeoutError:
        return False
    finally:
        loop.remove_reader(descriptor)
    return True
