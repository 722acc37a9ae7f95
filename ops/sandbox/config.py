"""Configuration of the sandbox's processes: one TOML file each, with paths relative to the file.

No value is a secret: secrets are files that a value names. Unknown keys are refused. ``Problem`` setting_invalid names
the key that is wrong, and never quotes a value.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Final, TypeVar

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key

from chukan.errors import Problem

Port = Annotated[int, msgspec.Meta(ge=0, le=65535)]
Seconds = Annotated[float, msgspec.Meta(gt=0)]
T = TypeVar("T")


class Tls(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A peer's certificate (chain), its key and the root that it trusts; PEM files."""

    certificate_file: Path
    key_file: Path
    ca_file: Path


class PeerConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Somebody who may call the network: ``route`` is the one whose agencies it speaks for; the registry has none."""

    verify_key_file: Path
    route: str | None = None


class RouteConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Where a platform's or a counterpart's exchanges listen: base URLs, any of which serves all its agencies."""

    endpoints: Annotated[list[str], msgspec.Meta(min_length=1, max_length=16)]


class AgencyConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """An agency that the network knows from its first start on; ``PUT /admin/agencies`` adds others."""

    name: str
    route: str
    pia: bool = True


class NetworkConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The simulated information-provision network (``chukan sandbox network``)."""

    name: str = "network"
    state_directory: Path
    host: str = "127.0.0.1"
    port: Port
    admin_host: str = "127.0.0.1"
    admin_port: Port
    tls: Tls
    signing_key_file: Path
    """Ed25519, PEM; signs envelopes and permit lists. Its key id is ``name``."""
    permit_valid_s: Seconds = 900.0
    permit_valid_by_procedure: dict[str, Seconds] = {}
    """Seconds for procedures (JT codes) whose permits live shorter or longer than the others."""
    registry: str = "registry"
    """Name of the registry network's peer (住基ネット)."""
    law_directory: Path | None = None
    evidence_name: str = "chukan.invalid"
    """With what the names of the platform's logs begin."""
    evidence_key_files: dict[str, Path] = {}
    """The centres' evidence keys (PEM, public), by which checkpoints are verified and kept; none are kept without."""
    peers: dict[str, PeerConfig]
    routes: dict[str, RouteConfig]
    agencies: dict[str, AgencyConfig] = {}


class CounterpartConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One national agency outside the platform; ``name`` is its peer name and its route."""

    name: str
    agency: str
    host: str = "127.0.0.1"
    port: Port
    tls: Tls
    signing_key_file: Path
    people_body: str | None = None
    """Body whose synthetic residents it knows (6-digit code)."""
    people_count: Annotated[int, msgspec.Meta(ge=0, le=10_000)] = 0
    provides: list[str] = []
    """Kinds that it answers about; an inquirer has none."""
    portal: bool = False
    """Whether it is the portal (情報提供等記録開示システム): it asks for signed-in persons alone."""


class CounterpartsConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The simulated national agencies, in one process (``chukan sandbox counterparts``)."""

    state_directory: Path
    admin_host: str = "127.0.0.1"
    admin_port: Port
    network_url: str
    network_name: str = "network"
    network_verify_key_file: Path
    registry: "RegistryConfig"
    seed: int = 1
    law_directory: Path | None = None
    counterparts: list[CounterpartConfig]


class RegistryConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The registry network's own identity towards the network."""

    name: str = "registry"
    network_url: str
    network_name: str = "network"
    network_verify_key_file: Path
    tls: Tls
    signing_key_file: Path


def read(path: Path, kind: type[T]) -> T:
    """Read a configuration.

    Raises:
        Problem: settings_unreadable; setting_invalid with the key's pointer.
    """
    base = path.absolute().parent

    def convert(wanted: type, value: object) -> object:
        if wanted is Path and isinstance(value, str):
            return base / value
        raise NotImplementedError  # msgspec turns it into its own error for a type that it does not know

    try:
        return msgspec.toml.decode(path.read_bytes(), type=kind, dec_hook=convert)
    except msgspec.ValidationError as error:
        raise Problem("setting_invalid", pointer=_pointer(str(error))) from None
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        raise Problem("settings_unreadable", expected="a readable TOML file") from None


_PLACE: Final = re.compile(r" - at `\$\.?([A-Za-z0-9_.\[\]-]*)`$")
_FIELD: Final = re.compile(r"field `([A-Za-z0-9_-]+)`")


def _pointer(text: str) -> str:
    place, field = _PLACE.search(text), _FIELD.search(text)
    parts = re.split(r"[.\[\]]+", place[1]) if place else []
    return "/" + "/".join([*filter(None, parts), *([field[1]] if field else [])])


def read_private_key(path: Path) -> Ed25519PrivateKey:
    """Read a signing key (Ed25519, PEM). Raises ``Problem`` settings_unreadable."""
    key = _load(path, lambda content: load_pem_private_key(content, password=None))
    if not isinstance(key, Ed25519PrivateKey):
        raise Problem("settings_unreadable", expected="an Ed25519 private key (PEM)")
    return key


def read_public_key(path: Path) -> Ed25519PublicKey:
    """Read a verification key (Ed25519, PEM). Raises ``Problem`` settings_unreadable."""
    key = _load(path, load_pem_public_key)
    if not isinstance(key, Ed25519PublicKey):
        raise Problem("settings_unreadable", expected="an Ed25519 public key (PEM)")
    return key


def _load(path: Path, loader: Callable[[bytes], object]) -> object:
    try:
        return loader(path.read_bytes())
    except (OSError, ValueError, TypeError):
        raise Problem("settings_unreadable", expected="a readable key file (PEM)") from None
