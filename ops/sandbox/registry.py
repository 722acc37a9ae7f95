"""The registry network (住基ネット, 機構): hands an acquisition number and a resident code to the network.

It plays the body's own resident-registry system (住基CS) as well: whoever has the number and the synthetic person's
resident code calls ``hand_over``. No exchange ever sees a resident code (番号法施行令27条3・4項).

Invariant: a resident code goes over mutual TLS to the network alone, and into no log, exception or file.
"""

import asyncio
from collections.abc import Sequence
from typing import Final

import msgspec

from chukan.chance import Chance
from chukan.clock import Clock
from chukan.errors import Problem
from chukan.ops.sandbox.acquisition import RegistryReply, refuse_real_people
from chukan.ops.sandbox.config import RegistryConfig, read_private_key, read_public_key
from chukan.ops.sandbox.endpoints import ListRefused, Route, Sender, Unreachable, backoff_s
from chukan.ops.sandbox.network_app import RESIDENT_CODES
from chukan.platform import tls
from chukan.platform.envelope import Opener, Signer
from chukan.platform.wire.network import LINES_MAX, ResidentCode

DEADLINE_S: Final = 60.0
_reply: Final = msgspec.json.Decoder(RegistryReply)


class RegistryClient:
    """Speaks to the network as the registry network; bound to one event loop, ``close`` when done."""

    def __init__(self, config: RegistryConfig, clock: Clock, chance: Chance) -> None:
        signer = Signer(config.name, read_private_key(config.signing_key_file), clock, chance)
        opener = Opener({config.network_name: read_public_key(config.network_verify_key_file)}, clock)
        context = tls.client_context(config.tls.certificate_file, config.tls.key_file, config.tls.ca_file)
        self._sender = Sender(signer, opener, context)
        self._route = Route("network", [config.network_url.rstrip("/")], frozenset({config.network_name}), clock)
        self._chance = chance

    async def hand_over(self, pairs: Sequence[tuple[str, str]], *, deadline_s: float = DEADLINE_S) -> int:
        """Hand over (acquisition number, resident code) pairs; returns how many the network accepted.

        A pair whose number is not open any more and never was used is not accepted. Asked again until the deadline;
        a repeat has no second effect.

        Raises:
            Problem: number_not_synthetic, before anything leaves, for a code outside the reserved range;
                network_unavailable past the deadline; invalid_field when a list was refused.
        """
        refuse_real_people(code for _, code in pairs)
        accepted = 0
        try:
            async with asyncio.timeout(deadline_s):
                for start in range(0, len(pairs), LINES_MAX):
                    accepted += await self._list(pairs[start : start + LINES_MAX])
        except TimeoutError:
            raise Problem("network_unavailable") from None
        return accepted

    async def _list(self, pairs: Sequence[tuple[str, str]]) -> int:
        lines = [ResidentCode(number=number, resident_code=code) for number, code in pairs]
        replies = await self._send([msgspec.json.encode(line) for line in lines])
        return sum(_reply.decode(reply).status == "accepted" for reply in replies)

    async def _send(self, items: Sequence[bytes]) -> list[bytes]:
        tries = 0
        while True:
            try:
                return await self._sender.post(self._route, RESIDENT_CODES, items)
            except ListRefused:
                raise Problem("invalid_field") from None
            except Unreachable:
                await asyncio.sleep(backoff_s(tries, self._chance))
                tries += 1

    async def close(self) -> None:
        """Close the connections."""
        await self._sender.close()
