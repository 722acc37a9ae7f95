"""wireguard-go as a process: it outlives who started it, is adopted, and its death and its reasons are told."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from chukan.errors import Problem
from chukan.tests.support.link_spaces import Spaces, spaces
from chukan.vpn.wireguard.userspace import Userspace


def started_by_somebody(made: Spaces, interface: str, log: Path) -> int:
    """Start the interface's process by a starter that is killed at once; return the process's id."""
    starter = (
        "import asyncio, os, pathlib\nfrom chukan.vpn.wireguard.userspace import Userspace\n"
        f"device = Userspace({interface!r}, netns={made.name('one')!r}, log=pathlib.Path({str(log)!r}))\n"
        "async def main():\n"
        "    assert await device.ensure()\n"
        "    print(device.pid, flush=True)\n"
        "    os.kill(os.getpid(), 9)\n"
        "asyncio.run(main())\n"
    )

    done = subprocess.run([sys.executable, "-c", starter], capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == -9, done.stderr
    return int(done.stdout)


async def test_the_process_outlives_its_starter_and_is_adopted_and_its_death_is_told(tmp_path: Path) -> None:
    with spaces() as made:
        made.make("one", "two")
        interface = made.interface("u")
        pid = started_by_somebody(made, interface, tmp_path / "log")
        device = Userspace(interface, netns=made.name("one"), log=tmp_path / "log")
        try:
            assert not await device.ensure()
            assert device.pid == pid
            assert os.getsid(pid) == pid, "whoever ends its starter's group ends no session"
            elsewhere = Userspace(interface, netns=made.name("two"), log=tmp_path / "log")
            with pytest.raises(Problem) as taken:
                await elsewhere.ensure()
            assert "unique on the machine" in (taken.value.expected or "")
            waiting = [asyncio.create_task(device.gone()) for _ in range(2)]
            await asyncio.sleep(0)
            assert not any(task.done() for task in waiting)
            os.kill(pid, 9)
            async with asyncio.timeout(5):
                await asyncio.gather(*waiting)
            await device.gone()
            with pytest.raises(Problem, match="link_interface_away"):
                await device.tunnels.get()
            # The dead one's socket file is still there; the next one comes up all the same, and knows no peer.
            assert await device.ensure()
            assert device.pid != pid
            assert (await device.tunnels.get()).peers == {}
        finally:
            await device.stop()
        assert not device.adopt()


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("echo 'Failed to listen on uapi socket: too many open files' >&2; exit 1", "fs.inotify.max_user_instances"),
        ("echo 'Failed to create TUN device: operation not permitted' >&2; exit 1", "operation not permitted"),
        ('test "$LOG_LEVEL" = error && echo "only then" >&2; exit 1', "only then"),
        ("exit 1", "it gave no reason"),
    ],
)
async def test_a_process_that_does_not_come_up_says_why(script: str, reason: str, tmp_path: Path) -> None:
    program = tmp_path / "wireguard-go"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    device = Userspace(f"ckn{os.getpid()}", netns=None, log=tmp_path / "log", program=str(program), sockets=tmp_path)
    with pytest.raises(Problem) as failed:
        await device.ensure()
    assert failed.value.code == "process_failed"
    assert reason in (failed.value.expected or "")


async def test_a_process_that_never_listens_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chukan.vpn.wireguard.userspace._START_TIMEOUT_S", 0.2)
    program = tmp_path / "wireguard-go"
    program.write_text("#!/bin/sh\nexec sleep 60\n")
    program.chmod(0o755)
    device = Userspace(f"ckn{os.getpid()}", netns=None, log=tmp_path / "log", program=str(program), sockets=tmp_path)
    with pytest.raises(Problem, match="process_failed"):
        await device.ensure()
    assert device.pid is not None
    with pytest.raises(ProcessLookupError):
        os.kill(device.pid, 0)
    absent = Userspace("wg9", netns=None, log=tmp_path / "log", program="wireguard-that-is-not-there")
    with pytest.raises(Problem, match="runtime_missing"):
        await absent.ensure()
    with pytest.raises(ValueError, match="15 characters"):
        Userspace("wg" * 8, netns=None, log=tmp_path / "log")
