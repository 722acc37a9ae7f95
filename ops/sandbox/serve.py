"""``chukan sandbox``: the simulated neighbours as processes. Each ends cleanly on SIGTERM and loses nothing on SIGKILL.

The configuration files are described by the structs in ``config``. Neither process prints anything; both say in the log
when they serve.
"""

import asyncio
import hashlib
from collections.abc import Sequence
from pathlib import Path

import uvloop
from cyclopts import App
from rich.console import Console

from chukan import log
from chukan.chance import SystemChance
from chukan.clock import SystemClock
from chukan.errors import Problem
from chukan.ops.sandbox.config import CounterpartsConfig, NetworkConfig, RegistryConfig, read
from chukan.ops.sandbox.counterparts import Counterparts
from chukan.ops.sandbox.listener import Listener, until_told
from chukan.ops.sandbox.network import Network
from chukan.ops.sandbox.network_app import admin_application, check_loopback, network_application
from chukan.ops.sandbox.registry import RegistryClient
from chukan.platform.law import Law
from chukan.tenants.numbers import SYNTHETIC_RANGE, SYNTHETIC_RESIDENT_PREFIX, resident_check

app = App(name="sandbox", help="Serve the simulated neighbours: the network and national agencies.")
_log = log.get("sandbox")


@app.command
def network(*, config: Path) -> None:
    """Serve the simulated information-provision network until told to end.

    Parameters
    ----------
    config
        Configuration file (TOML).
    """
    settings = read(config, NetworkConfig)
    check_loopback(settings.admin_host)
    uvloop.run(until_told(lambda told: serve_network(settings, told)))


@app.command
def counterparts(*, config: Path) -> None:
    """Serve the simulated national agencies until told to end.

    Parameters
    ----------
    config
        Configuration file (TOML).
    """
    settings = read(config, CounterpartsConfig)
    check_loopback(settings.admin_host)
    uvloop.run(until_told(lambda told: serve_counterparts(settings, told)))


@app.command
def registry(*numbers: str, config: Path, person: str) -> None:
    """Play the resident registry: hand acquisition numbers of one made-up person to the network.

    Parameters
    ----------
    numbers
        Acquisition numbers, one of each agency that shall know the person.
    config
        The counterparts' configuration, e.g. var/demo/config/counterparts.toml.
    person
        Any name for the person: the same name is the same person (and resident code) at every call.
    """
    settings = read(config, CounterpartsConfig).registry
    taken = asyncio.run(_hand_over(settings, resident_code_of(person), numbers))
    if taken < len(numbers):
        raise Problem("not_found")
    Console().print(f"{taken} handed over; codes/search tells 'active' in a moment.")


async def _hand_over(settings: RegistryConfig, resident: str, numbers: Sequence[str]) -> int:
    clock = SystemClock()
    client = RegistryClient(settings, clock, SystemChance(clock))
    try:
        return await client.hand_over([(number, resident) for number in numbers])
    finally:
        await client.close()


def resident_code_of(person: str) -> str:
    """The resident code of a made-up person, always the same, from the synthetic range."""
    drawn = int.from_bytes(hashlib.sha256(person.encode()).digest()) % SYNTHETIC_RANGE
    body = f"{SYNTHETIC_RESIDENT_PREFIX}{drawn:08d}"
    return body + resident_check(body)


async def serve_network(settings: NetworkConfig, told: asyncio.Event) -> None:
    """Run the network until ``told``."""
    clock = SystemClock()
    served = Network(settings, Law.load(settings.law_directory), clock, SystemChance(clock))
    await served.start()
    listeners = [
        Listener(network_application(served), settings.host, settings.port, settings.tls),
        Listener(admin_application(served), settings.admin_host, settings.admin_port),
    ]
    try:
        for listener in listeners:
            await listener.start()
        _log.info("network serving", port=settings.port)
        await told.wait()
    finally:
        for listener in listeners:
            await listener.stop()
        await served.stop()


async def serve_counterparts(settings: CounterpartsConfig, told: asyncio.Event) -> None:
    """Run the national agencies until ``told``."""
    clock = SystemClock()
    served = Counterparts(settings, Law.load(settings.law_directory), clock, SystemChance(clock))
    try:
        await served.start()
        _log.info("counterparts serving", port=settings.admin_port)
        await told.wait()
    finally:
        await served.stop()
