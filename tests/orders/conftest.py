"""An authority, a directory with two agencies and their officers, and orders that they sign."""

import datetime as dt
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from chukan.clock import ManualClock
from chukan.ops.certificates import Authority, Issued, read_certificates, read_identity
from chukan.tenants import directory, orders
from chukan.tenants.changes import require_agency
from chukan.tenants.directory import AgencyRow, ClientRow, Directory, Snapshot

NOW = dt.datetime(2026, 11, 23, 3, 0, tzinfo=dt.UTC)
SAPPORO, YOKOHAMA = "9901011002000001", "9901141003000001"
LIFE = dt.timedelta(days=3)


class Office:
    """Makes officers, their certificates and their signatures."""

    def __init__(self, folder: Path) -> None:
        self.clock = ManualClock(NOW)
        self.authority = Authority.create(folder / "pki", "Example", self.clock)
        self.stranger = Authority.create(folder / "other", "Example", self.clock)
        self.recipient = X25519PrivateKey.generate()
        self.snapshot = self._snapshot()

    def _snapshot(self) -> Snapshot:
        made = directory.first(NOW, 1)
        for code, body, cell in ((SAPPORO, "011002", "east"), (YOKOHAMA, "141003", "west")):
            made = directory.add_agency(made, NOW, code=code, body=body, name=f"機関{body}", cell=cell)
        for name in ("head-1", "head-2", "head-3"):
            made = directory.add_client(made, NOW, self.client(name))
        made = directory.add_client(made, NOW, self.client("reviewer", functions=["reviews.approve"]))
        made = directory.add_client(made, NOW, self.client("machine", kind="system"))
        return directory.add_client(made, NOW, self.client("yokohama-1", body="141003", agencies=[YOKOHAMA]))

    def client(self, name: str, **changes: Any) -> ClientRow:
        members = {
            "id": name,
            "body": "011002",
            "kind": "officer",
            "name": name,
            "agencies": [SAPPORO],
            "functions": ["order"],
        }
        return ClientRow(**{**members, **changes})

    @property
    def directory(self) -> Directory:
        return Directory(self.snapshot)

    @property
    def agency(self) -> AgencyRow:
        return require_agency(self.snapshot, SAPPORO)

    def card(self, name: str, authority: Authority | None = None, **options: Any) -> Issued:
        issuer = authority or self.authority
        folder = issuer.folder / "clients" / name
        if folder.exists():
            return Issued(folder / "certificate.pem", folder / "key.pem")
        return issuer.issue_client(name, **options)

    def order(self, action: orders.Action = "destroy", **changes: Any) -> orders.SignedOrder:
        members: dict[str, Any] = {
            "order": uuid.UUID("0193571f-0000-7000-8000-000000000001"),
            "action": action,
            "agency": SAPPORO,
            "reason": "他の事業者へ移行するため",
            "at": NOW,
            "life": LIFE,
            "recipient": self.recipient.public_key().public_bytes_raw() if action == "export" else None,
        }
        return orders.prepare(**{**members, **changes})

    def sign(self, document: orders.SignedOrder, *names: str, authority: Authority | None = None) -> orders.SignedOrder:
        for name in names:
            card = self.card(name, authority)
            document = orders.sign(document, read_certificates(card.certificate), read_identity(card).key)
        return document

    def demand(self, document: orders.SignedOrder | None, **changes: Any) -> orders.Approved:
        members: dict[str, Any] = {
            "action": "destroy",
            "agency": self.agency,
            "directory": self.directory,
            "trusted": read_certificates(self.authority.trusted),
            "at": self.clock.now(),
        }
        return orders.demand(document, **{**members, **changes})


@pytest.fixture
def office(tmp_path: Path) -> Office:
    return Office(tmp_path)


@pytest.fixture
def signed(office: Office) -> Callable[..., orders.SignedOrder]:
    """Make an order that two officers have signed."""
    return lambda action="destroy", **changes: office.sign(office.order(action, **changes), "head-1", "head-2")
