"""Where a lab's folders lie, and what is remembered there between its starts."""

import os
from pathlib import Path

from chukan.ops.centres.pki import clear_tree
from chukan.ops.demo.place import Place
from chukan.ops.local.machine import Identity, state_folder
from chukan.replication import site_file

SITE_FILE = "site.toml"
RESTORE_FILE = "restore.json"
RECONCILED_FILE = "reconciled.json"


class LabPlace(Place):
    """The lab's folders: ``root`` is that of everybody outside the centres; the centres' trees stand beside it."""

    def __init__(self, root: Path | None = None) -> None:
        """Name them."""
        self.lab = root or state_folder() / "centres"
        super().__init__(self.lab / "outside", self.lab / "databases")
        self.operator = self.lab / "operator" / "operator.toml"
        self.site = self.lab / SITE_FILE
        self.towns = self.lab / "outside" / "towns"
        """A folder for each municipality's device: of its own, as if it stood there."""

    def clear(self) -> None:
        """Remove all data of the lab; its lock stays, because it is held."""
        super().clear()
        for name in ("east", "west", "witness", "operator"):
            clear_tree(self.lab / name)
        for file in (self.site, self.lab / RESTORE_FILE, self.lab / RECONCILED_FILE):
            file.unlink(missing_ok=True)

    def epochs(self) -> dict[str, int]:
        """Return the restore epochs of an earlier start, whose data the next one goes on with."""
        if not self.site.exists():
            return {}
        return {name: cell.restore_epoch for name, cell in site_file.read(self.site).cells.items()}


def make_tree(folder: Path, owner: Identity | None) -> None:
    """Make the folders of a centre or of the witness; the databases' and etcd's belong to ``owner``, if any."""
    folder.mkdir(exist_ok=True)
    folder.chmod(0o755)
    for name in ("data", "run", "etcd", "log", "config", "backup", "keystore"):
        (folder / name).mkdir(exist_ok=True, mode=0o700)
    (folder / "config").chmod(0o755)  # the files in it have modes of their own
    if owner is not None:
        for name in ("data", "run", "etcd"):
            os.chown(folder / name, owner.uid, owner.gid)
