"""A gateway with charon and two bodies' IPsec devices, in network namespaces of their own; ESP by kernel-libipsec.

The devices run what the sheet's sibling says (``swanctl_conf``), loaded by strongSwan's own ``swanctl``. Needs root.
"""

import asyncio
import datetime as dt
import json
import os
import shutil
import socket
import struct
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import vici
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.serialization import Encoding
from pyroute2.netns import create_socket

from chukan.tenants.link_plan import inner_v4, prefixes
from chukan.tenants.link_rows import DesiredPeer
from chukan.vpn.gateway.desired import Goal, LinkGoal
from chukan.vpn.gateway.kinds import Pass, Report
from chukan.vpn.ipsec.charon import Charon
from chukan.vpn.ipsec.kind import IpsecKind, make
from chukan.vpn.ipsec.model import Gateway, Wanted, selectors
from chukan.vpn.ipsec.settings import Ipsec
from chukan.vpn.ipsec.sheet import swanctl_conf

PREFIX = f"ckl-{os.getpid()}-i"
GATE = "198.51.100.1"
CENTRE_ADDRESS, SHARED, ELSEWHERE = "10.255.0.1", "10.255.255.1", "10.255.9.9"
SERVICES = [CENTRE_ADDRESS, SHARED]
PORT = 8443
FIRST, SECOND = "131016-1", "271004-1"
PSKS = {FIRST: b"\x11" * 32, SECOND: b"\x22" * 32}
NEXT_PSK = b"\x33" * 32
QUICK_S = 5.0


def ip(*words: str, netns: str | None = None) -> None:
    inside = [] if netns is None else ["-n", netns]
    subprocess.run(["/usr/sbin/ip", *inside, *words], check=True, capture_output=True, timeout=20)


class Echo:
    """Says back what it is told, on some addresses of a namespace."""

    def __init__(self, netns: str, *addresses: str) -> None:
        self._listening = []
        for address in addresses:
            one = create_socket(netns=netns, family=socket.AF_INET, socket_type=socket.SOCK_STREAM)
            one.bind((address, PORT))
            one.listen()
            self._listening.append(one)
            threading.Thread(target=self._accept, args=(one,), daemon=True).start()

    def _accept(self, listening: socket.socket) -> None:
        with suppress(OSError):
            while True:
                connection, _ = listening.accept()
                threading.Thread(target=self._say, args=(connection,), daemon=True).start()

    @staticmethod
    def _say(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            while said := connection.recv(1024):
                connection.sendall(said)

    def close(self) -> None:
        for one in self._listening:
            one.shutdown(socket.SHUT_RDWR)
            one.close()


class Talkative(Charon):
    """A device's charon that writes down its keys, so that packets can be made that no honest device would send."""

    def _prepare(self) -> None:
        super()._prepare()
        path = self._folder / "strongswan.conf"
        path.write_text(path.read_text().replace("default = 1\n", "default = 1\n      chd = 4\n"))

    def key(self) -> bytes:
        """The newest ESP key by which this side sends, with its salt (RFC 4106 §8.1)."""
        lines = (self._folder / "charon.log").read_text(errors="replace").splitlines()
        at = max(n for n, line in enumerate(lines) if "encryption initiator key => 36 bytes" in line)
        dump = [line.partition(": ")[2][:48].split() for line in lines[at + 1 : at + 4]]
        return bytes.fromhex("".join(word for words in dump for word in words if len(word) == 2))[:36]


class Device:
    """A body's router: a namespace with the link's inner address, and a charon that is told by swanctl."""

    def __init__(self, folder: Path, number: int, link: str) -> None:
        self.link = link
        self.netns = f"{PREFIX}{number}"
        self.address = inner_v4(link)
        self._folder = folder / f"d{number}"
        settings = Ipsec(directory=self._folder)
        self.charon = Talkative(settings, Gateway(centre="east"), netns=self.netns, debug=True)

    def start(self, number: int) -> None:
        # The other's address too: nothing on the device itself keeps it from claiming that.
        for link in PSKS:
            ip("addr", "add", f"{inner_v4(link)}/32", "dev", "lo", netns=self.netns)
        ip(
            "link",
            "add",
            "outer",
            "type",
            "veth",
            "peer",
            "name",
            f"m{number}",
            "netns",
            f"{PREFIX}g",
            netns=self.netns,
        )
        ip("addr", "add", f"198.51.100.{number + 1}/24", "dev", "outer", netns=self.netns)
        ip("link", "set", "outer", "up", netns=self.netns)
        ip("link", "set", f"m{number}", "master", "outer", "up", netns=f"{PREFIX}g")
        asyncio.run(self.charon.ensure())

    def configure(self, psk: bytes, link: str | None = None, **replaced: str) -> None:
        """Load what the sheet's sibling says, with some words replaced; nothing is started by itself."""
        text = swanctl_conf(link or self.link, {"east": GATE}, {"east": psk}, {"east": SERVICES})
        for old, new in {
            "start_action = start": "start_action = none",
            "close_action = start": "close_action = none",
            **replaced,
        }.items():
            assert old in text
            text = text.replace(old, new)
        path = self._folder / "swanctl.conf"
        path.write_text(text)
        self.swanctl("--load-all", "--clear", "--file", str(path))

    def swanctl(self, *words: str) -> str:
        command = ["/usr/sbin/swanctl", *words, "--uri", f"unix://{self.charon.socket}"]
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=30)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def connect(self) -> None:
        self.swanctl("--initiate", "--child", "east", "--timeout", "5")

    def refused(self) -> str:
        """Try to connect, and return what charon had to say of it."""
        command = [
            "swanctl",
            "--initiate",
            "--child",
            "east",
            "--timeout",
            "3",
            "--uri",
            f"unix://{self.charon.socket}",
        ]
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=30)
        assert done.returncode != 0, done.stdout
        return done.stdout

    def disconnect(self) -> None:
        subprocess.run(
            ["/usr/sbin/swanctl", "--terminate", "--ike", "east", "--force", "--uri", f"unix://{self.charon.socket}"],
            check=False,
            capture_output=True,
            timeout=30,
        )

    def send(self, inner: bytes, sequence: int) -> None:
        """Send a packet through the newest ESP association, past charon: nobody here looks at what is in it."""
        ((_, one),) = [each for message in session(self.charon.socket).list_sas() for each in message.items()]
        (child,) = one["child-sas"].values()
        head = bytes.fromhex(child["spi-out"].decode()) + struct.pack("!I", sequence)
        padding = bytes(range(1, -(len(inner) + 2) % 4 + 1))
        key, iv = self.charon.key(), struct.pack("!Q", sequence)
        plain = inner + padding + bytes([len(padding), 4])
        esp = head + iv + AESGCM(key[:32]).encrypt(key[32:] + iv, plain, head)
        raw = create_socket(
            netns=self.netns, family=socket.AF_INET, socket_type=socket.SOCK_RAW, proto=socket.IPPROTO_UDP
        )
        with raw:
            raw.sendto(struct.pack("!HHHH", 4500, 4500, 8 + len(esp), 0) + esp, (GATE, 0))

    def call(self, address: str = CENTRE_ADDRESS, port: int = PORT, timeout_s: float = QUICK_S) -> socket.socket:
        connection = create_socket(netns=self.netns, family=socket.AF_INET, socket_type=socket.SOCK_STREAM)
        connection.settimeout(timeout_s)
        try:
            connection.bind((self.address, 0))
            connection.connect((address, port))
        except OSError:
            connection.close()
            raise
        return connection


