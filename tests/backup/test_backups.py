"""A real database, backed up into both centres, restored to a moment: exactly what was acknowledged before it."""

import json
import shutil
import threading
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from chukan.errors import Problem
from chukan.ops import backup as command
from chukan.ops import pgbackrest, scan
from chukan.ops.local.binaries import find_binaries
from chukan.ops.local.postgres import Server
from chukan.replication import backup
from chukan.tests.backup.place import KEYS, Place, place
from chukan.tests.site.conftest import SITE

pytestmark = pytest.mark.full

PLANTED = "planted-plaintext-of-a-person"
_ARCHIVED_S = 90
STOP_MAX_S = 5.0
"""An archiver that waits for the other centre takes 20 s."""


class Scene(NamedTuple):
    """The place, the moment between the rows, and the rows acknowledged before it."""

    place: Place
    moment: datetime
    before: int


def arrived(here: Place, centre: str, segment: str) -> bool:
    """Wait until a segment lies in a centre's repository."""
    deadline = time.monotonic() + _ARCHIVED_S
    while time.monotonic() < deadline:
        if any((here.repository(centre) / "archive").rglob(f"{segment}-*")):
            return True
        threading.Event().wait(0.1)
    return False


def archived(here: Place) -> str:
    """End the present WAL segment, wait until it lies in the repository of its own centre, and return its name."""
    segment = here.sql("SELECT pg_walfile_name(pg_switch_wal())")
    deadline = time.monotonic() + _ARCHIVED_S
    while time.monotonic() < deadline:
        if here.sql(f"SELECT last_archived_wal >= '{segment}' FROM pg_stat_archiver"):
            return str(segment)
        here.sql("SELECT pg_sleep(0.2)")
    raise AssertionError("the segment was not archived")


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    with place(SITE) as here, here.servers():
        here.start()
        for centre in ("east", "west"):
            command.create("east", centre=centre, site=here.file, as_json=True)
        here.sql("CREATE TABLE marker (n int, word text)")
        rows = [f"INSERT INTO marker VALUES ({n}, '{PLANTED}')" for n in range(12)]
        here.sql(*rows[:4])
        command.run_command("east", kind="full", site=here.file, as_json=True)
        here.sql(*rows[4:6])
        command.run_command("east", kind="incr", site=here.file, as_json=True)
        command.run_command("east", centre="west", kind="full", site=here.file, as_json=True)
        here.sql(*rows[6:8])
        here.sql("SELECT pg_sleep(2)")  # pgBackRest counts whole seconds when it looks for a backup before the moment
        moment = here.sql("SELECT clock_timestamp()")
        here.sql(*rows[8:])
        assert arrived(here, "west", archived(here))
        yield Scene(here, moment, 8)


def restored(scene: Scene, centre: str, capsys: Any) -> dict[str, Any]:
    into = scene.place.root / "east" / "data" / f"restored-{centre}"
    capsys.readouterr()
    command.restore(
        "east",
        to=scene.moment.isoformat(),
        into=into,
        centre=centre,
        site=scene.place.file,
        confirmed=True,
        as_json=True,
    )
    said = json.loads(capsys.readouterr().out)
    assert isinstance(said, dict)
    return said


def test_what_is_there_is_listed_and_its_age_exported(scene: Scene, capsys: Any, tmp_path: Path) -> None:
    metrics = tmp_path / "backup.prom"
    capsys.readouterr()
    command.list_command("east", textfile=metrics, site=scene.place.file, as_json=True)
    rows = json.loads(capsys.readouterr().out)
    assert [row["kind"] for row in rows] == ["full", "incr"]
    line = f'chukan_backup_last_success_timestamp_seconds{{cell="east",repo="east"}} {float(rows[1]["ended"])!r}'
    assert line.partition("} ")[0] in metrics.read_text(encoding="utf-8")
    assert float(metrics.read_text(encoding="utf-8").splitlines()[-1].split()[-1]) == rows[1]["ended"]


def test_a_repository_holds_nothing_that_can_be_read(scene: Scene) -> None:
    scene.place.sql("CHECKPOINT")
    data = [path.read_bytes() for path in (scene.place.data / "base").rglob("*") if path.is_file()]
    assert any(PLANTED.encode() in content for content in data)
    for centre in ("east", "west"):
        files = [path for path in scene.place.repository(centre).rglob("*") if path.is_file()]
        assert len(files) > 100
        for path in files:
            content = path.read_bytes()
            assert content[:8] in {b"Salted__", b""}, path.name
            assert PLANTED.encode() not in content
            assert KEYS[centre].encode() not in content


