"""A revoked certificate at a real PostgreSQL and a real etcd, run as ``render`` says, with ``pki``'s lists; and what
TLS the two speak."""

import asyncio
import datetime as dt
import ssl
import struct
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest
import uvloop
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from chukan.clock import ManualClock, SystemClock
from chukan.ops import certificate_life as life
from chukan.ops.certificates import Authority, read_certificates
from chukan.platform.certificate_ends import Peer, peer_end
from chukan.platform.revocation_watch import RevocationLists
from chukan.replication import render
from chukan.replication.driver import DRIVER_ERRORS
from chukan.replication.render_revocation import JOINED_PEM
from chukan.replication.revoked import refusing
from chukan.tests.support import tls_scan
from chukan.tests.support.tls_world import BROKER, PASSWORD, World, until

HEALTH: Final = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
LOOPS: Final[list[Callable[[], asyncio.AbstractEventLoop]]] = [asyncio.new_event_loop, uvloop.new_event_loop]


async def reloaded(server: Any) -> None:
    admin = await server.admin()
    before = await admin.fetchval("SELECT pg_conf_load_time()")
    await admin.execute("SELECT pg_reload_conf()")

    async def done() -> bool:
        fresh = await server.admin()
        at = await fresh.fetchval("SELECT pg_conf_load_time()")
        await fresh.close()
        return bool(at > before)

    await until(done)
    await admin.close()


@pytest.mark.requirement("CON-01")
async def test_postgresql_refuses_a_revoked_peer_after_a_reload_and_nobody_else(town: World) -> None:
    async with town.postgresql() as server:
        assert await town.let_in("exchange-east")
        standing = await town.enter(town.context("exchange-east"))
        town.revoke("exchange-east")
        await reloaded(server)
        assert not await town.let_in("exchange-east")
        assert await town.let_in("exchange-west")
        # What stood goes on, until somebody ends it by its name as docs/operators/certificates.md says.
        assert await standing.fetchval("SELECT 1") == 1
        admin = await server.admin()
        ended = "SELECT bool_and(pg_terminate_backend(pid, 5000)) FROM pg_stat_ssl WHERE client_dn = $1"
        assert await admin.fetchval(ended, "/CN=exchange-east") is True
        with pytest.raises(DRIVER_ERRORS):
            await standing.fetchval("SELECT 1")
        await admin.close()


async def test_an_overdue_list_shuts_everybody_out_of_postgresql_as_the_operators_page_says(town: World) -> None:
    """Why ``join`` refuses such lists: this is what it prevents."""
    async with town.postgresql() as server:
        assert await town.let_in("exchange-west")
        long_ago = ManualClock(SystemClock().now() - dt.timedelta(days=8))
        old, _ = life.write_list(Authority(town.authorities["west"].folder, long_ago))
        joined = town.lists / JOINED_PEM
        issuer = town.authorities["west"].issuing.certificate
        joined.write_bytes(_without(joined.read_bytes(), issuer.subject.public_bytes()) + old.read_bytes())
        await reloaded(server)
        assert not await town.let_in("exchange-west")


def _without(content: bytes, issuer: bytes) -> bytes:
    parts = content.split(b"-----BEGIN")[1:]
    lists = [x509.load_pem_x509_crl(b"-----BEGIN" + part) for part in parts]
    pem = serialization.Encoding.PEM
    return b"".join(each.public_bytes(pem) for each in lists if each.issuer.public_bytes() != issuer)


@pytest.mark.requirement("CON-01")
async def test_etcd_refuses_a_revoked_peer_with_no_restart_and_nobody_else(town: World) -> None:
    async with town.etcd():
        assert await town.answers("exchange-east")
        town.revoke("exchange-east")
        assert not await town.answers("exchange-east")
        assert await town.answers("exchange-west")
        town.revoke("exchange-west")
        assert not await town.answers("exchange-west")


async def test_a_standby_asks_nothing_of_a_revoked_primary_as_libpq_reads_the_same_file(town: World) -> None:
    document = yaml.safe_load(render.patroni(town.site, "e1", render.Secrets("s", "r", "w", "p")))["postgresql"]
    told = {key: value for key, value in document["authentication"]["replication"].items() if key.startswith("ssl")}
    words = {**told, "host": "127.0.0.1", "port": town.site.cells["east"].nodes[0].port, "user": BROKER}

    async def let_in() -> bool:
        string = " ".join(f"{key}={value}" for key, value in {**words, "dbname": "chukan"}.items())
        process = await asyncio.create_subprocess_exec(
            str(town.site.postgresql / "psql"),
            string,
            "-Atc",
            "SELECT 1",
            env={"PGPASSWORD": PASSWORD},
            stdout=DEVNULL,
            stderr=PIPE,
        )
        _, said = await process.communicate()
        assert process.returncode == 0 or b"certificate verify failed" in said
        return process.returncode == 0

    async with town.postgresql():
        assert await let_in()
        town.revoke("e1")
        assert not await let_in()


