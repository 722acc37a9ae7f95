"""An appliance's way to its link: the same commands, a sheet instead of a grant, and the keys nowhere else."""

import asyncio
import json
import stat
from pathlib import Path
from typing import Any

import pytest

from chukan.tests.links.test_link_commands import Operator, Town, link, make_site, pair, sealing, town
from chukan.vpn.ipsec.model import ike_secret, mark
from chukan.vpn.psk_sealing import open_psk

__all__ = ["link", "make_site", "pair", "sealing", "town"]

pytestmark = pytest.mark.requirement("TEN-03")


def _opened(link: Operator, town: Town, sealing: Any, column: str) -> dict[str, bytes]:
    """The keys as the gateways open them."""
    sql = f"SELECT centre, {column} AS psk, config FROM chukan.link_peers WHERE link = $1"
    rows = asyncio.run(link.site.fetch("east", sql, town.link))
    assert {json.loads(row["config"])["auth"] for row in rows} == {"psk"}
    found = {row["centre"]: row["psk"] for row in rows if row["psk"] is not None}
    return {centre: open_psk(sealing[centre], psk, link=town.link, to=centre) for centre, psk in found.items()}


def _approved(link: Operator, town: Town, sheet: Path) -> Any:
    town.invite("--kind", "ipsec")
    return link("approve", town.link, "--by", "berta", "--to", str(sheet))


def test_an_appliance_gets_a_sheet_from_the_second_person(
    link: Operator, town: Town, tmp_path: Path, sealing: Any
) -> None:
    town.invite("--kind", "ipsec")
    sheet = tmp_path / "sheet.txt"
    words = ["approve", town.link, "--to", str(sheet), "--by"]
    assert link(*words, "anna", status=2)["code"] == "second_person"
    assert not sheet.exists()
    assert town.shown()["state"] == "invited"
    told = link(*words, "berta")
    assert (told["centres"], town.shown()["state"]) == (["east", "west"], "active")
    assert stat.S_IMODE(sheet.stat().st_mode) == 0o600

    text = sheet.read_text("utf-8")
    keys = _opened(link, town, sealing, "psk")
    said = json.dumps(told) + json.dumps(link("history", town.link)) + json.dumps(town.shown()) + link.err
    assert len({*keys.values()}) == 2
    for key in keys.values():
        assert ike_secret(key).decode() in text
        assert f"{mark(key)}.{town.link}.link.chukan" in text
        assert ike_secret(key).decode() not in said
    assert "198.51.100.1 (UDP 500, 4500)" in text
    assert "10.255.0.1/32, 10.255.255.1/32" in text
    assert "10.255.0.2/32, 10.255.255.1/32" in text
    history = link("history", town.link)["changes"]
    assert [(each["act"], each["who"], each.get("second")) for each in reversed(history)] == [
        ("invite", "anna", None),
        ("request", "berta", None),
        ("approve", "anna", "berta"),
    ]
    assert (
        link("approve", town.link, "--by", "berta", "--to", str(tmp_path / "again"), status=2)["code"] == "link_state"
    )
    assert not (tmp_path / "again").exists()


def test_an_appliances_next_keys_come_on_a_sheet_of_one_centre(
    link: Operator, town: Town, tmp_path: Path, sealing: Any
) -> None:
    _approved(link, town, tmp_path / "sheet.txt")
    sheet = tmp_path / "next.txt"
    alone = ["rotate", town.link, "--by", "anna", "--centre", "west", "--to", str(sheet)]
    for words in (alone, [*alone, "--asked-by", "Anna"]):
        # Who has the sheet can come in: what two people let in, one does not give himself a key to.
        assert link(*words, status=2)["code"] == "second_person"
    assert (sheet.exists(), town.shown()["centres"]["west"]["next_psk"]) == (False, False)
    words = ["rotate", town.link, "--by", "berta", "--asked-by", "anna", "--centre", "west", "--to"]
    assert link(*words, str(sheet))["centres"] == ["west"]
    assert [link("history", town.link)["changes"][0][name] for name in ("act", "who", "second")] == [
        "next_key",
        "anna",
        "berta",
    ]
    (key,) = _opened(link, town, sealing, "next_psk").values()
    assert ike_secret(key).decode() in sheet.read_text("utf-8")
    assert "== east ==" not in sheet.read_text("utf-8")
    # The appliance may have been changed already: not a second one without being told so.
    assert link(*words, str(tmp_path / "second.txt"), status=2)["code"] == "link_state"
    assert not (tmp_path / "second.txt").exists()
    words = ["rotate", town.link, "--by", "berta", "--asked-by", "anna", "--centre", "moon", "--to"]
    assert link(*words, str(tmp_path / "x"), status=2)["code"] == "invalid_field"
