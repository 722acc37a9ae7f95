"""The gateway's own keys: made once, on the gateway, in private files; only their public halves are ever shown.

A file holds 32 bytes as base64, as ``wg genkey`` writes them. There is one for each interface, and the sealing key, for
which pre-shared keys are sealed in the database. The service's key is the same at both centres: it is made at one, and
brought to the other as the private file that it is.

Invariant: a key file is made with mode 0600 and never written over, and one that others may read is not used.
"""

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from chukan import private_file
from chukan.errors import Problem
from chukan.vpn.gateway.config import Config
from chukan.vpn.wireguard.keys import from_base64, new_private_key, public_key_of, to_base64

_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO
_BYTES_MAX: Final = 64 * 1024


class PublicHalves(msgspec.Struct, frozen=True, kw_only=True):
    """What the database and devices may know, base64: what ``chukan link gateway`` is told."""

    centre: str
    public_key: str
    sealing_key: str
    next_public_key: str | None = None
    service_public_key: str | None = None
    made: tuple[str, ...] = ()
    """The files that were made now."""


def make(config: Config) -> PublicHalves:
    """Make the key files that are missing, and return the public halves. Raises ``Problem``."""
    made = [path for path in _paths(config) if _make(path)]
    publics = [to_base64(public_key_of(read(tunnel.private_key_file))) for tunnel in config.tunnels]
    service = config.service_tunnel
    return PublicHalves(
        centre=config.centre,
        public_key=publics[0],
        sealing_key=to_base64(public_key_of(read(config.sealing_key_file))),
        next_public_key=publics[1] if len(publics) > 1 else None,
        service_public_key=None if service is None else to_base64(public_key_of(read(service.private_key_file))),
        made=tuple(str(path) for path in made),
    )


def read(path: Path) -> bytes:
    """Return the 32 bytes of a key file. Raises ``Problem`` gateway_key_unusable, which does not quote it."""
    try:
        return from_base64(read_private(path).strip())
    except (OSError, ValueError):
        raise Problem("gateway_key_unusable", expected=f"32 bytes as base64: {path.name}") from None


def read_private(path: Path) -> bytes:
    """Return a file that only its owner may read. Raises ``Problem`` gateway_key_unusable, ``OSError``."""
    with path.open("rb") as file:
        # Of what was opened: the name may be another file's by now.
        if os.fstat(file.fileno()).st_mode & _OTHERS:
            raise Problem("gateway_key_unusable", expected=f"mode 0600: {path.name}")
        return file.read(_BYTES_MAX)


def read_sealing(path: Path) -> X25519PrivateKey:
    """Return the key that opens what was sealed for this gateway. Raises ``Problem`` gateway_key_unusable."""
    return X25519PrivateKey.from_private_bytes(read(path))


def _paths(config: Config) -> Iterator[Path]:
    yield config.sealing_key_file
    for tunnel in config.tunnels:
        yield tunnel.private_key_file
    if config.service_tunnel is not None:
        yield config.service_tunnel.private_key_file


def _make(path: Path) -> bool:
    if path.exists():
        return False
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Written aside and linked: two that make it at once end with one key, and nobody reads half of it.
        aside = path.with_name(f".{path.name}.{os.getpid()}")
        private_file.write(aside, f"{to_base64(new_private_key())}\n".encode("ascii"))
        try:
            os.link(aside, path)
        except FileExistsError:
            return False
        finally:
            aside.unlink()
    except OSError:
        raise Problem("gateway_key_unusable", expected=f"a folder that can be written: {path.parent.name}") from None
    return True
