"""What a gateway tells Prometheus: the right series, nothing that is nobody's business, and fast at 2,500 links."""

import asyncio
import datetime as dt

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from chukan.clock import ManualClock
from chukan.tenants.bodies import bodies
from chukan.vpn.gateway.kinds import Sighting, merge_sightings
from chukan.vpn.gateway.metrics import LinkFigures, Snapshot, render
from chukan.vpn.gateway.server import Figures, application, serving

NOW_S = 1_800_000_000.0
CODES = [each.code for each in bodies()]


def figures(link: str, ago_s: float | None, *, active: bool = True, valid_until: float | None = None) -> LinkFigures:
    at = None if ago_s is None else NOW_S - ago_s
    seen = Sighting(endpoint="192.0.2.77:40123", handshake_at=at, rx=1000, tx=50)
    return LinkFigures(link=link, body=link[:6], active=active, sighting=seen, valid_until=valid_until)


def series(snapshot: Snapshot) -> dict[tuple[str, ...], float]:
    """Return each sample under its name and its labels' values, but for the centre."""
    return {
        (sample.name, *(value for name, value in sorted(sample.labels.items()) if name != "centre")): sample.value
        for family in text_string_to_metric_families(render(snapshot).decode())
        for sample in family.samples
    }


A, B, C = "131016-1", "131024-1", "131032-1"


def test_each_link_has_its_state_and_who_was_never_seen_has_no_time() -> None:
    rows = [figures(A, 10, valid_until=NOW_S + 60), figures(B, 200), figures(C, None)]
    told = series(Snapshot(centre="east", now_s=NOW_S, links=rows))
    up = {key[2]: value for key, value in told.items() if key[0] == "chukan_link_up"}
    assert up == {A: 1, B: 0, C: 0}
    seen = {key[2] for key in told if key[0] == "chukan_link_last_handshake_timestamp_seconds"}
    assert seen == {A, B}
    assert told["chukan_link_bytes_total", "131016", "in", A] == 1000
    assert told["chukan_link_bytes_total", "131016", "out", A] == 50
    assert told["chukan_link_valid_until_timestamp_seconds", "131016", A] == NOW_S + 60
    assert told["chukan_links_standby_stale",] == 2
    assert told["chukan_links_active",] == 3


def test_a_link_that_may_not_pass_is_no_link_that_is_down() -> None:
    told = series(Snapshot(centre="east", now_s=NOW_S, links=[figures(A, 10, active=False)]))
    assert not [key for key in told if A in key]
    assert told["chukan_links_standby_stale",] == 0


def test_what_was_never_measured_is_absent_and_not_zero() -> None:
    told = series(Snapshot(centre="east", now_s=NOW_S))
    assert ("chukan_links_pass_age_seconds",) not in told
    assert ("chukan_links_desired_age_seconds",) not in told
    assert ("chukan_links_service_held",) not in told


def test_the_controller_tells_of_itself() -> None:
    told = series(
        Snapshot(
            centre="east",
            now_s=NOW_S,
            links=[figures(A, 10)],
            drops={"unknown": 7},
            link_drops={A: {"closed_port": 3}, "999999-1": {"closed_port": 1}},
            astray={A: 900, "999999-1": 1},
            drift={(None, "rogue"): 1, (A, "stolen"): 2},
            passes={"done": 4, "failed": 1},
            pass_seconds_sum=0.5,
            pass_age_s=1.5,
            desired_age_s=3.0,
            service_held=True,
        )
    )
    assert told["chukan_link_drops_total", "unknown"] == 7
    assert [value for key, value in told.items() if key[0] == "chukan_link_body_drops_total"] == [3]
    assert told["chukan_links_drift_total", "stolen"] == 2
    assert told["chukan_links_drift_total", "rogue"] == 1
    assert told["chukan_links_drift_total", "missing"] == 0
    assert [value for key, value in told.items() if key[0] == "chukan_link_body_drift_total"] == [2]
    assert [value for key, value in told.items() if key[0] == "chukan_link_astray_bytes_total"] == [900]
    assert told["chukan_links_passes_total", "failed"] == 1
    assert told["chukan_links_reconcile_seconds_sum",] == 0.5
    assert told["chukan_links_reconcile_seconds_count",] == 4
    assert told["chukan_links_pass_age_seconds",] == 1.5
    assert told["chukan_links_desired_age_seconds",] == 3.0
    assert told["chukan_links_service_held",] == 1


def test_no_place_of_a_device_is_told() -> None:
    assert b"192.0.2.77" not in render(Snapshot(centre="east", now_s=NOW_S, links=[figures(A, 10)]))


def test_2500_links_are_written_whole() -> None:
    rows = [figures(f"{code}-{serial}", 10, valid_until=NOW_S) for serial in (1, 2) for code in CODES][:2500]
    text = render(Snapshot(centre="east", now_s=NOW_S, links=rows))
    assert text.count(b"chukan_link_up{") == 2500


def test_of_two_sightings_the_newer_says_where_a_device_is() -> None:
    old, new = Sighting(endpoint="a:1", handshake_at=1.0, rx=1), Sighting(endpoint="b:2", handshake_at=2.0, rx=2)
    assert merge_sightings(new, old) == merge_sightings(old, new) == Sighting(endpoint="b:2", handshake_at=2.0, rx=3)


@pytest.mark.parametrize(("healthy", "status"), [(True, 200), (False, 503)])
async def test_it_is_served_and_made_once_a_second_however_many_ask(healthy: bool, status: int) -> None:  # noqa: FBT001
    clock = ManualClock(dt.datetime(2026, 11, 23, tzinfo=dt.UTC))
    made: list[int] = []

    def snapshot() -> Snapshot:
        made.append(1)
        return Snapshot(centre="east", now_s=NOW_S, links=[figures(A, 10)])

    app = application(Figures(snapshot, clock), lambda: healthy)
    async with serving(app, "127.0.0.1", 0) as port, aiohttp.ClientSession() as session:
        base = f"http://127.0.0.1:{port}"

        async def ask() -> str:
            async with session.get(f"{base}/metrics") as response:
                assert response.headers["Content-Type"].startswith("text/plain")
                return await response.text()

        texts = await asyncio.gather(*(ask() for _ in range(8)))
        assert len(made) == 1
        assert all("chukan_link_up{" in text and "process_resident_memory_bytes" in text for text in texts)
        clock.advance(1)
        await ask()
        assert len(made) == 2
        async with session.get(f"{base}/healthz") as response:
            assert response.status == status
