"""``chukan drill hand ACTION PROCESS``: what a drill may do to the processes of one host, and nothing more.

It runs on the host, mostly by ``sudo`` from the operator's machine (``[drill] hand`` in ``site.toml``). A file of the
host's own says which names there are, and which systemd unit or pid file each of them stands for; a name that is not in
it, or an action that is not one of five, is refused. Every call is written down, whatever came of it, in a file that
only its owner reads. A freeze ends by itself after ``freeze_s``, also when whoever asked for it is gone (``dead_man``).

Invariant: no word of a caller becomes part of a command or a path before it was found in the host's own file.
"""

import os
import select
import signal
import stat
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec
from cyclopts import App, Parameter

from chukan import private_file, toml_reading
from chukan.chance import SystemChance
from chukan.clock import SystemClock
from chukan.errors import Problem
from chukan.ops.drills import dead_man
from chukan.ops.local.processes import wait_gone
from chukan.ops.output import Json, say

app = App(name="hand", help="On a host of a real site: kill, stop, start, freeze or thaw one of its processes.")

CONFIG: Final = Path("/etc/chukan/drill-hand.toml")
ACTIONS: Final = ("kill", "stop", "start", "freeze", "thaw")
Name = Annotated[str, msgspec.Meta(pattern="^[a-z][a-z0-9-]{0,63}$")]
_EXIT_PROBLEM: Final = 2
_FILE_MAX: Final = 1024 * 1024
_SYSTEMD_S: Final = 45
_GONE_S: Final = 20
_ARM_S: Final = 10
_ANYBODY: Final = stat.S_IWGRP | stat.S_IWOTH


