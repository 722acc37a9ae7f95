"""Metrics that others write as text files (last drills, backups), told on ``/metrics`` beside the exchange's own.

A drill runs on an operator's machine and a backup on a repository's host: neither is there to be asked when Prometheus
comes. Both write a file; node_exporter's textfile collector reads such files, and where there is none the exchange does
(``metrics.textfiles``, a folder of ``*.prom``).

Invariant: what is served is a gauge with a name of ours, and bounded in files, bytes and samples. A file that is
anything else is counted and not served. The folder is never looked at while a scrape waits: a share that hangs must not
hold up the exchange.
"""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from chukan import log

EVERY_S: Final = 15.0
FILES_MAX: Final = 16
BYTES_MAX: Final = 256 * 1024
SAMPLES_MAX: Final = 2_000
"""Of all files together."""
OURS: Final = ("chukan_drill_", "chukan_backup_", "chukan_site_")
_LABELS_MAX: Final = 4
_VALUE_MAX: Final = 64

_log = log.get("textfiles")


class Textfiles(Collector):
    """What was read last; ``run`` reads again and again."""

    def __init__(self, folder: Path, registry: CollectorRegistry) -> None:
        self._folder = folder
        self._families: list[Metric] = []
        self._read = self._refused = 0
        registry.register(self)

    async def run(self) -> None:
        """Read until cancelled."""
        while True:
            await asyncio.to_thread(self.look)
            await asyncio.sleep(EVERY_S)

    def look(self) -> None:
        """Read the folder once; one that is not there has no files."""
        merged: dict[str, Metric] = {}
        read = refused = samples = 0
        for path in self._files():
            try:
                families = _families(path, SAMPLES_MAX - samples)
            except (OSError, ValueError, KeyError, IndexError) as error:
                refused += 1
                _log.warning("a file of metrics is not served", exc_info=error)
                continue
            read += 1
            samples += sum(len(family.samples) for family in families)
            for family in families:
                _merge(merged, family)
        self._families, self._read, self._refused = list(merged.values()), read, refused

    def _files(self) -> list[Path]:
        try:
            return sorted(path for path in self._folder.glob("*.prom") if not path.name.startswith("."))[:FILES_MAX]
        except OSError:
            return []

    def collect(self) -> Iterator[Metric]:
        """Yield what was read last."""
        for name, words, number in (
            ("chukan_textfiles_read", "Files of others' metrics that are served here.", self._read),
            ("chukan_textfiles_refused", "Files of others' metrics that are not served: malformed.", self._refused),
        ):
            yield GaugeMetricFamily(name, words, value=number)
        yield from self._families


def _families(path: Path, most: int) -> list[Metric]:
    """Return what a file holds, so many samples at most.

    Raises ``OSError``, and ``ValueError`` and its like for a file that is not ours.
    """
    with path.open("rb") as file:
        content = file.read(BYTES_MAX + 1)
    if len(content) > BYTES_MAX:
        raise ValueError("too large")
    families = list(text_string_to_metric_families(content.decode("utf-8")))
    if sum(len(family.samples) for family in families) > most:
        raise ValueError("too many samples")
    for family in families:
        if not family.name.startswith(OURS) or family.type != "gauge":
            raise ValueError("not one of ours")
        for sample in family.samples:
            short = all(len(value) <= _VALUE_MAX for value in sample.labels.values())
            if sample.name != family.name or len(sample.labels) > _LABELS_MAX or not short:
                raise ValueError("not one of ours")
    return families


def _merge(merged: dict[str, Metric], family: Metric) -> None:
    """Add a family; of two samples with the same labels, as of two files, the first stays."""
    into = merged.setdefault(family.name, GaugeMetricFamily(family.name, family.documentation))
    known = [sample.labels for sample in into.samples]
    into.samples += [sample._replace(timestamp=None) for sample in family.samples if sample.labels not in known]
