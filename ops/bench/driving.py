"""Drives the exchanges as municipal systems do: by the agency API, over mutual TLS, with connections that are kept.

Invariant: a round trip counts only when its answer is in the client's hands, ``provided``, with its content. Anything
else, also a line that is late or a call that an exchange turned away, ends the benchmark (``RoundTripError``): nothing
is repeated and nothing is left out.
"""

import itertools
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final

from chukan.ops.bench.figures import Sample
from chukan.ops.bench.questions import Question
from chukan.ops.demo import cast
from chukan.ops.demo.bring_up import Running
from chukan.ops.demo.systems import for_each
from chukan.ops.sandbox.agency_client import AgencyClient
from chukan.ops.sandbox.systems import BusinessSystem
from chukan.ops.sandbox.transport import ClientError, Connection
from chukan.platform.wire.agency import QueryLineView

ASK_WAIT_S: Final = 20
LIST_TIMEOUT_S: Final = 120.0

Client = Callable[[int], Awaitable[None]]


class RoundTripError(Exception):
    """A round trip that did not end as it must; ``what`` is a code or an outcome, never a value."""

    def __init__(self, what: str) -> None:
        self.what = what
        super().__init__(what)


def check(views: Sequence[QueryLineView], expected: int) -> None:
    """Raise ``RoundTripError`` unless ``expected`` lines are there, all collected and provided with content."""
    if len(views) != expected:
        raise RoundTripError(f"{len(views)} lines of {expected}")
    for view in views:
        if view.problem is not None:
            raise RoundTripError(view.problem.code)
        if view.outcome != "provided" or view.state != "collected" or view.content is None:
            raise RoundTripError(f"{view.state}, {view.outcome or 'no outcome'}")


class Driver:
    """The business systems of the inquirers, each with its questions; ``open_driver`` makes one."""

    def __init__(self, clients: Mapping[str, AgencyClient], questions: Mapping[str, Sequence[Question]]) -> None:
        self._systems = {code: BusinessSystem(client) for code, client in clients.items()}
        self._codes = list(questions)
        # Later runs go on where earlier ones ended.
        self._lines = {code: itertools.cycle([each.line for each in asked]) for code, asked in questions.items()}

    async def singles(self, clients: int, seconds: float) -> Sample:
        """Let each of ``clients`` ask one line after the other, waiting for each answer, until the time is over."""
        taken_s: list[float] = []
        began = time.monotonic()

        async def one(client: int) -> None:
            code = self._codes[client % len(self._codes)]
            while time.monotonic() - began < seconds:
                asked = time.monotonic()
                check([await self._systems[code].ask(next(self._lines[code]), wait_s=ASK_WAIT_S)], 1)
                taken_s.append(time.monotonic() - asked)

        await self._at_once(one, clients)
        return Sample(len(taken_s), time.monotonic() - began, taken_s)

    async def lists(self, clients: int, size: int, seconds: float) -> Sample:
        """Let each of ``clients`` send and collect lists of ``size`` lines, at least one, until the time is over."""
        taken_s: list[float] = []
        began = time.monotonic()

        async def one(client: int) -> None:
            code = self._codes[client % len(self._codes)]
            system = self._systems[code]
            while True:
                asked = time.monotonic()
                batch = await system.ask_batch(list(itertools.islice(self._lines[code], size)))
                batch = await system.collect(await system.settle(batch, timeout_s=LIST_TIMEOUT_S))
                check(batch.lines, size)
                taken_s.append(time.monotonic() - asked)
                if time.monotonic() - began >= seconds:
                    return

        await self._at_once(one, clients)
        return Sample(len(taken_s) * size, time.monotonic() - began, taken_s)

    @staticmethod
    async def _at_once(one: Client, clients: int) -> None:
        try:
            await for_each(range(clients), one, at_once=clients)
        except ClientError as error:
            raise RoundTripError(error.code) from None


@asynccontextmanager
async def open_driver(running: Running, questions: Mapping[str, Sequence[Question]]) -> AsyncIterator[Driver]:
    """Give the inquirers' systems; each reaches the exchange of its home centre only, so that no failure is hidden."""
    async with AsyncExitStack() as stack:
        clients = {
            code: await stack.enter_async_context(AgencyClient(_connection(running, code))) for code in questions
        }
        yield Driver(clients, questions)


def _connection(running: Running, agency: str) -> Connection:
    issued = running.credentials.clients[cast.system_of(agency)]
    return Connection(
        agency=agency,
        urls=[running.addresses.home_url(agency)],
        ca=running.credentials.authority.trusted,
        certificate=issued.certificate,
        key=issued.key,
    )
