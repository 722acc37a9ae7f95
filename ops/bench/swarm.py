"""Synthetic devices behind one UDP socket, each at an address of its own: 2,500 municipalities in one process.

Each device is the far end of a link: it opens a session by itself (``connect``), answers a gateway that opens one,
shows the cookie that a gateway under load asks for, says every 25 s that it is there, and sends packets through the
tunnel (``echo``); a session that grows old it leaves to the gateway to renew. Addresses are not configured one by one:
the namespace takes the whole network for local, and each datagram bears its own source (IP_PKTINFO, ip(7)), so a
gateway sees as many senders as there are devices and limits each by itself.

Invariant: whatever comes from outside is counted (``refused``) and never ends the swarm; every wait has a deadline.
"""

import asyncio
import ipaddress
import socket
import struct
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Final, Self

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from chukan.clock import Clock, SystemClock
from chukan.ops.bench import noise
from chukan.ops.bench.noise import NoiseError, Party, Session, Waiting

_IP_PKTINFO: Final = 8
_PKTINFO: Final = struct.Struct("@i4s4s")
_RCVBUF: Final = 32 * 1024 * 1024
_SO_RCVBUFFORCE: Final = 33
_AT_ONCE: Final = 64
"""Datagrams that are taken before others of the loop have their turn."""
_DATAGRAM_MAX: Final = 2048
_TICK_S: Final = 0.01
_IDLE_S: Final = 1.0
KEEPALIVE_S: Final = 25.0
RETRY_S: Final = 5.0
"""WireGuard's REKEY_TIMEOUT: an initiation that was not answered is sent anew after it."""
_NS: Final = 1_000_000_000
_IPV4: Final = 0x45
_ICMP: Final = 1
_ECHO_REQUEST: Final = 8
_TTL: Final = 64
_IPV4_HEAD: Final = 20
_SESSIONS_KEPT: Final = 2
_BEGUN_KEPT: Final = 16


class Device:
    """One device: its outer address, its inner one, and the sessions that it has."""

    def __init__(self, number: int, address: str, inner: str, party: Party) -> None:
        self.number, self.address, self.inner, self.party = number, address, inner, party
        self.packed = socket.inet_aton(address)
        self.connected_at: float | None = None
        """On the monotonic clock; None while the gateway has not shown that it has the session too."""
        self.echoed = 0
        self._sessions: dict[int, Session] = {}
        self._waiting: dict[int, Waiting] = {}
        self._handshakes, self._stamp_ns = 0, 0

    def initiation(self, unix_ns: int, now_s: float) -> bytes:
        """Begin anew; an answer to what was begun just before still counts, for it may be on its way."""
        self._stamp_ns = max(self._stamp_ns + 1, unix_ns)
        message, waiting = self.party.initiate(self._index(), self._stamp_ns, now_s)
        self._waiting[waiting.sender] = waiting
        while len(self._waiting) > _BEGUN_KEPT:
            del self._waiting[min(self._waiting)]
        return message

    def take(self, message: bytes, now_s: float) -> bytes | None:
        """Take a datagram; return what to say at once. ``NoiseError`` where it is false or not for this device."""
        kind = message[0] if message else 0
        if kind in {noise.RESPONSE, noise.COOKIE}:
            return self._answered(kind, message, now_s)
        if kind == noise.INITIATION:
            index = self._index()
            response, session = self.party.answer(message, index, now_s)
            self._keep(index, session)
            return response
        if kind == noise.DATA and len(message) >= noise.OVERHEAD:
            self._data(message, now_s)
            return None
        raise NoiseError("nothing was asked")

    def sealed(self, packet: bytes) -> bytes:
        """Return a packet in the newest session; ``NoiseError`` where there is none."""
        if not self._sessions:
            raise NoiseError("there is no session")
        return self._sessions[max(self._sessions)].seal(packet)

    def forget(self) -> None:
        """Count as not connected until the gateway shows a session again; what is open stays open."""
        self.connected_at, self.echoed = None, 0

    def _answered(self, kind: int, message: bytes, now_s: float) -> bytes | None:
        """Take the answer to an initiation: a response, or a cookie for the next one."""
        at = 8 if kind == noise.RESPONSE else 4
        waiting = self._waiting.get(int.from_bytes(message[at : at + 4], "little"))
        if waiting is None:
            raise NoiseError("nothing was asked")
        if kind == noise.COOKIE:
            self.party.learn(waiting, message, now_s)
            return None
        session = self.party.finish(waiting, message)
        self._keep(waiting.sender, session)
        del self._waiting[waiting.sender]
        self.connected_at = now_s
        return session.seal()

    def _data(self, message: bytes, now_s: float) -> None:
        (index,) = struct.unpack_from("<I", message, 4)
        session = self._sessions.get(index)
        if session is None:
            raise NoiseError("a session that is not ours")
        packet = session.open(message)
        if self.connected_at is None:
            self.connected_at = now_s
        if len(packet) > _IPV4_HEAD and packet[9] == _ICMP and packet[_IPV4_HEAD] == 0:
            self.echoed += 1

    def _index(self) -> int:
        """Return a number that no other handshake of this device had, the greatest so far."""
        self._handshakes += 1
        return self._handshakes

    def _keep(self, index: int, session: Session) -> None:
        self._sessions[index] = session
        while len(self._sessions) > _SESSIONS_KEPT:
            del self._sessions[min(self._sessions)]


