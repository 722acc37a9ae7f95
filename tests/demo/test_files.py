"""The demo's files of copies are what the exchange reads, and lose nothing on the way."""

import datetime as dt
import hashlib
from pathlib import Path

import pytest

from chukan.ops.demo import cast, files
from chukan.ops.demo.population import Population
from chukan.ops.sandbox.person_values import RESIDENT, TAX
from chukan.platform.http.parts import PartReader
from chukan.platform.law import Law

DAY = dt.date(2026, 11, 23)


@pytest.mark.parametrize(("kind", "suffix"), [(RESIDENT, "ndjson"), (TAX, "csv")])
def test_what_is_written_is_what_is_read(tmp_path: Path, kind: str, suffix: str) -> None:
    law = Law.load()
    population = Population(400, 7, DAY)
    copies = list(population.copies(cast.head("011002"), kind, law))
    layout = law.layout_for(kind, copies[0].layout, DAY)
    (part,) = files.write_parts(tmp_path, "copies", copies, layout)
    assert part.path.name == f"copies-1.{suffix}"
    assert part.lines == len(copies) > 10
    content = part.path.read_bytes()
    assert part.digest == hashlib.sha256(content).digest()
    media_type, _, charset = part.media_type.partition("; charset=")
    reader = PartReader(media_type, charset or None)
    read = [*reader.feed(content), *reader.finish()]
    assert [line.problem for line in read] == [None] * len(copies)
    assert [(line.addressee, line.effective_from, line.items, line.review) for line in read] == [
        (copy.addressee, copy.effective_from, copy.items, copy.review) for copy in copies
    ]


def test_a_long_file_is_split_and_its_digest_covers_every_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "PART_LINES", 7)
    law = Law.load()
    copies = list(Population(400, 7, DAY).copies(cast.head("011002"), RESIDENT, law))[:20]
    parts = files.write_parts(tmp_path, "copies", copies, law.layout_for(RESIDENT, copies[0].layout, DAY))
    assert [part.lines for part in parts] == [7, 7, 6]
    whole = hashlib.sha256(b"".join(hashlib.sha256(part.path.read_bytes()).digest() for part in parts))
    assert files.whole_digest(parts) == whole.hexdigest()
