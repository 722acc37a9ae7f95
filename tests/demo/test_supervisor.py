"""The demo's processes: ended in order, watched, and gone with the demo."""

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from chukan.errors import Problem
from chukan.ops.demo import supervisor as supervisor_module
from chukan.ops.demo.supervisor import Supervisor, guarded, in_thread, tail

DEADLINE_S = 20.0


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of small modules that a started process can import."""
    folder = tmp_path / "modules"
    folder.mkdir()
    monkeypatch.setenv("PYTHONPATH", str(folder))
    (folder / "steady.py").write_text(
        textwrap.dedent("""
        import pathlib, signal, sys
        pathlib.Path(sys.argv[1]).write_text("ready")
        signal.sigwait({signal.SIGTERM})
        pathlib.Path(sys.argv[1]).write_text("ended in good order")
        """).replace("signal.sigwait", "signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM}); signal.sigwait")
    )
    (folder / "stubborn.py").write_text(
        textwrap.dedent("""
        import pathlib, signal, sys
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        pathlib.Path(sys.argv[1]).write_text("ready")
        while True:
            signal.pause()
        """)
    )
    (folder / "broken.py").write_text('raise SystemExit("the setting is wrong")\n')
    return folder


@pytest.fixture
async def supervisor(tmp_path: Path) -> AsyncIterator[Supervisor]:
    one = Supervisor(tmp_path / "log")
    yield one
    await one.stop()


def _says(path: Path, text: str) -> bool:
    return path.exists() and path.read_text() == text


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def _start(supervisor: Supervisor, module: str, said: Path, timeout_s: float = DEADLINE_S) -> int:
    async def ready() -> bool:
        return _says(said, "ready")

    await supervisor.start(module, module, [str(said)], ready, timeout_s)
    return supervisor.pids()[module]


@pytest.mark.usefixtures("modules")
async def test_a_process_is_ended_in_good_order(supervisor: Supervisor, tmp_path: Path) -> None:
    pid = await _start(supervisor, "steady", tmp_path / "said")
    assert _alive(pid)
    await supervisor.stop()
    assert not _alive(pid)
    assert _says(tmp_path / "said", "ended in good order")
    assert supervisor.pids() == {}


@pytest.mark.usefixtures("modules")
async def test_one_that_does_not_obey_is_killed(
    supervisor: Supervisor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor_module, "STOP_TIMEOUT_S", 0.2)
    pid = await _start(supervisor, "stubborn", tmp_path / "said")
    await supervisor.stop()
    assert not _alive(pid)


@pytest.mark.usefixtures("modules")
async def test_one_that_ends_at_start_names_the_log_to_read(supervisor: Supervisor, tmp_path: Path) -> None:
    with pytest.raises(Problem) as failed:
        await _start(supervisor, "broken", tmp_path / "said")
    assert failed.value.code == "process_failed"
    assert failed.value.expected == str(tmp_path / "log" / "broken.log")
    assert "the setting is wrong" in tail(tmp_path / "log" / "broken.log")


@pytest.mark.usefixtures("modules")
async def test_one_that_is_never_ready_fails_at_its_deadline(supervisor: Supervisor, tmp_path: Path) -> None:
    async def never() -> bool:
        return False

    with pytest.raises(Problem) as failed:
        await supervisor.start("steady", "steady", [str(tmp_path / "said")], never, 0.5)
    assert failed.value.code == "process_failed"


@pytest.mark.usefixtures("modules")
async def test_one_that_ends_by_itself_is_started_again_but_not_for_ever(
    supervisor: Supervisor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "_restarts_left", 1)
    await _start(supervisor, "steady", tmp_path / "first")
    pid = await _start(supervisor, "stubborn", tmp_path / "second")
    (tmp_path / "second").unlink()
    ended: list[str] = []
    watching = asyncio.create_task(supervisor.watch(ended.append))
    os.kill(pid, signal.SIGKILL)
    await _until(lambda: _says(tmp_path / "second", "ready"))
    again = supervisor.pids()["stubborn"]
    assert again != pid
    assert ended == ["stubborn"]
    os.kill(again, signal.SIGKILL)
    with pytest.raises(Problem) as failed:
        async with asyncio.timeout(DEADLINE_S):
            await watching
    assert failed.value.expected == str(tmp_path / "log" / "stubborn.log")


async def test_no_process_outlives_a_parent_that_was_killed(modules: Path, tmp_path: Path) -> None:
    said, told = tmp_path / "said", tmp_path / "pid"
    (modules / "parent.py").write_text(
        textwrap.dedent("""
        import asyncio, pathlib, signal, sys
        from chukan.ops.demo.supervisor import Supervisor

        async def main(folder):
            supervisor = Supervisor(folder / "log")
            said = folder / "said"

            async def ready():
                return said.exists() and said.read_text() == "ready"

            await supervisor.start("steady", "steady", [str(said)], ready, 20)
            (folder / "pid").write_text(str(supervisor.pids()["steady"]))
            signal.pause()

        asyncio.run(main(pathlib.Path(sys.argv[1])))
        """)
    )
    parent = subprocess.Popen([sys.executable, "-m", "parent", str(tmp_path)])  # noqa: ASYNC220 - ended below
    try:
        await _until(lambda: told.exists() and told.read_text() != "")
        pid = int(told.read_text())
        descriptor = os.pidfd_open(pid)
    finally:
        parent.kill()
        parent.wait(DEADLINE_S)
    os.set_blocking(descriptor, False)
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(descriptor, ended.set)
    async with asyncio.timeout(DEADLINE_S):
        await ended.wait()
    loop.remove_reader(descriptor)
    os.close(descriptor)
    assert _says(said, "ended in good order")


async def _until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not holds():
            await asyncio.to_thread(os.sched_yield)


async def test_what_broke_is_told_and_not_what_failed_because_of_it() -> None:
    stopped = asyncio.Event()

    async def work() -> str:
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()
        return "never"

    async def watch() -> None:
        raise Problem("process_failed", expected="the log")

    with pytest.raises(Problem, match="process_failed"):
        async with asyncio.timeout(DEADLINE_S):
            await guarded(work(), watch())
    assert stopped.is_set()


async def test_guarded_work_returns_what_it_did_and_ends_the_watch() -> None:
    watched = asyncio.Event()

    async def watch() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            watched.set()

    async def work() -> str:
        return "done"

    assert await guarded(work(), watch()) == "done"
    assert watched.is_set()


async def test_blocking_work_is_finished_before_a_cancellation_goes_on() -> None:
    started, release, finished = asyncio.Event(), asyncio.Event(), []
    loop = asyncio.get_running_loop()

    def work() -> None:
        loop.call_soon_threadsafe(started.set)
        asyncio.run_coroutine_threadsafe(release.wait(), loop).result(DEADLINE_S)
        finished.append("yes")

    task = asyncio.create_task(in_thread(work))
    await started.wait()
    task.cancel()
    loop.call_later(0.05, release.set)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert finished == ["yes"]
