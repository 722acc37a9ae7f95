"""The process that makes a WireGuard interface where the kernel cannot: wireguard-go, started, adopted, watched.

It is in a session of its own and no pipe ties it to its starter, so that the controller's death, even by ``kill -9``,
ends no session; the next controller adopts it. (Under systemd that needs ``KillMode=process``: by default a unit's end
takes its whole control group.) Its sockets stand in the namespace in which it was started, also when its interface is
moved to another: clear text and the outer network can live apart.

Every such process holds one inotify instance, of which the system allows a user 128 by default: about the 125th dies at
its start, and the error names the limit. The folder of the sockets is shared by all namespaces: interface names are
unique on a machine.

Invariant: a process is adopted only when it listens at the interface's socket, and stands in the namespace it should.
"""

import asyncio
import contextlib
import os
import select
import signal
import socket
import struct
from pathlib import Path
from typing import Final

from chukan.errors import Problem
from chukan.vpn.wireguard.uapi import Uapi

SOCKETS: Final = Path("/var/run/wireguard")
_START_TIMEOUT_S: Final = 8.0
_STOP_TIMEOUT_S: Final = 5.0
_LOOK_AGAIN_S: Final = 0.01
_LOG_BYTES_MAX: Final = 1 << 20
_LOG_TAIL_BYTES: Final = 4096
_CREDENTIALS: Final = struct.Struct("3i")
_NAMED: Final = Path("/run/netns")
_NAME_CHARS_MAX: Final = 15
"""IFNAMSIZ of the kernel, without the final zero."""


