"""The loop of an exchange that follows the key stores: a rotation takes effect here without a restart.

It also tells whether each centre's token (HSM) answers: nobody would notice one that is lost before a restart needs it.

Keys are loaded in a thread before anybody needs them, so that no request waits for an HSM, and an HSM that is lost
takes nothing from what is in memory. A look at a store that has not changed asks no HSM.

Invariant: the loop never ends by itself; what cannot be read is tried again at the next look.
"""

import asyncio
from collections.abc import Callable
from typing import Final

from chukan import log
from chukan.tenants.directory import Directory
from chukan.tenants.key_token import TokenAwayError, TokenKeyStore
from chukan.tenants.keystore import KeyStores

LOOK_S: Final = 5.0
"""A rotation is followed within this, and the time that a look takes."""
AGENCIES_PER_THREAD: Final = 50

_log = log.get("keystore")


class KeyWatch:
    """Follows the keys of the open agencies; ``directory`` gives the common data in force."""

    def __init__(
        self,
        keystores: KeyStores,
        directory: Callable[[], Directory],
        tell: Callable[[str, bool], None] = lambda _centre, _usable: None,
    ) -> None:
        """``tell(centre, usable)`` hears of each token at each look."""
        self._keystores, self._tell = keystores, tell
        self._directory = directory
        self._failed = 0

    async def run(self) -> None:
        """Look again and again."""
        while True:
            await self.look()
            await asyncio.sleep(LOOK_S)

    async def look(self) -> None:
        """Look once, in small bites: a process that is told to stop waits for one of them."""
        for centre, store in self._keystores.stores.items():
            if isinstance(store, TokenKeyStore):
                self._tell(centre, await asyncio.to_thread(_answers, store))
        numbers = [row.number for row in self._directory().snapshot.agencies if row.state == "open"]
        failed = 0
        for start in range(0, len(numbers), AGENCIES_PER_THREAD):
            bite = numbers[start : start + AGENCIES_PER_THREAD]
            failed += await asyncio.to_thread(self._keystores.follow, bite)
        # What was closed meanwhile is not brought back by a look that began before.
        for row in self._directory().snapshot.agencies:
            if row.state != "open":
                self._keystores.forget(row.number)
        if failed != self._failed:
            self._failed = failed
            _log.warning("keys that cannot be loaded", count=failed)


def _answers(store: TokenKeyStore) -> bool:
    try:
        store.probe()
    except TokenAwayError:
        return False
    return True
