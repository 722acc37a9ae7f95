"""Small disks of their own for some nodes, so that a full disk can be had without filling the machine's.

Each is a sparse file in its centre's tree, mounted where the node's data lies. Needs root and loop devices; without
them the nodes simply lie on the common disk, and filling is not possible.
"""

import errno
import os
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Final

from chukan import log
from chukan.errors import Problem
from chukan.ops.local.machine import Identity, is_root

SIZE_BYTES: Final = 3 * 1024**3
_FILLER: Final = ".filler"
_STEP_BYTES: Final = 64 * 1024**2
_COMMAND_TIMEOUT_S: Final = 60

_log = log.get("ops.centres")


class Disk:
    """The disk of one node: ``data`` lies on the file ``image``."""

    def __init__(self, image: Path, data: Path) -> None:
        """Name them."""
        self.image, self.data = image, data

    @property
    def is_there(self) -> bool:
        """Tell whether the node's data lies on a disk of its own."""
        return os.path.ismount(self.data)

    def mount(self, owner: Identity | None) -> None:
        """Make and mount it; where the machine does not let us, the node does without."""
        if not is_root() or self.is_there:
            return
        if self.data.exists() and any(self.data.iterdir()):
            return  # data of an earlier start that had none
        try:
            self.data.mkdir(exist_ok=True, mode=0o700)
            if not self.image.exists():
                self._make()
            _run("mount", "-o", "loop", str(self.image), str(self.data))
        except Problem as problem:
            _log.warning("a node has no disk of its own", reason=problem.expected or "")
            return
        lost = self.data / "lost+found"
        with suppress(OSError):
            lost.rmdir()  # initdb wants an empty folder
        if owner is not None:
            os.chown(self.data, owner.uid, owner.gid)
        self.data.chmod(0o700)
        self.free()

    def _make(self) -> None:
        self.image.parent.mkdir(exist_ok=True, mode=0o700)
        aside = self.image.with_suffix(".new")
        with aside.open("wb") as file:
            file.truncate(SIZE_BYTES)
        _run("mkfs.ext4", "-q", "-F", "-m", "0", str(aside))
        aside.rename(self.image)

    def fill(self) -> None:
        """Leave no free byte. Raises ``Problem`` not_possible_here where there is no disk of its own."""
        if not self.is_there:
            raise Problem("not_possible_here", expected="a node with a disk of its own (root, loop devices)")
        descriptor = os.open(self.data.parent / self.data.name / _FILLER, os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            at, step = 0, _STEP_BYTES
            while step >= 1:
                try:
                    os.posix_fallocate(descriptor, at, step)
                    at += step
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise
                    step //= 2 if step > os.statvfs(self.data).f_bsize else step + 1
        finally:
            os.close(descriptor)

    def free(self) -> None:
        """Give the space back; nothing where none was taken."""
        (self.data / _FILLER).unlink(missing_ok=True)


def unmount_below(root: Path) -> None:
    """Unmount every node's disk below a lab's folder."""
    if not is_root():
        return
    for data in [*root.glob("*/data/*"), *root.glob(".lost-*/data/*")]:
        if os.path.ismount(data):
            with suppress(Problem):
                _run("umount", str(data))


def _run(*words: str) -> None:
    try:
        done = subprocess.run(words, check=False, capture_output=True, text=True, timeout=_COMMAND_TIMEOUT_S)
    except (OSError, subprocess.TimeoutExpired):
        raise Problem("not_possible_here", expected=words[0]) from None
    if done.returncode != 0:
        raise Problem("not_possible_here", expected=f"{words[0]}: {done.stderr.strip()[:200]}")
