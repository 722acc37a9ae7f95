"""The national counterpart that asks: told what to ask by its own loopback endpoint, as a ministry's staff would be.

It stands outside the platform and reaches the municipalities through the network alone.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeVar

import aiohttp
import msgspec

from chukan.errors import Problem
from chukan.ops.demo import cast
from chukan.ops.demo.population import Population
from chukan.ops.sandbox.counterpart import Question
from chukan.ops.sandbox.counterparts import AskedIds, AskedView, AskedViews, Questions
from chukan.ops.sandbox.people import addressee_number
from chukan.ops.sandbox.person_values import TAX

PROCEDURE: Final = "JTX0000000000023"
AFFAIR: Final = "JMX0000000000018"
"""Scholarships: the household's means (給付奨学金の家計の審査)."""
_TIMEOUT_S: Final = 30.0
_READY_TIMEOUT_S: Final = 60.0
_DONE_TIMEOUT_S: Final = 60.0
_POLL_S: Final = 0.2
_OK: Final = 200

T = TypeVar("T")


class NationalInquirer:
    """Asks for the national counterpart; close by leaving the context of its session."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        """``url`` is the counterparts' admin endpoint."""
        self._session = session
        self._url = url

    def questions(self, population: Population, count: int, run: int) -> list[Question]:
        """Return local tax questions about people that it knows; other people in a later run."""
        head = cast.head(cast.INQUIRER_KNOWS)
        people = [
            resident.before or resident.now
            for resident in population.residents
            if (resident.before or resident.now).body_code == cast.INQUIRER_KNOWS
        ]
        return [
            Question(
                person=addressee_number(people[(run * count + n) % len(people)], cast.NATIONAL_INQUIRER),
                provider=head,
                affair=AFFAIR,
                procedure=PROCEDURE,
                kind=TAX,
            )
            for n in range(count)
        ]

    async def until_ready(self) -> None:
        """Wait until both counterparts have the codes of all their people. Raises ``Problem`` deadline_exceeded."""
        await self._until(self._has_codes, _READY_TIMEOUT_S)

    async def _has_codes(self) -> bool:
        state = await self._call("GET", "/admin/state", None, dict[str, dict[str, int]])
        return all(one["codes"] == one["people"] for one in state.values())

    async def ask(self, questions: Sequence[Question]) -> list[AskedView]:
        """Ask, and return the lines once they are final, or as they stand past the deadline."""
        path = f"/admin/{cast.NATIONAL_INQUIRER}"
        asked = await self._call("POST", f"{path}/ask", Questions(lines=list(questions)), AskedIds)
        views: list[AskedView] = []

        async def done() -> bool:
            nonlocal views
            views = (await self._call("POST", f"{path}/asked", asked, AskedViews)).lines
            return all(view.outcome is not None for view in views)

        await self._until(done, _DONE_TIMEOUT_S)
        return views

    async def _until(self, holds: Callable[[], Awaitable[bool]], timeout_s: float) -> None:
        try:
            async with asyncio.timeout(timeout_s):
                while not await holds():  # noqa: ASYNC110 - another process cannot set an event of ours
                    await asyncio.sleep(_POLL_S)
        except TimeoutError:
            raise Problem("deadline_exceeded") from None

    async def _call(self, method: str, path: str, body: msgspec.Struct | None, kind: type[T]) -> T:
        content = None if body is None else msgspec.json.encode(body)
        timeout = aiohttp.ClientTimeout(total=_TIMEOUT_S)
        try:
            async with self._session.request(method, self._url + path, data=content, timeout=timeout) as response:
                reply = await response.read()
                if response.status != _OK:
                    raise Problem("network_unavailable")
                return msgspec.json.decode(reply, type=kind)
        except (aiohttp.ClientError, TimeoutError, msgspec.MsgspecError):
            raise Problem("network_unavailable") from None
