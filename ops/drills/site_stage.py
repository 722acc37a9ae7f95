"""The stage of a real site: every act is a command of the site's own, given for one process, host or link.

What is broken is noted in a file before it is broken, and struck out when it is mended: whoever comes after a drill
that was killed, on the same operator's machine, mends what its forerunner left. A freeze ends by itself even when that
machine is gone (``host_hand``).

Invariant: words of a command are names of the site file only; no shell reads them here.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, cast

import msgspec

from chukan import log, private_file
from chukan.errors import Problem
from chukan.ops.centres.picture import Painter, Picture
from chukan.replication.site import Site, members
from chukan.replication.site_drills import Action, Drills, fill

NOTES: Final = "broken.json"
CALL_S: Final = 60.0
_ANSWER_S: Final = 60.0
_LOOK_S: Final = 0.5
_SAID_MAX: Final = 64 * 1024
_REASON_MAX: Final = 200
_PROCESS_ACTS: Final = frozenset({"kill", "stop", "start", "freeze", "thaw"})

_log = log.get("drills.site")


class Broken(msgspec.Struct, frozen=True, order=True):
    """What is broken and how: the act, and its words."""

    act: str
    words: tuple[str, ...]


class SiteStage:
    """Breaks and mends a real site; what is asked of it is in ``ports.Stage``."""

    def __init__(self, site: Site, drill: Drills, notes: Path) -> None:
        """``notes`` is the file that remembers what is broken."""
        self._site, self._drill, self._notes = site, drill, notes
        self._hosts = _processes(site)
        self._broken = _read(notes)

    def does(self, act: str, target: str) -> bool:
        """Tell whether an act can be carried out on a process, a kind of process, or a place."""
        known = target in self._hosts or any(name.partition("-")[0] == target for name in self._hosts)
        if act in _PROCESS_ACTS:
            return self._drill.does(cast("Action", act)) and known
        if act == "lose_gateway":
            return self._drill.does("lose_gateway") and self._site.links is not None
        if act == "lose_centre":
            return target in self._site.centres and (
                self._drill.does("lose_centre") or (self._drill.does("kill") and self._drill.does("start"))
            )
        return self._drill.does(cast("Action", act))

    # ------------------------------------------------------------ processes

    async def kill(self, name: str) -> None:
        """End a process with SIGKILL and keep it down; a postmaster is started again by its Patroni."""
        if not name.startswith("postgres-"):
            self._note("kill", name)
        self._strike("freeze", name)
        await self._process("kill", name)

    async def stop(self, name: str) -> None:
        """End in good order, and keep it down."""
        self._note("stop", name)
        await self._process("stop", name)

    async def freeze(self, name: str) -> None:
        """Stop a process where it stands."""
        self._note("freeze", name)
        await self._process("freeze", name)

    async def thaw(self, name: str) -> None:
        """Let it go on."""
        await self._process("thaw", name)
        self._strike("freeze", name)

    async def start(self, name: str) -> None:
        """Start what was ended; returns when it answers. Raises ``Problem`` drill_hand_failed."""
        if not name.startswith("postgres-"):
            await self._process("start", name)
        await self._until(lambda picture: _answers(picture, name), name)
        self._strike("kill", name)
        self._strike("stop", name)

    async def _process(self, act: Action, name: str) -> None:
        host = self._hosts.get(name)
        if host is None:
            raise Problem("not_possible_here", expected=f"a site that has {name}")
        await self._call(act, site=self._site.where(host), host=host, process=name)

    # ------------------------------------------------------------ centres and links

    async def lose_centre(self, centre: str) -> None:
        """Lose a centre: by its own command, or by killing everything in it at the same moment."""
        self._note("lose_centre", centre)
        if self._drill.does("lose_centre"):
            await self._call("lose_centre", site=centre)
            return
        # Patroni and its server at once: neither is to find the other gone first.
        await asyncio.gather(*(self._process("kill", name) for name in self._in(centre)))

    async def return_centre(self, centre: str) -> None:
        """Bring it back; etcd first, for everything else waits for it."""
        if self._drill.does("lose_centre"):
            await self._call("return_centre", site=centre)
        else:
            names = [name for name in self._in(centre) if not name.startswith("postgres-")]
            voters = {member.name for member in self._site.etcd.members}
            for group in ([n for n in names if n in voters], [n for n in names if n not in voters]):
                await asyncio.gather(*(self._process("start", name) for name in group))
        self._strike("lose_centre", centre)

    async def cut(self, a: str, b: str) -> None:
        """Cut the link between two centres."""
        self._note("cut", a, b)
        await self._call("cut", site=a, other=b)

    async def mend(self, a: str, b: str) -> None:
        """Mend it."""
        await self._call("mend", site=a, other=b)
        self._strike("cut", a, b)

    async def isolate(self, centre: str) -> None:
        """Cut a centre off from everybody."""
        self._note("isolate", centre)
        await self._call("isolate", site=centre)

    async def rejoin(self, centre: str) -> None:
        """Let it back."""
        await self._call("rejoin", site=centre)
        self._strike("isolate", centre)

    async def lose_gateway(self, centre: str) -> None:
        """End a centre's gateway with its tunnels: by a command of its own, for tunnels outlive their controller."""
        self._note("lose_gateway", centre)
        await self._gateway("lose_gateway", centre)

    async def return_gateway(self, centre: str) -> None:
        """Start it again."""
        await self._gateway("return_gateway", centre)
        self._strike("lose_gateway", centre)

    async def _gateway(self, act: Action, centre: str) -> None:
        try:
            row = self._site.gateway(centre)
        except KeyError:
            raise Problem("not_possible_here", expected="links") from None
        await self._call(act, site=centre, host=row.host, process=row.name)

    # ------------------------------------------------------------ disks

    async def fill_disk(self, node: str) -> None:
        """Fill the disk of a node."""
        self._note("fill_disk", node)
        await self._disk("fill_disk", node)

    async def free_disk(self, node: str) -> None:
        """Free it."""
        await self._disk("free_disk", node)
        self._strike("fill_disk", node)

    async def _disk(self, act: Action, node: str) -> None:
        host = self._site.node(node)[1].host
        await self._call(act, site=self._site.where(host), host=host, process=node)

    # ------------------------------------------------------------ mending

    async def heal(self) -> Sequence[str]:
        """Undo everything that is noted, whatever fails meanwhile; return what could not be."""
        undo: dict[str, Callable[..., Awaitable[None]]] = {
            "freeze": self.thaw,
            "fill_disk": self.free_disk,
            "isolate": self.rejoin,
            "cut": self.mend,
            "lose_gateway": self.return_gateway,
            "lose_centre": self.return_centre,
            "kill": self.start,
            "stop": self.start,
        }
        order = list(undo)
        voters = {member.name for member in self._site.etcd.members}
        failed: list[str] = []
        for one in sorted(self._broken, key=lambda one: (order.index(one.act), one.words[0] not in voters, one)):
            try:
                await undo[one.act](*one.words)
            except (Problem, OSError, TimeoutError) as error:
                _log.error("what a drill broke was not mended", stage=one.act, exc_info=error)
                failed.append(f"{undo[one.act].__name__} {' '.join(one.words)}")
        return failed

    async def settled(self, timeout_s: float) -> None:
        """Wait until the site stands as its file wants it. Raises ``TimeoutError``."""
        async with asyncio.timeout(timeout_s), Painter(self._site) as painter:
            while not (await painter.paint()).whole:  # noqa: ASYNC110 - other machines have no event of ours
                await asyncio.sleep(_LOOK_S)

    # ------------------------------------------------------------ inside

    def _in(self, centre: str) -> list[str]:
        return [name for name, host in self._hosts.items() if self._site.where(host) == centre]

    async def _until(self, holds: Callable[[Picture], bool], name: str) -> None:
        try:
            async with asyncio.timeout(_ANSWER_S), Painter(self._site) as painter:
                while not holds(await painter.paint()):  # noqa: ASYNC110 - other machines have no event of ours
                    await asyncio.sleep(_LOOK_S)
        except TimeoutError:
            raise Problem("drill_hand_failed", expected=f"start {name}: it does not answer") from None

    async def _call(self, act: Action, *, site: str, host: str = "", process: str = "", other: str = "") -> None:
        address = self._site.address(host) if host else ""
        places = {"host": host, "address": address, "site": site, "action": act, "process": process, "other": other}
        command = fill(self._drill.template(act), places)
        if not command:
            raise Problem("not_possible_here", expected=f"a site whose [drill] can {act}")
        about = " ".join(word for word in (act, process or site, other) if word)
        status, said = await run(command)
        _log.warning("a hand was called", stage=act, peer=process, centre=site, status=status)
        if status != 0:
            raise Problem("drill_hand_failed", expected=f"{about}: {said}")

    def _note(self, act: Action, *words: str) -> None:
        self._broken.add(Broken(act, words))
        self._write()

    def _strike(self, act: Action, *words: str) -> None:
        if Broken(act, words) in self._broken:
            self._broken.discard(Broken(act, words))
            self._write()

    def _write(self) -> None:
        try:
            private_file.write(self._notes, msgspec.json.encode(sorted(self._broken)))
        except OSError:
            raise Problem("file_unwritable", expected=str(self._notes)) from None


