"""``chukan sandbox``: the simulated neighbours as processes. Each ends cleanly on SIGTERM and loses nothing on SIGKILL.

The configuration files are described by the structs in ``config``. Neither process prints anything; both say in the log
when they serve.
"""

import asyncio
from pathlib import Path

import uvloop
from cyclopts import App

from chukan import log
from chukan.chance import SystemChance
from chukan.clock import SystemClock
from chukan.ops.sandbox.config import CounterpartsConfig, NetworkConfig, read
from chukan.ops.sandbox.counterparts import Counterparts
from chukan.ops.sandbox.listener import Listener, until_told
from chukan.ops.sandbox.network import Network
from chukan.ops.sandbox.network_app import admin_application, check_loopback, network_application
from chukan.platform.law import Law

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
