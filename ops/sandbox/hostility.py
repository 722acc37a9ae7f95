"""Carries out a plan of faults at the network's port: which message meets which fault is drawn from the plan's seed.

A fault strikes a message, or one item of a list. ``counts`` says what really happened, place by place: what a rule asks
for and the message does not allow (an item left out of a list of one, a replay before anything was pushed) is neither
done nor counted.
"""

import asyncio
import datetime as dt
import uuid
from collections import Counter, deque
from collections.abc import Sequence
from typing import Final

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from chukan.chance import SeededChance
from chukan.clock import Clock
from chukan.errors import Problem
from chukan.ops.sandbox import forgery
from chukan.ops.sandbox.faults import (
    PLACE_OF_CALL,
    PLACE_OF_PUSH,
    Call,
    Channel,
    FaultCount,
    FaultCounts,
    FaultName,
    FaultPlan,
    FaultRule,
    Lost,
    Place,
)
from chukan.ops.sandbox.forgery import Forger
from chukan.platform.envelope import OK, Signed, Signer
from chukan.platform.wire.network import LINES_MAX, Envelope

OVERSIZE_BYTES: Final = 17 * 1024 * 1024
REMEMBERED_MAX: Final = 64
"""Pushed items a channel that may be replayed later."""
_STALE: Final = dt.timedelta(hours=1)
_REQUEST: Final = 0

_ERRORS: Final[tuple[tuple[FaultName, str], ...]] = (("error_500", "internal"), ("error_503", "busy"))
_IN_NOTICES: Final[tuple[FaultName, ...]] = (
    "forged_permit",
    "wrong_signature",
    "swapped_path",
    "expired_permit",
    "foreign_permit",
    "other_face",
)
_IN_ANSWERS: Final[tuple[FaultName, ...]] = ("forged_permit", "wrong_signature", "swapped_path", "foreign_permit")
_envelope: Final = msgspec.json.Decoder(Envelope)


Pushed = dict[Channel, deque[bytes]]
"""The newest items that were pushed, by channel."""


