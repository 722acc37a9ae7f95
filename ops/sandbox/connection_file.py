"""Reads ``connection.json``: where the exchanges are, and which certificate stands for which agency and officer.

The demo writes the file (``chukan.ops.demo``); for a real installation the same facts may be given by hand. It names
the files of keys and never holds a key. Fields that are not needed here are not looked at.
"""

from pathlib import Path

import msgspec

from chukan.errors import Problem
from chukan.ops.sandbox.transport import Connection


class ExchangeAddress(msgspec.Struct, frozen=True):
    """Where an exchange listens."""

    name: str
    agency_url: str


class OfficerFiles(msgspec.Struct, frozen=True):
    """An officer's credential."""

    id: str
    certificate: str
    key: str


class AgencyFiles(msgspec.Struct, frozen=True):
    """An agency's system and officers."""

    name: str
    certificate: str
    key: str
    officers: list[OfficerFiles] = []
    namespace: str = ""
    """The network namespace of the body, where a lab has links."""


class AffairExample(msgspec.Struct, frozen=True):
    """Who may ask whom for which kind under which procedure, and about whom."""

    affair: str
    procedure: str
    kind: str
    inquirer: str
    provider: str
    examples: list[str] = []


class ConnectionFile(msgspec.Struct, frozen=True):
    """The file, as far as clients need it."""

    ca: str
    exchanges: list[ExchangeAddress]
    agencies: dict[str, AgencyFiles]
    network_admin_url: str | None = None
    counterparts_admin_url: str | None = None
    affairs: list[AffairExample] = []

    def connect(self, agency: str, officer: str | None = None, *, retry_s: float = 0.0) -> Connection:
        """Return how a system (or an officer) of an agency connects.

        Raises ``Problem``: unknown_agency; unregistered_system for an officer who is not in the file.
        """
        known = self.agencies.get(agency)
        if known is None:
            raise Problem("unknown_agency")
        certificate, key = known.certificate, known.key
        if officer is not None:
            found = next((one for one in known.officers if one.id == officer), None)
            if found is None:
                raise Problem("unregistered_system")
            certificate, key = found.certificate, found.key
        return Connection(
            agency=agency,
            urls=[exchange.agency_url for exchange in self.exchanges],
            ca=Path(self.ca),
            certificate=Path(certificate),
            key=Path(key),
            retry_s=retry_s,
            namespace=known.namespace,
        )


def read_connection(path: Path) -> ConnectionFile:
    """Read the file; relative paths in it are relative to it. Raises ``Problem`` settings_unreadable."""
    try:
        found = msgspec.json.decode(path.read_bytes(), type=ConnectionFile)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        raise Problem("settings_unreadable", expected="connection.json, as the demo writes it") from None
    base = path.absolute().parent
    agencies = {
        code: msgspec.structs.replace(
            agency,
            certificate=str(base / agency.certificate),
            key=str(base / agency.key),
            officers=[
                OfficerFiles(one.id, str(base / one.certificate), str(base / one.key)) for one in agency.officers
            ],
        )
        for code, agency in found.agencies.items()
    }
    return msgspec.structs.replace(found, ca=str(base / found.ca), agencies=agencies)
