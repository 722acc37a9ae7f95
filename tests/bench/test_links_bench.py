"""``chukan bench links``: the country, the limit's file, how a controller's figures are read, one quick real run."""

import json
import os
import subprocess
import sys
import uuid
from collections import Counter
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from chukan.chance import SystemChance
from chukan.clock import SystemClock
from chukan.ops import cli
from chukan.ops.bench.country import LINKS, country, syncconf
from chukan.ops.bench.links_stand import own_figures
from chukan.ops.local.machine import is_root, state_folder
from chukan.tenants.link_plan import owner_body, parse_link
from chukan.tests.support.processes import processes_naming
from chukan.vpn.gateway.kinds import Sighting
from chukan.vpn.gateway.metrics import LinkFigures, Snapshot, render

TIMEOUT_S = 600
CHANCE = SystemChance(SystemClock())


def test_a_country_has_bodies_links_and_addresses_of_their_own() -> None:
    members = country(LINKS, CHANCE)
    for what in ("body", "link", "address", "inner", "public", "psk"):
        assert len({getattr(member, what) for member in members}) == LINKS
    for member in members:
        assert parse_link(member.link) == (member.body, 1)
        assert owner_body(member.inner) == member.body
    by_prefecture = Counter(member.body[:2] for member in members)
    assert (len(by_prefecture), max(by_prefecture.values()) - min(by_prefecture.values())) == (47, 1)
    assert members[0].psk.hex() not in repr(members[0])
    with pytest.raises(ValueError, match="900"):
        country(47 * 900 + 1, CHANCE)


def test_the_limits_file_has_each_peer_once() -> None:
    members = country(3, CHANCE)
    lines = syncconf(members, X25519PrivateKey.generate(), endpoints=True).splitlines()
    names = Counter(line.partition(" = ")[0] for line in lines)
    assert (names["[Interface]"], names["[Peer]"], names["PublicKey"], names["PresharedKey"]) == (1, 3, 3, 3)
    assert [line for line in lines if line.startswith("Endpoint")] == [
        f"Endpoint = {member.address}:51820" for member in members
    ]
    assert "Endpoint" not in syncconf(members, X25519PrivateKey.generate())


def test_a_controllers_own_figures_are_read_as_it_renders_them() -> None:
    links = [
        LinkFigures(link=f"131016-{n}", body="131016", active=True, sighting=Sighting(handshake_at=at))
        for n, at in ((1, 99.0), (2, None), (3, 98.0))
    ]
    snapshot = Snapshot(
        centre="east", now_s=100.0, links=links, drift={(None, "rogue"): 2}, drops={"port": 4},
        passes={"done": 7, "failed": 1}, pass_age_s=1.5,
    )  # fmt: skip
    told = own_figures(render(snapshot).decode())
    assert (told["up"], told["chukan_links_active"], told["chukan_links_pass_age_seconds"]) == (2, 3, 1.5)
    assert (told["chukan_links_passes_total/done"], told["chukan_links_drift_total/rogue"]) == (7, 2)
    assert told["chukan_link_drops_total/port"] == 4


def test_fewer_than_five_runs_are_no_measurement(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["bench", "links", "--runs", "4", "--json"]) == 2
    refused = json.loads(capsys.readouterr().out)
    assert (refused["code"], refused["pointer"], refused["limit"]) == ("invalid_field", "/runs", 5)


def _check(result: dict[str, Any], links: int) -> None:
    assert (result["bench"], result["quick"], result["settings"]["links"]) == ("links", True, links)
    assert [figure["name"] for figure in result["figures"]] == ["configure", "change", "reconnect"]
    for figure in result["figures"]:
        assert (figure["limit"], figure["runs"], figure["set_size"]) == ("wg syncconf", 1, links)
        assert min(figure["per_s"], figure["limit_per_s"], figure["ratio"]) > 0
    assert 0 < result["memory"]["controller_mib"] < 200


@pytest.mark.full
def test_a_quick_run_measures_a_gateway_and_leaves_nothing() -> None:
    place = state_folder() / f"bench-links-test-{uuid.uuid4().hex[:8]}-{os.getpid()}"
    probe = (
        "import os, sys; from pathlib import Path; from chukan.ops.bench.links_bench import Options, run\n"
        "from chukan.ops.demo.place import Place\n"
        "sys.stdout.write(f'{os.getpid()}\\n'); sys.stdout.flush()\n"
        "where = Place(Path(sys.argv[1]) / 'run', Path(sys.argv[1]) / 'databases')\n"
        "sys.exit(run(Options(runs=1, quick=True, as_json=True, links=60), where))"
    )
    done = subprocess.run(
        [sys.executable, "-c", probe, str(place)], capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )
    if not is_root():
        assert "not_possible_here" in done.stdout + done.stderr
        return
    assert done.returncode == 0, done.stderr[-3000:]
    pid, *_, last = done.stdout.splitlines()
    _check(json.loads(last), 60)
    assert processes_naming(str(place)) == []
    named = subprocess.run(["/usr/sbin/ip", "netns", "list"], capture_output=True, text=True, check=True, timeout=20)
    assert f"ckl-{pid}-" not in named.stdout
