"""The lab buries dead postmasters while it stands, and asks for no orphans when it is gone."""

import asyncio
import ctypes
import os
import shutil
import signal
import threading
import time
from pathlib import Path

from chukan.ops.centres import reaper

_PR_GET_CHILD_SUBREAPER = 37
GONE_S = 10.0


def asks_for_orphans() -> bool:
    asked = ctypes.c_int(-1)
    assert ctypes.CDLL(None).prctl(_PR_GET_CHILD_SUBREAPER, ctypes.byref(asked), 0, 0, 0) == 0
    return asked.value == 1


async def orphan(folder: Path) -> int:
    """Start what is called postgres and has lost its parent; returns its process id."""
    program = folder / "postgres"
    shutil.copy2(shutil.which("sleep") or "", program)
    shell = await asyncio.create_subprocess_exec(
        "/bin/sh", "-c", '"$0" 600 >/dev/null & echo $!', str(program), stdout=asyncio.subprocess.PIPE
    )
    out, _ = await shell.communicate()
    return int(out)


def is_ours(pid: int) -> bool:
    return f"PPid:\t{os.getpid()}\n" in Path(f"/proc/{pid}/status").read_text(encoding="ascii")


async def until_gone(pid: int) -> None:
    """Wait until the table of processes has it no more: dead and buried."""

    def look() -> None:
        latest = time.monotonic() + GONE_S
        while Path(f"/proc/{pid}").exists():
            assert time.monotonic() < latest
            threading.Event().wait(0.01)

    await asyncio.to_thread(look)


def test_a_dead_postmaster_is_buried_while_the_lab_stands(tmp_path: Path) -> None:
    async def stand() -> None:
        end = reaper.begin()
        try:
            assert asks_for_orphans()
            pid = await orphan(tmp_path)
            assert is_ours(pid)
            os.kill(pid, signal.SIGKILL)
            await until_gone(pid)
        finally:
            end()

    asyncio.run(stand())


def test_a_process_that_outlives_its_lab_asks_for_no_orphans(tmp_path: Path) -> None:
    async def stand() -> None:
        reaper.begin()()
        assert not asks_for_orphans()
        pid = await orphan(tmp_path)
        assert not is_ours(pid)
        os.kill(pid, signal.SIGKILL)
        await until_gone(pid)

    asyncio.run(stand())


def test_a_lab_in_another_thread_asks_for_none() -> None:
    async def stand() -> bool:
        end = reaper.begin()
        try:
            return asks_for_orphans()
        finally:
            end()

    async def elsewhere() -> bool:
        return await asyncio.to_thread(lambda: asyncio.run(stand()))

    assert not asyncio.run(elsewhere())
