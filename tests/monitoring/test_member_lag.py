"""How late a member is, in bytes and in seconds, from what its Patroni says to what Prometheus gets."""

import json
from typing import Any

import pytest

from chukan.platform.metrics import Metrics
from chukan.replication.leader import Leader
from chukan.replication.patroni import NodeState
from chukan.replication.primary import CellPicture

NOW = 1_795_395_610.0  # 2026-11-23T01:00:10Z


def state(status: int, role: str, log: dict[str, Any]) -> NodeState:
    """Return what Patroni 4.1 says in such a case (its REST API's own form)."""
    document = {"state": "running", "role": role, "timeline": 3, "xlog": log, "database_system_identifier": "7",
                "patroni": {"version": "4.1.5", "scope": "east", "name": "x"}}  # fmt: skip
    return NodeState.read(status, json.dumps(document).encode())


def told(nodes: dict[str, NodeState | None]) -> str:
    metrics = Metrics()
    picture = CellPicture(Leader("e1", 3, "7"), True, 1.0, 0.0, 0, nodes, dict.fromkeys(nodes, "east"), None)  # noqa: FBT003
    metrics.cell("east", picture, NOW)
    return metrics.render().decode()


@pytest.mark.requirement("PLT-02", "OPS-02")
def test_a_member_that_replays_late_is_told_in_seconds_and_in_bytes() -> None:
    primary = state(200, "primary", {"location": 1_000})
    late = state(503, "replica", {"received_location": 900, "replayed_timestamp": "2026-11-23 00:59:30.500000+00:00"})
    ahead = state(503, "replica", {"received_location": 1_000, "replayed_timestamp": "2026-11-23 01:00:11+00:00"})
    text = told({"e1": primary, "e2": late, "ew1": ahead, "ew2": None})
    assert 'chukan_cell_member_lag_seconds{cell="east",member="e1"} 0.0' in text
    assert 'chukan_cell_member_lag_seconds{cell="east",member="e2"} 39.5' in text
    assert 'chukan_cell_member_lag_bytes{cell="east",member="e2"} 100.0' in text
    # A clock that is a little behind the leader's makes nobody's lag negative.
    assert 'chukan_cell_member_lag_seconds{cell="east",member="ew1"} 0.0' in text
    assert 'lag_seconds{cell="east",member="ew2"}' not in text


@pytest.mark.parametrize("text", [None, "", "yesterday", "2026-11-23 01:00:00"])
def test_an_instant_that_cannot_be_read_is_none(text: str | None) -> None:
    assert state(503, "replica", {"received_location": 1, "replayed_timestamp": text}).replayed_at is None
