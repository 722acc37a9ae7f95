"""The town of the tampering matrix, and each way to bend it: what is done to record, leaf, checkpoint, cosignature.

Each case changes the database as somebody with all its rights would (and, where said, with the log's own key), exports
the log and checks the file with keys and an earlier checkpoint from elsewhere. What is untouched is never found fault
with.
"""

import contextlib
import hashlib
import io
from collections.abc import AsyncIterator
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from chukan.chance import SystemChance
from chukan.clock import SystemClock
from chukan.tenants import checkpoint as forms
from chukan.tenants import evidence_check, evidence_file, label_map, merkle
from chukan.tenants.evidence import CentreKeys, Signer
from chukan.tenants.evidence_export import export_log
from chukan.tenants.evidence_report import Report, Rules
from chukan.tenants.map_growth import MapGrower
from chukan.tenants.records import make_record

CODE = "9901131016000001"
SIZES = (20, 37, 50)
TABLES = ("records", "log", "tiles", "checkpoints", "cosignatures")
AT = 1_795_000_000
PRIVATE = {word: Ed25519PrivateKey.from_private_bytes(hashlib.sha256(word.encode()).digest()) for word in "ewx"}
KEYS = CentreKeys(
    "log.example",
    "sandbox",
    "east",
    PRIVATE["e"],
    {"east": PRIVATE["e"].public_key(), "west": PRIVATE["w"].public_key()},
)
ORIGIN, WEST = KEYS.origin(CODE), KEYS.signer("west")
CHANCE = SystemChance(SystemClock())


