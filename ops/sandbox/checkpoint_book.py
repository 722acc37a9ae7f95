"""What somebody outside keeps of a log (チェックポイントの保管): the last one seen; the next one must continue it.

An agency's client keeps its own log's checkpoint in a file. Whoever keeps one can show later that a log was rolled back
or forked, or that two were shown two logs (split view): the signature in the kept note and the one in the new note are
then both of the log's own key.

Invariant: a kept checkpoint is replaced by one that continues it, by a proof, and by nothing else unless a person says
so; then the old one stays beside it, for it is what proves.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from chukan import private_file
from chukan.errors import Problem
from chukan.platform.wire.evidence import CheckpointView, ConsistencyProof
from chukan.tenants import checkpoint as forms
from chukan.tenants import merkle
from chukan.tenants.checkpoint import CheckpointError, Key, Verified


class Log(Protocol):
    """Where checkpoints and proofs of one log are asked for; ``sandbox.AgencyClient`` is one."""

    async def checkpoint(self) -> CheckpointView:
        """Return the newest checkpoint."""
        ...

    async def consistency(self, first: int) -> ConsistencyProof:
        """Return the proof that the newest one continues the one of ``first`` leaves."""
        ...


class Seen(NamedTuple):
    """A checkpoint that was looked at and kept."""

    origin: str
    size: int
    root: bytes
    cosigned: bool
    """Whether a key other than the one that signed it has cosigned it."""
    before: int
    """The size of the one that was kept before; 0 where none was."""


def origin_of(keys: Sequence[Key]) -> str:
    """Return the name of the one log whose keys these are; ``Problem`` setting_invalid where they are of several."""
    names = {key.name for key in keys if key.type == forms.LOG}
    if len(names) != 1:
        raise Problem("setting_invalid", pointer="--keys", expected="the keys of one log and of its cosigners")
    return names.pop()


def read_note(note: bytes, keys: Sequence[Key], origin: str) -> Verified:
    """Return what a checkpoint says, once a known key signed it. Raises ``Problem`` checkpoint_unsigned."""
    try:
        return forms.verify(forms.parse_note(note), keys, origin=origin)
    except CheckpointError:
        raise Problem("checkpoint_unsigned") from None


def continues(kept: forms.Checkpoint, now: forms.Checkpoint, first: int, path: Sequence[bytes]) -> bool:
    """Tell whether a tree is the one that was kept, or continues it by the proof from ``first`` leaves."""
    if now.size == kept.size:
        return now.root == kept.root
    if now.size < kept.size or first != kept.size:
        return False
    return merkle.verify_consistency(kept.size, kept.root, now.size, now.root, path)


def is_cosigned(found: Verified) -> bool:
    """Tell whether another key than the log's has cosigned a checkpoint."""
    return any(each.key.public != found.log_key.public for each in found.cosigned)


class CheckpointBook:
    """The last checkpoint of one log, in a file."""

    def __init__(self, path: Path, keys: Sequence[Key]) -> None:
        """Keep it at ``path``. Raises ``Problem`` setting_invalid."""
        self.path = path
        self._keys = keys
        self.origin = origin_of(keys)

    def kept(self) -> bytes | None:
        """Return the kept note. Raises ``Problem`` settings_unreadable."""
        try:
            with self.path.open("rb") as file:
                return file.read(forms.NOTE_BYTES_MAX + 1)
        except FileNotFoundError:
            return None
        except OSError:
            raise Problem("settings_unreadable", expected="the kept checkpoint") from None

    async def look(self, log: Log, *, replace: bool = False) -> Seen:
        """Ask for the newest checkpoint, hold it against the kept one, and keep it.

        Args:
            log: whom to ask.
            replace: keep the new one even if it contradicts the old one, which stays beside it: after a restore, and
                once a person has looked (``chukan records verify --known``).

        Raises:
            Problem: log_contradicted; checkpoint_unsigned; proof_pending where there is none yet; as the call fails.
        """
        raw = self.kept()
        view = await log.checkpoint()
        if raw is None:
            return self._keep(view.note.encode(), 0)
        old = read_note(raw, self._keys, self.origin).checkpoint
        new = read_note(view.note.encode(), self._keys, self.origin).checkpoint
        note, first, path = view.note.encode(), new.size, list[bytes]()
        if new.size > old.size:
            # It may have grown since: what counts is the one that the proof leads to.
            proof = await log.consistency(old.size)
            note, first, path = proof.checkpoint.note.encode(), proof.first, proof.path
            new = read_note(note, self._keys, self.origin).checkpoint
        if not continues(old, new, first, path):
            if not replace:
                raise Problem("log_contradicted", pointer=str(self.path))
            private_file.write(self.path.with_name(f"{self.path.name}.before-{new.size}"), raw)
        return self._keep(note, old.size)

    def _keep(self, note: bytes, before: int) -> Seen:
        found = read_note(note, self._keys, self.origin)
        try:
            private_file.write(self.path, note)
        except OSError:
            raise Problem("file_unwritable", pointer=str(self.path)) from None
        said = found.checkpoint
        return Seen(self.origin, said.size, said.root, is_cosigned(found), before)
