"""Takes a lab's remains away when the lab is gone: ``python -m chukan.ops.centres.keeper ROOT``.

Standard input is a pipe that the lab holds open. When it closes, the lab has ended, however that was: then everything
in its namespaces is killed and the namespaces go, or without root every postmaster on its data. After an orderly end
there is nothing left to do.
"""

import sys
from pathlib import Path

from chukan.ops.centres.disks import unmount_below
from chukan.ops.centres.processes import sweep
from chukan.ops.centres.wires import Loopback, Namespaces, Wires
from chukan.ops.local.machine import is_root


def wires_for(root: Path) -> Wires:
    """Return what this user may lay: namespaces as root, loopback otherwise."""
    return Namespaces(root) if is_root() else Loopback(root)


def clean(root: Path) -> None:
    """End whatever a lab left; a lost centre's tree is put back where it was."""
    for site in ("east", "west", "witness"):
        lost = root / f".lost-{site}"
        if lost.exists() and not (root / site).exists():
            lost.chmod(0o755)
            lost.rename(root / site)
    wires_for(root).remove()
    sweep([root / site for site in ("east", "west", "witness")])
    unmount_below(root)


def main(arguments: list[str]) -> None:
    """Wait for the end of the lab, then clean."""
    sys.stdin.buffer.read()
    clean(Path(arguments[0]))


if __name__ == "__main__":
    main(sys.argv[1:])