class Town:
    """An agency with a log of 50 leaves and three cosigned checkpoints, and the hands to bend it."""

    def __init__(self, shelf: Any) -> None:
        self.shelf = shelf
        self.notes: dict[int, bytes] = {}

    async def run(self, sql: str, *values: Any) -> None:
        await self.shelf.bend(sql.replace("{s}", self.shelf.schema), *values)

    async def rows(self, sql: str) -> list[Any]:
        found: list[Any] = await self.shelf.admin.fetch(sql.replace("{s}", self.shelf.schema))
        return found

    async def fill(self) -> None:
        codes = {self.shelf.agency: CODE}
        signer = Signer(self.shelf.sets, KEYS, codes.get, lambda _: None, maps=MapGrower(self.shelf.sets))
        before = 0
        for size in SIZES:
            await self.shelf.records(size - before)
            await self.shelf.sequence()
            assert await signer.sign_due() == 1
            await self.cosign(size)
            before = size
        await self.run("UPDATE {s}.records SET at = at - interval '1 day'")

    async def cosign(self, size: int) -> None:
        (row,) = await self.rows(f"SELECT note FROM {{s}}.checkpoints WHERE size = {size}")
        note = forms.parse_note(row["note"])
        line = forms.cosign(note.text, WEST, PRIVATE["w"], AT)
        assert await self.shelf.sets.evidence_cosign(self.shelf.agency, size, WEST, line.line().encode())
        self.notes[size] = note.signed_too([line]).encode()

    @contextlib.asynccontextmanager
    async def door(self) -> AsyncIterator[Any]:
        async with self.shelf.open() as partition:
            yield partition

    async def export(self, *, records: bool = True) -> list[Any]:
        return [line async for line in export_log(self.door, ORIGIN, self.shelf.keys if records else None)]

    async def check(self, *known: int, records: bool = True) -> Report:
        return judge(await self.export(records=records), *(self.notes[size] for size in known))

    # -------------------------------------------------------- what an insider can do, as far as it goes

    async def leaves(self) -> list[bytes]:
        return [row["leaf_data"] for row in await self.rows("SELECT leaf_data FROM {s}.log ORDER BY seq")]

    async def rewrite(self, leaves: list[bytes], *, chain: bool = True, tiles: bool = True) -> None:
        """Put other leaves in place of the log: positions and hashes always right, chains and tiles if asked."""
        ends: dict[bytes, tuple[int, bytes]] = {}
        data = []
        for leaf in leaves:
            label = leaf[33:65]
            ordinal, previous = ends.get(label, (0, bytes(32)))
            made = leaf[:65] + ordinal.to_bytes(8) + previous if chain else leaf
            ends[label] = (ordinal + 1, merkle.leaf_hash(made))
            data.append(made)
        (ids,) = await self.rows("SELECT array_agg(record ORDER BY seq) AS ids FROM {s}.log")
        of = dict(zip(await self.commitments(), ids["ids"], strict=False))
        await self.run("DELETE FROM {s}.log")
        same = len(data) == len(ids["ids"])
        await self.run(
            "INSERT INTO {s}.log (agency, seq, record, label, leaf_data, leaf_hash)"
            " SELECT $1, n, record, substr(leaf, 34, 32), leaf, sha256('\\x00'::bytea || leaf)"
            " FROM unnest($2::uuid[], $3::bytea[]) WITH ORDINALITY u(record, leaf, n)",
            self.shelf.agency,
            [of.get(leaf[1:33], ids["ids"][n] if same else CHANCE.uuid7()) for n, leaf in enumerate(data)],
            data,
        )
        if tiles:
            hashes = [merkle.leaf_hash(leaf) for leaf in data]
            await self.run("DELETE FROM {s}.tiles")
            for n in range(len(hashes) // 16):
                whole = b"".join(hashes[16 * n : 16 * n + 16])
                await self.run("INSERT INTO {s}.tiles VALUES (0, $1, $2)", n, whole)

    async def commitments(self) -> list[bytes]:
        return [leaf[1:33] for leaf in await self.leaves()]

    async def sign(self, size: int, root: bytes, key: str = "e", lines: tuple[str, ...] = ()) -> None:
        """Put another checkpoint in place, signed by the log's own key or another one."""
        note = forms.sign(forms.Checkpoint(ORIGIN, size, root, lines), PRIVATE[key]).encode()
        await self.run("DELETE FROM {s}.checkpoints WHERE size = $1", size)
        await self.run("INSERT INTO {s}.checkpoints (size, root, note) VALUES ($1, $2, $3)", size, root, note)


def judge(lines: list[Any], *known: bytes) -> Report:
    file = io.BytesIO(b"".join(evidence_file.encode(lines)))
    return evidence_check.check(evidence_file.decode(file), Rules(KEYS.known(CODE), known))


def altered(leaf: bytes) -> bytes:
    return leaf[:1] + hashlib.sha256(b"another record").digest() + leaf[33:]


# ------------------------------------------------------------ records


async def reseal(town: Town, position: int, **changes: Any) -> None:
    """Replace a record by another one, sealed with the agency's own keys."""
    (row,) = await town.rows(
        f"SELECT r.id, r.label FROM {{s}}.log l JOIN {{s}}.records r ON r.id = l.record WHERE l.seq = {position}"
    )
    made = make_record(town.shelf.keys, CHANCE, town.shelf.fields(id=row["id"], **changes), person=bytes(32))
    await town.run(
        "UPDATE {s}.records SET sealed = $2, commitment = $3 WHERE id = $1", row["id"], made.sealed, made.commitment
    )


async def record_edit(town: Town) -> None:
    await reseal(town, 23, outcome="refused")


async def record_edit_of_a_byte(town: Town) -> None:
    await town.run(
        "UPDATE {s}.records r SET sealed = set_byte(sealed, 60, get_byte(sealed, 60) # 1)"
        " FROM {s}.log l WHERE l.record = r.id AND l.seq = 23"
    )


async def record_delete(town: Town) -> None:
    await town.run("DELETE FROM {s}.records r USING {s}.log l WHERE l.record = r.id AND l.seq = 23")


async def record_insert(town: Town) -> None:
    await town.shelf.record("A9")
    await town.run("UPDATE {s}.records SET at = at - interval '1 day'")
    await town.shelf.admin.execute("DELETE FROM chukan.to_sequence WHERE agency = $1", town.shelf.agency)


async def record_reorder(town: Town) -> None:
    await town.run(
        "UPDATE {s}.log a SET record = b.record FROM {s}.log b WHERE a.seq IN (23, 24) AND b.seq = 47 - a.seq"
    )


async def record_truncate(town: Town) -> None:
    await town.run("DELETE FROM {s}.records r USING {s}.log l WHERE l.record = r.id AND l.seq > 45")


async def record_fork(town: Town) -> None:
    """Another record, and a leaf that commits to it, all hashes made anew."""
    await reseal(town, 23, outcome="refused")
    (row,) = await town.rows(
        "SELECT r.commitment FROM {s}.log l JOIN {s}.records r ON r.id = l.record WHERE l.seq = 23"
    )
    leaves = await town.leaves()
    leaves[22] = leaves[22][:1] + row["commitment"] + leaves[22][33:]
    await town.rewrite(leaves)


# ------------------------------------------------------------ leaves


async def leaf_edit(town: Town) -> None:
    await town.run("UPDATE {s}.log SET leaf_data = set_byte(leaf_data, 5, get_byte(leaf_data, 5) # 1) WHERE seq = 23")


async def leaf_edit_with_hash(town: Town) -> None:
    await leaf_edit(town)
    await town.run("UPDATE {s}.log SET leaf_hash = sha256('\\x00'::bytea || leaf_data) WHERE seq = 23")


async def leaf_edit_with_chain_and_tiles(town: Town) -> None:
    leaves = await town.leaves()
    await town.rewrite([*leaves[:22], altered(leaves[22]), *leaves[23:]])


async def leaf_delete(town: Town) -> None:
    await town.run("DELETE FROM {s}.log WHERE seq = 23")


async def leaf_delete_and_move_up(town: Town) -> None:
    leaves = await town.leaves()
    await town.rewrite([*leaves[:22], *leaves[23:]], tiles=False)


async def leaf_delete_with_all_made_anew(town: Town) -> None:
    leaves = await town.leaves()
    await town.rewrite([*leaves[:22], *leaves[23:]])


async def leaf_insert(town: Town) -> None:
    leaves = await town.leaves()
    await town.rewrite([*leaves[:22], altered(leaves[3]), *leaves[22:]], tiles=False)


async def leaf_insert_with_all_made_anew(town: Town) -> None:
    leaves = await town.leaves()
    await town.rewrite([*leaves[:22], altered(leaves[3]), *leaves[22:]])


async def leaf_reorder(town: Town) -> None:
    leaves = await town.leaves()
    await town.rewrite([*leaves[:22], leaves[23], leaves[22], *leaves[24:]], chain=False, tiles=False)


async def leaf_reorder_of_hashes(town: Town) -> None:
    await town.run("UPDATE {s}.log a SET leaf_hash = b.leaf_hash FROM {s}.log b WHERE a.seq IN (23, 24)"
                   " AND b.seq = 47 - a.seq")  # fmt: skip


async def leaf_truncate(town: Town) -> None:
    await town.run("DELETE FROM {s}.log WHERE seq > 37")


async def leaf_truncate_inside(town: Town) -> None:
    await town.run("DELETE FROM {s}.log WHERE seq > 45")


async def leaf_fork(town: Town) -> None:
    """The log's own centre rewrites the end and signs it; the other centre's signature it has not."""
    leaves = await town.leaves()
    await town.rewrite([*leaves[:40], altered(leaves[40]), *leaves[41:]])
    hashes = [merkle.leaf_hash(leaf) for leaf in await town.leaves()]
    await town.sign(50, merkle.root_of(hashes))
    await town.run("DELETE FROM {s}.cosignatures WHERE size = 50")


async def tile_edit(town: Town) -> None:
    await town.run("UPDATE {s}.tiles SET hashes = set_byte(hashes, 70, get_byte(hashes, 70) # 1) WHERE n = 1")


async def tile_delete(town: Town) -> None:
    await town.run("DELETE FROM {s}.tiles WHERE n = 1")


async def tile_reorder(town: Town) -> None:
    await town.run("UPDATE {s}.tiles a SET hashes = b.hashes FROM {s}.tiles b WHERE a.n < 2 AND b.n = 1 - a.n")


# ------------------------------------------------------------ checkpoints


async def checkpoint_edit(town: Town) -> None:
    await town.run("UPDATE {s}.checkpoints SET note = set_byte(note, 50, get_byte(note, 50) # 1) WHERE size = 50")


async def checkpoint_delete(town: Town) -> None:
    await town.run("DELETE FROM {s}.checkpoints WHERE size = 37")


async def checkpoint_insert(town: Town) -> None:
    await town.sign(25, hashlib.sha256(b"root").digest(), "x")


async def checkpoint_insert_by_the_log(town: Town) -> None:
    await town.sign(25, hashlib.sha256(b"root").digest())


async def checkpoint_reorder(town: Town) -> None:
    await town.run("UPDATE {s}.checkpoints a SET note = b.note, root = b.root FROM {s}.checkpoints b"
                   " WHERE a.size IN (20, 37) AND b.size = 57 - a.size")  # fmt: skip


async def checkpoint_truncate(town: Town) -> None:
    """The log goes back to an earlier checkpoint, whole in itself."""
    await town.run("DELETE FROM {s}.checkpoints WHERE size = 50")
    await town.run("DELETE FROM {s}.cosignatures WHERE size = 50")
    await town.run("DELETE FROM {s}.records r USING {s}.log l WHERE l.record = r.id AND l.seq > 37")
    await town.run("DELETE FROM {s}.log WHERE seq > 37")
    await town.run("DELETE FROM {s}.tiles WHERE n > 1")


async def checkpoint_delete_all(town: Town) -> None:
    await town.run("DELETE FROM {s}.checkpoints")


async def map_of_another_log(town: Town) -> None:
    """The log's own centre signs the right tree with a map that leaves somebody out, and has it cosigned by a dupe."""
    hashes = [merkle.leaf_hash(leaf) for leaf in await town.leaves()]
    await town.sign(50, merkle.root_of(hashes), lines=(label_map.line_of(hashlib.sha256(b"map").digest()),))
    await town.run("DELETE FROM {s}.cosignatures WHERE size = 50")
    await town.cosign(50)


async def map_twice(town: Town) -> None:
    hashes = [merkle.leaf_hash(leaf) for leaf in await town.leaves()]
    line = label_map.line_of(hashes[0])
    await town.sign(50, merkle.root_of(hashes), lines=(line, line))


async def checkpoint_fork(town: Town) -> None:
    await town.sign(50, hashlib.sha256(b"root").digest())


# ------------------------------------------------------------ cosignatures


async def cosignature_edit(town: Town) -> None:
    # The last letter but padding belongs to the signature; another letter keeps the form.
    await town.run("UPDATE {s}.cosignatures SET line = overlay(line placing 'AAAA'::bytea from octet_length(line) - 20)"
                   " WHERE size = 50")  # fmt: skip


async def cosignature_delete(town: Town) -> None:
    await town.run("DELETE FROM {s}.cosignatures WHERE size = 50")


async def cosignature_insert(town: Town) -> None:
    key = forms.Key.of(KEYS.signer("east"), forms.COSIGNER, PRIVATE["e"])
    line = forms.Signature(key.name, key.id, bytes(72)).line().encode()
    await town.run("INSERT INTO {s}.cosignatures (size, signer, line) VALUES (50, 'x', $1)", line)


async def cosignature_of_nobody(town: Town) -> None:
    await cosignature_delete(town)
    line = forms.cosign(forms.parse_note(town.notes[50]).text, WEST, PRIVATE["x"], AT).line().encode()
    await town.run("INSERT INTO {s}.cosignatures (size, signer, line) VALUES (50, $1, $2)", WEST, line)


async def cosignature_by_the_same_centre(town: Town) -> None:
    await cosignature_delete(town)
    name = KEYS.signer("east")
    line = forms.cosign(forms.parse_note(town.notes[50]).text, name, PRIVATE["e"], AT).line().encode()
    await town.run("INSERT INTO {s}.cosignatures (size, signer, line) VALUES (50, $1, $2)", name, line)


async def cosignature_reorder(town: Town) -> None:
    await town.run("UPDATE {s}.cosignatures a SET line = b.line FROM {s}.cosignatures b"
                   " WHERE a.size IN (20, 37) AND b.size = 57 - a.size")  # fmt: skip


async def cosignature_truncate(town: Town) -> None:
    await town.run("UPDATE {s}.cosignatures SET line = substr(line, 1, octet_length(line) - 9) WHERE size = 50")


async def cosignature_fork(town: Town) -> None:
    other = forms.Checkpoint(ORIGIN, 50, hashlib.sha256(b"root").digest())
    line = forms.cosign(other.text(), WEST, PRIVATE["w"], AT).line().encode()
    await town.run("UPDATE {s}.cosignatures SET line = $1 WHERE size = 50", line)