class Swarm:
    """Devices behind one bound UDP socket of theirs; use as an async context manager."""

    def __init__(self, bound: socket.socket, gateway: tuple[str, int], clock: Clock | None = None) -> None:
        """Take a socket that ``listener`` made, and the outer address and port of the gateway."""
        self._socket, self._gateway, self._clock = bound, gateway, clock or SystemClock()
        self.devices: list[Device] = []
        self._at: dict[bytes, Device] = {}
        self._changed = asyncio.Event()
        self.initiations = 0
        """Handshakes that the gateway began, answered or not."""
        self.cookies = 0
        self.refused = 0
        """Datagrams that were false, late, or not for anybody here."""
        self.unsent = 0
        self._keeping: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        asyncio.get_running_loop().add_reader(self._socket.fileno(), self._readable)
        self._keeping = asyncio.create_task(self._keep_alive(), name="keepalives")
        return self

    async def __aexit__(self, *_failure: object) -> None:
        if self._keeping is not None:
            self._keeping.cancel()
            await asyncio.wait([self._keeping])
        asyncio.get_running_loop().remove_reader(self._socket.fileno())
        self._socket.close()

    def add(self, address: str, inner: str, private: X25519PrivateKey, gateway_key: bytes, psk: bytes) -> Device:
        """Place a device at an outer address of the namespace; a former one at that address goes."""
        device = Device(len(self.devices), address, inner, Party(private, gateway_key, psk))
        self.devices.append(device)
        self._at[device.packed] = device
        return device

    def point(self, gateway: tuple[str, int]) -> None:
        """Send to another address of the gateway from here on."""
        self._gateway = gateway

    def initiate(self, device: Device) -> None:
        """Send one initiation."""
        self._send(device, device.initiation(int(self._clock.now().timestamp() * _NS), self._clock.monotonic()))

    def echo(self, device: Device, target: str) -> None:
        """Send an ICMP echo request from the device's inner address through its session."""
        self._send(device, device.sealed(echo_request(device.inner, target, device.number)))

    def connected(self, devices: Iterable[Device]) -> int:
        """Return how many of the devices are connected."""
        return sum(device.connected_at is not None for device in devices)

    async def connect(self, devices: Sequence[Device], *, per_s: float, within_s: float) -> list[float]:
        """Have the devices open their sessions, so many a second; one that is not answered begins anew after 5 s.

        Return the seconds that each took, from its first initiation on. Raises ``TimeoutError`` where one is not
        connected in time.
        """
        begun: dict[int, float] = {}
        due: dict[int, float] = {}
        for device in devices:
            device.forget()
        start = self._clock.monotonic()
        async with asyncio.timeout(within_s):
            while (now := self._clock.monotonic()) and self.connected(devices) < len(devices):
                for device in devices[len(begun) : min(len(devices), 1 + int((now - start) * per_s))]:
                    begun[device.number], due[device.number] = self._clock.monotonic(), now + RETRY_S
                    self.initiate(device)
                    await asyncio.sleep(0)
                for device in devices:
                    if device.connected_at is None and due.get(device.number, now) < now:
                        due[device.number] = now + RETRY_S
                        self.initiate(device)
                        await asyncio.sleep(0)
                await asyncio.sleep(_TICK_S)
        return [at - begun[device.number] for device in devices if (at := device.connected_at) is not None]

    async def until_connected(self, devices: Sequence[Device], within_s: float) -> None:
        """Wait until all of the devices are connected, whoever begins. Raises ``TimeoutError``."""
        async with asyncio.timeout(within_s):
            while self.connected(devices) < len(devices):
                await self._change(within_s)
                await asyncio.sleep(_TICK_S)

    async def until_echoed(self, devices: Sequence[Device], target: str, within_s: float) -> None:
        """Have each of the devices hear an answer from a target inside. Raises ``TimeoutError``."""
        async with asyncio.timeout(within_s):
            while missing := [device for device in devices if not device.echoed]:
                for device in missing:
                    self.echo(device, target)
                    await asyncio.sleep(0)
                with suppress(TimeoutError):
                    await self._change(1.0)

    async def _keep_alive(self) -> None:
        """Send every device's keepalives, one after the other; they also confirm a session whose first one was lost."""
        while True:
            devices = [device for device in self._at.values() if device.connected_at is not None]
            for device in devices:
                self._send(device, device.sealed(b""))
                await asyncio.sleep(KEEPALIVE_S / len(devices))
            if not devices:
                await asyncio.sleep(_IDLE_S)

    async def _change(self, within_s: float) -> None:
        self._changed.clear()
        async with asyncio.timeout(within_s):
            await self._changed.wait()

    def _send(self, device: Device, message: bytes) -> None:
        control = [(socket.IPPROTO_IP, _IP_PKTINFO, _PKTINFO.pack(0, device.packed, bytes(4)))]
        try:
            self._socket.sendmsg([message], control, 0, self._gateway)
        except OSError:
            # Full queues and a gateway that is not there: a datagram that was sent may be lost just as well.
            self.unsent += 1

    def _readable(self) -> None:
        for _ in range(_AT_ONCE):
            try:
                message, control, _, _ = self._socket.recvmsg(_DATAGRAM_MAX, socket.CMSG_SPACE(_PKTINFO.size))
            except OSError:
                return
            device = self._at.get(_destination(control))
            if device is None:
                self.refused += 1
                continue
            self._take(device, message)

    def _take(self, device: Device, message: bytes) -> None:
        before = device.connected_at, device.echoed
        self.initiations += message[:1] == bytes([noise.INITIATION])
        self.cookies += message[:1] == bytes([noise.COOKIE])
        try:
            said = device.take(message, self._clock.monotonic())
        except (NoiseError, ValueError):
            # ValueError: a public key that is none.
            self.refused += 1
            return
        if said is not None:
            self._send(device, said)
        if before != (device.connected_at, device.echoed):
            self._changed.set()