class Userspace:
    """The wireguard-go of one interface."""

    kind: Final = "userspace"

    def __init__(
        self, interface: str, *, netns: str | None, log: Path, program: str = "wireguard-go", sockets: Path = SOCKETS
    ) -> None:
        """``netns`` is where its UDP sockets shall stand; ``log`` takes why it did not come up, and is kept small."""
        if not 0 < len(interface) <= _NAME_CHARS_MAX:
            raise ValueError("an interface's name has 1 to 15 characters")
        self._interface = interface
        self._netns = netns
        self._log = log
        self._program = program
        self._path = sockets / f"{interface}.sock"
        self._pid: int | None = None
        self._pidfd = -1
        self.tunnels = Uapi(self._path)

    @property
    def pid(self) -> int | None:
        """The process's id, None before ``ensure``."""
        return self._pid

    async def ensure(self) -> bool:
        """Adopt the process if it runs, or start one; return whether it was started: then it knows no peer.

        Raises ``Problem``: runtime_missing, process_failed (it did not come up), link_interface_refused (the name is
        taken by a process in another namespace).
        """
        if self.adopt():
            return False
        # Its errors tell where devices are; it is let speak only to say why it did not come up.
        if await self._start("silent") or await self._start("error"):
            return True
        raise self._failure()

    async def _start(self, log_level: str) -> bool:
        """Start it; tell whether it listens, or has ended by itself."""
        pid = self._spawn(log_level)
        try:
            async with asyncio.timeout(_START_TIMEOUT_S):
                while self._listener() != pid:
                    if _ended(self._pidfd):
                        self.close()
                        return False
                    await asyncio.sleep(_LOOK_AGAIN_S)
        except TimeoutError:
            await self.stop()
            raise Problem("process_failed", expected=f"{self._interface}: it does not answer in time") from None
        return True

    def adopt(self) -> bool:
        """Take charge of the process if it runs; tell whether it does. ``Problem`` link_interface_refused."""
        pid = self._listener()
        if pid is None:
            return False
        self._check_namespace(pid)
        self._take(pid)
        self._cut_log()
        return True

    async def gone(self) -> None:
        """Wait until the process has ended; at once when there is none."""
        if self._pidfd < 0 or _ended(self._pidfd):
            return
        loop, ended = asyncio.get_running_loop(), asyncio.Event()
        # A descriptor of its own: two may wait, and a loop knows one reader a descriptor.
        descriptor = os.dup(self._pidfd)
        loop.add_reader(descriptor, ended.set)
        try:
            await ended.wait()
        finally:
            loop.remove_reader(descriptor)
            os.close(descriptor)
        self._reap()

    async def stop(self) -> None:
        """End the process, and with it the interface; there may be none."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            if self._pidfd < 0 or _ended(self._pidfd):
                break
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, number)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_STOP_TIMEOUT_S):
                    await self.gone()
        self.close()

    def close(self) -> None:
        """Let the process go on without us."""
        self._reap()
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1

    # ------------------------------------------------------------ the process

    def _spawn(self, log_level: str) -> int:
        """Start it as no child object of ours that would end it: the interpreter's own process classes kill theirs."""
        within = ["/usr/sbin/ip", "netns", "exec", self._netns] if self._netns else []
        argv = [*within, self._program, "-f", self._interface]
        environment = {"PATH": os.environ.get("PATH", os.defpath), "LOG_LEVEL": log_level}
        write = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_TRUNC
        try:
            pid = os.posix_spawnp(
                argv[0],
                argv,
                environment,
                file_actions=[
                    (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                    (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
                    (os.POSIX_SPAWN_OPEN, 2, os.fspath(self._log), write, 0o600),
                ],
                setsid=True,
            )
        except OSError:
            raise Problem("runtime_missing", expected=f"{self._program}, and a folder for {self._log.name}") from None
        self._take(pid)
        return pid

    def _take(self, pid: int) -> None:
        if self._pid == pid and self._pidfd >= 0 and not _ended(self._pidfd):
            return
        self.close()
        self._pid = pid
        try:
            self._pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            raise Problem("process_failed", expected=f"{self._interface}: it ended at once") from None

    def _reap(self) -> None:
        """Take the status of one that we started; one that was adopted is its first starter's, or the system's."""
        if self._pid is not None:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(self._pid, os.WNOHANG)

    def _listener(self) -> int | None:
        """Return the id of the process that listens at the socket, None when nobody does."""
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(1.0)
            try:
                probe.connect(os.fspath(self._path))
            except OSError:
                return None
            # The credentials are those of who called listen().
            told = probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        pid, _uid, _gid = _CREDENTIALS.unpack(told)
        return int(pid) or None

    def _check_namespace(self, pid: int) -> None:
        try:
            there = Path(f"/proc/{pid}/ns/net").stat()
            here = (_NAMED / self._netns if self._netns else Path("/proc/thread-self/ns/net")).stat()
        except OSError:
            raise Problem("link_interface_away", expected=f"{self._interface}: it has just ended") from None
        if (there.st_dev, there.st_ino) != (here.st_dev, here.st_ino):
            raise Problem("link_interface_refused", expected=f"{self._interface}: a name that is unique on the machine")

    def _failure(self) -> Problem:
        try:
            text = self._log.read_bytes()[-_LOG_TAIL_BYTES:].decode("utf-8", errors="replace")
        except OSError:
            text = ""
        if "too many open files" in text:
            limit = Path("/proc/sys/fs/inotify/max_user_instances").read_text(encoding="ascii").strip()
            return Problem("process_failed", expected=f"fs.inotify.max_user_instances above {limit}")
        last = next((line for line in reversed(text.splitlines()) if line.strip()), "it gave no reason")
        return Problem("process_failed", expected=f"{self._interface}: {last.strip()[-160:]}")

    def _cut_log(self) -> None:
        """Keep the log small: the process appends, so that it goes on at the new end."""
        with contextlib.suppress(OSError):
            if self._log.stat().st_size > _LOG_BYTES_MAX:
                os.truncate(self._log, 0)


def _ended(pidfd: int) -> bool:
    """Tell whether the process of a descriptor has ended; it is readable from then on."""
    try:
        return bool(select.select([pidfd], [], [], 0)[0])
    except ValueError:
        return True
