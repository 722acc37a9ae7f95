"""What an exchange measures of itself, for Prometheus (``/metrics``): one small object that the other parts call.

Every label comes from a closed set: route templates, methods, status classes, stages, sides, states, cells, outcomes,
priorities, and agency numbers. An agency stands beside a kind in one place only, the age of its newest copy; an agency
never stands beside an affair, and nothing personal is ever a label (DESIGN §6). A value that belongs to no closed set
(a method or a stage that nobody knows) is counted as ``other`` and not under its own name, so that a caller cannot
make the registry grow.

This module must never decide anything: it is told, and it is read.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)

from chukan.errors import REGISTRY
from chukan.platform.cell_metrics import CellMetrics
from chukan.replication.primary import CellPicture
from chukan.tenants.states import Outcome, Side

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

ACCESS_CODES: Final = frozenset(
    {
        "unauthenticated",
        "certificate_revoked",
        "unregistered_system",
        "outside_links",
        "wrong_address",
        "wrong_agency",
        "agency_closed",
        "officer_required",
        "function_not_granted",
    }
)
"""Why a caller may not come in, by the code of the problem."""

_OTHER: Final = "other"
_METHODS: Final = frozenset({"GET", "POST", "PUT", "DELETE", "HEAD", "PATCH", "OPTIONS"})
_SIDES: Final = frozenset(side.name.lower() for side in Side)
_OUTCOMES: Final = frozenset(outcome.word for outcome in Outcome)
_STAGES_MAX: Final = 64
_SERIES_MAX: Final = 20_000
"""Most series of one gauge that is told per agency; beyond it the rest is summed up under agency 0."""

_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_SIZES: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1000)


class Metrics:
    """The exchange's counters and gauges. All methods are cheap, synchronous and never raise for a strange value."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        """Register everything in ``registry``; a new one by default, so that two exchanges may share a process."""
        self.registry = registry if registry is not None else CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        self._stages: set[str] = set()
        # Looking a series up by its labels costs more than counting: those of each request are kept at hand.
        self._answered: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}
        self._make_traffic()
        self._make_work()
        self._make_health()

    def _make_traffic(self) -> None:
        where = self.registry
        self._requests = Counter(
            "chukan_http_requests", "Requests by route template.", ["route", "method", "status"], registry=where
        )
        self._request_seconds = Histogram(
            "chukan_http_request_seconds", "Time to answer.", ["route"], buckets=_SECONDS, registry=where
        )
        self._problems = Counter("chukan_problems", "Problem documents by code.", ["code"], registry=where)
        self._access = Counter("chukan_access_refused", "Callers that were not let in.", ["code"], registry=where)
        for code in ACCESS_CODES:
            self._access.labels(code)  # from zero on, so that the first one is an increase
        self._in_flight = Gauge("chukan_requests_in_flight", "Requests at work.", ["priority"], registry=where)
        self._queued = Gauge("chukan_requests_queued", "Requests waiting for a place.", ["priority"], registry=where)
        self._parked = Gauge("chukan_requests_parked", "Requests that wait for an outcome.", registry=where)
        self._refusals = Counter("chukan_admission_refusals", "Turned away.", ["priority", "why"], registry=where)
        self._stage_sets = Counter("chukan_stage_sets", "Sets by stage.", ["stage", "outcome"], registry=where)
        self._stage_items = Counter("chukan_stage_items", "Lines by stage.", ["stage", "outcome"], registry=where)
        self._stage_seconds = Histogram(
            "chukan_stage_seconds", "Time of a set.", ["stage"], buckets=_SECONDS, registry=where
        )
        self._stage_sizes = Histogram(
            "chukan_stage_set_size", "Lines in a set.", ["stage"], buckets=_SIZES, registry=where
        )
        self._line_refusals = Counter("chukan_line_refusals", "Refused before acceptance.", ["code"], registry=where)
        self._queries = Counter("chukan_query_lines", "Lines asked, by the way they came.", ["way"], registry=where)
        for way in ("link", "other"):
            self._queries.labels(way)
        self._outcomes = Counter("chukan_outcomes", "Final outcomes.", ["side", "outcome"], registry=where)

    def _make_work(self) -> None:
        where = self.registry
        by_state = ["cell", "side", "state"]
        self._backlog = Gauge("chukan_backlog_lines", "Open lines.", by_state, registry=where)
        self._queue_age = Gauge("chukan_queue_age_seconds", "Age of the oldest due line.", by_state, registry=where)
        self._agency_backlog = Gauge(
            "chukan_agency_backlog_lines", "Open lines of an agency.", ["agency"], registry=where
        )
        self._reviews_lapsing = Gauge(
            "chukan_agency_reviews_lapsing",
            "Held provisions (自動応答不可) of an agency whose permit ends soon.",
            ["agency"],
            registry=where,
        )
        self._copy_age = Gauge(
            "chukan_copy_age_seconds", "Age of the newest copy (副本).", ["agency", "kind"], registry=where
        )
        self._evidence_age = Gauge(
            "chukan_evidence_age_seconds", "Age of the oldest leaf without a checkpoint.", ["cell"], registry=where
        )
        self._evidence_broken = Gauge(
            "chukan_evidence_broken_logs",
            "Logs that are not the ones that were signed or seen.",
            ["cell", "refused"],
            registry=where,
        )
        self._operations_age = Gauge(
            "chukan_operations_age_seconds",
            "Age of the oldest operation without a checkpoint.",
            ["cell"],
            registry=where,
        )
        self._sequencer_age = Gauge(
            "chukan_sequencer_age_seconds", "Age of the oldest record without a position.", ["cell"], registry=where
        )
        self._leases = Gauge("chukan_leases_held", "Shards this process works on.", ["cell", "side"], registry=where)
        self._loads = Counter("chukan_load_lines", "Lines of load parts.", ["outcome"], registry=where)

    def _make_health(self) -> None:
        where = self.registry
        self._snapshot = Gauge("chukan_snapshot_number", "Number of the common data in use.", registry=where)
        self._keys = Gauge("chukan_agency_keys_loaded", "Agencies whose keys are loaded.", registry=where)
        self._keys_usable = Gauge("chukan_keystore_usable", "1 when the key store can be read.", registry=where)
        self._tokens = Gauge(
            "chukan_key_token_usable",
            "1 when a centre's token (HSM) of master keys answers.",
            ["centre"],
            registry=where,
        )
        self._lag = Gauge("chukan_event_loop_lag_seconds", "Longest delay of late.", registry=where)
        self._canary_age = Gauge(
            "chukan_canary_age_seconds", "Time since a canary commit succeeded.", ["cell"], registry=where
        )
        self._canary_seconds = Gauge(
            "chukan_canary_commit_seconds", "Duration of the last canary commit.", ["cell"], registry=where
        )
        self._ready = Gauge("chukan_ready", "1 when /readyz answers 200.", registry=where)
        self._certificate = Gauge(
            "chukan_certificate_expiry_timestamp_seconds", "End of the server certificate.", registry=where
        )
        self._peer_certificate = Gauge(
            "chukan_peer_certificate_expiry_timestamp_seconds", "End of the certificate that a peer showed.", ["peer"],
            registry=where,
        )  # fmt: skip
        self._authority = Gauge(
            "chukan_authority_expiry_timestamp_seconds", "End of a trusted or issuing certificate.", ["authority"],
            registry=where,
        )  # fmt: skip
        self._make_revocation()
        self._common_age = Gauge(
            "chukan_common_data_age_seconds", "Time since a cell's common data was read.", ["cell"], registry=where
        )
        self._cells = CellMetrics(where)

    def _make_revocation(self) -> None:
        where, by_list = self.registry, ["list"]
        self._crl_this = Gauge(
            "chukan_crl_this_update_timestamp_seconds", "When a revocation list was made.", by_list, registry=where
        )
        self._crl_next = Gauge(
            "chukan_crl_next_update_timestamp_seconds", "When the next one is due.", by_list, registry=where
        )
        self._crl_revoked = Gauge("chukan_crl_revoked", "Certificates that it revokes.", by_list, registry=where)
        self._crl_usable = Gauge("chukan_crl_usable", "1 when the file was taken as it lies.", by_list, registry=where)

    # ---------------------------------------------------------------- what happens

    def request(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count one answered request; ``route`` is the template, never the path."""
        key = (route, method if method in _METHODS else _OTHER, status // 100)
        kept = self._answered.get(key)
        if kept is None:
            kept = self._answered[key] = (
                self._requests.labels(route, key[1], f"{key[2]}xx"),
                self._request_seconds.labels(route),
            )
        kept[0].inc()
        kept[1].observe(seconds)

    def problem(self, code: str) -> None:
        """Count one problem document by its registered code."""
        self._problems.labels(code if code in REGISTRY else _OTHER).inc()

    def access_refused(self, code: str) -> None:
        """Count one caller on whom tunnel, certificate, path or function did not agree (CON-01)."""
        self._access.labels(code if code in ACCESS_CODES else _OTHER).inc()

    def follow(self, priority: str, *, in_flight: Callable[[], int], queued: Callable[[], int]) -> None:
        """Ask these, whenever metrics are read, how many requests of a priority are at work and queued."""
        self._in_flight.labels(priority).set_function(in_flight)
        self._queued.labels(priority).set_function(queued)

    def follow_parked(self, parked: Callable[[], int]) -> None:
        """Ask this, whenever metrics are read, how many requests are parked."""
        self._parked.set_function(parked)

    def refused(self, priority: str, why: str) -> None:
        """Count one request that admission turned away; ``why`` is the problem's code."""
        self._refusals.labels(priority, why).inc()

    def stage(self, name: str, size: int, seconds: float, *, failed: bool) -> None:
        """Count one set of a stage."""
        if name not in self._stages:
            name = name if len(self._stages) < _STAGES_MAX else _OTHER
            self._stages.add(name)
        outcome = "failed" if failed else "done"
        self._stage_sets.labels(name, outcome).inc()
        self._stage_items.labels(name, outcome).inc(size)
        self._stage_seconds.labels(name).observe(seconds)
        self._stage_sizes.labels(name).observe(size)

    def outcome(self, side: Side | str, outcome: str, count: int = 1) -> None:
        """Count lines of a side (or its name, ``inquirer``) that reached an outcome (its word, e.g. ``provided``)."""
        name = side.name.lower() if isinstance(side, Side) else side
        word = outcome if outcome in _OUTCOMES else _OTHER
        self._outcomes.labels(name if name in _SIDES else _OTHER, word).inc(count)

    def asked(self, lines: int, *, through_link: bool) -> None:
        """Count the lines of a list that was taken in: through a body's link, or another way (a sandbox's clients)."""
        self._queries.labels("link" if through_link else "other").inc(lines)

    def refusal(self, code: str) -> None:
        """Count one line or message that was refused before acceptance, by its registered code."""
        self._line_refusals.labels(code if code in REGISTRY else _OTHER).inc()

    def load_lines(self, *, taken: int, refused: int) -> None:
        """Count the lines of one load part (副本登録)."""
        self._loads.labels("taken").inc(taken)
        self._loads.labels("refused").inc(refused)

    # ---------------------------------------------------------------- what stands

    def backlog(self, cell: str, side: Side, state: str, count: int, oldest_age_s: float | None) -> None:
        """Tell the open lines of one state and the age of the oldest one that is due; None when none is due."""
        labels = (cell, side.name.lower(), state)
        self._backlog.labels(*labels).set(count)
        self._queue_age.labels(*labels).set(oldest_age_s or 0.0)

    def agency_backlog(self, counts: Mapping[int, int]) -> None:
        """Replace the open lines per agency number (CON-05); an agency that is left out has none any more."""
        self._agency_backlog.clear()
        for agency, count in _bounded(counts.items()):
            self._agency_backlog.labels(str(agency)).inc(count)

    def reviews_lapsing(self, counts: Mapping[int, int]) -> None:
        """Replace the escalated reviews per agency number (PRV-05); an agency that is left out has none any more."""
        self._reviews_lapsing.clear()
        for agency, count in _bounded(counts.items()):
            self._reviews_lapsing.labels(str(agency)).inc(count)

    def copy_ages(self, ages: Mapping[tuple[int, str], float]) -> None:
        """Replace the ages in seconds of the newest copy by (agency number, kind) (REP-05)."""
        self._copy_age.clear()
        for (agency, kind), age_s in list(ages.items())[:_SERIES_MAX]:
            self._copy_age.labels(str(agency), kind).set(age_s)

    def sequencer_age(self, cell: str, seconds: float) -> None:
        """Tell the age of the oldest record without a position in a cell."""
        self._sequencer_age.labels(cell).set(seconds)

    def evidence_age(self, cell: str, seconds: float, *, of: str = "records") -> None:
        """Tell the age of the oldest leaf without a signed checkpoint in a cell, of records' or operations' logs."""
        (self._evidence_age if of == "records" else self._operations_age).labels(cell).set(seconds)

    def evidence_broken(self, cell: str, refused: str, logs: int) -> None:
        """Tell of how many logs of a cell ``signing``, ``cosigning``, ``sequencing`` or the ``network`` is refused."""
        self._evidence_broken.labels(cell, refused).set(logs)

    def leases(self, cell: str, side: Side, count: int) -> None:
        """Tell how many shards of a side this process holds in a cell."""
        self._leases.labels(cell, side.name.lower()).set(count)

    def snapshot(self, number: int) -> None:
        """Tell the number of the common data (共通データ) in use."""
        self._snapshot.set(number)

    def keys(self, loaded: int, *, usable: bool) -> None:
        """Tell how many agencies' keys are loaded and whether the key store can be read."""
        self._keys.set(loaded)
        self._keys_usable.set(usable)

    def loop_lag(self, seconds: float) -> None:
        """Tell the longest recent delay of the event loop."""
        self._lag.set(seconds)

    def canary(self, cell: str, *, age_s: float, commit_s: float) -> None:
        """Tell how long ago a cell's canary committed, and how long it took; infinity where it never did."""
        self._canary_age.labels(cell).set(age_s)
        self._canary_seconds.labels(cell).set(commit_s if math.isfinite(commit_s) else -1.0)

    def cell(self, cell: str, picture: CellPicture, now_s: float) -> None:
        """Tell what is seen of a cell with members at an instant (Unix seconds)."""
        self._cells.tell(cell, picture, now_s)

    def opening(self, cell: str, epoch: int, closed: bool) -> None:  # noqa: FBT001 - as it is read
        """Tell in which epoch a cell was opened, and whether it was restored since and takes no writes."""
        self._cells.opening(cell, epoch, closed=closed)

    def ready(self, *, ready: bool) -> None:
        """Tell whether this exchange is ready."""
        self._ready.set(ready)

    def key_token(self, centre: str, usable: bool) -> None:  # noqa: FBT001 - heard as (centre, usable)
        """Tell whether a centre's token of master keys answers."""
        self._tokens.labels(centre).set(usable)

    def certificate_expiry(self, timestamp_s: float) -> None:
        """Tell when the server certificate ends (seconds since 1970)."""
        self._certificate.set(timestamp_s)

    def peer_certificate(self, peer: str, ends_at: float) -> None:
        """Tell when the certificate ends that a peer showed (seconds since 1970)."""
        self._peer_certificate.labels(peer).set(ends_at)

    def authority(self, name: str, ends_at: float) -> None:
        """Tell when a trusted or issuing certificate ends (seconds since 1970)."""
        self._authority.labels(name).set(ends_at)

    def revocation_list(self, name: str, this_update: float, next_update: float, revoked: int) -> None:
        """Tell the dates (seconds since 1970) of a revocation list in force, and how many certificates it revokes."""
        self._crl_this.labels(name).set(this_update)
        self._crl_next.labels(name).set(next_update)
        self._crl_revoked.labels(name).set(revoked)

    def revocation_list_usable(self, name: str, *, usable: bool) -> None:
        """Tell whether what lies in a list's file was taken; the last good one is in force where it was not."""
        self._crl_usable.labels(name).set(usable)

    def follow_common_data(self, cell: str, age_s: Callable[[], float]) -> None:
        """Ask this, whenever metrics are read, how long ago a cell's common data was read; infinity where never."""
        self._common_age.labels(cell).set_function(age_s)

    def render(self) -> bytes:
        """Return the text exposition of everything."""
        return generate_latest(self.registry)


def _bounded(counts: Iterable[tuple[int, int]]) -> Iterable[tuple[int, int]]:
    for position, (agency, count) in enumerate(counts):
        yield (agency if position < _SERIES_MAX else 0), count
