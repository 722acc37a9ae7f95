"""The script that PostgreSQL hands its segments to, run for real with a pgBackRest that does as it is told."""

import re
import subprocess
import threading
import time
from pathlib import Path

import pytest

from chukan.replication import archiving
from chukan.replication.site import Site
from chukan.replication.site_file import parse
from chukan.tests.site.conftest import SITE

TABLE = '\n[backup]\nhosts = { east = "east-1", west = "west-1" }\n'
FIRST, SECOND, THIRD = (f"0000000100000000000000{n:02X}" for n in (1, 2, 3))
SHIPPED_S = 10.0
PROGRAM = """\
#!/bin/sh
# Takes note of what is pushed where; fails or hangs where a file of the repository's name says so.
for word in "$@"; do case $word in --config=*) where=${word##*/e1.}; where=${where%%.*} ;; esac; done
for word in "$@"; do last=$word; done
[ -e "ROOT/$where.away" ] && exit 103
for turn in 0 1 2 3 4 5 6 7 8 9; do [ -e "ROOT/$where.frozen" ] && sleep 1; done
[ -r "$last" ] || exit 1
echo "$where ${last##*/} $(cat "$last")" >>"ROOT/pushed"
"""


def names_in(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


class Node:
    """Node e1 of a site whose trees lie in a test's folder, and the segments that its server has finished."""

    def __init__(self, root: Path) -> None:
        self.root = root
        site = parse(SITE + TABLE, root)
        self.site: Site = site
        _, self.row = site.node("e1")
        self.wal = site.directory("east") / "data" / "e1" / "pg_wal"
        (self.wal / "archive_status").mkdir(parents=True)
        script = archiving.script_file(site, self.row)
        script.parent.mkdir(parents=True)
        script.write_text(archiving.script(site, "e1"), encoding="utf-8")
        programs = root / "programs"
        programs.mkdir()
        (programs / "pgbackrest").write_text(PROGRAM.replace("ROOT", str(root)), encoding="utf-8")
        (programs / "pgbackrest").chmod(0o755)
        self.environment = {"PATH": f"{programs}:/usr/bin:/bin"}
        self.queue = archiving.queue(site, self.row)

    def call(self, command: str) -> int:
        return subprocess.run(
            ["/bin/sh", "-c", command], check=False, env=self.environment, cwd=self.wal.parent, timeout=30
        ).returncode

    def archive(self, name: str) -> int:
        (self.wal / name).write_text(f"content-{name[-2:]}", encoding="ascii")
        command = archiving.command(self.site, self.row)
        return self.call(command.replace("%p", f"pg_wal/{name}").replace("%f", name))

    def pushed(self, where: str) -> list[str]:
        noted = self.root / "pushed"
        lines = noted.read_text(encoding="ascii").splitlines() if noted.exists() else []
        return [line.split()[1] for line in lines if line.startswith(where)]

    def shipped(self, *names: str) -> bool:
        """Wait until these, and nothing else, are in the other centre, in any order, and the queue is empty."""
        deadline = time.monotonic() + SHIPPED_S
        while time.monotonic() < deadline:
            if set(self.pushed("far")) == set(names) and not names_in(self.queue):
                return True
            threading.Event().wait(0.02)
        return False

    def status(self) -> list[str]:
        return names_in(self.wal / "archive_status")

    def role_change(self, role: str) -> int:
        return self.call(f"{archiving.callback(self.site, self.row)} on_role_change {role} east")


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


def test_a_segment_goes_to_its_own_centre_at_once_and_to_the_other_in_its_wake(node: Node) -> None:
    assert node.archive(FIRST) == 0
    assert node.pushed("near") == [FIRST]
    assert node.shipped(FIRST)
    contents = {line.split()[2] for line in (node.root / "pushed").read_text(encoding="ascii").splitlines()}
    assert contents == {"content-01"}


@pytest.mark.requirement("PLT-02")
@pytest.mark.parametrize("trouble", ["away", "frozen"])
def test_the_loss_of_the_other_centre_stops_nothing_and_is_made_up_for(node: Node, trouble: str) -> None:
    (node.root / f"far.{trouble}").touch()
    began = time.monotonic()
    assert [node.archive(name) for name in (FIRST, SECOND)] == [0, 0]
    assert time.monotonic() - began < 5.0
    assert node.pushed("near") == [FIRST, SECOND]
    assert names_in(node.queue) == [FIRST, SECOND]
    (node.root / f"far.{trouble}").unlink()
    assert node.archive(THIRD) == 0
    assert node.shipped(FIRST, SECOND, THIRD)


def test_what_its_own_centre_did_not_take_is_tried_again(node: Node) -> None:
    (node.root / "near.away").touch()
    assert node.archive(FIRST) == 103
    (node.root / "near.away").unlink()
    assert node.archive(FIRST) == 0
    assert node.pushed("near") == [FIRST]


def test_the_queue_has_an_end_and_tells_where_the_gap_begins(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archiving, "QUEUE_MAX", 2)
    archiving.script_file(node.site, node.row).write_text(archiving.script(node.site, "e1"), encoding="utf-8")
    (node.root / "far.away").touch()
    names = [f"0000000100000000000000{n:02X}" for n in range(1, 5)]
    assert [node.archive(name) for name in names] == [0] * 4
    assert names_in(node.queue) == names[:2]
    assert node.queue.with_name("e1.gap").read_text(encoding="ascii").strip() == names[2]


@pytest.mark.requirement("PLT-02")
def test_a_new_leader_hands_in_again_what_its_predecessor_may_have_taken_along(node: Node) -> None:
    old_last, new_first = "000000010000000000000004", "000000020000000000000004"
    history, partial = "00000002.history", f"{old_last}.partial"
    for name in (FIRST, SECOND, old_last, new_first):
        (node.wal / name).touch()
    for name in (FIRST, old_last, new_first, history, partial):
        (node.wal / "archive_status" / f"{name}.done").touch()
    (node.wal / "archive_status" / f"{SECOND}.ready").touch()
    assert node.role_change("replica") == 0
    assert f"{FIRST}.done" in node.status()
    assert node.role_change("primary") == 0
    # The last of the old timeline was never filled; histories are archived by whoever writes them.
    assert node.status() == sorted([
        f"{FIRST}.ready", f"{SECOND}.ready", f"{old_last}.done", f"{new_first}.ready", f"{history}.done",
        f"{partial}.done",
    ])  # fmt: skip


def test_the_command_names_pgbackrest_as_that_itself_demands(node: Node) -> None:
    assert re.search("pgbackrest", archiving.command(node.site, node.row))