class _Behind:
    """The clock of a sender who signed an hour ago."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def now(self) -> dt.datetime:
        return self._clock.now() - _STALE

    def monotonic(self) -> float:
        return self._clock.monotonic()


class PlannedFaults:
    """The faults of one plan, in the name of ``sender``; ``key`` signs what is stale but otherwise genuine."""

    def __init__(
        self,
        plan: FaultPlan,
        *,
        sender: str,
        key: Ed25519PrivateKey,
        means: forgery.Means,
        seen: Pushed | None = None,
    ) -> None:
        """``seen`` is what was pushed under the plan before: it may be replayed under this one."""
        self._plan = plan
        self._draw = SeededChance(plan.seed, means.clock)
        self._chance = means.chance
        self._forger = Forger(means)
        self._foreign = Signer(sender, Ed25519PrivateKey.generate(), means.clock, means.chance)
        self._late = Signer(sender, key, _Behind(means.clock), means.chance)
        self._done: Counter[int] = Counter()
        self._count: Counter[tuple[FaultName, Place]] = Counter()
        self.seen: Pushed = seen or {channel: deque(maxlen=REMEMBERED_MAX) for channel in PLACE_OF_PUSH}

    def counts(self) -> FaultCounts:
        """What happened so far."""
        found = [FaultCount(fault=fault, at=at, times=times) for (fault, at), times in sorted(self._count.items())]
        return FaultCounts(seed=self._plan.seed, counts=found)

    # ------------------------------------------------------------ the port

    async def request(self, call: Call) -> None:
        """Wait, refuse or break the connection before the effect."""
        at = PLACE_OF_CALL[call]
        await self._slow(at)
        for fault, code in _ERRORS:
            if self._strikes(fault, at):
                raise Problem(code)
        if self._strikes("drop_before", at):
            raise Lost

    async def reply(self, call: Call, items: Sequence[bytes]) -> Sequence[bytes]:
        """Break the connection after the effect, or change the reply's items."""
        at = PLACE_OF_CALL[call]
        if self._strikes("drop_after", at):
            raise Lost
        changed = self._changed(at, list(items))
        if self._strikes("extra_item", at):
            changed.append(forgery.renamed(self._any(items), self._chance.uuid7()))
        return changed[:LINES_MAX]

    async def push(self, channel: Channel, items: Sequence[bytes]) -> Sequence[Sequence[bytes]]:
        """Wait, lose the push, add to it what is forged or old, change it, or send it twice."""
        at = PLACE_OF_PUSH[channel]
        await self._slow(at)
        if self._strikes("drop_before", at):
            raise Lost
        made = self._spoiled(channel, list(items)) + self._forged(channel, items)
        if self._strikes("extra_item", at):
            made.append(msgspec.json.encode({"id": self._chance.uuid7(), "nonsense": True}))
        sent = self._changed(at, made)[:LINES_MAX]
        return [sent, sent] if self._strikes("repeated", at) else [sent]

    async def pushed(self, channel: Channel, items: Sequence[bytes]) -> None:
        """Remember what was pushed, or lose the acknowledgements."""
        self.seen[channel].extend(items)
        if self._strikes("drop_after", PLACE_OF_PUSH[channel]):
            raise Lost

    def envelope(self, at: Place, signed: Signed) -> Signed:
        """Sign a list again wrongly, or damage it."""
        if signed.status not in {_REQUEST, OK}:
            return signed
        for fault, signer in (("wrong_key", self._foreign), ("stale", self._late)):
            if self._strikes(fault, at):  # type: ignore[arg-type] # the tuple's literals are fault names
                signed = _signed_by(signer, signed)
        if self._strikes("unsigned", at):
            bare = {name: value for name, value in signed.headers.items() if not name.startswith("signature")}
            signed = signed._replace(headers=bare)
        if self._strikes("truncated", at):
            signed = signed._replace(body=signed.body[: len(signed.body) // 2])
        return signed

    # ------------------------------------------------------------ drawing

    def _strikes(self, fault: FaultName, at: Place) -> FaultRule | None:
        """The rule by which a fault happens here and now, counted; None where none does."""
        for place, rule in enumerate(self._plan.rules):
            if rule.fault != fault or (rule.at and at not in rule.at):
                continue
            if rule.times is not None and self._done[place] >= rule.times:
                continue
            if rule.share < 1 and self._number(1 << 32) >= rule.share * (1 << 32):
                continue
            self._done[place] += 1
            self._count[fault, at] += 1
            return rule
        return None

    def _number(self, below: int) -> int:
        return int.from_bytes(self._draw.token(4), "big") % below

    def _any(self, items: Sequence[bytes]) -> bytes:
        return items[self._number(len(items))]

    async def _slow(self, at: Place) -> None:
        rule = self._strikes("slow", at)
        if rule is not None:
            await asyncio.sleep(rule.delay_s)

    # ------------------------------------------------------------ lists

    def _forged(self, channel: Channel, items: Sequence[bytes]) -> list[bytes]:
        """Return what is pushed beside the genuine items."""
        at = PLACE_OF_PUSH[channel]
        made: list[bytes] = []
        if channel == "notices":
            made = [self._forger.notice(fault, self._any(items)) for fault in _IN_NOTICES if self._strikes(fault, at)]
        elif channel == "answers":
            made = [self._forger.answer(fault, self._any(items)) for fault in _IN_ANSWERS if self._strikes(fault, at)]
        if self.seen[channel] and self._strikes("replayed", at):
            made.append(forgery.renamed(self._any(self.seen[channel]), self._chance.uuid7()))
        return made

    def _spoiled(self, channel: Channel, items: list[bytes]) -> list[bytes]:
        full = [place for place, item in enumerate(items) if channel == "answers" and forgery.has_content(item)]
        if full and self._strikes("unreadable_answer", PLACE_OF_PUSH[channel]):
            place = full[self._number(len(full))]
            items[place] = forgery.spoiled(items[place])
        return items

    def _changed(self, at: Place, items: list[bytes]) -> list[bytes]:
        """Return a list after what strikes it as a list."""
        place = self._number(len(items))
        if self._strikes("wrong_ids", at):
            items[place] = forgery.renamed(items[place], self._chance.uuid7())
        if len(items) > 1 and self._strikes("reordered", at):
            items = [*items[place:], *items[:place]] if place else items[::-1]
        if len(items) > 1 and self._strikes("fewer_items", at):
            del items[place]
        if self._strikes("malformed", at):
            items[0] = b'{"id":}'
        if self._strikes("oversized", at):
            items[0] = b'{"id":"' + str(uuid.uuid5(uuid.NAMESPACE_OID, at)).encode() + b'","pad":"'
            items[0] += b"x" * OVERSIZE_BYTES + b'"}'
        return items


def _signed_by(signer: Signer, signed: Signed) -> Signed:
    """Return the same list signed by somebody else; one that is no JSON any more as it is."""
    try:
        items = [bytes(item) for item in _envelope.decode(signed.body).items]
    except msgspec.MsgspecError:
        return signed
    if signed.status == _REQUEST:
        return signer.request(signed.method, signed.path, items)
    return signer.reply(items, uuid.UUID(signed.headers["chukan-in-reply-to"]))