class Process(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a name stands for: a systemd unit, or a pid file and a word of that process's command line.

    ``family``: its children are frozen with it (a postmaster's). A process of a pid file can be killed, frozen and
    thawed; whoever manages it starts it (a postmaster's Patroni).
    """

    unit: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9@._\\:-]{1,200}$")] = ""
    pid_file: Path | None = None
    marked_by: str = ""
    family: bool = False


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The host's file."""

    processes: dict[Name, Process]
    log: Path = Path("/var/log/chukan-drill-hand.log")
    folder: Path = Path("/run/chukan-drill-hand")
    freeze_s: Annotated[float, msgspec.Meta(gt=0, le=600)] = 120.0
    """After so long what is frozen goes on by itself."""
    systemctl: str = "/usr/bin/systemctl"


@app.default
def hand(
    action: Literal["kill", "stop", "start", "freeze", "thaw"],
    process: str,
    *,
    config: Annotated[Path, Parameter(name=["--config", "-c"])] = CONFIG,
    as_json: Json = False,
) -> int:
    """Do one thing to one process of this host, as a drill does it; what was done is written down.

    Status 2, and one line on standard error, when it was not done.

    Args:
        action: kill (SIGKILL, and kept down), stop (in good order), start, freeze (SIGSTOP, for a time) or thaw.
        process: A name of the host's file, e.g. patroni-e1.
        config: The host's file.
        as_json: Print JSON.
    """
    try:
        done = act(read(config), action, process)
    except Problem as problem:
        # One line, for whoever called hands it on as the reason; the panel is for people at this host.
        sys.stderr.write(f"{problem.code}: {problem.expected or ''}\n")
        return _EXIT_PROBLEM
    say({"action": action, "process": process, "done": done}, f"{action} {process}: {done}", as_json=as_json)
    return 0


def read(path: Path) -> Config:
    """Return the host's file. Raises ``Problem`` settings_unreadable, also where others may write it."""
    try:
        with path.open("rb") as file:
            # Of what is open, not of its name: that may lead elsewhere by the time it is read.
            found = os.fstat(file.fileno())
            text = file.read(_FILE_MAX).decode("utf-8")
    except (OSError, UnicodeDecodeError):
        raise Problem("settings_unreadable", expected=str(path)) from None
    if found.st_uid not in {0, os.geteuid()} or found.st_mode & _ANYBODY:
        raise Problem("settings_unreadable", expected=f"{path}: owned by root, writable by its owner alone")
    config = toml_reading.convert(toml_reading.parse(text), Config, "", path.absolute().parent)
    for name, process in config.processes.items():
        if bool(process.unit) is bool(process.pid_file) or (process.pid_file and not process.marked_by):
            raise Problem("setting_invalid", pointer=f"/processes/{name}", expected="unit, or pid_file and marked_by")
    return config


def act(config: Config, action: str, name: str) -> str:
    """Do it, and write down what came of it; returns that in a word.

    Raises ``Problem``: not_found, not_possible_here, drill_hand_failed, file_unwritable.
    """
    known = (action if action in ACTIONS else "?", name if name in config.processes else "?")
    outcome = "refused"
    try:
        if "?" in known:
            raise Problem("not_found", expected=f"one of {', '.join(config.processes)}")
        try:
            outcome = _Host(config, name).do(action)
        except Problem as problem:
            outcome = problem.code
            raise
        except OSError:
            outcome = "failed"
            raise Problem("drill_hand_failed", expected=f"{action} {name}") from None
    finally:
        _write_down(config.log, *known, outcome)
    return outcome


def _write_down(path: Path, action: str, name: str, outcome: str) -> None:
    line = {
        "at": SystemClock().now().isoformat(timespec="milliseconds"),
        "action": action,
        "process": name,
        "outcome": outcome,
        "user": os.environ.get("SUDO_UID", str(os.getuid())),
    }
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
        try:
            os.write(descriptor, msgspec.json.encode(line) + b"\n")
        finally:
            os.close(descriptor)
    except OSError:
        raise Problem("file_unwritable", expected=str(path)) from None


class _Host:
    """One process of this host."""

    def __init__(self, config: Config, name: str) -> None:
        self._config, self._name = config, name
        self._process = config.processes[name]
        self._token = config.folder / f"{name}.frozen"

    def do(self, action: str) -> str:
        match action:
            case "kill":
                return self._kill()
            case "freeze":
                return self._freeze()
            case "thaw":
                return self._thaw()
            case "stop":
                unit = self._unit("stop")
                # What is frozen hears nothing until it goes on.
                self._thaw()
                self._systemctl("stop", unit)
                return "stopped"
            case _:
                self._systemctl("start", self._unit("start"))
                return "started"

    def _unit(self, action: str) -> str:
        if not self._process.unit:
            raise Problem("not_possible_here", expected=f"a systemd unit, to {action} {self._name}")
        return self._process.unit

    def _systemctl(self, *words: str) -> str:
        try:
            done = subprocess.run(
                [self._config.systemctl, *words], check=False, capture_output=True, text=True, timeout=_SYSTEMD_S,
                stdin=subprocess.DEVNULL,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise Problem("drill_hand_failed", expected=f"systemctl {words[0]} within {_SYSTEMD_S} s") from None
        if done.returncode != 0:
            raise Problem("drill_hand_failed", expected=f"systemctl {words[0]} {words[-1]}: status {done.returncode}")
        return done.stdout.strip()

    # ------------------------------------------------------------ signals

    def _pid(self) -> int | None:
        """Return the process's id, None where it does not run."""
        process = self._process
        if process.unit:
            said = self._systemctl("show", "--property=MainPID", "--value", process.unit)
            return int(said) if said.isdecimal() and int(said) > 1 else None
        try:
            pid = int(Path(process.pid_file or "").read_text("ascii").split()[0])
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except (OSError, ValueError, IndexError):
            return None
        return pid if pid > 1 and os.fsencode(process.marked_by) in words else None

    def _family(self, pid: int) -> list[int]:
        return dead_man.children(pid) if self._process.family else []

    def _kill(self) -> str:
        pid = self._pid()
        if pid is not None:
            # The ids first: once a parent is gone, nobody tells whose its children were.
            for each in (pid, *self._family(pid)):
                with suppress(ProcessLookupError):
                    os.kill(each, signal.SIGKILL)
        if self._process.unit:
            # Its manager would start it again.
            self._systemctl("stop", self._process.unit)
        if pid is not None and not wait_gone(pid, _GONE_S):
            raise Problem("drill_hand_failed", expected=f"{self._name} gone within {_GONE_S} s")
        self._token.unlink(missing_ok=True)
        return "killed" if pid is not None else "was down"

    def _freeze(self) -> str:
        pid = self._pid()
        if pid is None:
            raise Problem("drill_hand_failed", expected=f"{self._name} running")
        descriptor = os.pidfd_open(pid)
        try:
            if self._pid() != pid:
                raise Problem("drill_hand_failed", expected=f"{self._name} running still")
            self._arm(pid, descriptor)
            signal.pidfd_send_signal(descriptor, signal.SIGSTOP)
            # Only now: a frozen parent makes no more of them.
            for each in self._family(pid):
                with suppress(ProcessLookupError):
                    os.kill(each, signal.SIGSTOP)
        finally:
            os.close(descriptor)
        return "frozen"

    def _arm(self, pid: int, descriptor: int) -> None:
        """Start whoever thaws in the end; nothing is frozen before he has said that he is there."""
        self._config.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        token = SystemChance(SystemClock()).token(16).hex()
        private_file.write(self._token, token.encode())
        words = (
            self._config.freeze_s, pid, descriptor, "family" if self._process.family else "alone", self._token, token,
            self._config.log, self._name,
        )  # fmt: skip
        ours, his = os.pipe()
        with os.fdopen(ours, "rb") as told:
            try:
                subprocess.Popen(
                    [os.path.realpath(sys.executable), "-I", "-S", dead_man.__file__, *map(str, words)],
                    stdin=subprocess.DEVNULL, stdout=his, stderr=subprocess.DEVNULL, pass_fds=[descriptor],
                    start_new_session=True, cwd="/", env={"LC_ALL": "C.UTF-8"},
                )  # fmt: skip
            finally:
                os.close(his)
            if not select.select([told], [], [], _ARM_S)[0] or told.read() != dead_man.ARMED:
                self._token.unlink(missing_ok=True)
                raise Problem("drill_hand_failed", expected=f"whoever would thaw {self._name} again")

    def _thaw(self) -> str:
        self._token.unlink(missing_ok=True)
        return "thawed" if self._go_on() else "was down"

    def _go_on(self) -> bool:
        pid = self._pid()
        if pid is None:
            return False
        for each in (*self._family(pid), pid):
            with suppress(ProcessLookupError):
                os.kill(each, signal.SIGCONT)
        return True
