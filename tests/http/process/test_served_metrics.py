"""What Prometheus really gets of an exchange: others' text files, ages of common data, ends of certificates."""

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import aiohttp
import pytest
from cryptography import x509
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from chukan.clock import SystemClock
from chukan.ops import pgbackrest
from chukan.ops.certificates import Authority
from chukan.ops.drills import figures
from chukan.ops.drills.report import Report
from chukan.ops.drills.verdict import Verdict
from chukan.ops.pgbackrest import Made
from chukan.platform import certificate_ends
from chukan.platform.certificate_ends import CertificateEnds, Peer
from chukan.platform.textfiles import BYTES_MAX, SAMPLES_MAX, Textfiles
from chukan.platform.tls import client_context, server_context

Series = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def parsed(text: str) -> Series:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def verdict() -> Verdict:
    return Verdict(
        acknowledged=9, lost=0, duplicates=0, two_writers=0, wrong_answers=0, outage_s={"home-east-near": 2.5},
        after_word_s=None, requests=9, failed_requests=0, refused_requests=0, in_doubt={}, outcomes={}, faults=[],
        bounds=[], claims=[],
    )  # fmt: skip


def report() -> Report:
    return Report(
        id="1", scenario="switchover", title_ja="", title_en="", breaks_ja="", breaks_en="", topology="2+2", site="x",
        begun_at="2026-11-23T01:02:03.000+00:00", seconds=1.0, version="", verdict=verdict(), passed=True,
        load_from=0.0, load_to=1.0, events=[], changes=[], stretches=[], gaps=[],
    )  # fmt: skip


def made(cell: str, centre: str, ended: int, *, damaged: bool = False) -> Made:
    return Made(cell, centre, "x", "full", ended - 9, ended, 1, damaged)


def write_all(folder: Path) -> None:
    """Write what a drill and the backups of two hosts write, with two files that are no metrics of ours."""
    folder.mkdir()
    figures.write(folder, [report()])
    pgbackrest.write_metrics(folder / "a.prom", [made("east", "east", 1_000), made("east", "east", 2_000)])
    pgbackrest.write_metrics(
        folder / "b.prom", [made("west", "west", 3_000), made("west", "west", 4_000, damaged=True)]
    )
    (folder / "malformed.prom").write_text("chukan_drill_x{a=", "utf-8")
    (folder / "stranger.prom").write_text("# TYPE chukan_ready gauge\nchukan_ready 1\n", "utf-8")
    (folder / "other.txt").write_text("no metrics at all", "utf-8")


async def served(running: Any, holds: Callable[[Series], bool]) -> Series:
    """Read /metrics until something holds; another process has no event of ours."""
    async with asyncio.timeout(60), aiohttp.ClientSession() as client:
        await running.listening.wait()
        while True:
            async with client.get(f"http://127.0.0.1:{running.ports['health']}/metrics") as answer:
                found = parsed(await answer.text())
            if holds(found):
                return found
            with suppress(TimeoutError):
                async with asyncio.timeout(0.1):
                    await asyncio.Event().wait()


class Shown:
    """A TLS server that shows a certificate and says nothing."""

    def __init__(self, issued: Any, ca: Path) -> None:
        self._context = server_context(issued.certificate, issued.key, ca)
        self.ends = x509.load_pem_x509_certificate(issued.certificate.read_bytes()).not_valid_after_utc.timestamp()
        self.port = 0

    async def __aenter__(self) -> Self:
        async def quiet(_reader: Any, writer: asyncio.StreamWriter) -> None:
            with suppress(OSError):
                await _reader.read()
            writer.close()

        self._server = await asyncio.start_server(quiet, "127.0.0.1", 0, ssl=self._context)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()


def with_more(path: Path, port: int, folder: Path) -> Path:
    text = path.read_text("utf-8").replace("https://127.0.0.1:9", f"https://127.0.0.1:{port}")
    path.write_text(f'{text}\n[metrics]\ntextfiles = "{folder}"\n', "utf-8")
    return path


@pytest.fixture
async def network(site: Any) -> AsyncIterator[Shown]:
    authority = Authority(site.folder / "ca", SystemClock())
    issued = authority.issue_peer("network", site.folder / f"network-{time.monotonic_ns()}", days=40)
    async with Shown(issued, authority.trusted) as shown:
        yield shown


@pytest.mark.requirement("OPS-02", "PLT-04")
async def test_an_exchange_serves_what_drills_and_backups_wrote(site: Any, network: Shown, tmp_path: Path) -> None:
    folder = tmp_path / "prom"
    write_all(folder)
    async with site.running(with_more(site.settings(), network.port, folder)) as running:
        told = await served(running, lambda found: found.get(("chukan_textfiles_read", ()), 0) > 0)
        assert told["chukan_textfiles_read", ()] == 3
        assert told["chukan_textfiles_refused", ()] == 2
        switchover = (("scenario", "switchover"),)
        assert told["chukan_drill_last_passed", switchover] == 1
        assert told["chukan_drill_rto_seconds", (("group", "home-east-near"), *switchover)] == 2.5
        name = "chukan_backup_last_success_timestamp_seconds"
        ended = {labels: value for (which, labels), value in told.items() if which == name}
        assert ended == {
            (("cell", "east"), ("repo", "east")): 2_000.0, (("cell", "west"), ("repo", "west")): 3_000.0,
        }  # fmt: skip
        # Its own word about itself is not overlaid by anybody's file.
        assert len([key for key in told if key[0] == "chukan_ready"]) == 1


