"""Carries the packet filter into the kernel by ``nft -j``: whole in one transaction, and by elements from day to day.

What the kernel has is compared with what is wanted in two halves. The links' prefixes and the refused ports are
compared element by element. The rest cannot be: a listing says the same in other words, which differ between versions
of nft. So after a load the table is listed once, and a chain that nobody jumps to is added whose name holds two
digests, of what was wanted and of what was listed. As long as both are right, nobody changed the table; and a
controller that is started again finds it so, and leaves it and its counters alone.

Invariant: no call waits longer than its deadline, and there is never a moment without the old table or the new one.
"""

import asyncio
import contextlib
import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from chukan.errors import Problem
from chukan.vpn import firewall
from chukan.vpn.firewall import HELD, REFUSED, Ruleset
from chukan.vpn.firewall_drops import BODY_DROPS, DROPS, meter_name
from chukan.vpn.firewall_words import FAMILY, TABLE, Object

_TIMEOUT_S: Final = 15.0
_HOLD_TIMEOUT_S: Final = 2.0
"""So much later than wished a leased port may be shut: less than the margin of the service's lease."""
_REASON_CHARS_MAX: Final = 160
_MARK: Final = "mark_"
_DIGEST_CHARS: Final = 24
_TENANT_SETS: Final = ("tenant_in", "tenant_in6", "tenant_out", "tenant_out6")
_LIVE_SETS: Final = (*_TENANT_SETS, "refused", HELD)
"""Their elements change from day to day."""
_FIXED_SETS: Final = ("service", "service6", "service_host", "service_host6")


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """How the kernel's table differs from what is wanted; nothing differs when it is false."""

    table: bool = False
    """The table is not there, or not as it was loaded, or is made from another ruleset: it is loaded whole."""
    missing: frozenset[str] = frozenset()
    """Prefixes that should be let in and are not, wholly or in part."""
    extra: frozenset[str] = frozenset()
    """Prefixes that are let in and should not be."""
    drain: bool = False
    """The refused ports are not the wanted ones."""
    refused: frozenset[int] = frozenset()
    """The ports that are refused now."""

    def __bool__(self) -> bool:
        return self.table or self.drain or bool(self.missing) or bool(self.extra)


class Traffic(NamedTuple):
    """What went through for one prefix: ``in`` is from the body, ``out`` to it."""

    packets_in: int = 0
    bytes_in: int = 0
    packets_out: int = 0
    bytes_out: int = 0


class Dropped(NamedTuple):
    """What was dropped for one reason."""

    packets: int
    bytes: int


class Counters(msgspec.Struct, frozen=True, kw_only=True):
    """Counts since the table was loaded, or the prefix was added."""

    traffic: Mapping[str, Traffic]
    """By prefix of a link."""
    drops: Mapping[str, int]
    """Packets by reason, every one of ``firewall_drops.DROPS``."""
    body_drops: Mapping[str, Mapping[str, Dropped]]
    """By source, a link's prefix, and reason, of ``firewall_drops.BODY_DROPS``; absent where none was dropped."""
    resets: int
    """Answers of a drained centre."""


