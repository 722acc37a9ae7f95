"""Each agency's log is gapless and unique, has one leaf for each record, and chains each person's records (REC-04)."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator

from chukan.ops.simulation.checkers.evidence import Evidence


def check(evidence: Evidence) -> Iterator[str]:
    """Recompute every leaf."""
    for agency, _, table in evidence.world.tables():
        name = f"the log of agency {agency.number}"
        if [leaf.seq for leaf in table.log] != list(range(1, len(table.log) + 1)):
            yield f"{name} has gaps or positions that stand twice"
        counts = Counter(leaf.record for leaf in table.log)
        if any(count != 1 for count in counts.values()) or counts.keys() != table.records.keys():
            yield f"{name} does not hold one leaf for each record"
        chains: dict[bytes, tuple[int, bytes]] = {}
        for leaf in table.log:
            record = table.records.get(leaf.record)
            ordinal, previous = chains.get(leaf.label, (0, bytes(32)))
            chains[leaf.label] = (ordinal + 1, leaf.hash)
            if record is None:
                continue
            data = b"\x01" + record.commitment + record.label + ordinal.to_bytes(8, "big") + previous
            if leaf.label != record.label or leaf.data != data:
                yield f"{name} has a leaf that does not follow from its record"
            if leaf.hash != hashlib.sha256(b"\x00" + leaf.data).digest():
                yield f"{name} has a leaf with a wrong hash"