def session(path: Path) -> vici.Session:
    """A hand at a charon."""
    connected = socket.socket(socket.AF_UNIX)
    connected.settimeout(QUICK_S)
    connected.connect(str(path))
    return vici.Session(connected)


def datagram(source: str, text: bytes) -> bytes:
    """An IPv4 packet with a UDP datagram to the service's address (RFC 791, RFC 768; no UDP checksum)."""
    udp = struct.pack("!HHHH", 9999, 9999, 8 + len(text), 0) + text
    ends = socket.inet_aton(source) + socket.inet_aton(CENTRE_ADDRESS)
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(udp), 0, 0, 64, 17, 0) + ends
    total = sum(struct.unpack("!10H", head))
    total = (total & 0xFFFF) + (total >> 16)
    checksum = ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF
    return head[:10] + struct.pack("!H", checksum) + head[12:] + udp


def says_back(connection: socket.socket) -> bool:
    connection.sendall(b"hello")
    return connection.recv(16) == b"hello"


class World:
    """The gateway of a centre with its services on it, and the devices."""

    def __init__(self, folder: Path) -> None:
        self.netns = f"{PREFIX}g"
        self.settings = Ipsec(directory=folder / "g", address=GATE)
        self.devices = {link: Device(folder, number, link) for number, link in enumerate((FIRST, SECOND), start=1)}
        self.first, self.second = self.devices.values()
        self.kind = self.controller()

    def controller(self) -> IpsecKind:
        """A controller that has just been started."""
        return make(self.settings, "east", SERVICES, netns=self.netns)

    def start(self) -> None:
        for number in ("g", "1", "2"):
            ip("netns", "add", PREFIX + number)
            ip("link", "set", "lo", "up", netns=PREFIX + number)
        ip("link", "add", "outer", "type", "bridge", netns=self.netns)
        ip("addr", "add", f"{GATE}/24", "dev", "outer", netns=self.netns)
        ip("link", "set", "outer", "up", netns=self.netns)
        for address in (*SERVICES, ELSEWHERE):
            ip("addr", "add", f"{address}/32", "dev", "lo", netns=self.netns)
        assert asyncio.run(self.kind.ensure())
        for number, device in enumerate(self.devices.values(), start=1):
            device.start(number)

    def stop(self) -> None:
        asyncio.run(Charon(self.settings, Gateway(centre="east")).stop())
        for device in self.devices.values():
            asyncio.run(device.charon.stop())
        for number in ("g", "1", "2"):
            with suppress(subprocess.CalledProcessError):
                ip("netns", "del", PREFIX + number)

    def session(self) -> vici.Session:
        """A hand at the gateway's charon."""
        return session(self.settings.directory / "charon.vici")

    def number(self, link: str) -> int:
        """The gateway's number of a link's IKE_SA; there is one."""
        actual = asyncio.run(self.kind._vici.get())
        (found,) = [one.number for one in actual.associations if one.name.startswith(f"{link}.")]
        return found


