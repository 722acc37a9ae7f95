"""The file of revoked serial numbers (失効した証明書の番号) that Patroni's REST API looks at (``patroni_rest``).

``chukan pki join`` writes it, beside the lists for PostgreSQL and etcd, from lists that it verified. It is whole or it
is nothing: a head, a serial number a line, and an end that counts them.

Invariant: nothing but the standard library is needed to read it, where nothing else can be read; the last good content
goes on, whatever lies there later. It names no issuer, and must never hold anything but random serial numbers.
"""

import logging
import os
from pathlib import Path
from typing import Final

HEAD: Final = "chukan revoked serial numbers 1"
END: Final = "end"
BYTES_MAX: Final = 8 * 1024 * 1024
_EDGES: Final = 2

_log = logging.getLogger("chukan.patroni_rest")
"""Patroni's own log, in its form: that process has no other."""


class Serials:
    """The revoked serial numbers of a file, looked at anew whenever the file is another one."""

    def __init__(self, path: Path) -> None:
        """Read it. ``ValueError`` for a file that is none; ``OSError``."""
        self.path = path
        self._stamp = _stamp(path)
        self._revoked = parse(path)
        self._told = False

    def refuses(self, serial: str | None) -> bool:
        """Tell whether a certificate with this serial number (hexadecimal) is revoked; one without a number is."""
        self._look()
        return serial is None or _form(serial) in self._revoked

    def _look(self) -> None:
        try:
            stamp = _stamp(self.path)
            if stamp == self._stamp:
                return
            self._revoked, self._stamp = parse(self.path), stamp
        except (OSError, ValueError):
            if not self._told:
                _log.error("the file of revoked certificates was not taken, the last good one goes on")
            self._told = True
            return
        self._told = False
        _log.warning("the file of revoked certificates was taken")


def parse(path: Path) -> frozenset[str]:
    """Return the serial numbers of a file; ``ValueError`` unless it is whole."""
    with path.open("rb") as file:
        content = file.read(BYTES_MAX + 1)
    lines = content.decode("ascii").splitlines()
    whole = len(content) <= BYTES_MAX and len(lines) >= _EDGES and lines[0] == HEAD
    if not whole or lines[-1] != f"{END} {len(lines) - _EDGES}":
        raise ValueError("a whole file of revoked serial numbers")
    return frozenset(_form(line) for line in lines[1:-1])


def write(serials: frozenset[int]) -> bytes:
    """Return the content of such a file."""
    return "\n".join([HEAD, *(f"{serial:x}" for serial in sorted(serials)), f"{END} {len(serials)}", ""]).encode()


def _form(serial: str) -> str:
    return f"{int(serial, 16):x}"


def _stamp(path: Path) -> tuple[int, int, int]:
    found = os.stat(path)  # noqa: PTH116 - one call a connection
    return found.st_mtime_ns, found.st_size, found.st_ino
