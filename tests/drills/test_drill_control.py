"""The stage of a running lab over its socket: the same calls, the same problems, for this user alone."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from chukan.errors import Problem
from chukan.ops.centres import control
from chukan.ops.centres.control import CALLS, RemoteStage, serve
from chukan.ops.centres.stage import LabStage
from chukan.ops.drills.operator_ports import Restorer
from chukan.ops.drills.ports import Stage


class Told:
    """A stage that remembers what it was told."""

    def __init__(self) -> None:
        self.calls: list[tuple[object, ...]] = []

    def offers(self, need: str) -> bool:
        return need == "namespaces"

    async def kill(self, name: str) -> None:
        self.calls.append(("kill", name))
        if name == "nobody":
            raise Problem("not_found", expected="somebody")

    async def cut(self, a: str, b: str) -> None:
        self.calls.append(("cut", a, b))

    async def heal(self) -> list[str]:
        return ["start e1"]

    async def settled(self, timeout_s: float) -> None:
        self.calls.append(("settled", timeout_s))
        raise TimeoutError


def mode(path: Path) -> int | None:
    return path.stat().st_mode & 0o777 if path.exists() else None


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / control.SOCKET


@pytest.fixture
async def stage(path: Path) -> AsyncIterator[Told]:
    told = Told()
    async with serve(told, path):
        yield told


async def test_calls_arrive_with_their_words_and_results_come_back(stage: Told, path: Path) -> None:
    remote = RemoteStage(path)
    await remote.kill("patroni-e1")
    await remote.cut("east", "west")
    assert await remote.heal() == ["start e1"]
    assert await remote.offered(["namespaces", "small disks"]) == ["namespaces"]
    assert stage.calls == [("kill", "patroni-e1"), ("cut", "east", "west")]


async def test_problems_come_back_as_they_were(stage: Told, path: Path) -> None:
    with pytest.raises(Problem) as told:
        await RemoteStage(path).kill("nobody")
    assert (told.value.code, told.value.expected) == ("not_found", "somebody")
    with pytest.raises(TimeoutError):
        await RemoteStage(path).settled(2.5)
    assert stage.calls[-1] == ("settled", 2.5)


async def test_nothing_but_the_stages_calls_is_carried_out(stage: Told, path: Path) -> None:
    remote = RemoteStage(path)
    for name in ("__init__", "calls", "offers_all", "picture"):
        with pytest.raises(Problem) as told:
            await remote._call(name)
        assert told.value.code == "not_found"
    assert stage.calls == []


async def test_the_socket_is_this_users_alone_and_gone_at_the_end(path: Path) -> None:
    assert not RemoteStage(path).is_there()
    async with serve(Told(), path):
        assert mode(path) == 0o600
        assert RemoteStage(path).is_there()
    assert mode(path) is None
    with pytest.raises(Problem) as told:
        await RemoteStage(path).heal()
    assert told.value.code == "process_failed"


def test_every_call_of_a_stage_can_be_made_from_afar() -> None:
    wanted = {name for port in (Stage, Restorer) for name in vars(port) if not name.startswith("_")}
    assert wanted == CALLS
    assert all(hasattr(RemoteStage, name) and hasattr(LabStage, name) for name in wanted)
