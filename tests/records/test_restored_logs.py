"""A log that goes on from a restore: sound by itself, and what was lost is told to whoever kept a checkpoint of it."""

import io
from typing import Any

import pytest

from chukan.tenants import checkpoint as forms
from chukan.tenants import evidence_file, reopening
from chukan.tenants.evidence import Signer
from chukan.tenants.evidence_check import check, find_restores
from chukan.tenants.evidence_report import Report, Rules
from chukan.tests.records.bending import CODE, KEYS, PRIVATE, Town, altered

pytestmark = pytest.mark.requirement("REC-02")
BACK, SEEN, NOW = 20, 50, 52


@pytest.fixture
async def town(shelf: Any) -> Town:
    """A town of 50 leaves that was set back to 20, marked, and has grown to 52."""
    town = Town(shelf)
    await town.fill()
    root = forms.parse_checkpoint(forms.parse_note(town.notes[SEEN]).text).root
    await town.run(f"DELETE FROM {{s}}.records WHERE id IN (SELECT record FROM {{s}}.log WHERE seq > {BACK})")
    for table, column in (("log", "seq"), ("checkpoints", "size"), ("cosignatures", "size")):
        await town.run(f"DELETE FROM {{s}}.{table} WHERE {column} > {BACK}")
    await town.run(f"DELETE FROM {{s}}.tiles WHERE (n + 1) * 16 > {BACK}")
    await town.run("UPDATE chukan.log_heads SET seq = $2 WHERE agency = $1", shelf.agency, BACK)
    await town.run("UPDATE chukan.evidence_heads SET size = $2 WHERE agency = $1", shelf.agency, BACK)
    assert await reopening.mark_restored(shelf.admin, shelf.agency, 2, [(SEEN, root)]) == [BACK + 1]
    await shelf.records(NOW - BACK - 1)
    await shelf.sequence()
    assert await Signer(shelf.sets, KEYS, {shelf.agency: CODE}.get, lambda _: None).sign_due() == 1
    lost = dict(town.notes)
    await town.cosign(NOW)
    town.notes |= lost
    return town


def judged(lines: list[Any], *known: bytes, allow: bool = False) -> Report:
    raw = b"".join(evidence_file.encode(lines))
    restores = find_restores(evidence_file.decode(io.BytesIO(raw)))
    rules = Rules(KEYS.known(CODE), known, restores=restores, allow_restored=allow)
    return check(evidence_file.decode(io.BytesIO(raw)), rules)


async def test_it_is_sound_and_says_of_itself_that_it_was_restored(town: Town) -> None:
    found = judged(await town.export(), town.notes[BACK], town.notes[NOW])
    assert (found.findings, found.leaves, found.records) == ([], NOW, NOW - 1)
    (said,) = found.restores
    assert (said.position, said.epoch, said.size) == (BACK + 1, 2, SEEN)


async def test_a_checkpoint_of_what_was_lost_is_told_and_only_accepted_when_asked(town: Town) -> None:
    lines = await town.export()
    for size in (37, SEEN):
        found = judged(lines, town.notes[size])
        assert [(each.code, each.first, each.last) for each in found.findings] == [("restored", BACK + 1, size)]
        assert judged(lines, town.notes[size], allow=True).sound


def another(size: int) -> bytes:
    """A checkpoint that the log's key signed, of a tree that nobody named."""
    return forms.sign(forms.Checkpoint(KEYS.origin(CODE), size, bytes(32)), PRIVATE["e"]).encode()


@pytest.mark.parametrize("size", [BACK, SEEN, NOW, NOW + 8], ids=["before", "another root", "after", "larger"])
async def test_what_the_leaf_does_not_name_stays_a_contradiction(town: Town, size: int) -> None:
    found = judged(await town.export(), another(size), allow=True)
    assert not found.sound
    assert not any(each.code == "restored" for each in found.findings)


async def test_a_leaf_of_a_restore_is_held_to_its_form_and_to_the_tree(town: Town) -> None:
    leaf = (await town.leaves())[BACK]
    for bent in (altered(leaf), leaf[:64] + b"\x63" + leaf[65:], leaf[:72] + b"\x01" + leaf[73:]):
        await town.run(f"UPDATE {{s}}.log SET leaf_data = $1 WHERE seq = {BACK + 1}", bent)
        found = judged(await town.export(), town.notes[SEEN], allow=True)
        assert not found.sound
        assert found.first_bad is not None
        assert found.first_bad.first == BACK + 1
