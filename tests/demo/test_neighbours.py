"""What the demo tells its simulated neighbours is what they read."""

from pathlib import Path

import pytest

from chukan.ops.certificates import Issued
from chukan.ops.demo import cast
from chukan.ops.demo.config import SigningKey, write_settings
from chukan.ops.demo.neighbours import (
    COUNTERPARTS,
    NETWORK,
    REGISTRY,
    SHORT_LIVED_S,
    Neighbourhood,
    counterparts_tables,
    network_tables,
)
from chukan.ops.demo.questions import SHORT_LIVED
from chukan.ops.sandbox.config import CounterpartsConfig, NetworkConfig, read
from chukan.platform.law import Law

ADDED = "9902011002000001"
EXCHANGES = {"exchange-east": 3001, "exchange-west": 3002}


@pytest.fixture
def around(tmp_path: Path) -> Neighbourhood:
    peers = [NETWORK, REGISTRY, *COUNTERPARTS, *EXCHANGES]
    return Neighbourhood(
        state=tmp_path / "state",
        trusted=tmp_path / "ca.pem",
        ports={"network": 1, "network-admin": 2, "counterparts-admin": 3, **dict.fromkeys(COUNTERPARTS, 4)},
        signing={name: SigningKey(tmp_path, name) for name in peers},
        certificates={name: Issued(tmp_path / name / "c.pem", tmp_path / name / "k.pem") for name in peers},
        exchanges=EXCHANGES,
        agencies={agency.code: agency.name for agency in cast.agencies()} | {ADDED: "added by an operator"},
        people={cast.PROVIDER_KNOWS: 160, cast.INQUIRER_KNOWS: 140},
        seed=7,
    )


def test_the_network_knows_every_agency_and_who_speaks_for_it(around: Neighbourhood, tmp_path: Path) -> None:
    write_settings(tmp_path / "network.toml", network_tables(around))
    config = read(tmp_path / "network.toml", NetworkConfig)
    ours = {agency.code for agency in cast.agencies()} | {ADDED}
    assert set(config.agencies) == ours | set(COUNTERPARTS.values())
    assert {config.agencies[code].route for code in ours} == {"platform"}
    assert set(config.routes) == {agency.route for agency in config.agencies.values()}
    assert len(config.routes["platform"].endpoints) == 2
    assert config.peers["exchange-west"].route == "platform"
    assert config.peers[REGISTRY].route is None
    assert config.tls.ca_file == tmp_path / "ca.pem"
    assert config.permit_valid_by_procedure == dict.fromkeys(SHORT_LIVED, SHORT_LIVED_S)
    assert config.permit_valid_s > 60


def test_a_national_counterpart_knows_people_of_the_demo(around: Neighbourhood, tmp_path: Path) -> None:
    write_settings(tmp_path / "counterparts.toml", counterparts_tables(around))
    config = read(tmp_path / "counterparts.toml", CounterpartsConfig)
    assert {one.name: one.agency for one in config.counterparts} == dict(COUNTERPARTS)
    provider = next(one for one in config.counterparts if one.agency == cast.NATIONAL_PROVIDER)
    assert (provider.people_body, provider.people_count) == (cast.PROVIDER_KNOWS, 160)
    assert provider.provides
    assert set(provider.provides) <= set(Law.load().kinds)
    assert config.registry.tls.certificate_file == tmp_path / REGISTRY / "c.pem"
    assert config.seed == 7
