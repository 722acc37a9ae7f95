"""How a device's tunnels and its route stand, as the agent writes it down (``status.json``) and people read it.

The lamps (ランプ) are the same words everywhere: on the terminal, in the guide and in the metrics.

Invariant: no key, no endpoint and no pre-shared key is ever part of it.
"""

import datetime as dt
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec
from prometheus_client import CollectorRegistry, Gauge, write_to_textfile

from chukan.vpn.device.health import Condition

FILE: Final = "status.json"
STALE_S: Final = 15.0
"""An agent that has written nothing for so long is not at work."""
TRUSTED_S: Final = 180.0
"""A session lasts at most so long after its handshake (WireGuard's REJECT_AFTER_TIME)."""


class CentreStatus(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One tunnel."""

    interface: str
    up: bool
    """Whether the interface is there and set as it shall be."""
    condition: Condition
    handshake_at: float | None
    """Seconds since 1970; None before the first."""
    rx: int
    tx: int
    renewing: bool
    """Whether a new key or pre-shared key waits for its first handshake."""
    problem: str | None = None
    """The code of what stands in the way of this interface."""


class Status(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All of it."""

    at: dt.datetime
    link: str
    pid: int
    active: str | None
    moves: int
    centres: Mapping[str, CentreStatus]
    problem: str | None = None
    """The code of what keeps the route from being moved."""
    ended: bool = False
    """Whether the agent has ended in good order."""

    def at_work(self, now: dt.datetime) -> bool:
        """Tell whether the agent that wrote this is still at work."""
        return not self.ended and abs((now - self.at).total_seconds()) <= STALE_S


def is_fresh(centre: CentreStatus, now: dt.datetime) -> bool:
    """Tell whether a tunnel has a session; with a keepalive its handshake is never older than some two minutes."""
    return centre.handshake_at is not None and now.timestamp() - centre.handshake_at <= TRUSTED_S


def write(path: Path, status: Status) -> None:
    """Write it whole, readable by its owner only; not to last, for it is written anew all the time. ``OSError``."""
    aside = path.with_name(f".{path.name}.new")
    aside.unlink(missing_ok=True)
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(msgspec.json.encode(status) + b"\n")
    aside.rename(path)


def write_metrics(path: Path, status: Status) -> None:
    """Write the same for node_exporter's textfile collector, replacing the file whole. ``OSError`` where it cannot."""
    registry = CollectorRegistry()

    def gauge(name: str, text: str) -> Gauge:
        return Gauge(f"chukan_device_{name}", text, ["centre"], registry=registry)

    active = gauge("route_active", "1 where the service route leads through this centre's tunnel.")
    good = gauge("centre_good", "1 where the centre answers echoes and is ready.")
    handshake = gauge("last_handshake_timestamp_seconds", "When the tunnel last shook hands; absent before the first.")
    received = gauge("received_bytes", "Bytes from the gateway since the interface was made.")
    sent = gauge("sent_bytes", "Bytes to the gateway since the interface was made.")
    for centre, seen in status.centres.items():
        active.labels(centre).set(centre == status.active)
        good.labels(centre).set(seen.condition == "good")
        received.labels(centre).set(seen.rx)
        sent.labels(centre).set(seen.tx)
        if seen.handshake_at is not None:
            handshake.labels(centre).set(seen.handshake_at)
    Gauge("chukan_device_route_moves", "How often this agent moved the route.", registry=registry).set(status.moves)
    Gauge("chukan_device_written_timestamp_seconds", "When this was written.", registry=registry).set(
        status.at.timestamp()
    )
    write_to_textfile(str(path), registry)
