"""What somebody outside keeps of a log (チェックポイントの保管): the last one seen; the next one must continue it.

An agency's client keeps its own log's checkpoint in a file. Whoever keeps one can show later that a log was rolled back
or forked, or that two were shown two logs (split view): the signature in the kept note and the one in the new note are
then both of the log's own key.

Invariant: a kept checkpoint is replaced by one that continues it, by a proof, and by nothing else unless a person says
so; then only by a log in which the leaf of a restore explains what was lost, and the old one stays beside it.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from chukan import private_file
from chukan.errors import Problem
from chukan.ops.sandbox.transport import ClientError
from chukan.platform.wire.checkpoints import RestoredLeaf
from chukan.platform.wire.evidence import CheckpointView, ConsistencyProof
from chukan.tenants import checkpoint as forms
from chukan.tenants import merkle
from chukan.tenants.checkpoint import CheckpointError, Key, Verified
from chukan.tenants.restored import Restored, read_leaf


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


async def _proof(log: Log, first: int) -> ConsistencyProof | None:
    """Return a proof; None from a log that is shorter by now, and says of no restore."""
    try:
        return await log.consistency(first)
    except ClientError as error:
        if error.as_problem().code != "invalid_field":
            raise
        return None


def explained(leaf: RestoredLeaf | None, old: forms.Checkpoint, new: forms.Checkpoint) -> Restored | None:
    """Return the restore by which a kept tree was lost, where its leaf stands in the new tree; None otherwise."""
    if leaf is None or leaf.position > new.size:
        return None
    found = read_leaf(leaf.position, leaf.data)
    if found is None or not found.explains(old.size, old.root):
        return None
    own = merkle.leaf_hash(leaf.data)
    return found if merkle.verify_inclusion(own, leaf.position - 1, new.size, leaf.path, new.root) else None


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
            replace: keep the new one though it contradicts the old one, which stays beside it: after an announced
                restore. The new tree must hold the leaf of a restore that explains what was lost, all the same.

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
        restored: RestoredLeaf | None = None
        if new.size > old.size or (replace and not continues(old, new, first, path)):
            # It may have grown since: what counts is the one that the proof leads to.
            proof = await _proof(log, old.size)
            if proof is None:
                raise Problem("log_contradicted", pointer=str(self.path))
            note, first, path = proof.checkpoint.note.encode(), proof.first, proof.path
            new, restored = read_note(note, self._keys, self.origin).checkpoint, proof.restored
        if not continues(old, new, first, path):
            if not replace or explained(restored, old, new) is None:
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
