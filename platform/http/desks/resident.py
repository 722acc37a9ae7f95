"""The desk for residents (本人開示): a person's records with their proof, put together for whoever passes them on.

What is given is what rests: whoever gets it computes everything anew (``ops/resident_check``). Nothing signed leaves
here before it is known to be durable. This module must never tell anything of a withheld record but that there is one.

A number that was given up by a merge (統合) is the same person's: whoever asks by the number that stays or by the code
gets its records too. Of a number that only had the code once (付替) nobody knows whose its records are: the answer
says so and shows none of them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final, NamedTuple

from chukan.errors import Problem
from chukan.platform.http.desks.door import Door, Keys
from chukan.platform.http.desks.log_reading import RECORDS, LogReading
from chukan.platform.wire.resident import LIMITS, MapEntry, PersonRecords, ResidentLeaf, ResidentRecords
from chukan.tenants import code_changes, label_map, resident
from chukan.tenants.checkpoint import CheckpointError, parse_checkpoint, parse_note
from chukan.tenants.copies import person_digest

if TYPE_CHECKING:
    from chukan.platform.wire.evidence import CheckpointView
    from chukan.platform.wire.resident import ResidentAsk
    from chukan.tenants.directory import AgencyRow
    from chukan.tenants.partition import Partition
    from chukan.tenants.sealing import AgencyKeys

TRIES: Final = 5
"""The map changes about once a second at most; a proof takes some milliseconds."""
PENDING_S: Final = 2
_ALWAYS: Final = ("unwritten", "label")
LABELS_MAX: Final = 200
"""Labels of one answer: 20 numbers and 20 codes, and what was merged into them."""


class _Whose(NamedTuple):
    """Each number and code by its JSON path, with a label; None where a code is nobody's here."""

    labels: list[tuple[str, bytes | None]]
    limits: list[str]
    """What the answer cannot show because of what became of the links."""


class PartitionResidents:
    """Implements ``ports.ResidentDesk``. ``confirm`` returns once what was read in a cell so far is durable."""

    def __init__(self, door: Door, keys: Keys, confirm: Callable[[str], Awaitable[None]]) -> None:
        self._door = door
        self._keys = keys
        self._confirm = confirm

    async def records(self, agency: AgencyRow, body: ResidentAsk) -> ResidentRecords:
        """Return a person's records. Raises ``Problem`` proof_pending, too_many_lines, keys_unconfirmed."""
        keys = self._keys(agency.number)
        async with self._door(agency) as partition:
            whose = await _labels(partition, keys, body)
            answer = None
            for _ in range(TRIES):
                newest = await _newest(partition)
                root = None if newest is None or body.deny_existence else _map_root(newest)
                if newest is None or root is None:
                    answer = await _unproven(partition, keys, whose, deny=body.deny_existence)
                else:
                    answer = await _proven(partition, keys, whose, newest, root)
                if answer is not None:
                    break
        if answer is None:
            raise Problem("proof_pending", retry_after_s=PENDING_S)
        await self._confirm(agency.cell)
        return answer


async def _labels(partition: Partition, keys: AgencyKeys, body: ResidentAsk) -> _Whose:
    """Return whose records are asked for: each number, the number of each code, and what was merged into them."""
    named = [(f"/addressees/{n}", person_digest(keys, each)) for n, each in enumerate(body.addressees)]
    given = {person for _, person in named}
    asked: list[tuple[str, bytes | None]] = [*named]
    for n, code in enumerate(body.codes):
        asked.append((f"/codes/{n}", await resident.person_of_code(partition, keys, code)))
    labels: list[tuple[str, bytes | None]] = []
    persons: list[bytes] = []
    for path, person in asked:
        merged = [] if person is None else await code_changes.merged_into(partition, person)
        # Another number that is asked for itself is told there.
        own = [each for each in merged if each == person or each not in given]
        labels += [(path, keys.label(each)) for each in own] or [(path, None)]
        persons += merged
        if len(labels) > LABELS_MAX:
            raise Problem("too_many_lines", limit=LABELS_MAX)
    moved = bool(persons) and await code_changes.relinked(partition, persons)
    return _Whose(labels, ["relinked"] if moved else [])


async def _newest(partition: Partition) -> CheckpointView | None:
    try:
        return await LogReading(partition, RECORDS).newest()
    except Problem as problem:
        if problem.code != "proof_pending":
            raise
        return None


def _map_root(newest: CheckpointView) -> bytes | None:
    try:
        return label_map.root_in(parse_checkpoint(parse_note(newest.note.encode()).text).extensions)
    except CheckpointError:
        return None


async def _unproven(partition: Partition, keys: AgencyKeys, whose: _Whose, *, deny: bool) -> ResidentRecords:
    """Return the disclosable records alone: without leaves, labels and numbers, nothing tells of others."""
    persons = [
        PersonRecords(
            asked=asked,
            known=label is not None,
            unproven=[] if label is None else (await resident.read_chain(partition, keys, label, 0)).later,
        )
        for asked, label in whose.labels
    ]
    limits = [LIMITS[code] for code in ("existence" if deny else "no_map", *_ALWAYS, *whose.limits)]
    return ResidentRecords(shows="nothing", persons=persons, cannot_show=limits)


async def _proven(
    partition: Partition,
    keys: AgencyKeys,
    whose: _Whose,
    newest: CheckpointView,
    root: bytes,
) -> ResidentRecords | None:
    """Return the records with their proofs; None where the map at rest is not the checkpoint's: it was signed on."""
    persons = []
    for asked, label in whose.labels:
        if label is None:
            persons.append(PersonRecords(asked=asked, known=False))
            continue
        chain = await resident.read_chain(partition, keys, label, newest.size)
        proof = await resident.prove_label(partition, label)
        if proof is None or not label_map.verify(root, label_map.key_of(label), proof):
            return None
        persons.append(
            PersonRecords(
                asked=asked,
                label=label,
                leaves=[ResidentLeaf(data=e.data, state=e.state, salt=e.salt, record=e.record) for e in chain.leaves],
                siblings=list(proof.siblings),
                found=None if proof.found is None else MapEntry(key=proof.found.key, value=proof.found.value),
                unproven=chain.later,
            )
        )
    states = {leaf.state for person in persons for leaf in person.leaves}
    limits = [LIMITS[code] for code in (*_ALWAYS, *whose.limits, "later", *sorted(states - {"shown"}, reverse=True))]
    return ResidentRecords(shows="complete", persons=persons, cannot_show=limits, checkpoint=newest)
