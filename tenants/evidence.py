"""Signing the logs (証跡): whoever signs grows each agency's tree by the new leaves and states its size and root.

``Signer`` is one centre's driver in one cell: about once a second it takes the agencies whose log has grown, hashes
their new leaves, and keeps tiles and signed checkpoints in one commit. ``hash_ranges`` reads what a proof is made of.

Invariant: no checkpoint is signed that does not continue the last one as it rests: the tree is taken up from its tiles
and must give the root that was signed before, under a key that is known; else this agency is left as it is, loudly,
until a person has looked. Nothing signed leaves before the commit that keeps it is durable.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from chukan import log
from chukan.tenants import checkpoint as forms
from chukan.tenants import label_map, merkle
from chukan.tenants.map_growth import Grown, MapGrower, MapUnfit
from chukan.tenants.merkle import Frontier, Need, TileName
from chukan.tenants.repeating import Repeating
from chukan.tenants.sets.evidence import Growth, LastCheckpoint

"""Between two rounds: with a commit's time, heads are signed within 2 s of their leaves (DESIGN §5)."""
AGENCIES_MAX: Final = 64
"""Agencies in one commit."""
LEAVES_MAX: Final = 1_000
"""Leaves of one agency in one commit: what is left comes with the next."""

_log = log.get("evidence")


class EvidenceError(Exception):
    """An agency's tree at rest does not give the root that was signed. Holds no value of it."""


class Overtaken(Exception):  # noqa: N818 - what happened, not what went wrong here
    """Another signer has signed this log meanwhile."""


@dataclass(frozen=True, slots=True)
class CentreKeys:
    """The evidence keys: this centre's own, and the public halves of all centres (its own among them), by name."""

    name: str
    """The logs' common name; origins and cosigners begin with it."""
    environment: str
    centre: str
    private: Ed25519PrivateKey | None
    public: Mapping[str, Ed25519PublicKey]

    def origin(self, code: str) -> str:
        """Return the origin line of an agency's log; ``code`` is its 16-digit code (機関コード)."""
        return f"{self.name}/{self.environment}/{code}"

    def signer(self, centre: str) -> str:
        """Return the name under which a centre cosigns."""
        return f"{self.name}/{self.environment}/{centre}"

    def known(self, code: str) -> list[forms.Key]:
        """Return the keys that may sign and cosign an agency's checkpoints."""
        origin = self.origin(code)
        return [
            key
            for centre, public in sorted(self.public.items())
            for key in (
                forms.Key.of(origin, forms.LOG, public),
                forms.Key.of(self.signer(centre), forms.COSIGNER, public),
            )
        ]

    def verify(self, note: bytes, code: str) -> forms.Verified:
        """Return what a note says of an agency's log; ``CheckpointError``."""
        return forms.verify(forms.parse_note(note), self.known(code), origin=self.origin(code))

    def centre_of(self, key: forms.Key) -> str:
        """Return whose key it is; ``KeyError`` for one of nobody."""
        for centre, public in self.public.items():
            if public.public_bytes_raw() == key.public:
                return centre
        raise KeyError("a key of no centre")


class TreeReader(Protocol):
    """What reads tiles and leaves of one agency: the set functions, or the agency's own door."""

    async def __call__(self, need: Need) -> tuple[dict[TileName, bytes], dict[int, bytes]]:
        """Return tiles, and leaf hashes by place from 0; what is not there is left out."""
        ...


async def hash_ranges(read: TreeReader, ranges: Sequence[tuple[int, int]], size: int) -> list[bytes]:
    """Return the hash of each range of leaves of a tree whose tiles up to ``size`` leaves are kept.

    Raises ``EvidenceError`` where a tile or leaf is missing or has a wrong form.
    """
    wanted = [merkle.spans(begin, end) for begin, end in ranges]
    tiles, leaves = await read(merkle.need_of((span for spans in wanted for span in spans), size))
    try:
        return [merkle.fold(merkle.hash_spans(spans, size, tiles, leaves)) for spans in wanted]
    except (KeyError, ValueError):
        raise EvidenceError("a part of the tree is missing") from None


async def take_up(read: TreeReader, size: int) -> Frontier:
    """Return the frontier of a tree at rest; ``EvidenceError``."""
    spans = merkle.spans(0, size)
    ranges = [(span.n << span.level, (span.n + 1) << span.level) for span in spans]
    return Frontier(size, await hash_ranges(read, ranges, size))


async def complete_tiles(read: TreeReader, before: int, leaves: Sequence[bytes]) -> dict[TileName, bytes]:
    """Return the tiles that new leaf hashes complete, after ``before`` leaves; ``EvidenceError``."""
    made: dict[TileName, bytes] = {}
    known = {before + n: leaf for n, leaf in enumerate(leaves)}
    names = merkle.tiles_completed(before, before + len(leaves))
    # What stood before: leaves of the first open tile, and full tiles under the open ones above.
    below = {
        TileName(name.level - 1, child)
        for name in names
        if name.level
        for child in range(name.n << merkle.TILE_HEIGHT, (name.n + 1) << merkle.TILE_HEIGHT)
    }
    first = before - before % merkle.TILE_WIDTH
    old_leaves = frozenset(range(first, before)) if any(name.level == 0 for name in names) else frozenset()
    tiles, old = await read(Need(frozenset(below - set(names)), old_leaves))
    known.update(old)
    try:
        for name in names:
            places = range(name.n << merkle.TILE_HEIGHT, (name.n + 1) << merkle.TILE_HEIGHT)
            hashes = [
                merkle.tile_root((made | tiles)[TileName(name.level - 1, place)]) if name.level else known[place]
                for place in places
            ]
            made[name] = b"".join(hashes)
    except (KeyError, ValueError):
        raise EvidenceError("a part of the tree is missing") from None
    return made


