"""Two releases of the platform in one town: each exchange runs the code of the one that it is told to.

The release before is taken out of the clone's own history, so that what runs is what was once released, to the byte.
Everything else is of today: schema (`pre` alone, until nobody runs the release before any more), network, counterparts,
clients. An exchange keeps its settings and its certificate.
"""

import asyncio
import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Final
from unittest import mock

from chukan.ops.demo.bring_up import EXCHANGES
from chukan.ops.demo.databases import CELLS
from chukan.ops.demo.lodging import Lodging
from chukan.ops.demo.screen import Screen
from chukan.ops.demo.systems import connect
from chukan.replication.plain_toml import Tables
from chukan.tenants import migrate
from chukan.tenants.migrate import Migration, read_migrations
from chukan.tests.crash.town import END_TIMEOUT_S, KEEP_VARIABLE, LOOK_S, NOTICE, Processes, Town, wait

ROOT: Final = Path(__file__).resolve().parents[2]
RELEASE: Final = tomllib.loads((Path(__file__).parent / "release.toml").read_text("utf-8"))["release"]
_GIT_S: Final = 60
_PACKAGES: Final = "chukan, chukan.ops.cli, chukan.platform.exchange, chukan.tenants.sets"


class ReleaseMissingError(AssertionError):
    """The release before is not in this clone."""


def git(*words: str, root: Path = ROOT) -> bytes:
    """Return what git says about the clone. Raises ``ReleaseMissingError`` with what to do."""
    # Whoever the clone belongs to: it is read only. And this one, whatever a hook that runs the tests has set.
    plain = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    command = ["git", "-c", f"safe.directory={root}", "-C", str(root), *words]
    try:
        return subprocess.run(command, check=True, capture_output=True, env=plain, timeout=_GIT_S).stdout
    except (OSError, subprocess.CalledProcessError):
        raise ReleaseMissingError(
            f"The release before, commit {RELEASE['commit']} (tests/upgrade/release.toml), is not in this clone:"
            " a shallow one has no history. Fetch it with `git fetch --unshallow`, or in CI check out with the full"
            " history (fetch-depth: 0), and run this again."
        ) from None


def take_out(folder: Path, commit: str = RELEASE["commit"], root: Path = ROOT) -> Path:
    """Write the tree of a commit into ``folder/chukan`` and return ``folder``, from which it is imported."""
    packed = git("archive", "--format=tar", commit, root=root)
    (folder / "chukan").mkdir()
    subprocess.run(["tar", "-x", "-C", str(folder / "chukan")], input=packed, check=True, timeout=_GIT_S)  # noqa: S607
    return folder


def imported_from(environment: Mapping[str, str]) -> set[Path]:
    """Return the trees that a process with this environment takes our modules from."""
    code = f"import sys, {_PACKAGES}\nfor m in [m for n, m in sys.modules.items() if n.split('.')[0] == 'chukan']:\n"
    code += "    f = getattr(m, '__file__', None)\n    f and sys.stdout.write(f + chr(10))"
    told = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, env=environment, timeout=_GIT_S
    )
    files = [Path(line).resolve() for line in told.stdout.splitlines()]
    roots = [ROOT, *(Path(part).resolve() / "chukan" for part in environment.get("PYTHONPATH", "").split(":") if part)]
    return {root for root in roots for file in files if file.is_relative_to(root)}


class ReleasedProcesses(Processes):
    """Exchanges named in ``before`` run the code of the release before."""

    def __init__(self, log_folder: Path, tree: Path) -> None:
        super().__init__(log_folder)
        self._tree = tree
        self.before: set[str] = set()

    def environment(self, name: str) -> Mapping[str, str]:
        """Return today's environment, with the other tree in front where a process belongs to it."""
        return os.environ | {"PYTHONPATH": str(self._tree)} if name in self.before else os.environ


class TwoReleases(Town):
    """A town whose exchanges change their release one by one."""

    supervisor: ReleasedProcesses

    def __init__(self, root: Path, screen: Screen) -> None:
        super().__init__(root, screen)
        (root / "before").mkdir()
        self.tree = take_out(root / "before")
        self.supervisor = ReleasedProcesses(self.place.log, self.tree)
        self.supervisor.before = set(EXCHANGES)

    def _exchange_tables(self, name: str, *logins: str) -> Tables:
        """Write settings as the release before knew them, for both: an upgrade does not begin with other settings."""
        new = {tuple(setting.split(".")) for setting in RELEASE["settings_new"]}
        return [
            (table, {key: value for key, value in keys.items() if (table, key) not in new})
            for table, keys in super()._exchange_tables(name, *logins)
        ]

    async def change(self, name: str, *, before: bool) -> None:
        """End an exchange in good order and start it with the code of a release; returns when it is ready."""
        assert await self.end(name) == 0
        (self.supervisor.before.add if before else self.supervisor.before.discard)(name)
        await self.again(name)

    async def migrate_post(self) -> None:
        """Apply ``post`` in both cells, now that nobody runs the release before any more."""
        assert not self.supervisor.before
        for cell in CELLS:
            admin = await self.databases.admin(cell)
            await migrate.migrate(admin, "post")
            await admin.close()

    async def held_by_both(self) -> None:
        """Wait until both exchanges have work of their own."""
        async with asyncio.timeout(END_TIMEOUT_S):
            while await self.holders() != set(EXCHANGES):
                await wait(LOOK_S)


@contextlib.asynccontextmanager
async def two_releases() -> AsyncIterator[TwoReleases]:
    """Build the town with both exchanges of the release before, copies lodged and codes acquired; take it down."""
    root = _short_root()
    screen = Screen(for_program=True)
    screen.console.quiet = True
    built: TwoReleases | None = None
    try:
        built = await asyncio.to_thread(TwoReleases, root, screen)
        with mock.patch.dict(os.environ, NOTICE):
            with mock.patch.object(migrate, "read_migrations", _pre):
                await built.start()
            async with connect(built) as built.systems:
                lodging = Lodging(built, built.systems)
                await lodging.lodge(lambda _: None)
                await lodging.acquire(lambda _: None)
                yield built
    finally:
        if built is not None:
            await built.stop()
        if not os.environ.get(KEEP_VARIABLE):
            shutil.rmtree(root, ignore_errors=True)


def _pre() -> list[Migration]:
    return [each for each in read_migrations() if each.phase == "pre"]


def _short_root() -> Path:
    """Make a folder that the database's user may pass; a socket's path has a limit of 107 bytes."""
    root = Path(tempfile.mkdtemp(prefix="chk-upgrade-", dir="/tmp"))
    root.chmod(0o755)
    return root
