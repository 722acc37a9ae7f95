"""The demo's folders, ports, and that it runs once."""

import fcntl
import socket
import stat
from pathlib import Path

import pytest

from chukan.errors import Problem
from chukan.ops.demo.place import HOST, Lock, Place, choose_ports


def test_a_second_demo_on_the_same_data_is_refused(tmp_path: Path) -> None:
    with Lock(tmp_path):
        with pytest.raises(Problem) as refused, Lock(tmp_path):
            pass
        assert refused.value.code == "already_running"
    with Lock(tmp_path), (tmp_path / "lock").open() as other, pytest.raises(BlockingIOError):
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_clearing_removes_everything_but_the_lock(tmp_path: Path) -> None:
    place = Place(tmp_path / "demo", tmp_path / "databases" / "demo")
    with Lock(place.root):
        place.make()
        (place.files / "a.csv").write_text("x")
        place.connection.write_text("{}")
        (place.databases / "east").mkdir()
        place.clear()
        assert [path.name for path in place.root.iterdir()] == ["lock"]
        assert not place.databases.exists()


def test_folders_of_the_demo_are_closed_to_others(tmp_path: Path) -> None:
    place = Place(tmp_path / "demo", tmp_path / "databases")
    place.make()
    closed = [place.log, place.signing, place.passwords, place.config, place.files, *place.keystores.values()]
    assert {stat.S_IMODE(folder.stat().st_mode) for folder in closed} == {0o700}


def test_ports_are_fixed_and_a_taken_one_is_passed_over() -> None:
    free = choose_ports(["first"])["first"]
    with socket.socket() as taken:
        # Connections of an earlier test may still be fading away on it.
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind((HOST, free))
        taken.listen()
        ports = choose_ports(["first", "second"], first=free)
    assert ports["first"] > free
    assert ports["second"] > ports["first"]
    assert ports["second"] < 32768


def test_running_out_of_ports_is_a_problem_and_not_a_loop() -> None:
    with pytest.raises(Problem) as failed:
        choose_ports([f"port {n}" for n in range(10)], first=32760)
    assert failed.value.code == "process_failed"
