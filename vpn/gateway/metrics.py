"""What a gateway tells Prometheus: one snapshot made into text, without an object per body.

At 2,500 bodies there are some 20,000 series. The client library would hold a child object for each and render them for
hundreds of milliseconds; here the families are written straight from the snapshot, in a thread, and the loop only hands
over the snapshot. Labels are body, link, centre and words of closed sets; never a key or an endpoint.

A link that was never seen has no handshake timestamp: 0 would read as 1970 and wake somebody for nothing. Counters
begin anew with the back end, as counters may.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import msgspec

from chukan.vpn.gateway.drift import DRIFT_KINDS
from chukan.vpn.gateway.kinds import UP_S, Sighting

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


class LinkFigures(msgspec.Struct, frozen=True, kw_only=True):
    """One link that is known: ``active`` when it may pass now; times in seconds since 1970."""

    link: str
    body: str
    active: bool
    sighting: Sighting
    valid_until: float | None = None

    def up(self, now_s: float) -> bool:
        """Tell whether it shook hands lately."""
        at = self.sighting.handshake_at
        return self.active and at is not None and now_s - at < UP_S


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """All figures of one moment."""

    centre: str
    now_s: float
    links: Sequence[LinkFigures] = ()
    drops: Mapping[str, int] = {}
    """Packets that the packet filter dropped, by reason."""
    link_drops: Mapping[str, Mapping[str, int]] = {}
    """Those of them that came out of a link's tunnel, by link and reason."""
    astray: Mapping[str, int] = {}
    """Bytes that WireGuard itself refused, by link: at least so many (``gateway.astray``)."""
    drift: Mapping[tuple[str | None, str], int] = {}
    """Differences that nobody ordered, by link (None: nobody's) and kind."""
    passes: Mapping[str, int] = {}
    """Passes by outcome: ``done``, ``failed``."""
    pass_seconds: float = 0.0
    """Of the last pass that was done."""
    pass_seconds_sum: float = 0.0
    pass_age_s: float | None = None
    """Since the last pass that was done; None before the first."""
    desired_age_s: float | None = None
    """Since the database was read; None where it never was."""
    desired_number: int = 0
    held: int = 0
    service_held: bool | None = None
    """None where the gateway serves no devices of one tunnel."""
    draining: bool = False
    repairs: bool = True
    back_end_starts: int = 0


def render(snapshot: Snapshot) -> bytes:
    """Return the text exposition of a snapshot; meant for a thread."""
    return ("\n".join(_lines(snapshot)) + "\n").encode("utf-8")


def _lines(snapshot: Snapshot) -> Iterator[str]:
    where = {figures.link: _labels(figures, snapshot.centre) for figures in snapshot.links}
    yield from _link_lines(snapshot, where)
    yield from _fault_lines(snapshot, where)
    yield from _counter_lines(snapshot)
    yield from _controller_lines(snapshot)


def _labels(figures: LinkFigures, centre: str) -> str:
    return f'body="{_escape(figures.body)}",link="{_escape(figures.link)}",centre="{_escape(centre)}"'


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _head(name: str, kind: str, words: str) -> Iterator[str]:
    yield f"# HELP {name} {words}"
    yield f"# TYPE {name} {kind}"


def _link_lines(snapshot: Snapshot, where: Mapping[str, str]) -> Iterator[str]:
    active = [figures for figures in snapshot.links if figures.active]
    yield from _head("chukan_link_up", "gauge", "1 when the link's last handshake is younger than 180 s.")
    for figures in active:
        yield f"chukan_link_up{{{where[figures.link]}}} {int(figures.up(snapshot.now_s))}"
    yield from _head("chukan_link_last_handshake_timestamp_seconds", "gauge", "Last handshake; absent when never seen.")
    for figures in active:
        if figures.sighting.handshake_at is not None:
            at = figures.sighting.handshake_at
            yield f"chukan_link_last_handshake_timestamp_seconds{{{where[figures.link]}}} {at:.3f}"
    yield from _head("chukan_link_bytes_total", "counter", "Bytes through the tunnel; in is from the body.")
    for figures in active:
        labels, sighting = where[figures.link], figures.sighting
        yield f'chukan_link_bytes_total{{{labels},direction="in"}} {sighting.rx}'
        yield f'chukan_link_bytes_total{{{labels},direction="out"}} {sighting.tx}'
    yield from _head("chukan_link_valid_until_timestamp_seconds", "gauge", "When the link's validity ends.")
    for figures in active:
        if figures.valid_until is not None:
            yield f"chukan_link_valid_until_timestamp_seconds{{{where[figures.link]}}} {figures.valid_until:.0f}"
    yield from _head("chukan_links_standby_stale", "gauge", "Links that may pass and shook no hands for 180 s.")
    stale = sum(not figures.up(snapshot.now_s) for figures in active)
    yield f'chukan_links_standby_stale{{centre="{_escape(snapshot.centre)}"}} {stale}'


