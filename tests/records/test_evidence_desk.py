"""The API's desk for evidence on a real cell: what it gives is checked by nothing but hashes and known keys."""

import hashlib
import io
import uuid
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from chukan.clock import SystemClock
from chukan.errors import Problem
from chukan.ops.sandbox.checkpoint_book import explained
from chukan.platform.http.desks.door import CellDoor
from chukan.platform.http.desks.evidence import PartitionEvidence
from chukan.tenants import evidence_file, merkle, reopening
from chukan.tenants.cosigning import Cosigner
from chukan.tenants.directory import AgencyRow
from chukan.tenants.evidence import CentreKeys, Signer
from chukan.tenants.evidence_check import check, is_committed
from chukan.tenants.evidence_file import ListLine, MessageLine
from chukan.tenants.evidence_report import Rules
from chukan.tenants.messages import KeptList, KeptMessage, seal_message

from .conftest import CHANCE

PRIVATE = {word: Ed25519PrivateKey.from_private_bytes(hashlib.sha256(word.encode()).digest()) for word in ("a", "b")}
PUBLIC = {word: key.public_key() for word, key in PRIVATE.items()}
HERE, THERE = (CentreKeys("log.example", "sandbox", word, key, PUBLIC) for word, key in PRIVATE.items())


class Counter:
    def __init__(self, shelf: Any) -> None:
        code = f"88{shelf.agency:014d}"
        self.shelf = shelf
        self.row = AgencyRow(number=shelf.agency, code=code, body="131016", name="x", cell="here", generation=1)
        self.signer = Signer(shelf.sets, HERE, {shelf.agency: code}.get, lambda _: None)
        self.cosigner = Cosigner(shelf.sets, shelf.sets, THERE, {shelf.agency: code}.get, SystemClock())
        self.confirmed: list[str] = []
        self.desk = PartitionEvidence(CellDoor(shelf.cells), lambda _: shelf.keys, self.confirm, HERE.origin)

    async def confirm(self, cell: str) -> None:
        self.confirmed.append(cell)

    async def grow(self, count: int) -> list[uuid.UUID]:
        ids: list[uuid.UUID] = await self.shelf.records(count)
        await self.shelf.sequence()
        assert await self.signer.sign_due() == 1
        return ids

    def said(self, view: Any) -> Any:
        return HERE.verify(view.note.encode(), self.row.code)


@pytest.fixture
def counter(shelf: Any) -> Counter:
    return Counter(shelf)


async def test_a_checkpoint_is_given_with_its_cosignature_and_only_when_durable(counter: Counter) -> None:
    await counter.grow(3)
    view = await counter.desk.checkpoint(counter.row)
    assert (view.size, view.cosigned, counter.said(view).cosigned) == (3, False, ())
    assert await counter.cosigner.cosign_due() == 1
    view = await counter.desk.checkpoint(counter.row)
    assert view.cosigned
    assert [each.key.name for each in counter.said(view).cosigned] == ["log.example/sandbox/b"]
    assert counter.confirmed == ["here", "here"]


async def test_a_record_is_proved_from_its_own_bytes(counter: Counter) -> None:
    ids = await counter.grow(40)
    for record in (ids[0], ids[21], ids[39]):
        proof = msgspec.json.decode(
            msgspec.json.encode(await counter.desk.proof(counter.row, record)),
            type=type(await counter.desk.proof(counter.row, record)),
        )
        said = counter.said(proof.checkpoint).checkpoint
        leaf = merkle.leaf_hash(proof.data)
        assert merkle.verify_inclusion(leaf, proof.position - 1, said.size, proof.path, said.root)
        assert is_committed(proof.data, proof.salt, proof.record)
        assert msgspec.json.decode(proof.record)["id"] == str(record)


