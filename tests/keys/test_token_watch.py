"""An exchange tells within seconds which centre's token does not answer, before anybody needs it."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from chukan.clock import SystemClock
from chukan.ops.key_watch import KeyWatch
from chukan.tenants import directory
from chukan.tenants.directory import Directory
from chukan.tenants.key_token import TokenKeyStore
from chukan.tenants.keystore import KeyStores
from chukan.tests.support.tokens import Tokens


@pytest.mark.requirement("SEC-01")
async def test_a_token_that_is_away_is_told_and_so_is_its_return(
    tokens: Tokens, make_token_store: Callable[..., TokenKeyStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chukan.tenants.key_token.AGAIN_S", 0.05)
    stores: Any = {centre: make_token_store(centre) for centre in ("east", "west")}
    keystores = KeyStores(stores)
    keystores.prepare()
    told: dict[str, bool] = {}
    common = Directory(directory.first(SystemClock().now(), 1))
    watch = KeyWatch(keystores, lambda: common, told.__setitem__)
    await watch.look()
    assert told == {"east": True, "west": True}
    tokens.take("west")
    await watch.look()
    assert told == {"east": True, "west": False}
    tokens.give_back("west")
    async with asyncio.timeout(20):
        while not told["west"]:
            await watch.look()
    assert told == {"east": True, "west": True}
