"""A municipality and two small gateways, each in a network namespace of its own, for the tests of the device's agent.

A gateway here is wireguard-go, set by the stock ``wg``, and an HTTP server on its centre's address: enough for an
agent, and nothing of the platform's own gateway. Its loss is silent: its packet filter drops everything.
"""

import contextlib
import datetime as dt
import http.client
import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple, Self

import msgspec
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from chukan.chance import SystemChance
from chukan.clock import SystemClock
from chukan.ops.namespaces import enter
from chukan.tenants.link_plan import CENTRE_ADDRESSES, SERVICE_ADDRESS, inner_v4, inner_v6
from chukan.tests.support.link_spaces import Spaces
from chukan.vpn import enrolment, invitation
from chukan.vpn.device import enrolling
from chukan.vpn.device.folder import DeviceFolder, create
from chukan.vpn.device.keys import new_wireguard
from chukan.vpn.device.status import FILE, Status
from chukan.vpn.enrolment import Grant, GrantedCentre
from chukan.vpn.psk_sealing import DEVICE, seal_psk
from chukan.vpn.wireguard.keys import public_key_of, to_base64

LINK = "131016-1"
SERVICE_PORT = 8443
HEALTH_PORT = 8445
WIREGUARD_PORT = 51820
CENTRES = ("east", "west")
MUNICIPALITY = "m"
SLOW_S = 20.0

_OUTER = {"east": ("198.51.100.1", "198.51.100.11"), "west": ("203.0.113.1", "203.0.113.11")}
_SILENCE = """
table inet silence {
  chain input { type filter hook input priority -10; policy drop; iifname "lo" accept; }
  chain output { type filter hook output priority -10; policy drop; oifname "lo" accept; }
}
"""
_RESETS = f"""
table inet drain {{
  chain input {{ type filter hook input priority -10; tcp dport {HEALTH_PORT} reject with tcp reset; }}
}}
"""
_SERIAL = itertools.count(1)


def eventually(holds: Callable[[], bool], seconds: float, what: str) -> float:
    """Wait until something holds; return how long it took."""
    begun = time.monotonic()
    waiting = threading.Event()
    while not holds():
        assert time.monotonic() - begun < seconds, f"not within {seconds} s: {what}"
        waiting.wait(0.02)
    return time.monotonic() - begun


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: "_Server"

    def do_GET(self) -> None:
        status = self.server.gateway.ready_status if self.path.startswith("/readyz") else 200
        if self.path.startswith("/slow"):
            self.server.gateway.answer_slowly.wait(SLOW_S)
        body = self.server.gateway.centre.encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: Any) -> None:
        pass


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    gateway: "Gateway"