async def run(command: Sequence[str]) -> tuple[int, str]:
    """Run one command within its time; return its status and the last line of what it complained of.

    A command that cannot be run, or takes too long, has status 127 or 124, as a shell's would.
    """
    try:
        process = await asyncio.create_subprocess_exec(
            *command, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE, start_new_session=True,
        )  # fmt: skip
    except OSError as error:
        return 127, type(error).__name__
    try:
        async with asyncio.timeout(CALL_S):
            said = await _said(process.stderr)
            return await process.wait(), _last(said)
    except TimeoutError:
        return 124, f"not done within {CALL_S:.0f} s"
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()


async def _said(stream: asyncio.StreamReader | None) -> bytes:
    """Return what was said until the end, at most so much of it; the rest is left unread."""
    said = b""
    while stream is not None and len(said) < _SAID_MAX and (more := await stream.read(_SAID_MAX - len(said))):
        said += more
    return said


def _last(said: bytes) -> str:
    lines = [line.strip() for line in said.decode("utf-8", "replace").splitlines() if line.strip()]
    return "".join(each for each in (lines or ["no reason given"])[-1] if each.isprintable())[:_REASON_MAX]


def _processes(site: Site) -> dict[str, str]:
    """Return every process of a site by name, with its host."""
    found: dict[str, str] = {}
    nodes = {node.name for _, node in site.nodes()}
    for _, member in members(site):
        names = [f"{part}-{member.name}" for part in ("patroni", "postgres")] if member.name in nodes else [member.name]
        found.update(dict.fromkeys(names, member.host))
    return found


def _read(notes: Path) -> set[Broken]:
    try:
        return set(msgspec.json.decode(notes.read_bytes(), type=list[Broken]))
    except FileNotFoundError:
        return set()
    except (OSError, msgspec.MsgspecError):
        raise Problem("settings_unreadable", expected=f"what an earlier drill noted: {notes}") from None


def _answers(picture: Picture, name: str) -> bool:
    """Tell whether a process that was started is seen by everybody again."""
    if name in picture.etcd:
        return picture.etcd[name]
    if any(exchange.name == name for exchange in picture.exchanges):
        return next(exchange.ready for exchange in picture.exchanges if exchange.name == name)
    part, _, node = name.partition("-")
    found = next((each for cell in picture.cells for each in cell.nodes if each.name == node), None)
    return found is not None and (found.state == "running" if part == "postgres" else found.role != "silent")
