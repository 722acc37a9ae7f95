"""How fast a gateway calls its devices: not all 2,500 at once, or it takes their answers for a flood.

A peer that is given an endpoint and a keepalive is called at once. wireguard-go counts what waits in its queue of
handshakes, answers included; past 128 it thinks itself attacked and sends cookies for a second, and a device whose
answer met one is called again only after REKEY_TIMEOUT, five seconds. (Measured with 2,500: 60% met one, and the last
session was back after 6 s; called in groups there is no cookie.)

Invariant: pure. Who is called, and with what, is the plan's; here it is only said when. The peers are there, with keys
and prefixes, before the first is called, so that whoever comes by himself is let in.
"""

from collections.abc import Sequence
from typing import Final

import msgspec

from chukan.vpn.model import Put, Step

GROUP: Final = 64
EVERY_S: Final = 0.05
"""1,280 calls a second, of some 0.5 ms of a core each."""


def in_groups(steps: Sequence[Step]) -> tuple[list[Step], list[list[Step]]]:
    """Return the steps without their calls, in order, and the calls by groups; few calls are left where they are."""
    calling = [step for step in steps if isinstance(step, Put) and _calls(step)]
    if len(calling) <= GROUP:
        return list(steps), []
    quiet = [_quietly(step) if isinstance(step, Put) and _calls(step) else step for step in steps]
    first = [step for step in quiet if not isinstance(step, Put) or _does_anything(step)]
    calls: list[Step] = [Put(wanted=step.wanted, endpoint=step.endpoint, keepalive=True) for step in calling]
    return first, [calls[at : at + GROUP] for at in range(0, len(calls), GROUP)]


def _calls(step: Put) -> bool:
    return step.keepalive and step.wanted.keepalive_s > 0 and step.wanted.endpoint is not None


def _quietly(step: Put) -> Put:
    return msgspec.structs.replace(step, endpoint=False, keepalive=False)


def _does_anything(step: Put) -> bool:
    return step.new or step.psk or step.allowed or step.endpoint or step.keepalive