class Gateway:
    """A centre's end of the link."""

    def __init__(self, world: "World", centre: str) -> None:
        self.world = world
        self.centre = centre
        self.short = centre[0]
        self.interface = world.spaces.interface(f"g{self.short}")
        self.private = new_wireguard()
        self.address = CENTRE_ADDRESSES[CENTRES.index(centre)]
        self.ready_status = 200
        self.answer_slowly = threading.Event()
        """Answers to ``/slow`` wait for it."""
        self._servers: list[_Server] = []

    def build(self) -> None:
        own, other = _OUTER[self.centre]
        spaces = self.world.spaces
        end = f"to-{self.centre}"
        spaces.wire(MUNICIPALITY, end, self.short, "out")
        spaces.do(MUNICIPALITY, f"addr add {other}/24 dev {end}")
        addresses = [f"addr add {address}/32 dev lo" for address in (self.address, SERVICE_ADDRESS)]
        spaces.do(self.short, f"addr add {own}/24 dev out", *addresses)
        self._start_wireguard()
        for address, port in ((self.address, HEALTH_PORT), (SERVICE_ADDRESS, SERVICE_PORT)):
            place = (address, port)
            server = spaces.inside(self.short, lambda place=place: _Server(place, _Handler))
            server.gateway = self
            self._servers.append(server)
            threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()

    def _start_wireguard(self) -> None:
        spaces = self.world.spaces
        spaces.run(self.short, "wireguard-go", self.interface)
        key = self.world.folder / f"{self.centre}.key"
        key.write_text(to_base64(self.private))
        self.wg("set", self.interface, "private-key", str(key), "listen-port", str(WIREGUARD_PORT))
        up = f"link set {self.interface} up mtu 1380"
        spaces.do(self.short, up, f"route add 10.64.0.0/10 dev {self.interface}")

    def wg(self, *words: str) -> str:
        return self.world.spaces.run(self.short, "wg", *words)

    def let_in(self, public: bytes, psk: bytes, *, prefixes: bool = True) -> None:
        """Make the device a peer; without prefixes as a gateway does with a key that was not seen yet."""
        secret = self.world.folder / f"psk-{next(_SERIAL)}"
        secret.write_text(to_base64(psk))
        allowed = f"{inner_v4(LINK)}/32" if prefixes else ""
        self.wg(
            "set", self.interface, "peer", to_base64(public), "preshared-key", str(secret), "allowed-ips", allowed
        )  # fmt: skip

    def forget(self, public: bytes) -> None:
        self.wg("set", self.interface, "peer", to_base64(public), "remove")

    def has_heard(self, public: bytes) -> bool:
        lines = dict(line.split("\t") for line in self.wg("show", self.interface, "latest-handshakes").splitlines())
        return lines.get(to_base64(public), "0") != "0"

    def filter(self, rules: str) -> None:
        self.world.spaces.run(self.short, "nft", "-f", "-", text=rules)

    def fall_silent(self) -> None:
        self.filter(_SILENCE)

    def speak_again(self) -> None:
        self.filter("delete table inet silence")

    def refuse_health(self) -> None:
        self.filter(_RESETS)

    def allow_health(self) -> None:
        self.filter("delete table inet drain")

    def mend(self) -> None:
        """Undo whatever a test has done to it."""
        self.ready_status = 200
        self.answer_slowly.clear()
        self.filter("flush ruleset")

    def close(self) -> None:
        for server in self._servers:
            server.shutdown()
            server.server_close()


class Asked(NamedTuple):
    at: float
    centre: str
    """Who answered; empty where nobody did."""


class Client:
    """A business system: 20 requests a second to the service address, each on a new connection."""

    EVERY_S = 0.05
    TIMEOUT_S = 0.5

    def __init__(self, namespace: str) -> None:
        self._namespace = namespace
        self._done = threading.Event()
        self.asked: list[Asked] = []
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join(5)

    def _run(self) -> None:
        enter(self._namespace)
        due = time.monotonic()
        while not self._done.wait(max(0.0, due - time.monotonic())):
            due = max(due + self.EVERY_S, time.monotonic())
            at = time.monotonic()
            self.asked.append(Asked(at, self._ask()))

    def _ask(self) -> str:
        connection = http.client.HTTPConnection(SERVICE_ADDRESS, SERVICE_PORT, timeout=self.TIMEOUT_S)
        try:
            connection.request("GET", "/")
            return connection.getresponse().read().decode()
        except OSError:
            return ""
        finally:
            connection.close()

    def last(self) -> str:
        """Return who answered last; empty where nobody did."""
        return self.asked[-1].centre if self.asked else ""

    def failed(self) -> int:
        return sum(not each.centre for each in self.asked)

    def gap_s(self) -> float:
        """Return the longest time without an answer."""
        good = [each.at for each in self.asked if each.centre]
        return max((after - before for before, after in itertools.pairwise(good)), default=float("inf"))


class Caller:
    """A business system with one connection that it keeps."""

    def __init__(self, world: "World", timeout_s: float = SLOW_S) -> None:
        def connect() -> http.client.HTTPConnection:
            connection = http.client.HTTPConnection(SERVICE_ADDRESS, SERVICE_PORT, timeout=timeout_s)
            connection.connect()
            # Without this the library would connect anew by itself, and nobody would see that it was cut.
            connection.auto_open = 0
            return connection

        self._connection = world.spaces.inside(MUNICIPALITY, connect)

    def ask(self, path: str = "/") -> str:
        """Return who answers; raise what the connection comes to otherwise."""
        self.begin(path)
        return self.finish()

    def begin(self, path: str = "/slow") -> None:
        self._connection.request("GET", path)

    def finish(self) -> str:
        return self._connection.getresponse().read().decode()

    def close(self) -> None:
        self._connection.close()


