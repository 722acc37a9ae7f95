"""An exchange whose agencies' master keys live in PKCS#11 tokens: a rotation while it serves, and a token that is lost.

What the demo's exchange does with files, with an HSM.
"""

import asyncio
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from chukan import settings
from chukan.chance import SystemChance
from chukan.clock import SystemClock
from chukan.tenants.keystore import KeyStores
from chukan.tests.support.tokens import MODULE, Tokens

CITY = "1310100000000001"
KIND = "TM00000000000089"
ITEMS = {
    "TKX0890000000001": "0001",
    "TKX0890000000002": "みどり銀行",
    "TKX0890000000003": "101",
    "TKX0890000000004": "本店",
    "TKX0890000000005": "1",
    "TKX0890000000006": {"gap": "01"},
    "TKX0890000000007": "ヤマダ　ハナコ",
    "TKX0890000000008": "2026-04-01",
}


class Caller:
    """The agency's system: lodges copies and reads them, and every call must succeed."""

    def __init__(self, client: aiohttp.ClientSession, port: int) -> None:
        self._client = client
        self._base = f"https://localhost:{port}/v1/agencies/{CITY}"

    async def _post(self, path: str, body: Any) -> Any:
        async with self._client.post(
            self._base + path, json=body, headers={"Idempotency-Key": str(uuid.uuid4())}
        ) as answer:
            assert answer.status == 200
            return await answer.json(content_type=None)

    async def lodge(self, addressee: str) -> None:
        copy = {"addressee": addressee, "kind": KIND, "layout": 202506, "effective_from": "2026-04-01", "items": ITEMS}
        assert (await self._post("/copies", {"lines": [copy]}))["lines"][0]["status"] == "done"

    async def reads(self, addressee: str) -> bool:
        page = await self._post("/copies/search", {"keys": [{"addressee": addressee}]})
        return bool(page["copies"][0]["items"] == ITEMS)


async def _versions(site: Any) -> list[int]:
    admin = await site.cell.admin()
    try:
        rows = await admin.fetch("SELECT body FROM a00001.copies")
        return sorted({int.from_bytes(row["body"][1:5], "big") for row in rows})
    finally:
        await admin.close()


def _settings(site: Any, tokens: Tokens, folder: Path) -> Path:
    """Write the exchange's settings with key stores of their own, on tokens."""
    path: Path = site.settings()
    text = path.read_text(encoding="utf-8")
    for centre in ("east", "west"):
        text = text.replace(str(site.folder / f"keys-{centre}"), str(folder / f"keys-{centre}"))
        text += f'\n[key_tokens.{centre}]\nmodule = "{MODULE}"\ntoken = "{centre}"\n'
        text += f'pin_file = "{tokens.pin_file(centre)}"\n'
    made = folder / "x1.toml"
    made.write_text(text, encoding="utf-8")
    return made


@dataclass
class Hsm:
    """Both tokens, an operator's key stores on them, and the settings of an exchange."""

    tokens: Tokens
    operator: KeyStores
    settings: Path


@pytest.fixture
def hsm(site: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hsm]:
    tokens = Tokens(tmp_path / "softhsm")
    monkeypatch.setenv("SOFTHSM2_CONF", str(tokens.conf))
    path = _settings(site, tokens, tmp_path)
    operator = KeyStores.of(settings.load(path, {}), chance=SystemChance(SystemClock()))
    operator.prepare()
    operator.create(1)
    yield Hsm(tokens, operator, path)
    operator.close()


@asynccontextmanager
async def _serving(site: Any, hsm: Hsm) -> AsyncIterator[Caller]:
    connector = aiohttp.TCPConnector(ssl=site.client)
    async with (
        aiohttp.ClientSession(connector=connector) as client,
        asyncio.timeout(60),
        site.running(hsm.settings) as running,
    ):
        await running.listening.wait()
        yield Caller(client, running.ports["agency"])


@pytest.mark.requirement("SEC-01")
async def test_a_rotation_while_an_exchange_serves_and_both_tokens_lost(site: Any, hsm: Hsm) -> None:
    async with _serving(site, hsm) as caller:
        await caller.lodge("A1")
        assert 2 not in await _versions(site)
        assert await asyncio.to_thread(hsm.operator.rotate, 1) == 2
        number = 1
        while 2 not in await _versions(site):  # traffic runs on until the exchange has noticed
            number += 1
            await caller.lodge(f"A{number}")
        hsm.tokens.take("east")
        hsm.tokens.take("west")
        await caller.lodge("A9999")
        for addressee in ("A1", f"A{number}", "A9999"):
            assert await caller.reads(addressee)


@pytest.mark.full
@pytest.mark.requirement("SEC-01")
async def test_an_exchange_starts_with_the_other_centres_token_alone(site: Any, hsm: Hsm) -> None:
    async with _serving(site, hsm) as caller:
        await caller.lodge("B1")
    hsm.tokens.take("east")
    async with _serving(site, hsm) as caller:
        assert await caller.reads("B1")
        await caller.lodge("B2")
