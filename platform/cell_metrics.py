"""What an exchange sees of the cells (セル) for Prometheus: who leads, on which timeline, and how far a commit reaches.

Labels are cells, their members (both from the settings), and the words of closed sets. Told once a second by health.
"""

from typing import Final

from prometheus_client import CollectorRegistry, Gauge

from chukan.replication.durability import Durability
from chukan.replication.primary import CellPicture

_ROLES: Final = ("primary", "replica", "other", "silent")


class CellMetrics:
    """Gauges of cells that have members."""

    def __init__(self, registry: CollectorRegistry) -> None:
        member = ["cell", "member"]
        self._leader = Gauge("chukan_cell_leader", "1 for the member that leads.", member, registry=registry)
        self._serving = Gauge(
            "chukan_cell_serving", "1 when work has been resumed on the leader.", ["cell"], registry=registry
        )
        self._timeline = Gauge("chukan_cell_timeline", "Timeline of the leader.", ["cell"], registry=registry)
        self._changes = Gauge(
            "chukan_cell_leader_changes",
            "Leaders accepted after the first.",
            ["cell"],
            registry=registry,
        )
        self._leaderless = Gauge(
            "chukan_cell_leaderless_seconds", "Seconds without a leader since the start.", ["cell"], registry=registry
        )
        self._role = Gauge("chukan_cell_member_role", "1 for a member's role.", [*member, "role"], registry=registry)
        self._member_timeline = Gauge("chukan_cell_member_timeline", "Timeline of a member.", member, registry=registry)
        self._sync = Gauge("chukan_cell_sync_standbys", "Synchronous standbys.", ["cell"], registry=registry)
        self._lag = Gauge("chukan_cell_member_lag_bytes", "Log not yet received, as seen.", member, registry=registry)
        self._lag_seconds = Gauge(
            "chukan_cell_member_lag_seconds", "Age of the newest commit replayed.", member, registry=registry
        )
        self._durability = Gauge(
            "chukan_cell_durability", "1 for how durable the last commit is.", ["cell", "level"], registry=registry
        )

        self._epoch = Gauge(
            "chukan_cell_restore_epoch", "Epoch in which the cell was opened.", ["cell"], registry=registry
        )
        self._closed = Gauge(
            "chukan_cell_closed", "1 for a cell that was restored and is not opened.", ["cell"], registry=registry
        )

    def opening(self, cell: str, epoch: int, *, closed: bool) -> None:
        """Tell how a cell is opened."""
        self._epoch.labels(cell).set(epoch)
        self._closed.labels(cell).set(closed)

    def tell(self, cell: str, picture: CellPicture, now_s: float) -> None:
        """Tell what is seen of a cell now (Unix seconds)."""
        leader = picture.leader
        self._serving.labels(cell).set(picture.serving)
        self._timeline.labels(cell).set(0 if leader is None else leader.timeline)
        self._changes.labels(cell).set(picture.changes)
        self._leaderless.labels(cell).set(picture.leaderless_s)
        self._sync.labels(cell).set(sum(state is not None and state.sync for state in picture.nodes.values()))
        written = None if leader is None else picture.nodes.get(leader.member)
        for name, state in picture.nodes.items():
            self._leader.labels(cell, name).set(leader is not None and leader.member == name)
            said = "silent" if state is None else state.role
            for role in _ROLES:
                self._role.labels(cell, name, role).set(role == (said if said in _ROLES else "other"))
            if state is None:
                continue
            self._member_timeline.labels(cell, name).set(state.timeline or 0)
            if state.role != "primary" and state.replayed_at is not None:
                # A canary commits every second, so that this is the age of what has come, not of what was asked for.
                self._lag_seconds.labels(cell, name).set(max(0.0, now_s - state.replayed_at))
            elif state.role == "primary":
                self._lag_seconds.labels(cell, name).set(0.0)
            if written is not None and written.position is not None and state.position is not None:
                self._lag.labels(cell, name).set(max(0, written.position - state.position))
        for level in Durability:
            self._durability.labels(cell, level.value).set(picture.durability is level)
