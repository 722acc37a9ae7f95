"""The desk for residents (本人開示): a person's records with their proof, put together for whoever passes them on.

What is given is what rests: whoever gets it computes everything anew (``ops/resident_check``). Nothing signed leaves
here before it is known to be durable. This module must never tell anything of a withheld record but that there is one.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final

from chukan.errors import Problem
from chukan.platform.http.desks.door import Door, Keys
from chukan.platform.http.desks.evidence import newest_checkpoint
from chukan.platform.wire.resident import LIMITS, MapEntry, PersonRecords, ResidentLeaf, ResidentRecords
from chukan.tenants import label_map, resident
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
            labels = await _labels(partition, keys, body)
            answer = None
            for _ in range(TRIES):
                newest = await _newest(partition)
                root = None if newest is None or body.deny_existence else _map_root(newest)
                if newest is None or root is None:
                    answer = await _unproven(partition, keys, labels, deny=body.deny_existence)
                else:
                    answer = await _proven(partition, keys, labels, newest, root)
                if answer is not None:
                    break
        if answer is None:
            raise Problem("proof_pending", retry_after_s=PENDING_S)
        await self._confirm(agency.cell)
        return answer


async def _labels(partition: Partition, keys: AgencyKeys, body: ResidentAsk) -> list[tuple[str, bytes | None]]:
    """Return each number and code by its JSON path with its label, None where a code is nobody's here."""
    labels: list[tuple[str, bytes | None]] = [
        (f"/addressees/{n}", keys.label(person_digest(keys, each))) for n, each in enumerate(body.addressees)
    ]
    for n, code in enumerate(body.codes):
        person = await resident.person_of_code(partition, keys, code)
        labels.append((f"/codes/{n}", None if person is None else keys.label(person)))
    return labels


async def _newest(partition: Partition) -> CheckpointView | None:
    try:
        return await newest_checkpoint(partition)
    except Problem as problem:
        if problem.code != "proof_pending":
            raise
        return None


def _map_root(newest: CheckpointView) -> bytes | None:
    try:
        return label_map.root_in(parse_checkpoint(parse_note(newest.note.encode()).text).extensions)
    except CheckpointError:
        return None


async def _unproven(
    partition: Partition, keys: AgencyKeys, labels: list[tuple[str, bytes | None]], *, deny: bool
) -> ResidentRecords:
    """Return the disclosable records alone: without leaves, labels and numbers, nothing tells of others."""
    persons = [
        PersonRecords(
            asked=asked,
            known=label is not None,
            unproven=[] if label is None else (await resident.read_chain(partition, keys, label, 0)).later,
        )
        for asked, label in labels
    ]
    limits = [LIMITS[code] for code in ("existence" if deny else "no_map", *_ALWAYS)]
    return ResidentRecords(shows="nothing", persons=persons, cannot_show=limits)


async def _proven(
    partition: Partition,
    keys: AgencyKeys,
    labels: list[tuple[str, bytes | None]],
    newest: CheckpointView,
    root: bytes,
) -> ResidentRecords | None:
    """Return the records with their proofs; None where the map at rest is not the checkpoint's: it was signed on."""
    persons = []
    for asked, label in labels:
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
    limits = [LIMITS[code] for code in (*_ALWAYS, "later", *sorted(states - {"shown"}, reverse=True))]
    return ResidentRecords(shows="complete", persons=persons, cannot_show=limits, checkpoint=newest)