class Firewall:
    """The table of one network namespace. Every call raises ``Problem`` link_firewall_refused."""

    def __init__(self, netns: str | None = None, *, program: str = "nft") -> None:
        """``netns`` names the namespace, None for this process's own; nothing is run yet."""
        within = ["/usr/sbin/ip", "netns", "exec", netns] if netns else []
        self._argv = [*within, program, "-j"]
        self._turn = asyncio.Lock()

    async def load(self, ruleset: Ruleset) -> None:
        """Put a whole table in place of whatever is there, in one transaction; its counters start anew."""
        async with self._turn:
            await self._do(firewall.load(ruleset))
            name = _mark(_digest_of_ruleset(ruleset), await self._list())
            await self._do([{"add": {"chain": {"family": FAMILY, "table": TABLE, "name": name}}}])

    async def add(self, prefixes: Iterable[str]) -> None:
        """Let prefixes in; those that are let in already stay as they are."""
        await self._change(firewall.change(add=prefixes))

    async def remove(self, prefixes: Iterable[str]) -> None:
        """Let prefixes in no longer: their open connections stop at their next packet."""
        await self._change(firewall.change(remove=prefixes))

    async def drain(self, ruleset: Ruleset, *, on: bool) -> None:
        """Refuse the health ports, or answer there again."""
        ports = ruleset.health_ports
        await self._change(firewall.change(refuse=ports) if on else firewall.change(allow=ports))

    async def hold(self, ports: Iterable[int], left_s: Callable[[], float], *, renew: bool) -> None:
        """Keep leased ports open for ``left_s()`` seconds, rounded down; the kernel shuts them then by itself.

        With ``renew`` it is refused where one of them was shut meanwhile, as by its time.
        """
        async with self._turn:
            try:
                # The kernel counts from when it hears of it: asked late, it is not asked at all.
                async with asyncio.timeout(_HOLD_TIMEOUT_S):
                    await self._do(firewall.hold(ports, int(left_s()), renew=renew))
            except TimeoutError:
                raise Problem("link_firewall_refused", expected="nft: no answer in time") from None

    async def shut(self, ports: Iterable[int]) -> None:
        """Shut leased ports at once; they may be shut already."""
        await self._change(firewall.shut(ports))

    async def compare(self, ruleset: Ruleset) -> Difference:
        """Return how the kernel's table differs from a ruleset; nothing is changed."""
        async with self._turn:
            return _compare(ruleset, await self._list())

    async def repair(self, ruleset: Ruleset, difference: Difference) -> None:
        """Make what differs as it shall be, by the smallest change."""
        if difference.table:
            await self.load(ruleset)
            return
        wanted = ruleset.health_ports if ruleset.draining else frozenset()
        await self._change(
            firewall.change(
                add=difference.missing,
                remove=difference.extra,
                refuse=wanted - difference.refused,
                allow=difference.refused - wanted,
            )
        )

    async def counters(self) -> Counters:
        """Return all counts; empty and zero where there is no table."""
        async with self._turn:
            return _counters(await self._list(), await self._meters())

    async def remove_table(self) -> None:
        """Take the table away, if it is there: then nothing is filtered any more."""
        table = {"table": {"family": FAMILY, "name": TABLE}}
        await self._change([{"add": table}, {"delete": table}])

    # ------------------------------------------------------------ the program

    async def _change(self, commands: Sequence[Object]) -> None:
        async with self._turn:
            await self._do(commands)

    async def _do(self, commands: Sequence[Object]) -> None:
        if not commands:
            return
        status, _, reason = await self._run(["-f", "-"], msgspec.json.encode({"nftables": commands}))
        if status != 0:
            raise _refused(reason)

    async def _list(self) -> list[Object]:
        """Return the table's objects; none where there is no table."""
        status, listed, reason = await self._run(["list", "table", FAMILY, TABLE], b"")
        if status == 0:
            objects: list[Object] = msgspec.json.decode(listed)["nftables"]
            return objects
        if b"No such file or directory" in reason:
            return []
        raise _refused(reason)

    async def _meters(self) -> list[Object]:
        """Return all meters; a listing of the table names them without what they counted."""
        status, listed, reason = await self._run(["list", "meters", FAMILY], b"")
        if status != 0:
            raise _refused(reason)
        objects: list[Object] = msgspec.json.decode(listed)["nftables"]
        return [each for each in _objects(objects, "meter") if each["table"] == TABLE]

    async def _run(self, arguments: Sequence[str], text: bytes) -> tuple[int, bytes, bytes]:
        pipe = asyncio.subprocess.PIPE
        try:
            process = await asyncio.create_subprocess_exec(
                *self._argv, *arguments, stdin=pipe, stdout=pipe, stderr=pipe
            )
        except OSError:
            raise Problem("link_firewall_refused", expected="nft (Debian's nftables)") from None
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                out, err = await process.communicate(text)
        except TimeoutError:
            raise Problem("link_firewall_refused", expected="nft: no answer in time") from None
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
        return process.returncode or 0, out, err


def _refused(stderr: bytes) -> Problem:
    """Return the problem of what nft said, without the commands that it quotes."""
    lines = [line for line in stderr.decode("utf-8", errors="replace").splitlines() if "rror" in line]
    reason = lines[0].rpartition(": ")[2] if lines else "no reason given"
    return Problem("link_firewall_refused", expected=f"nft: {reason[:_REASON_CHARS_MAX]}")


# ---------------------------------------------------------------- reading a listing