@pytest.mark.requirement("TEN-02")
def test_a_scan_for_leaks_reads_what_a_repository_holds_and_not_only_its_ciphertext(
    scene: Scene, tmp_path: Path, capsys: Any
) -> None:
    """The positive control is a value that lies in clear in a table here; no value of an agency does."""
    here = scene.place
    values, laid = tmp_path / "values.txt", here.root / "east" / "data" / "laid-down"
    values.write_text(f"{PLANTED}\nnobody-ever-wrote-this\n", encoding="utf-8")
    laid.mkdir()
    here.hand_over()
    config = backup.node_file(here.site, here.node)
    segment = here.sql("SELECT min(name) FROM pg_ls_waldir() WHERE name ~ '^[0-9A-F]{24}$'")
    archive = (here.repository("east") / "archive").rglob("0000000[0-9A-F]*-*")
    segment = min((path.name.partition("-")[0] for path in archive if path.is_file()), default=segment)
    pgbackrest.call(here.site, config, "east", "--repo=1", f"--pg1-path={laid}", "restore")
    pgbackrest.call(here.site, config, "east", "--repo=1", "archive-get", segment, str(laid / "pg_wal" / segment))

    def scanned(folder: Path) -> Any:
        capsys.readouterr()
        status = scan.leaks(values=str(values), where=scan.Where(folder=(folder,), temp=False), as_json=True)
        said = json.loads(capsys.readouterr().out)
        assert status == (0 if said["clean"] else 1)
        return said

    for centre in ("east", "west"):
        assert scanned(here.repository(centre))["clean"]  # compressed, then encrypted: nothing can be seen from outside
    said = scanned(laid)
    assert {hit["line"] for hit in said["found"]} == {1}
    assert any("/base/" in hit["place"] for hit in said["found"])
    assert said["not_searched"] == []


def test_a_cell_that_runs_or_leads_is_not_restored(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    scene.place.sql("SELECT 1")
    into = scene.place.root / "east" / "data" / "never"
    asked = {"to": scene.moment.isoformat(), "into": into, "site": scene.place.file, "confirmed": True}
    with pytest.raises(Problem) as refused:
        command.restore("east", **asked)
    assert (refused.value.code, refused.value.expected) == ("cell_running", "e1")
    scene.place.database.stop()

    async def elsewhere(site: Any, cell: str) -> str:
        return "ew1"

    monkeypatch.setattr(command, "leading", elsewhere)
    with pytest.raises(Problem) as refused:
        command.restore("east", **asked)
    assert (refused.value.code, refused.value.expected) == ("cell_running", "ew1")
    assert not into.exists()


@pytest.mark.requirement("PLT-02")
def test_the_loss_of_the_other_centre_stops_neither_the_archive_nor_the_server(scene: Scene) -> None:
    here = scene.place
    here.database.start()
    here.freeze("west-1")
    try:
        here.sql("INSERT INTO marker VALUES (98, '')")
        archived(here)
        began = time.monotonic()
        here.database.stop()
        assert time.monotonic() - began < STOP_MAX_S
    finally:
        here.thaw("west-1")
    here.database.start()
    segment = archived(here)
    assert arrived(here, "west", segment)
    here.database.stop()


@pytest.mark.parametrize("centre", ["east", "west"])
def test_exactly_what_was_acknowledged_before_the_moment_comes_back(scene: Scene, centre: str, capsys: Any) -> None:
    here = scene.place
    here.database.stop()
    said = restored(scene, centre, capsys)
    assert (said["timeline"], said["epoch"]) == (2, 2)
    into = Path(said["folder"])
    assert "recovery_target" not in (into / "postgresql.auto.conf").read_text(encoding="utf-8")
    shutil.copy(here.data.with_name("e1.password"), into.with_name(f"{into.name}.password"))
    # Only the last one archives: once a history is opened, a later restore follows it.
    options = here.options(into) | ({} if centre == "west" else {"archive_mode": "off"})
    again = Server("again", into, binaries=find_binaries("debian", only=True), options=options)
    again.start()
    try:
        assert here.sql("SELECT array_agg(n ORDER BY n) FROM marker") == list(range(scene.before))
        if centre == "west":  # the last one: it opens the new history
            here.sql("INSERT INTO marker VALUES (99, '')")
            archived(here)
            names = [path.name for path in here.repository("east").rglob("*.history*")]
            assert any(name.startswith("00000002.history") for name in names)
    finally:
        again.stop()


def test_a_moment_that_the_archive_does_not_reach_leaves_nothing(scene: Scene, capsys: Any) -> None:
    scene.place.database.stop()
    into = scene.place.root / "east" / "data" / "too-late"
    later = scene.moment.replace(year=scene.moment.year + 1).isoformat()
    with pytest.raises(Problem) as refused:
        command.restore("east", to=later, into=into, site=scene.place.file, confirmed=True)
    assert refused.value.code == "backup_failed"
    assert not into.exists()


def test_a_damaged_file_is_found(scene: Scene) -> None:
    command.verify("east", site=scene.place.file, as_json=True)
    files = [path for path in (scene.place.repository("east") / "backup").rglob("*.lz4") if path.stat().st_size > 1000]
    victim = max(files, key=lambda path: path.stat().st_size)
    content = bytearray(victim.read_bytes())
    content[len(content) // 2] ^= 1
    victim.write_bytes(content)
    with pytest.raises(Problem) as found:
        command.verify("east", site=scene.place.file, as_json=True)
    assert found.value.code == "backup_damaged"


def test_without_its_key_a_backup_is_gone(scene: Scene, capsys: Any) -> None:
    here = scene.place
    here.database.stop()
    file = backup.key_file(here.site, "east", "east")
    file.write_text("another-key-of-which-nothing-was-written", encoding="ascii")
    here.render()
    into = here.root / "east" / "data" / "keyless"
    with pytest.raises(Problem) as refused:
        command.restore(
            "east", to=scene.moment.isoformat(), into=into, centre="east", site=here.file, confirmed=True, as_json=True
        )
    assert refused.value.code == "backup_failed"
    assert not into.exists()