async def test_the_log_is_proved_to_continue_each_checkpoint(counter: Counter) -> None:
    kept = []
    for count in (1, 19, 16):
        await counter.grow(count)
        kept.append(counter.said(await counter.desk.checkpoint(counter.row)).checkpoint)
    for old in kept:
        proof = await counter.desk.consistency(counter.row, old.size)
        now = counter.said(proof.checkpoint).checkpoint
        assert merkle.verify_consistency(old.size, old.root, now.size, now.root, proof.path)
    with pytest.raises(Problem, match="invalid_field"):
        await counter.desk.consistency(counter.row, 37)


async def test_a_restored_log_sends_the_leaf_by_which_it_lost_what_was_kept(counter: Counter) -> None:
    for count in (5, 20):
        await counter.grow(count)
    size, root = 40, hashlib.sha256(b"a tree that was lost").digest()
    assert (await counter.desk.consistency(counter.row, 5)).restored is None
    position = (await reopening.mark_restored(counter.shelf.admin, counter.shelf.agency, 2, [(size, root)]))[0]
    await counter.grow(3)
    for first in (position, 29, 33, size):
        proof = await counter.desk.consistency(counter.row, first)
        assert proof.restored is not None
        assert bool(proof.path) is (first < 29)
        new = counter.said(proof.checkpoint).checkpoint
        own = merkle.leaf_hash(proof.restored.data)
        assert merkle.verify_inclusion(own, position - 1, new.size, proof.restored.path, new.root)
        assert explained(proof.restored, new._replace(size=size, root=root), new) is not None
    # What was kept before the restore, or beyond what it names, it does not explain.
    assert (await counter.desk.consistency(counter.row, 25)).restored is None
    with pytest.raises(Problem, match="invalid_field"):
        await counter.desk.consistency(counter.row, size + 1)


async def test_what_is_not_signed_yet_is_pending(counter: Counter) -> None:
    for asking in (counter.desk.checkpoint(counter.row), counter.desk.consistency(counter.row, 1)):
        with pytest.raises(Problem, match="proof_pending"):
            await asking
    await counter.grow(2)
    (waiting,) = await counter.shelf.records(1)
    with pytest.raises(Problem, match="proof_pending"):
        await counter.desk.proof(counter.row, waiting)
    await counter.shelf.sequence()
    with pytest.raises(Problem, match="proof_pending"):
        await counter.desk.proof(counter.row, waiting)
    with pytest.raises(Problem, match="not_found"):
        await counter.desk.proof(counter.row, uuid.uuid4())


async def test_another_agencys_record_is_not_found(counter: Counter, neighbour: Any) -> None:
    await counter.grow(1)
    (theirs,) = await neighbour.records(1)
    with pytest.raises(Problem, match="not_found"):
        await counter.desk.proof(counter.row, theirs)


async def test_an_export_has_the_records_and_what_is_kept_of_their_messages(counter: Counter) -> None:
    shelf = counter.shelf
    await counter.grow(3)
    assert await counter.cosigner.cosign_due() == 1
    (first, *_) = await shelf.admin.fetch(f"SELECT id FROM {shelf.schema}.records ORDER BY at, id")
    kept = KeptList(base=b"base", signature=bytes(64), key="network", digests=bytes(32))
    told = KeptMessage(what="receipt", place=0, item=b"{}")
    row = seal_message(shelf.keys, CHANCE, first["id"], told, kept)
    await shelf.admin.executemany(
        f"INSERT INTO {shelf.schema}.messages (id, line, list, sealed) VALUES ($1, $2, $3, $4)",
        [(row.list, None, None, row.list_sealed), (row.id, row.line, row.list, row.sealed)],
    )
    raw = b"".join([piece async for piece in counter.desk.export(counter.row)])
    assert counter.confirmed, "what was read is known to be durable"
    lines = list(evidence_file.decode(io.BytesIO(raw)))
    report = check(lines, Rules(HERE.known(counter.row.code), allow_restored=False))
    assert (report.sound, report.records) == (True, 3)
    assert lines[-2:] == [ListLine(kept), MessageLine(record=first["id"], message=told)]
