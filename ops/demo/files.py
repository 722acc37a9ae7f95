"""Files of copies (副本) as a municipal system would write them: NDJSON in UTF-8, CSV in CP932 for local tax.

One file is one part of a load session: what the load says for all (kind, layout, period) is not repeated in its lines.
Names stand in kinds that are written as NDJSON, because CP932 does not hold every character of a Japanese name.
"""

import csv
import hashlib
import io
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from chukan.ops.sandbox.person_values import TAX
from chukan.platform.law import Layout
from chukan.platform.wire.agency import CopyLine, Gap

NDJSON: Final = "application/x-ndjson"
CSV_CP932: Final = "text/csv; charset=cp932"
PART_LINES: Final = 10_000


class Part(NamedTuple):
    """One file: its path, media type, number of lines, and SHA-256."""

    path: Path
    media_type: str
    lines: int
    digest: bytes


def write_parts(folder: Path, stem: str, copies: Iterable[CopyLine], layout: Layout) -> list[Part]:
    """Write copies of one kind into files of at most ``PART_LINES`` lines, in place of those that were there."""
    lines = list(copies)
    as_csv = layout.kind == TAX
    parts = []
    for number, start in enumerate(range(0, max(1, len(lines)), PART_LINES), start=1):
        bunch = lines[start : start + PART_LINES]
        path = folder / f"{stem}-{number}.{'csv' if as_csv else 'ndjson'}"
        content = _csv(bunch, layout).encode("cp932") if as_csv else _ndjson(bunch)
        _replace(path, content)
        parts.append(Part(path, CSV_CP932 if as_csv else NDJSON, len(bunch), hashlib.sha256(content).digest()))
    return parts


def whole_digest(parts: Sequence[Part]) -> str:
    """Return what a load's commit announces: SHA-256 over the parts' digests in order, hexadecimal."""
    return hashlib.sha256(b"".join(part.digest for part in parts)).hexdigest()


def _ndjson(copies: Iterable[CopyLine]) -> bytes:
    lines = (
        msgspec.json.encode(
            {
                "addressee": copy.addressee,
                "effective_from": copy.effective_from,
                "items": copy.items,
                "review": copy.review,
            }
        )
        for copy in copies
    )
    return b"".join(line + b"\n" for line in lines)


def _csv(copies: Iterable[CopyLine], layout: Layout) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    columns = [column for item in layout.items for column in (item, f"{item}.gap")]
    writer.writerow(["addressee", "effective_from", "review", *columns])
    for copy in copies:
        cells = [cell for item in layout.items for cell in _cells(copy.items.get(item, ""))]
        writer.writerow([copy.addressee, copy.effective_from.isoformat(), "1" if copy.review else "0", *cells])
    return text.getvalue()


def _cells(value: str | Gap) -> tuple[str, str]:
    """Return the value's cell and the reason's cell of one item, one of which is empty."""
    return ("", value.gap) if isinstance(value, Gap) else (value, "")


def _replace(path: Path, content: bytes) -> None:
    aside = path.with_name(f".{path.name}.new")
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
    aside.rename(path)
