"""The stage of a running lab over a socket in its folder, so that a drill in another process can break and mend it.

One connection a call: a line of JSON with the call's name and words, a line of JSON back with its result or its
problem. The socket is this user's alone. What a caller broke stays broken when it goes away: its successor heals.
"""

import asyncio
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final, Protocol

import msgspec

from chukan import log
from chukan.errors import REGISTRY, Problem

SOCKET: Final = "control.sock"
CALL_S: Final = 300.0
CALLS: Final = frozenset({
    "kill", "freeze", "thaw", "start", "stop", "lose_centre", "return_centre", "cut", "mend", "isolate", "rejoin",
    "lose_gateway", "return_gateway", "fill_disk", "free_disk", "back_up", "restore", "open_restored", "heal",
    "settled",
})  # fmt: skip
_LINE_MAX: Final = 64 * 1024
_WORDS_MAX: Final = 4
_SLOW: Final = "timeout"

_log = log.get("ops.centres")


class Offering(Protocol):
    """A stage that says what it has."""

    def offers(self, need: str) -> bool:
        """Tell whether it has what some drills need."""
        ...


class Call(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is asked for; ``settled`` has its seconds as a word, ``offers`` a need."""

    name: str
    words: list[str] = []


class Answer(msgspec.Struct, frozen=True, omit_defaults=True):
    """What came of it; ``problem`` is a code of the registry, or ``timeout``."""

    result: list[str] = []
    problem: str = ""
    expected: str | None = None


@asynccontextmanager
async def serve(stage: Offering, path: Path) -> AsyncIterator[None]:
    """Take calls for a block."""
    server = await asyncio.start_unix_server(_Server(stage).talk, sock=_listen(path), limit=_LINE_MAX)
    try:
        yield
    finally:
        server.close()
        _remove(path)


def _listen(path: Path) -> socket.socket:
    _remove(path)
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    made.bind(str(path))
    path.chmod(0o600)
    return made


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)


class _Server:
    def __init__(self, stage: Offering) -> None:
        self._stage = stage

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one call."""
        try:
            async with asyncio.timeout(CALL_S):
                line = await reader.readline()
                writer.write(msgspec.json.encode(await self._answer(line)) + b"\n")
                await writer.drain()
        except (OSError, TimeoutError, ValueError):
            _log.warning("a call of the stage came to nothing")
        finally:
            writer.close()

    async def _answer(self, line: bytes) -> Answer:
        try:
            call = msgspec.json.decode(line, type=Call)
            return Answer(await self._carry_out(call))
        except msgspec.MsgspecError:
            return Answer(problem="malformed_json")
        except TimeoutError:
            return Answer(problem=_SLOW)
        except Problem as problem:
            return Answer(problem=problem.code, expected=problem.expected)

    async def _carry_out(self, call: Call) -> list[str]:
        if call.name == "offers":
            return [need for need in call.words if self._stage.offers(need)]
        if call.name not in CALLS or len(call.words) > _WORDS_MAX:
            raise Problem("not_found", expected="a call of the stage")
        words: Sequence[object] = [float(word) for word in call.words] if call.name == "settled" else call.words
        found: Any = await getattr(self._stage, call.name)(*words)
        return [str(one) for one in found or ()]


class RemoteStage:
    """The stage of a lab that runs in another process."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def is_there(self) -> bool:
        """Tell whether a lab listens."""
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.connect(str(self._path))
            return True
        return False

    async def offered(self, needs: Sequence[str]) -> list[str]:
        """Return which of some needs the lab has. Raises ``Problem``."""
        return await self._call("offers", *needs)

    async def kill(self, name: str) -> None:
        """End a process with SIGKILL and keep it down."""
        await self._call("kill", name)

    async def freeze(self, name: str) -> None:
        """Stop a process where it stands."""
        await self._call("freeze", name)

    async def thaw(self, name: str) -> None:
        """Let it go on."""
        await self._call("thaw", name)

    async def start(self, name: str) -> None:
        """Start what was ended."""
        await self._call("start", name)

    async def stop(self, name: str) -> None:
        """End in good order."""
        await self._call("stop", name)

    async def lose_centre(self, centre: str) -> None:
        """Kill everything there and close its tree."""
        await self._call("lose_centre", centre)

    async def return_centre(self, centre: str) -> None:
        """Bring it back."""
        await self._call("return_centre", centre)

    async def cut(self, a: str, b: str) -> None:
        """Cut a link."""
        await self._call("cut", a, b)

    async def mend(self, a: str, b: str) -> None:
        """Mend it."""
        await self._call("mend", a, b)

    async def isolate(self, centre: str) -> None:
        """Cut a site off."""
        await self._call("isolate", centre)

    async def rejoin(self, centre: str) -> None:
        """Let it back."""
        await self._call("rejoin", centre)

    async def lose_gateway(self, centre: str) -> None:
        """End a centre's gateway with its tunnels."""
        await self._call("lose_gateway", centre)

    async def return_gateway(self, centre: str) -> None:
        """Start it again."""
        await self._call("return_gateway", centre)

    async def fill_disk(self, node: str) -> None:
        """Fill a node's disk."""
        await self._call("fill_disk", node)

    async def free_disk(self, node: str) -> None:
        """Free it."""
        await self._call("free_disk", node)

    async def back_up(self, cell: str) -> list[str]:
        """Make a full backup of a cell; returns its name."""
        return await self._call("back_up", cell)

    async def restore(self, cell: str, moment: str) -> list[str]:
        """Restore a cell to a moment and start it; returns its new epoch."""
        return await self._call("restore", cell, moment)

    async def open_restored(self, cell: str) -> list[str]:
        """Reconcile a restored cell and open it; returns the file of the differences and the instant of opening."""
        return await self._call("open_restored", cell)

    async def heal(self) -> list[str]:
        """Undo everything; returns what could not be undone."""
        return await self._call("heal")

    async def settled(self, timeout_s: float) -> None:
        """Wait until the site stands as it should. Raises ``TimeoutError``."""
        await self._call("settled", f"{timeout_s:g}")

    async def _call(self, name: str, *words: str) -> list[str]:
        try:
            async with asyncio.timeout(CALL_S):
                reader, writer = await asyncio.open_unix_connection(self._path, limit=_LINE_MAX)
                try:
                    writer.write(msgspec.json.encode(Call(name, list(words))) + b"\n")
                    answer = msgspec.json.decode(await reader.readline(), type=Answer)
                finally:
                    writer.close()
        except (OSError, msgspec.MsgspecError):
            raise Problem("process_failed", expected="the lab to be running still") from None
        return _result(answer)


def _result(answer: Answer) -> list[str]:
    if answer.problem == _SLOW:
        raise TimeoutError
    if answer.problem:
        code = answer.problem if answer.problem in REGISTRY else "internal"
        raise Problem(code, expected=answer.expected)
    return answer.result
