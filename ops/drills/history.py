"""Where drills are kept: a folder a drill, its reports signed, its journals and evidence beside; nothing is deleted.

``report.json`` and ``report.html`` each have a detached Ed25519 signature (RFC 8032) in ``<name>.sig`` (64 bytes,
base64, one line), made with the site's drill key. The key is made at the first drill and never leaves its file; its
public half lies beside it, to be handed to whoever has to believe a report.

The lock is held while a drill runs: two drills never run at once. A mark is left while something may be broken, so that
a drill that was killed is noticed by the next one.
"""

import base64
import binascii
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from chukan import log, private_file
from chukan.errors import Problem
from chukan.ops.drills.report import Report

REPORT: Final = "report.json"
PAGE: Final = "report.html"
JOURNALS: Final = "journals"
_KEY: Final = "drill-key.pem"
_PUBLIC: Final = "drill-key.pub.pem"
_LOCK: Final = "lock"
_MARK: Final = "unfinished"

_log = log.get("drills.history")


class History:
    """The drills of one site."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the lock for a block. Raises ``Problem`` drill_running."""
        self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
        with hold(self.root / _LOCK):
            yield

    # ------------------------------------------------------------ what may be broken

    def unfinished(self) -> str | None:
        """Return the drill that did not come to its end, None where there is none."""
        path = self.root / _MARK
        return path.read_text("ascii").strip() if path.exists() else None

    def begin(self, drill: str) -> Path:
        """Make a drill's folder and leave the mark. Raises ``Problem`` file_unwritable."""
        folder = self.root / drill
        try:
            folder.mkdir(parents=True, mode=0o700)
            private_file.write(self.root / _MARK, f"{drill}\n".encode())
        except OSError:
            raise Problem("file_unwritable", expected=str(folder)) from None
        return folder

    def healed(self) -> None:
        """Take the mark away: nothing is broken any more."""
        (self.root / _MARK).unlink(missing_ok=True)

    # ------------------------------------------------------------ keeping

    def keep(self, report: Report, page: str) -> Path:
        """Write and sign the reports of a drill; returns its folder. Raises ``Problem`` file_unwritable."""
        folder = self.root / report.id
        key = self._key()
        try:
            for name, content in (
                (REPORT, msgspec.json.format(msgspec.json.encode(report), indent=1)),
                (PAGE, page.encode()),
            ):
                private_file.write(folder / name, content)
                private_file.write(folder / f"{name}.sig", base64.b64encode(key.sign(content)) + b"\n")
        except OSError:
            raise Problem("file_unwritable", expected=str(folder)) from None
        return folder

    def _key(self) -> Ed25519PrivateKey:
        path = self.root / _KEY
        if path.exists():
            key = serialization.load_pem_private_key(path.read_bytes(), None)
            if isinstance(key, Ed25519PrivateKey):
                return key
            raise Problem("settings_unreadable", expected="an Ed25519 private key (PEM)")
        made = Ed25519PrivateKey.generate()
        private = made.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        public = made.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        try:
            private_file.write(path, private)
            private_file.write(self.root / _PUBLIC, public)
        except OSError:
            raise Problem("file_unwritable", expected=str(path)) from None
        return made

    # ------------------------------------------------------------ reading

    def ids(self) -> list[str]:
        """Return the drills that have a report, oldest first."""
        return sorted(path.parent.name for path in self.root.glob(f"*/{REPORT}"))

    def read(self, drill: str) -> Report:
        """Return a kept report whose signature holds. Raises ``Problem`` drill_unknown, signature_invalid."""
        if drill not in self.ids():
            raise Problem("drill_unknown", expected=", ".join(self.ids()[-3:]) or "chukan drill run")
        folder = self.root / drill
        content = (folder / REPORT).read_bytes()
        self._check(content, folder / f"{REPORT}.sig")
        self._check((folder / PAGE).read_bytes(), folder / f"{PAGE}.sig")
        try:
            return msgspec.json.decode(content, type=Report)
        except msgspec.MsgspecError:
            raise Problem("settings_unreadable", expected=f"a report of this version: {folder / REPORT}") from None

    def readable(self) -> list[Report]:
        """Return the kept reports whose signatures hold, oldest first; others are logged and left where they are."""
        found: list[Report] = []
        for drill in self.ids():
            try:
                found.append(self.read(drill))
            except (Problem, OSError) as error:
                _log.warning("a kept report cannot be believed", reason=drill, exc_info=error)
        return found

    def _check(self, content: bytes, signature: Path) -> None:
        try:
            public = serialization.load_pem_public_key((self.root / _PUBLIC).read_bytes())
            if not isinstance(public, Ed25519PublicKey):
                raise Problem("signature_invalid")
            public.verify(base64.b64decode(signature.read_bytes().strip(), validate=True), content)
        except (OSError, ValueError, binascii.Error, InvalidSignature):
            raise Problem("signature_invalid") from None


@contextmanager
def hold(path: Path) -> Iterator[None]:
    """Hold a lock for a block; the system gives it back however the process ends. Raises ``Problem`` drill_running."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise Problem("drill_running") from None
    try:
        yield
    finally:
        os.close(descriptor)
