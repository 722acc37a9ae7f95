"""The hand that rotates keys and has rows sealed anew: by the operator's commands, for the drill's own agencies."""

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from chukan.errors import Problem
from chukan.ops.drills import commands
from chukan.ops.drills.key_turns import CommandKeys, KeyTurns
from chukan.ops.drills.vocabulary import WHEN, Step, understand

ROTATE, RESEAL = "rotate the data keys of the drill's agencies", "seal the rows of the drill's agencies anew"


class Place:
    """Two agencies that ask each other, and keys whose rows take some tries."""

    def __init__(self, left: int) -> None:
        self.left, self.calls, self.notes = left, [], []  # type: ignore[var-annotated]
        self.keys = self

    def cases(self) -> list[Any]:
        return [SimpleNamespace(inquirer="B", provider="A"), SimpleNamespace(inquirer="A", provider="B")]

    async def rotate(self, agency: str) -> int:
        self.calls.append(f"rotate {agency}")
        return 2

    async def reencrypt(self, agency: str) -> tuple[int, int]:
        self.calls.append(f"reencrypt {agency}")
        self.left -= 1
        return 10, max(self.left, 0)

    async def does(self, text: str) -> None:
        turns: Any = KeyTurns(self, lambda _ja, en, _kind: self.notes.append(en))  # type: ignore[arg-type]
        step: Step = understand(text, WHEN, "/when/0")
        await turns.verbs[step.verb](step)


async def test_each_agency_of_the_drill_gets_a_key_once() -> None:
    place = Place(0)
    await place.does(ROTATE)
    assert place.calls == ["rotate A", "rotate B"]
    assert place.notes == ["2 agencies have a new data key"]


async def test_what_is_left_is_tried_again_and_not_for_ever() -> None:
    place = Place(2)
    await place.does(RESEAL)
    assert place.calls == ["reencrypt A", "reencrypt A", "reencrypt B"]
    assert place.notes == ["30 rows were sealed anew"]
    with pytest.raises(Problem, match="drill_step_failed"):
        await Place(4).does(RESEAL)


@pytest.mark.parametrize(
    ("said", "becomes"),
    [
        ('[{"agency":"A","purpose":"data","version":7}]', 7),
        ('{"code":"keys_unconfirmed","expected":"the key store of west"}', "keys_unconfirmed"),
        ('{"code":"another"}', "process_failed"),
        ("nothing", "process_failed"),
    ],
)
async def test_the_commands_word_is_the_drills(
    said: str, becomes: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = tmp_path / "command"
    command.write_text(f"#!/bin/sh\necho '{said}'\n")
    command.chmod(0o755)
    monkeypatch.setattr(commands, "sys", SimpleNamespace(executable=str(command)))
    keys: Any = CommandKeys(SimpleNamespace(operator=SimpleNamespace(directory=tmp_path)))  # type: ignore[arg-type]
    assert sys.executable != str(command)
    if isinstance(becomes, int):
        assert await keys.rotate("A") == becomes
        return
    with pytest.raises(Problem) as refused:
        await keys.rotate("A")
    assert refused.value.code == becomes