class SignerSets(Protocol):
    """What a signer needs of a cell's set functions; each call has its own deadline."""

    async def evidence_due(self, limit: int) -> dict[int, int]:
        """Return agencies whose log has grown since its last checkpoint, and how long it is."""
        ...

    async def evidence_last(self, agency: int) -> LastCheckpoint | None:
        """Return an agency's last checkpoint."""
        ...

    async def evidence_leaves(self, agency: int, after: int, limit: int) -> list[tuple[int, bytes]]:
        """Return the next leaves after a position."""
        ...

    async def evidence_read(self, agency: int, need: Need) -> tuple[dict[TileName, bytes], dict[int, bytes]]:
        """Return tiles and leaf hashes."""
        ...

    async def evidence_sign(self, grown: Sequence[Growth]) -> list[str]:
        """Keep checkpoints."""
        ...

    async def evidence_age(self) -> float:
        """Return the age in seconds of the oldest leaf without a checkpoint."""
        ...


class Signer(Repeating):
    """Signs the logs of one cell. ``code_of`` gives an agency's code, None for one that is not in the directory."""

    def __init__(
        self,
        sets: SignerSets,
        keys: CentreKeys,
        code_of: Callable[[int], str | None],
        on_age: Callable[[float], None],
        *,
        on_broken: Callable[[int], None] = lambda _: None,
        maps: MapGrower | None = None,
    ) -> None:
        """Sign with this centre's key; ``on_broken`` is told how many logs are left as they are.

        With ``maps`` each checkpoint signs the map of persons too.
        """
        if keys.private is None:
            raise ValueError("a signer has a key")
        self._private = keys.private
        self._sets = sets
        self._keys = keys
        self._code_of = code_of
        self._on_age = on_age
        self._on_broken = on_broken
        self._maps = maps
        super().__init__()
        self.broken: set[int] = set()
        """Agencies whose tree at rest is not the one that was signed."""

    async def _turn(self) -> bool:
        signed = await self.sign_due()
        self._on_broken(len(self.broken))
        self._on_age(await self._sets.evidence_age())
        return signed >= AGENCIES_MAX

    def _failed(self, error: Exception) -> None:
        _log.warning("checkpoints were not signed", exc_info=error)

    async def sign_due(self) -> int:
        """Sign what has grown, in one commit; return how many checkpoints were kept."""
        grown = []
        for agency, head in (await self._sets.evidence_due(AGENCIES_MAX)).items():
            code = self._code_of(agency)
            if code is None:
                continue
            try:
                growth = await self.grow(agency, code, head)
            except Overtaken:
                continue
            except (EvidenceError, forms.CheckpointError):
                if agency not in self.broken:
                    _log.critical("the tree at rest is not the one that was signed", agency=agency)
                self.broken.add(agency)
                continue
            self.broken.discard(agency)
            grown.append(growth)
        return (await self._sets.evidence_sign(grown)).count("signed")

    async def grow(self, agency: int, code: str, head: int) -> Growth:
        """Return the next checkpoint of an agency whose log has ``head`` leaves.

        Where its last checkpoint has them all, that one again: keeping it sets right what made it due.
        Raises ``EvidenceError`` or ``CheckpointError`` where the tree at rest does not continue its last checkpoint.
        """
        last = await self._sets.evidence_last(agency)
        before = 0 if last is None else last.size
        said = None

        async def read(need: Need) -> tuple[dict[TileName, bytes], dict[int, bytes]]:
            return await self._sets.evidence_read(agency, need)

        frontier = await take_up(read, before)
        if last is not None:
            said = self._keys.verify(last.note, code).checkpoint
            if (said.size, said.root) != (before, frontier.root()):
                raise EvidenceError("the tree is not the one that was signed")
        leaves = await self._sets.evidence_leaves(agency, before, LEAVES_MAX)
        positions = [position for position, _ in leaves]
        whole = before + len(leaves) >= min(head, before + LEAVES_MAX)
        if not whole or positions != list(range(before + 1, before + 1 + len(leaves))):
            raise EvidenceError("a position of the log is missing")
        hashes = [merkle.leaf_hash(data) for _, data in leaves]
        for leaf in hashes:
            frontier.append(leaf)
        grown = await self._grow_map(agency, said, leaves)
        lines = () if grown is None else (label_map.line_of(grown.root),)
        origin = self._keys.origin(code)
        note = forms.sign(forms.Checkpoint(origin, frontier.size, frontier.root(), lines), self._private)
        tiles = await complete_tiles(read, before, hashes)
        pages = {} if grown is None else grown.pages
        return Growth(agency, before, frontier.size, frontier.root(), note.encode(), tiles, pages)

    async def _grow_map(
        self, agency: int, last: forms.Checkpoint | None, leaves: Sequence[tuple[int, bytes]]
    ) -> Grown | None:
        """Return the next map of persons; ``EvidenceError``, ``Overtaken``."""
        if self._maps is None:
            return None
        try:
            return await self._maps.grow(agency, last, leaves)
        except MapUnfit:
            # Pages change with each checkpoint: another signer's commit may stand between what was read here.
            now = await self._sets.evidence_last(agency)
            if (0 if now is None else now.size) != (0 if last is None else last.size):
                raise Overtaken from None
            raise EvidenceError("the map is not the one that was signed") from None