def _compare(ruleset: Ruleset, listed: Sequence[Object]) -> Difference:
    mark = next((name for name in _names(listed, "chain") if name.startswith(_MARK)), "")
    if mark != _mark(_digest_of_ruleset(ruleset), listed):
        return Difference(table=True)
    if not all(_by_time(each) for each in _objects(listed, "set") if each["name"] == HELD):
        return Difference(table=True)
    elements = {each["name"]: _elements(each) for each in _objects(listed, "set") if each["name"] in _LIVE_SETS}
    found = {
        name: {
            firewall.prefix_of(name.removeprefix("tenant_in").removeprefix("tenant_out"), value)
            for value in elements[name]
        }
        for name in _TENANT_SETS
    }
    let_in, let_out = (found[f"tenant_{way}"] | found[f"tenant_{way}6"] for way in ("in", "out"))
    refused = frozenset(int(port) for port in elements["refused"])
    return Difference(
        missing=ruleset.prefixes - (let_in & let_out),
        extra=frozenset(let_in | let_out) - ruleset.prefixes,
        drain=refused != (ruleset.health_ports if ruleset.draining else frozenset()),
        refused=refused,
    )


def _counters(listed: Sequence[Object], meters: Sequence[Object]) -> Counters:
    traffic: dict[str, Traffic] = {}
    for each in _objects(listed, "set"):
        name = each["name"]
        if name in _TENANT_SETS:
            way, suffix = ("in" if name.startswith("tenant_in") else "out"), ("6" if name.endswith("6") else "")
            for value, packets, volume in _counted(each):
                prefix = firewall.prefix_of(suffix, value)
                told = {f"packets_{way}": packets, f"bytes_{way}": volume}
                traffic[prefix] = traffic.get(prefix, Traffic())._replace(**told)
    counts = {each["name"]: int(each["packets"]) for each in _objects(listed, "counter")}
    return Counters(
        traffic=traffic,
        drops={name: counts.get(name, 0) for name in DROPS},
        body_drops=_by_source(meters),
        resets=counts.get(REFUSED, 0),
    )


def _by_source(meters: Sequence[Object]) -> Mapping[str, Mapping[str, Dropped]]:
    names = {meter_name(reason, suffix): (reason, suffix) for reason in BODY_DROPS for suffix in ("", "6")}
    found: dict[str, dict[str, Dropped]] = {}
    for meter in meters:
        reason, suffix = names.get(meter["name"], ("", ""))
        if reason:
            for value, packets, volume in _counted(meter):
                found.setdefault(firewall.prefix_of(suffix, value), {})[reason] = Dropped(packets, volume)
    return found


def _objects(listed: Sequence[Object], kind: str) -> list[Object]:
    return [each[kind] for each in listed if kind in each]


def _names(listed: Sequence[Object], kind: str) -> list[str]:
    return [each["name"] for each in _objects(listed, kind)]


def _elements(listed_set: Object) -> list[Any]:
    return [
        each["elem"]["val"] if isinstance(each, dict) and "elem" in each else each
        for each in listed_set.get("elem", ())
    ]


def _by_time(listed_set: Object) -> bool:
    """Tell whether every element goes away by itself: one that stays was put there by somebody else."""
    return all(isinstance(each, dict) and "expires" in each.get("elem", {}) for each in listed_set.get("elem", ()))


def _counted(listed_set: Object) -> list[tuple[str, int, int]]:
    elements = [each["elem"] for each in listed_set.get("elem", ())]
    return [(each["val"], int(each["counter"]["packets"]), int(each["counter"]["bytes"])) for each in elements]


# ---------------------------------------------------------------- the mark


def _mark(wanted: str, listed: Sequence[Object]) -> str:
    return f"{_MARK}{wanted}_{_digest([_still(each) for each in listed if _counts(each)])}"


def _counts(listed: Object) -> bool:
    """Leave out what says nothing of the ruleset: the version of nft, the mark itself, sets that the kernel fills."""
    if "metainfo" in listed or listed.get("chain", {}).get("name", "").startswith(_MARK):
        return False
    return "set" not in listed or listed["set"]["name"] in {*_LIVE_SETS, *_FIXED_SETS}


def _still(listed: Any) -> Any:  # noqa: ANN401 - JSON
    """Return a listed object without what moves: handles, counts, elements of sets that change, the order of a set."""
    if isinstance(listed, list):
        return [_still(each) for each in listed]
    if not isinstance(listed, dict):
        return listed
    moving = {"handle", "packets", "bytes", *(["elem"] if listed.get("name") in _LIVE_SETS else [])}
    kept = {name: _still(value) for name, value in listed.items() if name not in moving}
    for name in ("elem", "set"):
        if isinstance(kept.get(name), list):
            kept[name] = sorted(kept[name], key=repr)
    return kept


def _digest_of_ruleset(ruleset: Ruleset) -> str:
    return _digest(firewall.load(msgspec.structs.replace(ruleset, prefixes=frozenset(), draining=False)))


def _digest(what: object) -> str:
    return hashlib.sha256(msgspec.json.encode(what, order="deterministic")).hexdigest()[:_DIGEST_CHARS]