@pytest.mark.requirement("OPS-02", "SEC-02")
async def test_an_exchange_tells_the_age_of_the_common_data_of_each_cell(
    site: Any, network: Shown, tmp_path: Path
) -> None:
    cell = (("cell", "here"),)
    async with site.running(with_more(site.settings(), network.port, tmp_path)) as running:
        told = await served(running, lambda found: found.get(("chukan_ready", ()), 0) == 1)
        assert 0 <= told["chukan_common_data_age_seconds", cell] < 5


@pytest.mark.requirement("OPS-02")
async def test_an_exchange_tells_when_certificates_end_its_own_and_those_it_is_shown(
    site: Any, network: Shown, tmp_path: Path
) -> None:
    peer = ("chukan_peer_certificate_expiry_timestamp_seconds", (("peer", "network"),))
    async with site.running(with_more(site.settings(), network.port, tmp_path)) as running:
        told = await served(running, lambda found: peer in found)
        assert told[peer] == network.ends
    roots = x509.load_pem_x509_certificate((site.folder / "ca" / "ca.pem").read_bytes())
    name = "chukan_authority_expiry_timestamp_seconds"
    ends = {labels[0][1]: value for (which, labels), value in told.items() if which == name}
    assert set(ends) == {"agencies", "network", "issuing"}
    assert ends["agencies"] == roots.not_valid_after_utc.timestamp()
    assert ends["issuing"] < ends["agencies"]
    assert told["chukan_certificate_expiry_timestamp_seconds", ()] < ends["issuing"]


# ---------------------------------------------------------------- bounds


def read(folder: Path) -> Series:
    registry = CollectorRegistry()
    Textfiles(folder, registry).look()
    return parsed(generate_latest(registry).decode())


@pytest.mark.parametrize(
    "content",
    [
        b"chukan_drill_x 1\n" + b"#" * BYTES_MAX,
        b"# TYPE chukan_drill_x gauge\n" + b"".join(b'chukan_drill_x{n="%d"} 1\n' % n for n in range(SAMPLES_MAX + 1)),
        b"# TYPE chukan_drill_x counter\nchukan_drill_x_total 1\n",
        b"# TYPE up gauge\nup 1\n",
        b'# TYPE chukan_drill_x gauge\nchukan_drill_x{a="%s"} 1\n' % (b"x" * 100),
        b"# TYPE chukan_drill_x gauge\nchukan_drill_x what\n",
        b"\xff\xfe",
    ],
    ids=["large", "many", "counter", "name", "label", "value", "bytes"],
)
def test_a_file_that_is_not_ours_is_counted_and_not_served(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "one.prom").write_bytes(content)
    assert read(tmp_path) == {("chukan_textfiles_read", ()): 0, ("chukan_textfiles_refused", ()): 1}


def test_what_cannot_be_opened_is_counted_and_a_folder_that_is_not_there_is_empty(tmp_path: Path) -> None:
    (tmp_path / "gone.prom").symlink_to(tmp_path / "nowhere")
    assert read(tmp_path)["chukan_textfiles_refused", ()] == 1
    assert read(tmp_path / "nowhere") == {("chukan_textfiles_read", ()): 0, ("chukan_textfiles_refused", ()): 0}


async def test_a_peer_that_is_away_keeps_its_end_and_does_not_hold_up_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(certificate_ends, "HANDSHAKE_S", 0.5)
    authority = Authority.create(tmp_path / "ca", "x", SystemClock())
    issued = authority.issue_peer("e1", tmp_path / "e1", days=20)
    caller = authority.issue_client("x1", tmp_path / "x1")
    context: ssl.SSLContext = client_context(caller.certificate, caller.key, authority.trusted)
    ends: dict[str, float] = {}

    class Told:
        def peer_certificate(self, peer: str, ends_at: float) -> None:
            ends[peer] = ends_at

    mute = await asyncio.start_server(lambda _reader, _writer: None, "127.0.0.1", 0)
    async with Shown(issued, authority.trusted) as shown:
        peers = [
            Peer.of("patroni-e1", f"https://127.0.0.1:{shown.port}", context),
            Peer.of("patroni-e2", "https://127.0.0.1:9", context),
            Peer("mute", "127.0.0.1", mute.sockets[0].getsockname()[1], context),
        ]
        looking = CertificateEnds(peers, Told())
        assert not await looking.look()
        assert await CertificateEnds(peers[:1], Told()).look()
    assert ends == {"patroni-e1": shown.ends}
    assert not await looking.look()
    assert ends == {"patroni-e1": shown.ends}
    assert 0 < shown.ends - SystemClock().now().timestamp() < 21 * 86_400
    mute.close()
