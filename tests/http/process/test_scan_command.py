"""``chukan scan leaks`` beside a running exchange: cell, files, replies, metrics, log and process; clean, then not."""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from chukan.clock import SystemClock
from chukan.ops.certificates import Authority
from chukan.ops.leaks import running
from chukan.ops.leaks.needles import Needles
from chukan.ops.leaks.search import Search

CITY = "1310100000000001"
NAME, NUMBER, KEY = "走査試験花子", "820573916648201", bytes(range(64, 96))
VALUES = f"{NAME}\n{NUMBER}\nhex:{KEY.hex()}\n"


async def scan(arguments: list[str], folder: Path, **environment: str) -> tuple[int, Any, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "chukan.ops.cli", "scan", "leaks", "--json", *arguments,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "TMPDIR": str(folder), **environment},
    )  # fmt: skip
    async with asyncio.timeout(90):
        out, err = await process.communicate(VALUES.encode())
    return process.returncode or 0, json.loads(out), (out + err).decode()


@pytest.fixture
def tax(site: Any, tmp_path: Path) -> tuple[Path, Path, Path]:
    authority = Authority(site.folder / "ca", SystemClock())
    issued = authority.issue_client("tax", tmp_path / "tax")
    return issued.certificate, issued.key, authority.trusted


@pytest.mark.requirement("TEN-02")
async def test_a_running_exchange_shows_no_planted_value_and_what_its_log_shows_is_found(
    site: Any, tax: tuple[Path, Path, Path], embedded_server: Any, tmp_path: Path
) -> None:
    config, password, log = site.settings(), tmp_path / "password", tmp_path / "exchange.log"
    password.write_text(embedded_server.superuser_password)
    certificate, key, ca = map(str, tax)
    async with site.running(config) as exchange:
        async with asyncio.timeout(60):
            await exchange.listening.wait()
        where = ["--admin-user", embedded_server.superuser, "--admin-password-file", str(password)]
        where += ["--config", str(config), "--folder", str(log), "--no-temp", "--folder", str(embedded_server.log_file)]
        where += ["--api", f"https://localhost:{exchange.ports['agency']}", "--agency", CITY]
        where += ["--certificate", certificate, "--key", key, "--ca", ca]
        port = {"CHUKAN__EXCHANGE__HEALTH_PORT": str(exchange.ports["health"])}
        log.write_text("".join(exchange.raw))
        status, told, _ = await scan(where, tmp_path, **port)
        assert (status, told["clean"]) == (0, True), told
        sorts = {"table", "data directory and WAL", "API reply", "page", "process", "key store", "folder"}
        assert set(told["searched"]) == sorts
        assert told["searched"]["API reply"]["places"] == 9 * 3
        assert told["searched"]["process"]["places"] >= 3
        assert not any(NUMBER in line or NAME in line for line in exchange.raw)

        log.write_text(f"{KEY.hex()} {NUMBER}")
        status, told, text = await scan(["--folder", str(log)], tmp_path)
        assert (status, {hit["line"] for hit in told["found"]}) == (1, {2, 3})
        assert not any(value in text for value in (NAME, NUMBER, KEY.hex()))


def test_a_process_that_would_dump_its_memory_or_names_a_value_is_told() -> None:
    code = "import sys; sys.stdout.write('up\\n'); sys.stdout.flush(); sys.stdin.read()"
    kept = f"import chukan.core_dumps as c; c.forbid(); {code}"
    raise_ = f"import resource as r; r.setrlimit(r.RLIMIT_CORE, (1 << 20, r.getrlimit(r.RLIMIT_CORE)[1])); {code}"
    raise_ = f"open('/proc/self/coredump_filter', 'w').write('33'); {raise_}"
    for program, argument, dumps, names in ((raise_, NUMBER, True, 1), (kept, "quiet", False, 0)):
        search = Search(Needles({1: NUMBER}))
        with subprocess.Popen([sys.executable, "-c", program, argument], stdin=-1, stdout=-1) as process:
            assert process.stdout is not None
            assert process.stdin is not None
            assert process.stdout.readline() == b"up\n"
            running.process(search, process.pid)
            process.stdin.close()
        assert (bool(search.findings), len(search.hits)) == (dumps, names)
        assert not search.unread
