"""The processes of this machine, by what stands on their command lines."""

from pathlib import Path


def processes_naming(text: str) -> list[Path]:
    """Return the folders under ``/proc`` of the processes that have a text on their command line."""
    return [each for each in Path("/proc").iterdir() if each.name.isdigit() and text in _words(each)]


def _words(process: Path) -> str:
    try:
        return (process / "cmdline").read_bytes().decode("utf-8", "replace").replace("\0", " ")
    except OSError:
        return ""  # it has ended meanwhile
