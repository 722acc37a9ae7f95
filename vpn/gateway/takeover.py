"""Who serves the devices of one tunnel (mode ``service``): the holder of a lease in the database, and nobody else.

Both centres have the same key on a second interface; only the holder gives it peers, with the devices' last endpoints,
and calls them itself: a device follows whoever called it last. Two callers would pull it to and fro, so:

- the holder lets go ``LEASE_MARGIN_S`` before the lease can end, by its own monotonic clock, counted from before it
  asked; it needs nobody's answer for that. The other may take it when it has ended by the database's clock.
- the kernel of the holder's host keeps the tunnel's port open for the same time and no longer (``vpn.firewall``): a
  holder that is frozen lets go too, with its peers still in place, and so does one that was killed alone.
- who asks must be able to serve: not drained, and its own exchange ready. Who waits asks every second; who holds and is
  to be drained gives it back within one.

``Lease`` is pure; ``Takeover`` asks, on time.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Final

from chukan import log
from chukan.clock import Clock
from chukan.errors import Problem
from chukan.vpn.gateway.config import LEASE_MARGIN_S

ASK_TIMEOUT_S: Final = 4.0
FIRST_ASK_S: Final = 0.1
RENEWALS: Final = 4
"""How often a lease is asked for within its time."""
WAITING_S: Final = 1.0
"""How often it is asked for by who does not have it."""

_log = log.get("vpn.gateway.takeover")


class Lease:
    """What is known of the lease here; ``now`` is always the monotonic clock's."""

    def __init__(self, ttl_s: float) -> None:
        """``ttl_s`` must be longer than the margin (``ValueError``)."""
        if ttl_s <= LEASE_MARGIN_S:
            raise ValueError("a lease must be longer than its margin")
        self.ttl_s = ttl_s
        self.epoch: int | None = None
        self._until = 0.0

    def told(self, asked_at: float, epoch: int | None) -> None:
        """Hear the answer to a question that was asked at ``asked_at``: the epoch, or None where another holds it."""
        if epoch is None:
            self.let_go()
            return
        self.epoch = epoch
        self._until = max(self._until, asked_at + self.ttl_s - LEASE_MARGIN_S)

    def let_go(self) -> None:
        """Hold it no longer, whatever the database thinks."""
        self.epoch = None
        self._until = 0.0

    def holds(self, now: float) -> bool:
        """Tell whether this gateway may have the peers at this moment."""
        return self.epoch is not None and now < self._until

    def left_s(self, now: float) -> float:
        """Return for how many seconds it is held from now; 0 where it is not."""
        return self._until - now if self.holds(now) else 0.0

    def until(self) -> float | None:
        """Return when it must have let go; None where it does not hold."""
        return None if self.epoch is None else self._until


Ask = Callable[[float], Awaitable[int | None]]
"""``ask(ttl_s)`` takes or renews the lease: the epoch, or None where another holds it. Raises ``Problem``."""


class Takeover:
    """Holds the lease where it can, and says at once when it changed hands."""

    def __init__(
        self,
        lease: Lease,
        ask: Ask,
        leave: Callable[[], Awaitable[bool]],
        *,
        fit: Callable[[], Awaitable[bool]],
        drained: Callable[[], bool],
        renewed: Callable[[], Awaitable[None]],
        changed: Callable[[bool], Awaitable[bool]],
        clock: Clock,
    ) -> None:
        """Put it together; nothing is asked yet.

        Args:
            lease: what is known of it.
            ask: the question.
            leave: gives the lease back. Raises ``Problem``.
            fit: whether this centre can serve; has a deadline of its own and raises nothing.
            drained: whether the service is to be given to the other centre; asked often.
            renewed: called whenever it was taken or renewed, before ``changed``: has the kernel serve as long as it
                lasts. It raises nothing.
            changed: called with whether it is held now. With False it takes the peers away before it returns, and
                waits for no database; it raises nothing, and returns whether nobody is served any more for sure.
            clock: of which the monotonic hand counts.
        """
        self._lease = lease
        self._ask = ask
        self._leave = leave
        self._fit = fit
        self._drained = drained
        self._renewed = renewed
        self._changed = changed
        self._clock = clock
        self._held = False
        self._unheard = False
        self._due = asyncio.Event()

    def holds(self) -> bool:
        """Tell whether this gateway may have the peers now."""
        return self._lease.holds(self._clock.monotonic())

    async def run(self) -> None:
        """Ask on time until cancelled, and see to it that letting go is never late."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._renew(), name="service lease")
            group.create_task(self._watch(), name="service lease end")

    async def _renew(self) -> None:
        while True:
            self._due.clear()
            await self.once()
            every_s = (self._lease.ttl_s - LEASE_MARGIN_S) / RENEWALS
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(every_s if self._held else min(every_s, WAITING_S)):
                    await self._due.wait()

    async def once(self) -> None:
        """Ask once, where this centre can serve."""
        if not await self._fit():
            held = self._held
            self._lease.let_go()
            if await self._notice() and held:
                await self._give_back()
            return
        asked_at = self._clock.monotonic()
        try:
            async with asyncio.timeout(ASK_TIMEOUT_S):
                self._lease.told(asked_at, await self._ask(self._lease.ttl_s))
        except (Problem, TimeoutError) as error:
            # An unanswered question changes nothing: what is held ends by its time.
            if not self._unheard:
                _log.warning("the lease of the service was not renewed", exc_info=error)
            self._unheard = True
        else:
            self._unheard = False
            if self.holds():
                await self._renewed()
        await self._notice()

    async def _give_back(self) -> None:
        """Let the other centre take it at once, the peers having gone; unheard, it ends by its time."""
        try:
            async with asyncio.timeout(ASK_TIMEOUT_S):
                await self._leave()
        except (Problem, TimeoutError) as error:
            _log.warning("the lease of the service was not given back", exc_info=error)

    async def _watch(self) -> None:
        """Notice the end of a lease that was not renewed, whatever else waits."""
        while True:
            until = self._lease.until()
            left = FIRST_ASK_S if until is None else until - self._clock.monotonic()
            await asyncio.sleep(max(FIRST_ASK_S, min(left, 1.0)))
            await self._notice()
            if self._held and self._drained():
                self._due.set()

    async def _notice(self) -> bool:
        """Say so where it changed hands; return whether what follows from it was done."""
        holds = self.holds()
        if holds == self._held:
            return True
        self._held = holds
        _log.warning("the service changed hands", outcome="taken" if holds else "let go", epoch=self._lease.epoch)
        return await self._changed(holds)