def listener(port: int) -> socket.socket:
    """Return a UDP socket at all addresses of where this thread stands, ready for a swarm. Raises ``OSError``."""
    bound = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
    bound.settimeout(0.0)
    with suppress(OSError):
        bound.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _RCVBUF)
    bound.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
    bound.bind(("0.0.0.0", port))  # noqa: S104 - in a namespace of its own, every address is a device
    return bound


def _destination(control: Iterable[tuple[int, int, bytes]]) -> bytes:
    for level, kind, data in control:
        if (level, kind) == (socket.IPPROTO_IP, _IP_PKTINFO):
            return bytes(_PKTINFO.unpack(data[: _PKTINFO.size])[2])
    return b""


def echo_request(source: str, target: str, number: int) -> bytes:
    """Return an IPv4 packet with an ICMP echo request (RFC 791, RFC 792)."""
    body = struct.pack("!BBHHH", _ECHO_REQUEST, 0, 0, number & 0xFFFF, 1) + b"chukan synthetic"
    body = body[:2] + struct.pack("!H", checksum(body)) + body[4:]
    ends = ipaddress.IPv4Address(source).packed + ipaddress.IPv4Address(target).packed
    head = struct.pack("!BBHHHBBH", _IPV4, 0, _IPV4_HEAD + len(body), 0, 0, _TTL, _ICMP, 0) + ends
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + body


def checksum(data: bytes) -> int:
    """Return the internet checksum (RFC 1071)."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data[: len(data) // 2 * 2]))
    total += data[-1] << 8 if len(data) % 2 else 0
    while total > 0xFFFF:  # noqa: PLR2004 - sixteen bits
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