class Told:
    """Remembers the codes of refusals."""

    def __init__(self) -> None:
        self.codes: list[str] = []

    def revocation_list(self, name: str, this_update: float, next_update: float, revoked: int) -> None:
        """Nothing is asked of it here."""

    def revocation_list_usable(self, name: str, *, usable: bool) -> None:
        """Nothing is asked of it here."""

    def access_refused(self, code: str) -> None:
        self.codes.append(code)


@pytest.mark.parametrize("loop", LOOPS)
def test_an_exchange_gives_a_revoked_server_no_password(
    town: World, loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    told, clock = Told(), SystemClock()
    lists = RevocationLists({f.stem: f for f in town.files}, read_certificates(town.trusted), clock, told)

    async def work() -> None:
        async with town.postgresql():
            context = refusing(town.context("exchange-east"), lists.refuses_shown)
            (await town.enter(context)).terminate()
            town.revoke("e1")
            await lists.look()
            with pytest.raises(ssl.SSLCertVerificationError):
                await town.enter(context)
            assert told.codes == ["certificate_revoked"]

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(work())


# ---------------------------------------------------------------- a scan of what is spoken


def login(user: str, database: str) -> bytes:
    """Return the first message to PostgreSQL."""
    words = b"".join(word.encode() + b"\0" for word in ("user", user, "database", database))
    return struct.pack("!II", len(words) + 9, 196608) + words + b"\0"


def as_exchanges_do(peer: Peer) -> float | None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as loop:
        return loop.run(peer_end(peer))


@pytest.mark.requirement("CON-01")
async def test_a_scan_of_postgresql_finds_tls_1_3_alone_and_a_certificate_demanded_of_every_login(
    town: World, tmp_path: Path
) -> None:
    asks = [(BROKER, "chukan"), ("chukan_app", "chukan"), ("chukan_steward", "chukan"), ("postgres", "postgres")]
    asks += [("replicator", "postgres"), ("rewinder", "postgres")]
    messages = tuple(login(*each) for each in asks)
    port = town.site.cells["east"].nodes[0].port
    door = tls_scan.Door(port, messages, refused=lambda answer: answer[:1] in {b"", b"E"}, before=tls_scan.SSL_REQUEST)
    async with town.postgresql():
        assert await asyncio.to_thread(tls_scan.scan, door, town.stranger(tmp_path / "elsewhere")) == []
        # Who has a certificate is asked for the password: the scan's question is one that can be answered.
        assert (await asyncio.to_thread(tls_scan.told, door, town.context("exchange-east"), messages[0]))[:1] == b"R"
        # And its end is seen by whoever is trusted, as PostgreSQL shows it.
        peer = Peer("postgresql-e1", "127.0.0.1", port, town.context("exchange-east"), postgresql=True)
        ends = read_certificates(town.issued["e1"].certificate)[0].not_valid_after_utc.timestamp()
        assert await peer_end(peer) == ends
        assert await asyncio.to_thread(as_exchanges_do, peer) == ends
        assert await peer_end(peer._replace(context=town.stranger(tmp_path / "nobody's"))) is not None
        assert await peer_end(peer._replace(context=ssl.create_default_context())) is None


@pytest.mark.requirement("CON-01")
async def test_a_scan_of_etcd_finds_no_weak_suite_and_a_certificate_demanded(town: World, tmp_path: Path) -> None:
    etcd = town.site.etcd
    async with town.etcd():
        for port in (etcd.client_port, etcd.peer_port):
            # Debian's 3.4 has no option against TLS 1.2, and none of what it signs with there.
            door = tls_scan.Door(port, (HEALTH,), older=True)
            found = await asyncio.to_thread(tls_scan.scan, door, town.stranger(tmp_path / str(port)))
            assert set(found) <= {"signs with SHA-1 or MD5 in TLS 1.2"}
            assert await asyncio.to_thread(tls_scan.told, door, town.context("exchange-east"), HEALTH)