@contextmanager
def running() -> Iterator[World]:
    """The world, with services that say back what they are told."""
    folder = Path(tempfile.mkdtemp(prefix="ckl-"))
    world = World(folder)
    try:
        world.start()
        with closing(Echo(world.netns, *SERVICES, ELSEWHERE, GATE)):
            yield world
    finally:
        world.stop()
        shutil.rmtree(folder)


def goal_of(psks: Mapping[str, bytes] = PSKS, next_psks: Mapping[str, bytes] | None = None, **configs: object) -> Goal:
    """What shall be, as the controller's ``desired`` makes it."""
    links = {}
    for link, psk in psks.items():
        peer = DesiredPeer(
            link=link,
            body=link[:6],
            mode="pair",
            kind="ipsec",
            state="active",
            public_key=None,
            next_public_key=None,
            psk=b"sealed",
            next_psk=None,
            prefixes=prefixes(link),
            valid_from=None,
            valid_until=None,
            generation=1,
            endpoint=None,
            config=configs.get("config"),
        )
        following = (next_psks or {}).get(link, b"")
        links[link] = LinkGoal(peer=peer, prefixes=frozenset(prefixes(link)), psk=psk, next_psk=following)
    return Goal(links=links, held={}, known={}, draining=False, number=1, next_turn=None)


def wanted_of(link: str) -> Wanted:
    local, remote = selectors(prefixes(link), SERVICES)
    return Wanted(link=link, centre="east", auth="psk", secret=PSKS[link], local=local, remote=remote)


def kept(world: World, goal: Goal | None = None, *, repair: bool = True, kind: IpsecKind | None = None) -> Report:
    """One pass of the controller."""
    goal = goal or goal_of()
    now = Pass(goal=goal, links=goal.links, progress={}, endpoints={}, now_s=1000.0, repair=repair)
    return asyncio.run((kind or world.kind).reconcile(now))


def connect_both(world: World) -> World:
    """Both links as wanted, both devices connected."""
    kept(world)
    for link, device in world.devices.items():
        device.disconnect()
        device.configure(PSKS[link])
        device.connect()
    assert kept(world).differences == ()
    return world


def nft(netns: str, commands: list[dict[str, object]]) -> None:
    command = ["/usr/sbin/ip", "netns", "exec", netns, "/usr/sbin/nft", "-j", "-f", "-"]
    subprocess.run(command, input=json.dumps({"nftables": commands}), text=True, check=True, timeout=20)


def counted(netns: str, name: str) -> int:
    command = ["/usr/sbin/ip", "netns", "exec", netns, "/usr/sbin/nft", "-j", "list", "counters"]
    said = subprocess.run(command, capture_output=True, check=True, timeout=20).stdout
    (found,) = [each["counter"] for each in json.loads(said)["nftables"] if each.get("counter", {}).get("name") == name]
    return int(found["packets"])


class Authority:
    """A certificate authority, and certificates of it for names."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP384R1())
        self.certificate = self._made("authority", self._key.public_key(), is_authority=True)
        self.pem = self.certificate.public_bytes(Encoding.PEM).decode()

    def issue(self, name: str) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
        key = ec.generate_private_key(ec.SECP384R1())
        return self._made(name, key.public_key(), is_authority=False), key

    def _made(self, name: str, public: ec.EllipticCurvePublicKey, *, is_authority: bool) -> x509.Certificate:
        builder = x509.CertificateBuilder(
            issuer_name=x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "authority")]),
            subject_name=x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)]),
            public_key=public,
            serial_number=x509.random_serial_number(),
            not_valid_before=dt.datetime(2020, 1, 1, tzinfo=dt.UTC),
            not_valid_after=dt.datetime(2099, 1, 1, tzinfo=dt.UTC),
        )
        builder = builder.add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        return builder.sign(self._key, SHA384())
