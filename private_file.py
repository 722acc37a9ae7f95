"""Private files, written durably: the whole of the new content or the old one, whatever happens meanwhile.

Invariant: a file has mode 0600 from its first byte on, and is on disk, with its name, when ``write`` returns.
"""

import os
from pathlib import Path


def write(path: Path, content: bytes) -> None:
    """Make or replace a file: a private one beside it, fsync, rename, fsync of the folder."""
    aside = path.with_name(f".{path.name}.new")
    aside.unlink(missing_ok=True)
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    aside.rename(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Wait until the names in a folder are on disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
