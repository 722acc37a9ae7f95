"""The two ends of the wire: the network and an exchange, each with a key, and a clock that both read."""

import datetime as dt
from typing import NamedTuple

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from chukan.chance import SeededChance
from chukan.clock import ManualClock
from chukan.platform.envelope import Opener, Signer


class Ends(NamedTuple):
    """The network signs, the exchange opens, and the other way round; ``stranger`` has a key that nobody knows."""

    clock: ManualClock
    network: Signer
    exchange: Signer
    stranger: Signer
    opener: Opener
    network_key: Ed25519PrivateKey


@pytest.fixture
def ends() -> Ends:
    clock = ManualClock(dt.datetime(2026, 11, 23, 3, 0, 0, 250_000, tzinfo=dt.UTC))
    chance = SeededChance(1, clock)
    keys = [Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32) for seed in (1, 2, 3)]
    network, exchange, stranger = keys
    known = {"network": network.public_key(), "exchange-east": exchange.public_key()}
    return Ends(
        clock,
        Signer("network", network, clock, chance),
        Signer("exchange-east", exchange, clock, chance),
        Signer("network", stranger, clock, chance),
        Opener(known, clock),
        network,
    )
