"""The folder of a device: its keys, the tunnels that were granted to it, and what follows from them.

| file | what |
| --- | --- |
| ``device.json`` | the link, its centres, the names of its interfaces |
| ``platform.pem`` | the platform's public key, which a grant must be signed with |
| ``signing.pem`` ``sealing.pem`` ``system-key.pem`` | the device's own keys (``keys``) |
| ``keys/<centre>-<name>.key`` | WireGuard private keys, as ``wg genkey`` writes them |
| ``tunnel-<centre>.json``, ``….next.json`` | a tunnel in use, and the one that is to take its place |
| ``grant.json``, ``system-certificate.pem`` | what the platform granted last |
| ``<interface>.conf`` | the tunnel as wg-quick reads it |
| ``agent.toml``, ``status.json`` | the agent's settings, and how things stand |

Invariant: the folder has mode 0700 and its files 0600 from their first byte on; a folder or file that others can read
is refused. Each change is one rename, so that whoever is killed leaves the state before or after it. Nothing is
overwritten by ``create``.
"""

import shutil
import stat
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, Literal, TypeVar

import msgspec
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from chukan import private_file
from chukan.errors import Problem
from chukan.tenants import link_plan
from chukan.vpn.device import keys
from chukan.vpn.enrolment import CENTRES_MAX, Centre, Grant, Key, LinkName, verify_grant
from chukan.vpn.wireguard.keys import from_base64, public_key_of, to_base64

T = TypeVar("T")

INTERFACE_LENGTH_MAX: Final = 15
"""What Linux takes (IFNAMSIZ less the ending zero)."""
FILE_BYTES_MAX: Final = 64 * 1024

_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO


class Identity(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which link this device is."""

    version: Literal[1] = 1
    link: LinkName
    interfaces: Mapping[Centre, str]
    """Name of the WireGuard interface of each centre; the order is that of preference."""


class Tunnel(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One tunnel as it was granted. ``repr`` shows the centre alone."""

    centre: Centre
    address: str
    """The centre's own service address inside."""
    public_key: Key
    """The device's; its private half lies among the keys."""
    psk: Key
    gateway_key: Key
    endpoint: str

    def __repr__(self) -> str:
        return f"<Tunnel to {self.centre}>"


class DeviceFolder:
    """A device's folder; made by ``create``, opened by its path."""

    def __init__(self, path: Path) -> None:
        """Open it. Raises ``Problem`` device_not_ready, device_damaged."""
        self.path = path
        if not (path / "device.json").exists():
            raise Problem("device_not_ready", expected="chukan device init")
        if _is_open(path):
            raise Problem("device_damaged", expected=str(path))
        self.identity = self._json("device.json", Identity)

    @property
    def centres(self) -> tuple[str, ...]:
        """The centres in the order of preference."""
        return tuple(self.identity.interfaces)

    # ------------------------------------------------------------ keys

    def signing(self) -> Ed25519PrivateKey:
        """Return the key that signs what the device asks for; ``Problem`` device_damaged, as the next ones."""
        return self._key("signing.pem", keys.signing)

    def sealing(self) -> X25519PrivateKey:
        """Return the key to which pre-shared keys are sealed."""
        return self._key("sealing.pem", keys.sealing)

    def system(self) -> EllipticCurvePrivateKey:
        """Return the key of the body's business system."""
        return self._key("system-key.pem", keys.system)

    def platform(self) -> Ed25519PublicKey:
        """Return the platform's public key."""
        return self._key("platform.pem", read_platform_key)

    def private(self, centre: str, public: bytes) -> bytes:
        """Return the private half of one of the device's WireGuard keys."""
        return self._key(f"keys/{centre}-{keys.name_of(public)}.key", from_base64)

    def publics(self, centre: str) -> set[bytes]:
        """Return the public halves of all WireGuard keys that the device has for a centre."""
        names = sorted((self.path / "keys").glob(f"{centre}-*.key"))
        found = [self._key(f"keys/{name.name}", from_base64) for name in names if _is_of(name.name, centre)]
        return {public_key_of(private) for private in found}

    def waiting_key(self, centre: str) -> bytes:
        """Return the public half of the key that no tunnel uses yet; one is made where there is none."""
        used = {tunnel.public_key for tunnel in (self.tunnel(centre), self.next_tunnel(centre)) if tunnel is not None}
        waiting = sorted(self.publics(centre) - used)
        return waiting[0] if waiting else self._make_key(centre)

    def _make_key(self, centre: str) -> bytes:
        private = keys.new_wireguard()
        public = public_key_of(private)
        private_file.write(self.path / "keys" / f"{centre}-{keys.name_of(public)}.key", _line(private))
        return public

    # ------------------------------------------------------------ tunnels

    def tunnel(self, centre: str) -> Tunnel | None:
        """Return the tunnel in use; None before the first grant."""
        return self._tunnel(f"tunnel-{centre}.json")

    def next_tunnel(self, centre: str) -> Tunnel | None:
        """Return the tunnel that is to take its place once it has shaken hands."""
        return self._tunnel(f"tunnel-{centre}.next.json")

    def put_tunnel(self, tunnel: Tunnel, *, as_next: bool) -> None:
        """Keep a tunnel, in the place of what was there."""
        name = f"tunnel-{tunnel.centre}{'.next' if as_next else ''}.json"
        private_file.write(self.path / name, msgspec.json.encode(tunnel) + b"\n")

    def promote(self, centre: str) -> None:
        """Make the next tunnel the one in use, and forget the key that was used before; nothing where there is none."""
        before, after = self.tunnel(centre), self.next_tunnel(centre)
        if after is None:
            return
        (self.path / f"tunnel-{centre}.next.json").rename(self.path / f"tunnel-{centre}.json")
        private_file.sync_folder(self.path)
        if before is not None and before.public_key != after.public_key:
            (self.path / "keys" / f"{centre}-{keys.name_of(before.public_key)}.key").unlink(missing_ok=True)

    def forget_next(self, centre: str) -> None:
        """Forget the next tunnel; its key stays."""
        (self.path / f"tunnel-{centre}.next.json").unlink(missing_ok=True)

    def _tunnel(self, name: str) -> Tunnel | None:
        return self._json(name, Tunnel) if (self.path / name).exists() else None

    # ------------------------------------------------------------ the grant

    def grant(self) -> Grant:
        """Return what was granted last; its signature is verified again, its validity is the gateways' matter.

        Raises ``Problem`` device_not_ready, grant_invalid, device_damaged.
        """
        if not (self.path / "grant.json").exists():
            raise Problem("device_not_ready", expected="chukan device accept")
        return verify_grant(self.read("grant.json"), self.platform(), now=None)

    def keep(self, name: str, content: bytes) -> Path:
        """Write one of the folder's files whole."""
        private_file.write(self.path / name, content)
        return self.path / name

    def read(self, name: str) -> bytes:
        """Return one of the folder's files; ``Problem`` device_damaged, also where others can read it."""
        path = self.path / name
        try:
            if _is_open(path) or path.stat().st_size > FILE_BYTES_MAX:
                raise Problem("device_damaged", expected=str(path))
            return path.read_bytes()
        except OSError:
            raise Problem("device_damaged", expected=str(path)) from None

    def _key(self, name: str, convert: Callable[[bytes], T]) -> T:
        try:
            return convert(self.read(name).strip())
        except ValueError:
            raise Problem("device_damaged", expected=str(self.path / name)) from None

    def _json(self, name: str, kind: type[T]) -> T:
        try:
            return msgspec.json.decode(self.read(name), type=kind)
        except msgspec.MsgspecError:
            raise Problem("device_damaged", expected=str(self.path / name)) from None


def create(path: Path, link: str, centres: Sequence[str], platform: bytes, *, prefix: str = "chukan") -> DeviceFolder:
    """Make a device's folder with all its keys.

    Args:
        path: where nothing stands yet.
        link: the link's name, as the invitation says it.
        centres: in the order of preference, each once.
        platform: the platform's public key, PEM.
        prefix: of the interfaces' names, which are unique on a machine over all its network namespaces.

    Raises:
        Problem: file_exists; setting_invalid for a link, centres, a prefix or a platform key that are none.
    """
    if path.exists():
        raise Problem("file_exists", expected=str(path))
    identity = _identity(link, centres, prefix)
    try:
        read_platform_key(platform)
    except ValueError:
        raise Problem("setting_invalid", pointer="/platform_key", expected="an Ed25519 public key, PEM") from None
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=".device-", dir=path.parent))  # mode 0700
    try:
        (aside / "keys").mkdir(mode=0o700)
        made = {
            "device.json": msgspec.json.encode(identity) + b"\n",
            "platform.pem": platform,
            "signing.pem": keys.new_signing(),
            "sealing.pem": keys.new_sealing(),
            "system-key.pem": keys.new_system(),
        }
        for name, content in made.items():
            private_file.write(aside / name, content)
        for centre in centres:
            private = keys.new_wireguard()
            name = f"{centre}-{keys.name_of(public_key_of(private))}.key"
            private_file.write(aside / "keys" / name, _line(private))
        aside.rename(path)
    except OSError:
        raise Problem("file_exists" if path.exists() else "file_unwritable", expected=str(path)) from None
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    private_file.sync_folder(path.parent)
    return DeviceFolder(path)


