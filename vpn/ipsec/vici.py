"""Charon through its VICI socket: what it has, and the steps of a plan carried out.

The library is synchronous. Each call runs in a thread of its own session (one connection to the socket), and every byte
is waited for under a deadline: the library itself waits without one once the first byte of a message has come.

Invariant: nobody who is connected is disturbed by ``get``, or by a step for another's connection. A refusal never says
what was sent or read: the library's texts quote messages, and messages hold keys and identities. So what leaves here is
a ``Problem`` with a code, raised outside of the library's exception, which does not hang on it.
"""

import asyncio
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

from vici import Session  # type: ignore[import-untyped]
from vici.exception import (  # type: ignore[import-untyped]
    CommandException,
    DeserializationException,
    EventUnknownException,
    SessionException,
)

from chukan.errors import Problem
from chukan.vpn.ipsec import messages
from chukan.vpn.ipsec.model import (
    Actual,
    DropSecret,
    Gateway,
    PutConnection,
    PutSecret,
    Step,
    Terminate,
    TerminateOne,
    Unload,
)

T = TypeVar("T")

CALL_S: Final = 5.0
"""One command takes no longer, with all that is streamed for it."""
BATCH_S: Final = 60.0
"""All steps of one plan; 2,500 connections and secrets take 3 s."""
_MESSAGE_MAX: Final = 512 * 1024
"""The longest message that VICI allows."""
_MESSAGES_MAX: Final = 100_000
_AT_ONCE: Final = {"force": "yes", "timeout": -1}
"""The other end is told, and not waited for."""

_Refused = (CommandException, SessionException, EventUnknownException)
_Broken = (OSError, DeserializationException, struct.error, KeyError, ValueError, UnicodeError)


class _Wire:
    """The library's transport, with a deadline for every byte; ``begin`` sets it anew for a command."""

    def __init__(self, connected: socket.socket, timeout_s: float) -> None:
        self.socket = connected
        self._timeout_s = timeout_s
        self._deadline = time.monotonic() + timeout_s

    def begin(self) -> None:
        self._deadline = time.monotonic() + self._timeout_s

    def send(self, packet: bytes) -> None:
        self.socket.settimeout(self._left())
        self.socket.sendall(struct.pack("!I", len(packet)) + packet)

    def receive(self, timeout: object = None) -> bytes:  # noqa: ARG002 (the library's signature)
        (length,) = struct.unpack("!I", self._exactly(4))
        if length > _MESSAGE_MAX:
            raise OSError("a message is too long")
        return self._exactly(length)

    def close(self) -> None:
        self.socket.close()

    def _exactly(self, count: int) -> bytes:
        parts = bytearray()
        while len(parts) < count:
            self.socket.settimeout(self._left())
            if not (part := self.socket.recv(count - len(parts))):
                raise OSError("the socket was closed")
            parts += part
        return bytes(parts)

    def _left(self) -> float:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left


class Vici:
    """One charon. Every call raises ``Problem`` link_ipsec_away (nobody answers) or link_ipsec_refused."""

    def __init__(self, path: Path, gateway: Gateway, *, call_s: float = CALL_S, batch_s: float = BATCH_S) -> None:
        """Remember where the socket is; nothing is opened before the first call."""
        self._path = path
        self._gateway = gateway
        self._call_s = call_s
        self._batch_s = batch_s
        # A thread cannot be cancelled: the next call waits until the one that was given up has ended by its deadline.
        self._turn = threading.Lock()

    async def get(self) -> Actual:
        """Return connections, names of secrets, and who is connected."""
        return await self._in_a_thread(self._read)

    async def apply(self, steps: Sequence[Step]) -> int:
        """Carry the steps out in their order; return how many charon refused, which does not keep it from the others.

        What cannot be loaded is found as missing when charon is read again.
        """
        return await self._in_a_thread(lambda one: sum(self._refused(one, step) for step in steps))

    async def version(self) -> str:
        """Return charon's version; to see that it is there."""
        return await self._in_a_thread(lambda one: str(messages.text(one.call(one.session.version)["version"])))

    async def load_key(self, private_key: bytes) -> None:
        """Give charon the centre's private key (DER, PKCS#8), with which it shows its certificate to devices."""
        await self._in_a_thread(lambda one: one.call(one.session.load_key, {"type": "any", "data": private_key}))

    async def _in_a_thread(self, work: Callable[["_Conversation"], T]) -> T:
        given_up = threading.Event()
        try:
            result, code = await asyncio.to_thread(self._converse, work, given_up)
        finally:
            given_up.set()
        if code is not None:
            raise Problem(code)
        return result  # type: ignore[return-value]

    def _converse(self, work: Callable[["_Conversation"], T], given_up: threading.Event) -> tuple[T | None, str | None]:
        """Run in a thread; return a code in place of an exception, whose text and context stay behind here."""
        if not self._turn.acquire(timeout=self._batch_s):
            return None, "link_ipsec_away"
        try:
            with socket.socket(socket.AF_UNIX) as connected:
                connected.settimeout(self._call_s)
                connected.connect(str(self._path))
                return work(_Conversation(connected, self._call_s, self._batch_s, given_up)), None
        except _Refused:
            return None, "link_ipsec_refused"
        except _Broken:
            return None, "link_ipsec_away"
        finally:
            self._turn.release()

    def _read(self, one: "_Conversation") -> Actual:
        connections = one.stream(one.session.list_conns)
        secrets = one.call(one.session.get_shared)
        # Last, so that who is connected by a connection is never read before the connection itself.
        associations = one.stream(one.session.list_sas)
        return messages.actual(connections, secrets, associations)

    def _refused(self, one: "_Conversation", step: Step) -> bool:
        try:
            self._do(one, step)
        except CommandException:
            # What is to be taken away and is not there is as it shall be.
            return isinstance(step, PutSecret | PutConnection)
        return False

    def _do(self, one: "_Conversation", step: Step) -> None:
        match step:
            case Unload(name):
                one.call(one.session.unload_conn, {"name": name})
            case DropSecret(name):
                one.call(one.session.unload_shared, {"id": name})
            case Terminate(name):
                one.stream(one.session.terminate, {"ike": name, **_AT_ONCE})
            case TerminateOne(number):
                one.stream(one.session.terminate, {"ike-id": number, **_AT_ONCE})
            case PutSecret(wanted):
                one.call(one.session.load_shared, messages.secret(wanted))
            case PutConnection(wanted):
                one.call(one.session.load_conn, {wanted.name: messages.connection(wanted, self._gateway)})


class _Conversation:
    """One session with charon, in one thread; every command has its own deadline, and all together one."""

    def __init__(self, connected: socket.socket, call_s: float, batch_s: float, given_up: threading.Event) -> None:
        self._wire = _Wire(connected, call_s)
        self._until = time.monotonic() + batch_s
        self._given_up = given_up
        self.session = Session(connected)
        self.session.transport = self._wire

    def call(self, command: Callable[..., Any], *arguments: object) -> Any:  # noqa: ANN401 (what the library returns)
        self._begin()
        return command(*arguments)

    def stream(self, command: Callable[..., Iterable[Any]], *arguments: object) -> list[Any]:
        self._begin()
        found: list[Any] = []
        for message in command(*arguments):
            if len(found) >= _MESSAGES_MAX:
                raise OSError("charon does not come to an end")
            found.append(message)
        return found

    def _begin(self) -> None:
        if self._given_up.is_set() or time.monotonic() > self._until:
            raise TimeoutError
        self._wire.begin()
