"""A host's hand does what its own file names, to the process that it names, and lets go of what it froze by itself."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from chukan.errors import Problem
from chukan.ops.drills import dead_man
from chukan.ops.drills.host_hand import Config, act, read

pytestmark = pytest.mark.requirement("PLT-04")

SYSTEMCTL = """#!{python} -IS
import os, signal, sys
folder = {folder!r}
open(folder + "/calls", "a").write(" ".join(sys.argv[1:]) + "\\n")
if sys.argv[1] == "show":
    print(open(folder + "/" + sys.argv[-1]).read() if os.path.exists(folder + "/" + sys.argv[-1]) else "0")
sys.exit(3 if sys.argv[-1] == "broken.service" else 0)
"""


class Host:
    """A host with processes of ours: one under a unit, one with a child under a pid file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.children: list[subprocess.Popen[bytes]] = []
        program = folder / "systemctl"
        program.write_text(SYSTEMCTL.format(python=sys.executable, folder=str(folder)), "utf-8")
        program.chmod(0o755)
        self.file = folder / "hand.toml"
        self.write()

    def write(self, more: str = "", freeze_s: float = 60) -> None:
        self.file.write_text(
            f"""
            log = "log.jsonl"
            folder = "frozen"
            freeze_s = {freeze_s}
            systemctl = "{self.folder / "systemctl"}"
            [processes.patroni-e1]
            unit = "patroni-e1.service"
            [processes.etcd-east]
            unit = "broken.service"
            [processes.postgres-e1]
            pid_file = "postmaster.pid"
            marked_by = "marked by this"
            family = true
            {more}
            """,
            "utf-8",
        )
        self.file.chmod(0o600)

    def start(self, unit: str = "", *, pid_file: str = "") -> subprocess.Popen[bytes]:
        family = "import subprocess, sys; subprocess.run(['/bin/sleep', '60'])"
        argv = [sys.executable, "-c", family, "marked by this"] if pid_file else ["/bin/sleep", "60"]
        process = subprocess.Popen(argv, start_new_session=True)
        self.children.append(process)
        (self.folder / (unit or pid_file)).write_text(f"{process.pid}\n", "ascii")
        return process

    def do(self, action: str, name: str) -> str:
        return act(self.config, action, name)

    @property
    def config(self) -> Config:
        return read(self.file)

    @property
    def log(self) -> list[tuple[str, str, str]]:
        lines = (self.folder / "log.jsonl").read_text("utf-8").splitlines()
        return [(line["action"], line["process"], line["outcome"]) for line in map(json.loads, lines)]

    @property
    def calls(self) -> list[str]:
        return (self.folder / "calls").read_text("utf-8").splitlines()


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    made = Host(tmp_path)
    yield made
    for process in made.children:
        for child in dead_man.children(process.pid):
            os.kill(child, 9)
        process.kill()
        process.wait()


def state(pid: int) -> str:
    """Return a process's state: T is stopped."""
    return Path(f"/proc/{pid}/stat").read_text("ascii").rsplit(")", 1)[1].split()[0]


def until(holds: Callable[[], bool], timeout_s: float = 20) -> None:
    for _ in range(int(timeout_s * 20)):
        if holds():
            return
        threading.Event().wait(0.05)
    pytest.fail("it did not come about in time")


def test_a_process_of_a_unit_is_frozen_and_thawed_and_it_is_written_down(host: Host) -> None:
    process = host.start("patroni-e1.service")
    assert host.do("freeze", "patroni-e1") == "frozen"
    until(lambda: state(process.pid) == "T")
    assert host.do("thaw", "patroni-e1") == "thawed"
    until(lambda: state(process.pid) != "T")
    assert host.log == [("freeze", "patroni-e1", "frozen"), ("thaw", "patroni-e1", "thawed")]
    assert (host.folder / "log.jsonl").stat().st_mode & 0o777 == 0o600


def test_a_freeze_ends_by_itself_also_when_nobody_comes_back(host: Host) -> None:
    host.write(freeze_s=1.0)
    process = host.start("patroni-e1.service")
    # From another process, which is gone before the time is over: as from an operator's machine that is lost.
    words = [sys.executable, "-m", "chukan.ops.cli", "drill", "hand", "freeze", "patroni-e1"]
    subprocess.run([*words, "--config", str(host.file)], check=True, timeout=60, capture_output=True)
    until(lambda: host.log[-1][2] == "its time was over")
    until(lambda: state(process.pid) != "T")
    assert host.log[0] == ("freeze", "patroni-e1", "frozen")
    assert not list((host.folder / "frozen").iterdir())