class World:
    """Everything; ``build`` needs root."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.spaces = Spaces()
        self.namespace = self.spaces.name(MUNICIPALITY)
        self.platform = Ed25519PrivateKey.generate()
        self.gateways = {centre: Gateway(self, centre) for centre in CENTRES}
        self.device: DeviceFolder
        self.agent: subprocess.Popen[bytes] | None = None
        self._log = (folder / "agent.log").open("ab")

    def build(self) -> None:
        self.spaces.make(MUNICIPALITY, *(gateway.short for gateway in self.gateways.values()))
        for gateway in self.gateways.values():
            gateway.build()
        self._enrol()

    def _enrol(self) -> None:
        public = self.platform.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        clock = SystemClock()
        code = invitation.new_code(SystemChance(clock))
        self.device = create(
            self.folder / "device", LINK, CENTRES, public, prefix=f"d{os.getpid() % 10**6}{next(_SERIAL)}"
        )
        asked = enrolling.request(self.device, code, clock.now())
        request = enrolment.verify_request(enrolment.read_request(asked), invitation.public_of(code), clock.now())
        self.accept(dict(request.keys))

    def accept(self, keys: dict[str, bytes], *, prefixes: bool = True) -> None:
        """Let the device's keys in at their gateways, and let the device take in the grant."""
        now = SystemClock().now()
        sealing = self.device.sealing().public_key().public_bytes_raw()
        ends = {}
        for centre, public in keys.items():
            gateway, psk = self.gateways[centre], os.urandom(32)
            gateway.let_in(public, psk, prefixes=prefixes)
            ends[centre] = GrantedCentre(
                address=gateway.address,
                endpoint=f"{_OUTER[centre][0]}:{WIREGUARD_PORT}",
                gateway_key=public_key_of(gateway.private),
                device_key=public,
                psk=seal_psk(sealing, psk, link=LINK, to=DEVICE),
            )
        grant = Grant(
            link=LINK,
            signing_key=self.device.signing().public_key().public_bytes_raw(),
            addresses=[inner_v4(LINK), inner_v6(LINK)],
            centres=ends,
            service_port=SERVICE_PORT,
            health_port=HEALTH_PORT,
            made_at=now,
            valid_until=now + dt.timedelta(days=1),
        )
        enrolling.accept(self.device, enrolment.sign_grant(grant, self.platform), now)

    def set_agent(self, **settings: Any) -> None:
        lines = [f"{name} = {msgspec.json.encode(value).decode()}" for name, value in settings.items()]
        self.device.keep("agent.toml", ("\n".join(lines) + "\n").encode())

    def start_agent(self) -> None:
        command = ["ip", "netns", "exec", self.namespace, sys.executable, "-m", "chukan.ops.cli", "device", "agent"]
        self.agent = subprocess.Popen([*command, "--folder", self.device.path], stderr=self._log, stdout=self._log)

    def end_agent(self, number: int = signal.SIGTERM) -> int:
        assert self.agent is not None
        self.agent.send_signal(number)
        status = self.agent.wait(15)
        self.agent = None
        return status

    def status(self) -> Status | None:
        with contextlib.suppress(FileNotFoundError, msgspec.MsgspecError):
            return msgspec.json.decode((self.device.path / FILE).read_bytes(), type=Status)
        return None

    def stands(self, active: str, **conditions: str) -> bool:
        status = self.status()
        if status is None or status.active != active or not status.at_work(SystemClock().now()):
            return False
        return all(status.centres[centre].condition == wanted for centre, wanted in conditions.items())

    def route(self) -> str:
        """Return the interface to which the service route leads, as the stock tool says it."""
        words = self.spaces.run(MUNICIPALITY, "ip", "route", "show", f"{SERVICE_ADDRESS}/32").split()
        return words[words.index("dev") + 1] if words else ""

    def client(self) -> Client:
        return Client(self.namespace)

    def close(self) -> None:
        if self.agent is not None:
            self.agent.kill()
            self.agent.wait(15)
        for gateway in self.gateways.values():
            gateway.close()
        for short in (MUNICIPALITY, *(gateway.short for gateway in self.gateways.values())):
            with contextlib.suppress(subprocess.CalledProcessError):
                for pid in self.spaces.run(short, "ip", "netns", "pids", self.spaces.name(short)).split():
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(int(pid), signal.SIGKILL)
        names = [gateway.interface for gateway in self.gateways.values()]
        if hasattr(self, "device"):
            names += self.device.identity.interfaces.values()
        for name in names:
            Path(f"/var/run/wireguard/{name}.sock").unlink(missing_ok=True)
        self.spaces.remove()
        self._log.close()
