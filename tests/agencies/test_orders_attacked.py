"""Orders that were carried out before, or signed with a card that was revoked since, destroy no key."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from chukan.errors import Problem
from chukan.ops import certificate_life as life
from chukan.ops import installation as acts
from chukan.ops.certificates import read_certificates
from chukan.ops.revoked_cards import revoked_cards
from chukan.tenants import bodies
from chukan.tenants.directory import AgencyRow

SAPPORO = "9901011002000001"


async def settled(site: Any, installation: Any) -> AgencyRow:
    entry = bodies.agency(SAPPORO)
    assert entry is not None
    row = await acts.add_agency(installation, entry)
    await acts.register_client(installation, *site.officers(SAPPORO))
    return row


def versions(installation: Any, agency: int) -> list[int]:
    """The data keys that a centre holds."""
    held = installation.keystores.stores["east"].read(agency)
    return sorted(name.version for name in held if name.purpose == "data")


@pytest.mark.requirement("SEC-01")
async def test_an_order_to_retire_keys_serves_for_one_retirement(site: Any, installation: Any) -> None:
    row = await settled(site, installation)
    order = site.order("retire")
    installation.keystores.rotate(row.number)
    await acts.retire_keys(installation, SAPPORO, order)
    assert versions(installation, row.number) == [2]
    # An operator rotates again: what version 2 sealed in backups is not what these officers gave up.
    installation.keystores.rotate(row.number)
    with pytest.raises(Problem, match="order_invalid"):
        await acts.retire_keys(installation, SAPPORO, order)
    assert versions(installation, row.number) == [2, 3]
    await acts.retire_keys(installation, SAPPORO, site.order("retire"))
    assert versions(installation, row.number) == [3]


@pytest.mark.requirement("SEC-01")
async def test_a_revoked_card_orders_nothing(site: Any, installation: Any, tmp_path: Path) -> None:
    row = await settled(site, installation)
    order = site.order("retire")
    installation.keystores.rotate(row.number)
    file = site.authority.folder / life.REVOCATION_FILE
    exchange = msgspec.structs.replace(installation.settings.exchange, crl_files={"ours": file})
    installation.settings = msgspec.structs.replace(installation.settings, exchange=exchange)
    with pytest.raises(Problem, match="revocation_list_invalid"):  # a list that is not there is no empty one
        await acts.retire_keys(installation, SAPPORO, order)
    card = read_certificates(site.authority.folder / "clients" / site.officers(SAPPORO)[0].id / "certificate.pem")[0]
    life.write_list(site.authority)
    revoked = revoked_cards(installation.settings, installation.clock.now())
    assert not revoked(card)
    life.revoke(site.authority, [f"{card.serial_number:x}"], "keyCompromise")
    life.write_list(site.authority)
    with pytest.raises(Problem) as refused:
        await acts.retire_keys(installation, SAPPORO, order)
    assert (refused.value.code, refused.value.expected) == ("order_invalid", "certificates that are not revoked")
    assert versions(installation, row.number) == [1, 2]