def test_a_later_freeze_is_not_ended_by_the_time_of_an_earlier_one(host: Host) -> None:
    host.write(freeze_s=1.0)
    process = host.start("patroni-e1.service")
    host.do("freeze", "patroni-e1")
    host.do("thaw", "patroni-e1")
    host.write(freeze_s=60)
    host.do("freeze", "patroni-e1")
    threading.Event().wait(2.0)
    assert state(process.pid) == "T"


def test_children_are_frozen_with_their_postmaster(host: Host) -> None:
    process = host.start(pid_file="postmaster.pid")
    until(lambda: bool(dead_man.children(process.pid)))
    (child,) = dead_man.children(process.pid)
    host.do("freeze", "postgres-e1")
    until(lambda: (state(process.pid), state(child)) == ("T", "T"))
    host.do("thaw", "postgres-e1")
    until(lambda: "T" not in {state(process.pid), state(child)})


def test_a_killed_unit_is_kept_down_by_its_manager(host: Host) -> None:
    process = host.start("patroni-e1.service")
    assert host.do("kill", "patroni-e1") == "killed"
    assert process.wait(10) == -9
    assert host.calls[-1] == "stop patroni-e1.service"


def test_start_and_stop_are_the_managers_affair(host: Host) -> None:
    host.do("stop", "patroni-e1")
    host.do("start", "patroni-e1")
    assert [call for call in host.calls if not call.startswith("show")] == [
        "stop patroni-e1.service", "start patroni-e1.service",
    ]  # fmt: skip
    with pytest.raises(Problem) as told:
        host.do("start", "postgres-e1")
    assert told.value.code == "not_possible_here"


def test_a_pid_file_that_was_left_behind_names_nobody(host: Host) -> None:
    other = subprocess.Popen(["/bin/sleep", "60"])
    host.children.append(other)
    (host.folder / "postmaster.pid").write_text(f"{other.pid}\n", "ascii")
    assert host.do("kill", "postgres-e1") == "was down"
    with pytest.raises(Problem) as told:
        host.do("freeze", "postgres-e1")
    assert told.value.code == "drill_hand_failed"
    assert other.poll() is None
    assert state(other.pid) != "T"


@pytest.mark.parametrize("name", ["patroni-e2", "../patroni-e1", "patroni-e1.service", "", "1"])
def test_a_name_that_the_host_does_not_know_is_refused_and_not_written_down(host: Host, name: str) -> None:
    with pytest.raises(Problem) as told:
        host.do("kill", name)
    assert told.value.code == "not_found"
    assert host.log == [("kill", "?", "refused")]
    assert not (host.folder / "calls").exists()


def test_an_action_that_is_none_is_refused(host: Host) -> None:
    with pytest.raises(Problem):
        host.do("rm", "patroni-e1")
    assert host.log == [("?", "patroni-e1", "refused")]


def test_a_manager_that_fails_is_told(host: Host) -> None:
    with pytest.raises(Problem) as told:
        host.do("stop", "etcd-east")
    assert told.value.code == "drill_hand_failed"
    assert host.log == [("stop", "etcd-east", "drill_hand_failed")]


def test_the_reason_is_one_line_for_whoever_called(host: Host) -> None:
    words = [sys.executable, "-m", "chukan.ops.cli", "drill", "hand", "start", "etcd-east", "--config", str(host.file)]
    done = subprocess.run(words, check=False, timeout=60, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (2, "drill_hand_failed: systemctl start broken.service: status 3\n")


def test_a_file_that_others_may_write_is_not_believed(host: Host) -> None:
    host.file.chmod(0o620)
    with pytest.raises(Problem) as told:
        host.do("thaw", "patroni-e1")
    assert told.value.code == "settings_unreadable"


@pytest.mark.parametrize(
    "more",
    ["[processes.x]", '[processes.x]\nunit = "a; b"', '[processes.x]\npid_file = "x.pid"',
     '[processes.x]\nunit = "a.service"\npid_file = "x.pid"\nmarked_by = "y"', '[processes.x]\nrun = "rm"'],
)  # fmt: skip
def test_a_file_that_is_wrong_is_refused(host: Host, more: str) -> None:
    host.write("\n".join(["", *more.splitlines()]))
    with pytest.raises(Problem) as told:
        host.do("thaw", "patroni-e1")
    assert told.value.code in {"setting_invalid", "setting_unknown"}
