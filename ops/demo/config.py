"""The settings files, signing keys and password files that the demo writes for its processes.

Keys and passwords are made once and kept; settings are written anew at each start, because the databases' sockets lie
in a fresh folder each time. Every file that holds a secret has mode 0600 from its first byte on.
"""

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from chukan import private_file
from chukan.chance import Chance
from chukan.errors import Problem
from chukan.ops.certificates import Issued
from chukan.ops.demo.model import Model
from chukan.replication.plain_toml import Tables, Value, to_toml

EVIDENCE_NAME: Final = "chukan.invalid"
"""With what the origins of the demo's and the lab's logs begin."""
_PASSWORD_BYTES: Final = 24


def write_settings(path: Path, tables: Tables) -> None:
    """Replace a settings file; it holds no secret, only the names of files that do."""
    aside = path.with_name(f".{path.name}.new")
    aside.write_text(to_toml(tables), encoding="utf-8")
    aside.chmod(0o600)
    aside.rename(path)


def keep_password(path: Path, chance: Chance) -> str:
    """Return the password of a file, made at the first call."""
    if not path.exists():
        private_file.write(path, base64.urlsafe_b64encode(chance.token(_PASSWORD_BYTES)))
    return path.read_text(encoding="ascii")


class SigningKey:
    """An Ed25519 key: ``<name>.pem`` (PKCS #8, private) and ``<name>.public.pem``, made at the first use."""

    def __init__(self, folder: Path, name: str) -> None:
        """Make the key unless it is there. Raises ``Problem`` certificate_unreadable."""
        self.name = name
        self.private_file = folder / f"{name}.pem"
        self.public_file = folder / f"{name}.public.pem"
        if not self.private_file.exists():
            private_file.write(
                self.private_file,
                Ed25519PrivateKey.generate().private_bytes(
                    serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
                ),
            )
        self.private = self._read()
        # Written again each time: a start that was interrupted between the two files must not leave a lone key.
        public = self.private.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        self.public_file.write_bytes(public)

    def _read(self) -> Ed25519PrivateKey:
        key = serialization.load_pem_private_key(self.private_file.read_bytes(), password=None)
        if not isinstance(key, Ed25519PrivateKey):
            raise Problem("certificate_unreadable", expected=str(self.private_file))
        return key


def exchange_tables(
    *,
    name: str,
    centre: str,
    ports: Mapping[str, int],
    sockets: Mapping[str, tuple[str, int]],
    passwords: Mapping[str, Mapping[str, Path]],
    certificate: Issued,
    trusted: Path,
    signing: SigningKey,
    directory: SigningKey,
    network_url: str,
    network_verify: Path,
    keystores: Mapping[str, Path],
    model: Model | None = None,
    law_directory: Path | None = None,
    evidence: Mapping[str, SigningKey] | None = None,
) -> Tables:
    """Return the settings of one exchange of the demo.

    ``ports`` by agency, network and health; ``sockets`` (folder, number) by cell; ``passwords`` by cell and login
    (broker, app; steward too for an operator); ``evidence`` the evidence keys by centre; ``model`` holds the numbers of
    a planned test environment.
    """
    numbers = _numbers(model)
    cells: list[tuple[str, Mapping[str, Value]]] = [
        (
            f"cells.{cell}",
            {
                "host": folder,
                "port": number,
                **{f"{login}_password_file": file for login, file in passwords[cell].items()},
                **numbers.cell,
            },
        )
        for cell, (folder, number) in sockets.items()
    ]
    exchange: Mapping[str, Value] = {
        "name": name,
        "agency_port": ports["agency"],
        "network_port": ports["network"],
        "health_port": ports["health"],
        "tls_certificate_file": certificate.certificate,
        "tls_key_file": certificate.key,
        "tls_ca_file": trusted,
        "signing_key_file": signing.private_file,
        "directory_key_file": directory.public_file,
        # No device here has a route to move; clients of the demo go to the other exchange by themselves.
        "drain_notice_s": 0.5,
        # No answer is half a minute on its way from a network on this machine.
        "permit_grace_s": 1.0,
        **numbers.exchange,
    }
    return [
        # The clients of a demo stand on this machine; only a sandbox may leave their addresses unchecked.
        ("site", {"centre": centre, "sandbox": True, "address_check": False, **numbers.site}),
        *cells,
        ("exchange", exchange),
        ("network", {"url": network_url, "ca_file": trusted, "verify_key_file": network_verify}),
        ("keystores", dict(keystores)),
        ("evidence", {"name": EVIDENCE_NAME, "signing_key_file": evidence[centre].private_file} if evidence else {}),
        ("evidence.public_key_files", {each: key.public_file for each, key in (evidence or {}).items()}),
        ("data", {} if law_directory is None else {"law_directory": law_directory}),
    ]


class _Numbers(NamedTuple):
    """What a test environment's model sets in each table; nothing in a demo's."""

    site: Mapping[str, Value]
    exchange: Mapping[str, Value]
    cell: Mapping[str, Value]


def _numbers(model: Model | None) -> _Numbers:
    if model is None:
        return _Numbers({}, {}, {})
    connections = {"broker_connections": model.broker_connections, "app_connections": model.app_connections}
    return _Numbers({"fraction": model.fraction}, {"in_flight_max": model.in_flight_max}, connections)
