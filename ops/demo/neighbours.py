"""Configuration of the demo's simulated neighbours: the network, and two national counterparts.

They are other parties: what they are told here is what they would know of a platform, its exchanges' names, addresses
and verification keys. They share no database, key store or setting with it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from chukan.ops.certificates import Issued
from chukan.ops.demo import cast
from chukan.ops.demo.config import SigningKey
from chukan.ops.demo.place import HOST
from chukan.ops.demo.questions import SHORT_LIVED
from chukan.ops.sandbox.person_values import ACCOUNT
from chukan.replication.plain_toml import Tables, Value

NETWORK: Final = "network"
REGISTRY: Final = "registry"
SHORT_LIVED_S: Final = 4.0
"""How long permits of the short-lived procedures are valid: two seconds more than providers leave unused."""
PLATFORM_ROUTE: Final = "platform"
COUNTERPARTS: Final[Mapping[str, str]] = {
    "account-registry": cast.NATIONAL_PROVIDER,
    "student-services": cast.NATIONAL_INQUIRER,
}
"""Peer names of the national counterparts, each with its agency."""


@dataclass(frozen=True, slots=True)
class Neighbourhood:
    """What the configurations of all neighbours are made of; keys and certificates are by peer name."""

    state: Path
    trusted: Path
    ports: Mapping[str, int]
    signing: Mapping[str, SigningKey]
    certificates: Mapping[str, Issued]
    exchanges: Mapping[str, int]
    """Network port of each exchange, by its peer name."""
    agencies: Mapping[str, str]
    """Names of the agencies on the platform, by their codes."""
    people: Mapping[str, int]
    """How many residents began the year in a municipality, by body code."""
    seed: int
    law_directory: Path | None = None
    """Lists of a planned test environment; the shipped ones otherwise."""
    host: str = HOST
    """Where the neighbours listen; their steering wheels are on loopback in any case."""
    evidence: Mapping[str, Path] = field(default_factory=dict)
    """The centres' evidence keys (public), by which the network keeps checkpoints."""
    exchange_hosts: Mapping[str, str] = field(default_factory=dict)
    """Where the exchanges listen, by peer name; ``HOST`` for those that are not named."""

    def tls(self, peer: str) -> Mapping[str, Value]:
        """Return the TLS table of a peer."""
        issued = self.certificates[peer]
        return {"certificate_file": issued.certificate, "key_file": issued.key, "ca_file": self.trusted}

    @property
    def network_url(self) -> str:
        """Where the network listens."""
        return network_url(self.ports, self.host)


def network_url(ports: Mapping[str, int], host: str = HOST) -> str:
    """Return where the network listens, by the names of ports."""
    return f"https://{host}:{ports[NETWORK]}"


def network_tables(around: Neighbourhood) -> Tables:
    """Return the network's configuration (``chukan.ops.sandbox.config.NetworkConfig``)."""
    routes: list[tuple[str, Mapping[str, Value]]] = [
        (
            f"routes.{PLATFORM_ROUTE}",
            {
                "endpoints": [
                    f"https://{around.exchange_hosts.get(name, HOST)}:{port}" for name, port in around.exchanges.items()
                ]
            },
        ),
        *((f"routes.{name}", {"endpoints": [f"https://{around.host}:{around.ports[name]}"]}) for name in COUNTERPARTS),
    ]
    peers: list[tuple[str, Mapping[str, Value]]] = [
        (f"peers.{REGISTRY}", {"verify_key_file": around.signing[REGISTRY].public_file}),
        *((f"peers.{name}", _peer(around, name, PLATFORM_ROUTE)) for name in around.exchanges),
        *((f"peers.{name}", _peer(around, name, name)) for name in COUNTERPARTS),
    ]
    outside = {agency: (cast.entry(agency).name, name) for name, agency in COUNTERPARTS.items()}
    known = {**{code: (name, PLATFORM_ROUTE) for code, name in around.agencies.items()}, **outside}
    return [
        (
            "",
            {
                "name": NETWORK,
                "state_directory": around.state / "network",
                "host": around.host,
                "port": around.ports["network"],
                "admin_port": around.ports["network-admin"],
                "signing_key_file": around.signing[NETWORK].private_file,
                "registry": REGISTRY,
                **_lists(around),
            },
        ),
        ("permit_valid_by_procedure", dict.fromkeys(SHORT_LIVED, SHORT_LIVED_S)),
        ("evidence_key_files", around.evidence),
        ("tls", around.tls(NETWORK)),
        *peers,
        *routes,
        *((f"agencies.{code}", {"name": name, "route": route}) for code, (name, route) in known.items()),
    ]


def _lists(around: Neighbourhood) -> Mapping[str, Value]:
    return {} if around.law_directory is None else {"law_directory": around.law_directory}


def _peer(around: Neighbourhood, name: str, route: str) -> Mapping[str, Value]:
    return {"verify_key_file": around.signing[name].public_file, "route": route}


def registry_table(around: Neighbourhood) -> Mapping[str, Value]:
    """Return the registry network's own settings, without its TLS table."""
    return {
        "name": REGISTRY,
        "network_url": around.network_url,
        "network_name": NETWORK,
        "network_verify_key_file": around.signing[NETWORK].public_file,
        "signing_key_file": around.signing[REGISTRY].private_file,
    }


def counterparts_tables(around: Neighbourhood) -> Tables:
    """Return the national counterparts' configuration (``chukan.ops.sandbox.config.CounterpartsConfig``)."""
    knows = {cast.NATIONAL_PROVIDER: cast.PROVIDER_KNOWS, cast.NATIONAL_INQUIRER: cast.INQUIRER_KNOWS}
    provides = {cast.NATIONAL_PROVIDER: [ACCOUNT], cast.NATIONAL_INQUIRER: []}
    tables: list[tuple[str, Mapping[str, Value]]] = [
        (
            "",
            {
                "state_directory": around.state / "counterparts",
                "admin_port": around.ports["counterparts-admin"],
                "network_url": around.network_url,
                "network_name": NETWORK,
                "network_verify_key_file": around.signing[NETWORK].public_file,
                "seed": around.seed,
                **_lists(around),
            },
        ),
        ("registry", registry_table(around)),
        ("registry.tls", around.tls(REGISTRY)),
    ]
    for name, agency in COUNTERPARTS.items():
        counterpart: Mapping[str, Value] = {
            "name": name,
            "agency": agency,
            "host": around.host,
            "port": around.ports[name],
            "signing_key_file": around.signing[name].private_file,
            "people_body": knows[agency],
            "people_count": around.people[knows[agency]],
            "provides": provides[agency],
        }
        tables += [("[counterparts]", counterpart), ("counterparts.tls", around.tls(name))]
    return tables