def _fault_lines(snapshot: Snapshot, where: Mapping[str, str]) -> Iterator[str]:
    words = "Packets out of the link's tunnel that were dropped, by reason; absent where none was."
    yield from _head("chukan_link_body_drops_total", "counter", words)
    for figures in snapshot.links:
        for reason, count in sorted(snapshot.link_drops.get(figures.link, {}).items()):
            yield f'chukan_link_body_drops_total{{{where[figures.link]},reason="{_escape(reason)}"}} {count}'
    words = "Bytes into the tunnel under an address that is not the link's: at least so many; absent where none were."
    yield from _head("chukan_link_astray_bytes_total", "counter", words)
    for figures in snapshot.links:
        if figures.link in snapshot.astray:
            yield f"chukan_link_astray_bytes_total{{{where[figures.link]}}} {snapshot.astray[figures.link]}"
    yield from _head("chukan_link_body_drift_total", "counter", "Differences at a link that nobody ordered, as found.")
    for (link, kind), count in snapshot.drift.items():
        if link is not None and link in where:
            yield f'chukan_link_body_drift_total{{{where[link]},kind="{_escape(kind)}"}} {count}'


def _counter_lines(snapshot: Snapshot) -> Iterator[str]:
    centre = f'centre="{_escape(snapshot.centre)}"'
    yield from _head("chukan_link_drops_total", "counter", "Packets that the packet filter dropped, by reason.")
    for reason, count in sorted(snapshot.drops.items()):
        yield f'chukan_link_drops_total{{{centre},reason="{_escape(reason)}"}} {count}'
    yield from _head("chukan_links_drift_total", "counter", "Differences that nobody ordered, as found.")
    by_kind = Counter(dict.fromkeys(DRIFT_KINDS, 0))
    for (_, kind), count in snapshot.drift.items():
        by_kind[kind] += count
    for kind, count in sorted(by_kind.items()):
        yield f'chukan_links_drift_total{{{centre},kind="{_escape(kind)}"}} {count}'
    yield from _head("chukan_links_passes_total", "counter", "Passes of the controller by outcome.")
    for outcome, count in sorted(snapshot.passes.items()):
        yield f'chukan_links_passes_total{{{centre},outcome="{_escape(outcome)}"}} {count}'
    yield from _head("chukan_links_reconcile_seconds", "summary", "Time of a pass.")
    yield f"chukan_links_reconcile_seconds_sum{{{centre}}} {snapshot.pass_seconds_sum:.6f}"
    yield f"chukan_links_reconcile_seconds_count{{{centre}}} {snapshot.passes.get('done', 0)}"
    yield from _head("chukan_links_back_end_starts_total", "counter", "How often a back end was started anew.")
    yield f"chukan_links_back_end_starts_total{{{centre}}} {snapshot.back_end_starts}"


def _controller_lines(snapshot: Snapshot) -> Iterator[str]:
    active = sum(figures.active for figures in snapshot.links)
    figures: list[tuple[str, str, float | None]] = [
        ("chukan_links_active", "Links that may pass now.", active),
        ("chukan_links_last_reconcile_seconds", "Time of the last pass.", snapshot.pass_seconds),
        ("chukan_links_pass_age_seconds", "Time since the last pass was done.", snapshot.pass_age_s),
        ("chukan_links_desired_age_seconds", "Time since the desired state was read.", snapshot.desired_age_s),
        ("chukan_links_desired_number", "Number of the desired state in use.", snapshot.desired_number),
        ("chukan_links_held", "Links left as they are because their row cannot be used.", snapshot.held),
        ("chukan_links_draining", "1 when devices are sent to the other centre.", int(snapshot.draining)),
        ("chukan_links_repairing", "1 when differences are repaired, 0 when only told.", int(snapshot.repairs)),
    ]
    if snapshot.service_held is not None:
        held = int(snapshot.service_held)
        figures.append(("chukan_links_service_held", "1 when devices of one tunnel are served here.", held))
    for name, words, value in figures:
        if value is not None:
            yield from _head(name, "gauge", words)
            yield f'{name}{{centre="{_escape(snapshot.centre)}"}} {_number(value)}'


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.6f}"
