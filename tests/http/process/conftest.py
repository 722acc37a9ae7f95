"""An exchange as a process of its own: settings, keys, certificates and a cell with one agency."""

import asyncio
import json
import os
import ssl
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from chukan.clock import SystemClock
from chukan.ops.certificates import Authority
from chukan.ops.demo.config import SigningKey
from chukan.platform.law import Law
from chukan.platform.tls import client_context
from chukan.replication.plain_toml import to_toml
from chukan.tenants import births, directory
from chukan.tenants.keystore import KeyStores
from chukan.tenants.migrate import prepare_cell

CITY = "1310100000000001"


@dataclass
class Running:
    """A running process and the ports that it told on its standard error."""

    process: asyncio.subprocess.Process
    ports: dict[str, int] = field(default_factory=dict)
    lines: list[dict[str, Any]] = field(default_factory=list)
    raw: list[str] = field(default_factory=list)
    listening: asyncio.Event = field(default_factory=asyncio.Event)

    async def read(self) -> None:
        assert self.process.stderr is not None
        async for text in self.process.stderr:
            self.raw.append(text.decode())
            with suppress(ValueError):
                line = json.loads(text)
                self.lines.append(line)
                if line.get("event") == "listening":
                    self.ports[line["stage"]] = line["port"]
                    if "agency" in self.ports:
                        self.listening.set()


@dataclass
class Site:
    """Everything that an exchange needs, in one folder."""

    folder: Path
    cell: Any
    client: ssl.SSLContext

    def settings(self, **changes: Any) -> Path:
        """Write a settings file; ``changes`` are of the site's table, ``host`` of the cell's, ``roots`` a file.

        ``link_hosts`` are of the exchange's table.
        """
        folder, cell = self.folder, self.cell.settings
        roots = changes.get("roots", folder / "ca" / "ca.pem")
        site = {"centre": "east", "sandbox": True, "address_check": False}
        tables = [
            ("site", site | {name: value for name, value in changes.items() if name in site}),
            (
                "cells.here",
                {
                    "host": changes.get("host", str(cell.host)),
                    "port": cell.port,
                    "database": cell.database,
                    "broker_password_file": cell.broker_password_file,
                    "app_password_file": cell.app_password_file,
                },
            ),
            (
                "exchange",
                {
                    "name": "x1",
                    "agency_port": 0,
                    "network_port": 0,
                    "health_port": 0,
                    "tls_certificate_file": folder / "x1" / "certificate.pem",
                    "tls_key_file": folder / "x1" / "key.pem",
                    "tls_ca_file": roots,
                    "signing_key_file": folder / "x1.pem",
                    "directory_key_file": folder / "directory.public.pem",
                    "drain_notice_s": 1.0,
                    "link_hosts": changes.get("link_hosts", []),
                },
            ),
            (
                "network",
                {
                    "url": "https://127.0.0.1:9",
                    "ca_file": roots,
                    "verify_key_file": folder / "network.public.pem",
                },
            ),
            ("keystores", {"east": folder / "keys-east", "west": folder / "keys-west"}),
        ]
        path = folder / "x1.toml"
        path.write_text(to_toml(tables), encoding="utf-8")
        return path

    @asynccontextmanager
    async def running(self, path: Path) -> AsyncIterator[Running]:
        """Run ``chukan exchange`` and read what it logs; it is killed at the end if it has not ended."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "chukan.ops.cli",
            "exchange",
            "--config",
            str(path),
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, "CHUKAN_LOG_LEVEL": "info"},
        )
        running = Running(process)
        reading = asyncio.ensure_future(running.read())
        try:
            yield running
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()
            await reading


@pytest.fixture(scope="module")
def site(embedded_server: Any, make_cell: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Site:
    folder = tmp_path_factory.mktemp("site")
    cell = make_cell(embedded_server, [1])
    clock = SystemClock()
    authority = Authority.create(folder / "ca", "test", clock, "sandbox")
    authority.issue_peer("x1", folder / "x1")
    client = authority.issue_client("tax")
    signing = {name: SigningKey(folder, name) for name in ("x1", "network", "directory")}
    stores = KeyStores({"east": folder / "keys-east", "west": folder / "keys-west"}, environment="sandbox")
    stores.prepare()
    stores.create(1)
    snapshot = directory.first(clock.now(), Law.load().number, "sandbox")
    snapshot = directory.add_agency(snapshot, clock.now(), code=CITY, body="131016", name="city", cell="here")
    tax = directory.ClientRow(
        id="tax", body="131016", kind="system", name="tax", agencies=[CITY], functions=["copies", "records", "queries"]
    )
    signed = directory.sign(directory.add_client(snapshot, clock.now(), tax), signing["directory"].private)

    async def publish() -> None:
        admin = await cell.admin()
        await prepare_cell(admin, "here", {}, "sandbox")
        await births.put_snapshot(admin, 3, signed.body, signed.signature, signed.key)
        await admin.close()

    asyncio.run(publish())
    return Site(folder, cell, client_context(client.certificate, client.key, authority.trusted))