def read_platform_key(pem: bytes) -> Ed25519PublicKey:
    """Return the platform's public key; ``ValueError`` for anything else."""
    try:
        key = serialization.load_pem_public_key(pem)
    except TypeError:
        raise ValueError("no public key") from None
    if not isinstance(key, Ed25519PublicKey):
        raise ValueError("not an Ed25519 key")  # noqa: TRY004 - what is wrong is a file's content
    return key


def _identity(link: str, centres: Sequence[str], prefix: str) -> Identity:
    try:
        link_plan.parse_link(link)
    except ValueError:
        raise Problem("setting_invalid", pointer="/link", expected="a link as in 131016-1") from None
    if not 1 <= len(centres) <= CENTRES_MAX or len(set(centres)) != len(centres):
        raise Problem("setting_invalid", pointer="/centres", expected="centres, each once")
    interfaces = {centre: f"{prefix}-{centre}" for centre in centres}
    try:
        identity = msgspec.convert({"link": link, "interfaces": interfaces}, Identity)
    except msgspec.ValidationError:
        raise Problem("setting_invalid", pointer="/centres", expected="names as in east, west") from None
    if any(not _is_interface(name) for name in interfaces.values()):
        limit = INTERFACE_LENGTH_MAX
        raise Problem("setting_invalid", pointer="/prefix", limit=limit, expected="letters, digits, - and _, short")
    return identity


def _is_interface(name: str) -> bool:
    plain = name.replace("-", "").replace("_", "")
    return len(name) <= INTERFACE_LENGTH_MAX and plain.isascii() and plain.isalnum()


def _is_of(name: str, centre: str) -> bool:
    """Tell whether a key's file is of this centre, and not of one whose name only begins with its name."""
    return name.removeprefix(f"{centre}-").removesuffix(".key").count("-") == 0


def _is_open(path: Path) -> bool:
    """Tell whether others than the owner may read or change something."""
    return bool(path.stat().st_mode & _OTHERS)


def _line(private: bytes) -> bytes:
    return to_base64(private).encode("ascii") + b"\n"
